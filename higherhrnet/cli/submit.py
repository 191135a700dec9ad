"""``higherhrnet submit``: a command as a job of a cluster, through submitit."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..launch import GO_ON
from .parser import build_parser

_PORT = 29_500


def submit(options: argparse.Namespace) -> int:
    """Submit a command; prints the job and where its output goes."""
    try:
        import submitit
    except ImportError as error:
        raise UserError('submitting needs submitit: pip install "higherhrnet[cluster]"') from error
    words = [options.command, *options.words, *options.overrides]
    _check(words)
    cluster = None if options.cluster == "auto" else options.cluster
    if cluster is None and submitit.AutoExecutor.which() != "slurm":
        cluster = "local"
    executor = submitit.AutoExecutor(folder=options.logs / "%j", cluster=cluster)
    executor.update_parameters(**_parameters(options))
    job = executor.submit(Command(tuple(words), str(Path.cwd())))
    print(f"job {job.job_id}: higherhrnet {shlex.join(words)}")
    print(f"what it prints: {job.paths.stdout}, {job.paths.stderr}")
    if not options.wait:
        return 0
    try:
        statuses = job.results()
    except Exception as error:  # submitit's own, with the job's traceback as text
        print(f"higherhrnet: job {job.job_id} failed: {error}", file=sys.stderr)
        return 1
    return max(int(status) for status in statuses)


def _check(words: list[str]) -> None:
    """That the command can be parsed here, before it waits in a queue."""
    from .overrides import split_overrides

    plain, _ = split_overrides(words)
    options = build_parser().parse_args(plain)
    config = getattr(options, "config", None) or getattr(options, "plan", None)
    if config is not None:
        from ..config.library import find_config

        find_config(config)
    if getattr(options, "gpus", None):
        raise UserError("--gpus stands before the command: higherhrnet submit --gpus N train …")


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    """What submitit's executors take."""
    found: dict[str, Any] = {
        "name": f"higherhrnet-{options.command}",
        "nodes": options.nodes,
        "tasks_per_node": options.tasks or max(options.node_gpus, 1),
        "cpus_per_task": options.cpus,
        "mem_gb": options.memory,
        "timeout_min": max(round(60 * options.hours), 1),
    }
    if options.node_gpus:
        found["gpus_per_node"] = options.node_gpus
    if options.partition:
        found["slurm_partition"] = options.partition
    if options.account:
        found["slurm_account"] = options.account
    more = {}
    for entry in options.slurm:
        key, equals, value = entry.partition("=")
        if not equals:
            raise UserError(f"--slurm takes KEY=VALUE, not '{entry}'")
        more[key] = value
    if more:
        found["slurm_additional_parameters"] = more
    return found


@dataclass
class Command:
    """What a job does; one of its tasks, if it has several.

    Attributes:
        words: of the command line.
        folder: where it runs.
        again: it was preempted, and goes on from its checkpoint if it wrote one.
    """

    words: tuple[str, ...]
    folder: str
    again: bool = False

    def __call__(self) -> int:
        """Run the command; returns its exit status.

        Raises:
            RuntimeError: it failed.
        """
        import submitit

        task = submitit.JobEnvironment()
        environment = dict(os.environ) | ({GO_ON: "1"} if self.again else {})
        if task.num_tasks > 1:
            number = sum(map(int, filter(str.isdecimal, task.job_id.split("_"))))
            environment |= {
                "RANK": str(task.global_rank),
                "LOCAL_RANK": str(task.local_rank),
                "WORLD_SIZE": str(task.num_tasks),
                "MASTER_ADDR": task.hostnames[0],
                "MASTER_PORT": str(_PORT + number % 10_000),
            }
        command = [sys.executable, "-m", "higherhrnet", *self.words]
        self._process = subprocess.Popen(command, cwd=self.folder, env=environment)
        status = self._process.wait()
        if status:
            raise RuntimeError(f"{shlex.join(command)} ended with status {status}")
        return status

    def checkpoint(self) -> Any:
        """Called by submitit before the job's time is over, or when it is preempted: the training
        writes its checkpoint, and the job is queued again to go on from it."""
        import submitit

        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        return submitit.helpers.DelayedSubmission(Command(self.words, self.folder, again=True))
