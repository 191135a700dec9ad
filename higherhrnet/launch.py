"""How processes of one run find one another: torchrun, Slurm, and starting several at once.

``torchrun`` sets ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT``.
Tasks that ``srun`` starts know the same by other names. Nothing here imports torch, so that it can
run before everything else.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import MutableMapping, Sequence
from typing import NoReturn

from .errors import UserError

GO_ON = "HIGHERHRNET_GO_ON"
"""Environment variable of a job that was preempted and queued again."""
_FIRST_PORT, _PORTS = 20_000, 20_000
"""Rendezvous ports that are chosen by job number."""


def adopt_slurm(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make the tasks of an ``srun`` step one process group, as ``torchrun`` would.

    Where torchrun was used, or a step has a single task, nothing changes. A batch script that calls
    the command itself is one process, however many tasks the job has.

    Raises:
        UserError: the process is one of several tasks that no step describes.
    """
    if "WORLD_SIZE" in environment or not environment.get("SLURM_PROCID", "").isdecimal():
        return
    rank = int(environment["SLURM_PROCID"])
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "")
    if not tasks.isdecimal():
        if rank:
            raise UserError(
                f"this is task {rank} of Slurm job {environment.get('SLURM_JOB_ID', '?')}, but "
                "nothing says how many do the same (SLURM_STEP_NUM_TASKS): start them with srun, "
                "or one task a node with torchrun in it"
            )
        return
    if int(tasks) < 2:
        return
    job, step = (environment.get(key, "0") for key in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    number = int(job) if job.isdecimal() else 0
    number += 7 * int(step) if step.isdecimal() else 0
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    environment["RANK"] = str(rank)
    environment["WORLD_SIZE"] = tasks
    environment["LOCAL_RANK"] = environment.get("SLURM_LOCALID", "0")
    environment.setdefault("MASTER_ADDR", first_host(nodes))
    environment.setdefault("MASTER_PORT", str(_FIRST_PORT + number % _PORTS))


def first_host(nodes: str) -> str:
    """The first host of a Slurm node list such as ``gpu[07-09,12],login``; this one if empty."""
    found = re.match(r"([^\[,]*)(?:\[(\d+)[^\]]*\])?([^\[,]*)", nodes)
    if not nodes or found is None:
        return "127.0.0.1"
    head, number, tail = found.groups()
    return f"{head}{number or ''}{tail}"


def launch_id(environment: MutableMapping[str, str] = os.environ) -> str:
    """What a restart has in common with the first start: the launcher, or the Slurm job; empty
    where nothing restarts."""
    if "TORCHELASTIC_RESTART_COUNT" in environment:
        return f"launcher {os.getppid()} on {socket.gethostname()}"
    return f"Slurm job {environment['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in environment else ""


def is_restarted(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Whether torchrun started the processes anew after one was lost, or Slurm requeued the job."""
    keys = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT", GO_ON)
    counts = (environment.get(key, "0") for key in keys)
    return any(count.isdecimal() and int(count) > 0 for count in counts)


def start_processes(arguments: Sequence[str], count: int, restarts: int = 0) -> NoReturn:
    """Become torch's elastic launcher of several processes of a command; does not return.

    Args:
        arguments: of the command line.
        count: processes on this machine.
        restarts: how often all are started anew when one is lost; a training then goes on from its
            last checkpoint.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # what torch would choose, with a warning
    os.execv(sys.executable, [
        sys.executable, "-m", "higherhrnet.elastic", "--standalone",
        "--nproc_per_node", str(count), "--max-restarts", str(restarts),
        "-m", "higherhrnet", *arguments,
    ])  # fmt: skip
