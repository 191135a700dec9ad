"""One process a folder: what two would write into one another."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import UserError, WriteError

LEFTOVERS = {
    "training": (
        ".last.pth.partial", ".best.*.partial", ".epoch_*.partial", ".config.yaml.partial",
        ".log.jsonl.partial", ".curves.png.partial",
    ),
    "prediction": (".predictions.*.partial", "..predictions.*.partial",
                   ".results.json.partial", ".*_poses.*.partial", ".*_heatmaps.*.partial"),
    "task prediction": (".predictions.json.partial", ".*_boxes.*.partial", ".*_overlay.*.partial",
                        ".*_labels.*.partial"),
    "dataset prediction": (".*.parquet.partial",),
    "validation": (".results.json.partial", ".metrics.json.partial", ".report.*.partial",
                   ".worst.jpg.partial", ".keypoint_errors.csv.partial"),
}  # fmt: skip
"""What a killed command leaves half-written, by what it was doing."""


@contextmanager
def lock_folder(folder: Path, work: str, clean: bool = True) -> Iterator[None]:
    """Hold an output folder while a command of one kind writes into it, and begin by removing what
    a killed one left half-written.

    The system lets go of the lock when the process ends, however it ends.

    Args:
        folder: made if need be.
        work: a key of :data:`LEFTOVERS`; commands of different kinds may share a folder.
        clean: False leaves what was half-written, for :func:`remove_leftovers`.

    Raises:
        UserError: another process is at the same work here.
        OSError: the folder cannot be written.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"could not write to '{folder}': {error.strerror or error}") from error
    file = folder / f".{work}.lock"
    owner = folder / f".{work}.pid"
    lock = FileLock(file)
    try:
        _acquire(lock, owner)
    except Timeout as error:
        raise UserError(
            f"another {work} is writing into '{folder}'{_whose(owner)}; give this one another "
            f"--output{_slurm()}"
        ) from error
    except NotImplementedError:  # a file system without locks
        yield
        return
    except OSError as error:
        raise WriteError(f"could not write to '{folder}': {error.strerror or error}") from error
    try:
        with suppress(OSError):
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        if clean:
            remove_leftovers(folder, work)
        yield
    finally:
        with suppress(OSError):
            owner.unlink(missing_ok=True)
            file.unlink(missing_ok=True)  # while it is held: who comes now makes a new one
        lock.release()
        if is_new:
            with suppress(OSError):
                folder.rmdir()  # nothing was written


def remove_leftovers(folder: Path, work: str, keep: str = "") -> None:
    """Remove what a killed command left half-written; see :data:`LEFTOVERS`.

    Args:
        folder, work: see :func:`lock_folder`.
        keep: beginning of names that stay.
    """
    for pattern in LEFTOVERS[work]:
        for left in folder.glob(pattern):
            if keep and left.name.startswith(keep):
                continue
            with suppress(OSError):
                left.unlink()


_PATIENCE = 15.0
"""Seconds in which loading processes of a killed run notice its end; they share its lock."""


def _acquire(lock: FileLock, owner: Path) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        words = _whose(owner).split()
        if (
            len(words) < 4
            or not words[1].isdecimal()
            or words[3].rstrip(")") != socket.gethostname()
            or _lives(int(words[1]))
        ):
            raise
        lock.acquire(timeout=_PATIENCE)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _whose(owner: Path) -> str:
    with suppress(OSError):
        if text := owner.read_text().strip():
            return f" ({text})"
    return ""


def _slurm() -> str:
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if not tasks.isdecimal() or int(tasks) < 2:
        return ""
    return (
        f". This is one of {tasks} Slurm tasks that do the same: start them with srun, which makes "
        "them one training, or one a node with torchrun in it"
    )
