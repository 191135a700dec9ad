"""What a training does beside its steps: logging, alarms, curves, best and periodic checkpoints."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from . import checkpoint
from .alarms import find_alarms
from .logger import RunLog
from .loss_meter import LossMeter

if TYPE_CHECKING:
    from .loop import Trainer

_log = logging.getLogger(__name__)


class Callback:
    """Hooks of :class:`Trainer`; each does nothing by default."""

    def on_train_start(self, trainer: Trainer) -> None:
        """Before the first step; after the checkpoint was read, if the run is resumed."""

    def on_losses(self, trainer: Trainer, losses: Mapping[str, float]) -> None:
        """Every few steps, with the losses of the latest one."""

    def on_step_end(self, trainer: Trainer, meter: LossMeter) -> None:
        """After every step but an epoch's last."""

    def on_epoch_end(
        self, trainer: Trainer, record: dict[str, Any], curve: Sequence[float]
    ) -> None:
        """After every epoch, with what is known of it (later callbacks see what earlier ones add)
        and its losses step by step."""

    def on_train_end(self, trainer: Trainer) -> None:
        """At the end, also of an interrupted run."""


class BestCheckpoint(Callback):
    """Keeps the weights with the best metric.

    Args:
        save: writes weights.
    """

    def __init__(self, save: Callable[[Mapping[str, torch.Tensor]], object]) -> None:
        self._save = save

    def on_epoch_end(
        self, trainer: Trainer, record: dict[str, Any], curve: Sequence[float]
    ) -> None:
        """See :class:`Callback`."""
        value = record.get(trainer.settings.metric)
        # Of equals the later one has seen more: a metric that stays at 0 says nothing of the first.
        if value is None:
            return
        trainer.progress.since_best += trainer.progress.best > 0  # it may begin with 0s
        if value > trainer.progress.best:
            trainer.progress.since_best = 0
        if value >= trainer.progress.best:
            trainer.progress.best = value
            if trainer.group.main:
                self._save(trainer.weights)


class EarlyStopping(Callback):
    """Says that a training ended because it gained no more; :class:`BestCheckpoint` counts."""

    def on_train_end(self, trainer: Trainer) -> None:
        """See :class:`Callback`."""
        progress, settings = trainer.progress, trainer.settings
        if trainer.group.main and settings.early_stopping <= progress.since_best:
            _log.info(
                "stopped after epoch %d of %d: no gain in %d validations (TRAIN.EARLY_STOPPING)",
                progress.epoch, settings.epochs, progress.since_best,
            )  # fmt: skip


class LastWeights(Callback):
    """Leaves weights where a run ended before its first validation.

    Args:
        save: writes weights.
    """

    def __init__(self, save: Callable[[Mapping[str, torch.Tensor]], object]) -> None:
        self._save = save

    def on_train_end(self, trainer: Trainer) -> None:
        """See :class:`Callback`."""
        if trainer.group.main and trainer.progress.best == -math.inf:
            self._save(trainer.weights)
            _log.warning("the run ended before it was validated; its weights are kept as they are")


class PeriodicCheckpoint(Callback):
    """Writes ``last.pth`` after every epoch, and within epochs too if wished.

    Args:
        every: steps between checkpoints within an epoch; 0 for none.
        keep: how many epochs' checkpoints to keep beside the last; 0 for none.
    """

    def __init__(self, every: int = 0, keep: int = 0) -> None:
        self._every, self._keep = every, keep

    def on_train_start(self, trainer: Trainer) -> None:
        """See :class:`Callback`; a run that was killed between both files keeps its epoch now."""
        progress = trainer.progress
        if self._keep and trainer.group.main and progress.epoch and not progress.step:
            checkpoint.keep(trainer.folder, progress.epoch, self._keep)

    def on_step_end(self, trainer: Trainer, meter: LossMeter) -> None:
        """See :class:`Callback`."""
        if self._every and trainer.global_step % self._every == 0:
            trainer.fetch_losses(meter)
            trainer.save()

    def on_epoch_end(
        self, trainer: Trainer, record: dict[str, Any], curve: Sequence[float]
    ) -> None:
        """See :class:`Callback`."""
        trainer.save()
        if self._keep and trainer.group.main:
            checkpoint.keep(trainer.folder, trainer.progress.epoch, self._keep)


class Logging(Callback):
    """``log.jsonl`` and TensorBoard; alarms are raised over the log's records.

    Args:
        log: where lines go.
    """

    def __init__(self, log: RunLog) -> None:
        self._log = log

    def on_train_start(self, trainer: Trainer) -> None:
        """See :class:`Callback`."""
        self._log.begin(trainer.progress.epoch)

    def on_losses(self, trainer: Trainer, losses: Mapping[str, float]) -> None:
        """See :class:`Callback`."""
        self._log.scalars(
            trainer.global_step - 1, {f"train/{name}": value for name, value in losses.items()}
        )

    def on_epoch_end(
        self, trainer: Trainer, record: dict[str, Any], curve: Sequence[float]
    ) -> None:
        """See :class:`Callback`."""
        record["alarms"] = find_alarms([*self._log.records(), record], curve)
        for alarm in record["alarms"]:
            _log.warning("epoch %d: ALARM: %s", record["epoch"], alarm)
        self._log.epoch(record)


class Curves(Callback):
    """Draws ``curves.png`` after every validation, and at the end.

    Args:
        log: whose records are drawn.
    """

    def __init__(self, log: RunLog) -> None:
        self._log = log

    def on_epoch_end(
        self, trainer: Trainer, record: dict[str, Any], curve: Sequence[float]
    ) -> None:
        """See :class:`Callback`."""
        if trainer.settings.metric in record:
            self.on_train_end(trainer)

    def on_train_end(self, trainer: Trainer) -> None:
        """See :class:`Callback`."""
        from .curves import draw_curves  # imports matplotlib

        draw_curves(self._log.records(), trainer.folder / "curves.png", trainer.settings.metric)
