"""Several processes training one network: ranks and collectives.

Started by ``torchrun`` or as in :mod:`.launch`, which set ``RANK``, ``WORLD_SIZE`` and
``LOCAL_RANK``. Gradients travel
by torch's DistributedDataParallel (NCCL on GPUs, gloo on CPUs); what is exchanged here travels by
gloo on CPUs and never waits for a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from .errors import RunError, UserError

Value = TypeVar("Value")
_SIGNS = ("connection", "peer", "nccl", "gloo", "timed out", "socket", "broken pipe")


class PeerLostError(RunError):
    """Another process of this group ended."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a training; the default is one process alone.

    Attributes:
        rank: number of this process, 0 for the one that writes.
        size: how many there are.
        local_rank: number of this process on its machine, or that of its GPU.
        control: the CPU group, if there are several.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: Any = None

    @property
    def main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all must ask."""
        return bool(self.max(float(flag)))

    def max(self, value: float) -> float:
        """The largest value of all processes; all must ask."""
        if self.size == 1:
            return value
        largest = torch.tensor(value, dtype=torch.float64)
        with lost_peers(self):
            dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.control)
        return float(largest.item())

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean of a CPU tensor over processes; all must ask."""
        if self.size == 1:
            return values
        total = values.clone()
        with lost_peers(self):
            dist.all_reduce(total, group=self.control)
        return total / self.size

    def gather(self, value: Value) -> list[Value]:
        """Every process's value, in the order of ranks; all must ask."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with lost_peers(self):
            dist.all_gather_object(values, value, group=self.control)
        return values

    def total(self, counts: Sequence[int]) -> list[int]:
        """Sums over processes of as many counts; all must ask."""
        return [sum(values) for values in zip(*self.gather(list(counts)), strict=True)]

    def share(self, state: Mapping[str, torch.Tensor]) -> None:
        """Overwrite tensors with those of rank 0; all must ask."""
        if self.size == 1:
            return
        with lost_peers(self):
            for tensor in state.values():
                dist.broadcast(tensor, src=0)


def is_main_process() -> bool:
    """Whether this process is the one that prints, by what ``torchrun`` set."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def lost_peers(group: ProcessGroup) -> Iterator[None]:
    """Turns the many errors of a broken connection into one sentence.

    Raises:
        PeerLostError: another process ended.
    """
    try:
        yield
    except RuntimeError as error:
        if group.size == 1 or not any(sign in str(error).lower() for sign in _SIGNS):
            raise
        raise PeerLostError(
            f"another of the {group.size} processes ended; a training goes on from its last "
            "checkpoint with --resume"
        ) from error


def _open_store(rank: int, size: int) -> Any:
    """Where processes leave their addresses for one another.

    torch's elastic launcher keeps its store over restarts, and new processes may find addresses of
    killed ones in it: each restart gets names of its own. (Of several machines each counts restarts
    by itself; their names stay.)
    """
    store, _, _ = next(dist.rendezvous("env://", rank, size))  # type: ignore[attr-defined]
    if os.environ.get("LOCAL_WORLD_SIZE") == str(size):
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return dist.PrefixStore(f"attempt_{attempt}", store)  # type: ignore[attr-defined]
    return store


@contextmanager
def init_distributed(on_gpu: bool, patience: timedelta | None = None) -> Iterator[ProcessGroup]:
    """The group that ``torchrun`` made this process part of, or the process alone.

    Args:
        on_gpu: work on GPUs, one a process; that of the process's number becomes the current one.
        patience: how long processes wait for another one; torch's half an hour by
            default.

    Raises:
        UserError: there are more processes than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ProcessGroup()
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if on_gpu:
        there = torch.cuda.device_count()
        # Slurm can show each task its own GPU alone; it is number 0 then.
        gpu = 0 if there == 1 and "SLURM_PROCID" in os.environ else local_rank
        if gpu >= there:
            raise UserError(
                f"process {local_rank} has no GPU: this machine has {there}; "
                "start as many processes as GPUs (torchrun --nproc_per_node)"
            )
        torch.cuda.set_device(gpu)
        local_rank = gpu
    rank = int(os.environ["RANK"])
    dist.init_process_group(
        "nccl" if on_gpu else "gloo", timeout=patience, rank=rank, world_size=size,
        store=_open_store(rank, size),
    )  # fmt: skip
    control = dist.new_group(backend="gloo", timeout=patience) if on_gpu else dist.group.WORLD
    try:
        yield ProcessGroup(dist.get_rank(), size, local_rank, control)
    except BaseException:
        if not on_gpu:  # NCCL would wait for the others, who may wait for this one; see __main__
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()
