"""What surrounds a training, whatever it trains: folder, processes, device, log, signals, clock."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..config import Config, to_yaml
from ..datasets.loader import lost_workers
from ..distributed import ProcessGroup, init_distributed, is_main_process
from ..errors import UserError
from ..io.lock import lock_folder
from ..launch import GO_ON, is_restarted, launch_id
from ..training import checkpoint, loop
from ..training.budget import TimeBudget
from ..training.callbacks import BestCheckpoint, Callback, LastWeights
from ..training.logger import RunLog
from ..training.loggers import build_loggers
from ..training.signals import SignalHandler, StoppedError
from .device import choose_device
from .optimization import (
    build_callbacks,
    build_ema,
    build_optimizer,
    build_scheduler,
    build_settings,
    prepare_for_training,
)

_log = logging.getLogger(__name__)
_LAUNCH = ".launch"
"""Note of who started the run, by which a restart knows it again."""


@dataclass
class Run:
    """A training that has its folder, its processes and its device; see :func:`start_run`.

    Attributes:
        config: what to train.
        output: the folder.
        resume: whether to go on from the folder's last checkpoint.
        group: the processes that share every batch.
        device: this one's.
        budget: the clock of a training by time.
        signals: what ends the run early.
        log: of the main process, while :meth:`fit` runs.
    """

    config: Config
    output: Path
    resume: bool
    group: ProcessGroup
    device: torch.device
    budget: TimeBudget | None
    signals: SignalHandler
    log: RunLog | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether a signal told this process to end."""
        return bool(self.signals.signal)

    def end_if_stopped(self) -> None:
        """End a validation in all processes when one of them was told to.

        Raises:
            StoppedError: one was.
        """
        if self.group.any(self.is_stopped):
            raise StoppedError(self.signals.signal or signal.SIGTERM)

    def fit(
        self,
        model: nn.Module,
        criterion: loop.Criterion,
        batches: loop.Batches,
        to_device: Callable[[Any], tuple[Any, Any]],
        metric: str,
        validate: Callable[[Mapping[str, torch.Tensor], int], dict[str, float]],
        save_best: Callable[[Mapping[str, torch.Tensor]], None],
        metadata: dict[str, str],
        predict: Callable[[int], object],
        test_images: int,
        callbacks: Sequence[Callback] = (),
    ) -> loop.Progress:
        """Train; returns how far it came, and the best metric.

        Args:
            model: the network, on its device.
            criterion, batches, to_device, validate, metadata: see :class:`loop.Trainer`.
            metric: the one of ``validate`` that decides which weights are best.
            save_best: writes these weights.
            predict: predicts the test image of an index, so that a training by time knows how long
                validation takes.
            test_images: how many there are.
            callbacks: called after the built-in ones.
        """
        config, group = self.config, self.group
        with ExitStack() as stack:
            if group.main:
                self.log = stack.enter_context(_open_log(self.output, config))
            called = build_callbacks(config, self.log, BestCheckpoint(save_best))
            if self.budget is not None:
                seconds = _estimate_validation(predict, test_images, group.size)
                self.budget.reserve = group.max(seconds)
                _check_budget(self.budget)
                called.append(LastWeights(save_best))
            network = prepare_for_training(config, model, self.device)
            optimizer = build_optimizer(config, model)
            trainer = loop.Trainer(
                model=network,
                criterion=criterion,
                batches=batches,
                to_device=to_device,
                optimizer=optimizer,
                scheduler=build_scheduler(config, optimizer, batches.steps, self.budget),
                ema=build_ema(config, model),
                settings=build_settings(config, self.device, metric),
                validate=validate,
                callbacks=[*called, *callbacks],
                folder=self.output,
                metadata=metadata,
                group=group,
                signals=self.signals,
                budget=self.budget,
            )
            return trainer.fit(self.resume)


@contextmanager
def start_run(config: Config, output: Path, device_name: str, resume: bool) -> Iterator[Run]:
    """Seed, join the other processes, and take the folder for this training.

    Raises:
        UserError: the folder holds a run that is not to be resumed.
        WorkerLostError: a loading process was killed while the run went on.
    """
    budget = TimeBudget(60 * config.TRAIN.MINUTES) if config.TRAIN.MINUTES else None
    if not resume and (output / checkpoint.LAST).exists():
        raise UserError(
            f"'{output}' already holds a run; go on with --resume or choose another --output"
        )
    checkpoint.seed_everything(config.TRAIN.SEED)
    device = choose_device(device_name)
    with (
        lost_workers(),
        init_distributed(device.type == "cuda") as group,
        lock_folder(output, "training") if group.main else nullcontext(),
    ):
        if device.type == "cuda" and group.size > 1:
            device = torch.device("cuda", group.local_rank)
        elif device.type == "cuda" and device.index is None:
            tell_unused_gpus(torch.cuda.device_count())
        if group.main and launch_id():
            (output / _LAUNCH).write_text(launch_id())
        yield Run(config, output, resume, group, device, budget, SignalHandler())


def can_go_on(output: Path) -> bool:
    """Whether torchrun or Slurm started this run anew, and it has a checkpoint to go on from."""
    goes_on = is_restarted() and (output / checkpoint.LAST).exists()
    if goes_on and os.environ.get(GO_ON, "0") == "0":
        # Of this launch: another run's folder was refused in the first attempt, and is again.
        note = output / _LAUNCH
        goes_on = note.is_file() and note.read_text() == launch_id()
    if goes_on and is_main_process():
        _log.info("started anew: going on from %s", output / checkpoint.LAST)
    return goes_on


def tell_unused_gpus(count: int) -> None:
    """Say so where a machine has more GPUs than are used."""
    if count > 1:
        _log.info("this machine has %d GPUs, and 1 is used: --gpus %d uses all", count, count)


def _open_log(output: Path, config: Config) -> RunLog:
    """The log of a run, with the loggers that its config names."""
    settings = {
        f"{section}.{key}": value
        for section, values in asdict(config).items()
        for key, value in values.items()
    }
    return RunLog(
        output, to_yaml(config), lambda: build_loggers(config.TRAIN.LOGGERS, output, settings)
    )


def _estimate_validation(predict: Callable[[int], object], images: int, processes: int) -> float:
    """Seconds that validation and the last checkpoint will take, from three of the images."""
    chosen = np.linspace(0, images - 1, min(images, 3)).astype(int).tolist()
    predict(chosen[0])  # what the first costs besides
    begun = time.perf_counter()
    for index in chosen:
        predict(index)
    each = (time.perf_counter() - begun) / len(chosen)
    return 1.2 * each * images / processes + 5


def _check_budget(budget: TimeBudget) -> None:
    """See that there is time to train.

    Raises:
        UserError: validation alone takes most of it.
    """
    if budget.reserve > 0.8 * budget.seconds:
        raise UserError(
            f"config key 'TRAIN.MINUTES': of {budget.seconds / 60:g} minutes validation alone "
            f"would take about {budget.reserve / 60:.1f}; DATASET.TEST_LIMIT shortens it"
        )
