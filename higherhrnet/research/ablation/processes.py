"""Runs side by side: processes that share cores and GPUs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from typing import TypeVar

import torch

from ...errors import RunError

_log = logging.getLogger(__name__)
Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    processes: int,
    gpus: Sequence[str],
    name_of: Callable[[Job], str],
) -> list[Result]:
    """Every job's result, in order; several at a time in processes of their own, which take turns
    with the GPUs.

    Args:
        work: job → result; both cross between processes.
        jobs: what to do.
        processes: how many at the same time; with 1 the work is done here.
        gpus: to be shared out; see :func:`list_gpus`.
        name_of: job → its name, for messages.

    Raises:
        OSError: a process was ended from outside. What a job raises comes out as it is.
    """
    if processes == 1:
        results = []
        for job in jobs:
            _log.info("%s", name_of(job))
            results.append(work(job))
        return results
    threads = max(1, (os.cpu_count() or 1) // processes)
    spawned = get_context("spawn")
    shares = spawned.SimpleQueue()
    for _, gpu in zip(range(processes), cycle(gpus or [""]), strict=False):
        shares.put(gpu)
    with ProcessPoolExecutor(processes, spawned, _begin, (threads, shares)) as pool:
        running = {pool.submit(work, job): job for job in jobs}
        try:
            for future in as_completed(running):  # the first failure is reported first
                future.result()
                _log.info("%s: done", name_of(running[future]))
        except BrokenProcessPool as error:
            raise RunError(
                "a run was ended from outside (memory?); start again to go on"
            ) from error
        except BaseException:
            for process in (pool._processes or {}).values():
                process.terminate()  # SIGTERM: trainings write their checkpoint
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        return [future.result() for future in running]


def _begin(threads: int, shares: SimpleQueue[str]) -> None:
    """In each process, before torch looks for GPUs."""
    torch.set_num_threads(threads)
    if gpu := shares.get():
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu


def list_gpus(device: str) -> list[str]:
    """What CUDA calls the GPUs that runs may be spread over: none if the user names one of them."""
    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()  # CUDA stops at the first name that it does not know
    names = named.split(",") if named else map(str, range(count))
    return [name.strip() for name in names][:count]
