"""The training loop: Trainer.fit, its epoch and its step."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..errors import UserError
from . import checkpoint, health, report
from .distributed import Group, lost_peers
from .log import Log
from .optim import Average, Schedule, set_rate
from .stop import Stop, StoppedError
from .watch import Watch

Criterion = Callable[[Any, Any], dict[str, torch.Tensor]]
State = Mapping[str, torch.Tensor]
_FETCH_EVERY = 10
"""Steps between looks at the losses."""


class Batches(Protocol):
    """Where an epoch's batches come from."""

    @property
    def batch(self) -> int:
        """Pictures a step, over all parts and processes."""

    @property
    def parts(self) -> int:
        """Batches that this process sees in one step."""

    @property
    def steps(self) -> int:
        """Steps an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """``parts`` batches, with the ``ids`` of their pictures, for each step from ``start``."""


@dataclass(frozen=True)
class Settings:
    """How to run.

    Attributes:
        epochs: passes over the pictures.
        device: where to train.
        precision: ``fp32``, ``bf16`` (autocast) or ``fp16`` (autocast with a loss scaler).
        clip: largest gradient norm, 0 for none.
        validate_every: epochs between validations.
        score: name of the metric that decides which weights are best.
        compile: run the network through ``torch.compile``.
        freeze_norms: keep batch norms as they were loaded: running statistics, not the batch's.
        unfreeze_epoch: epoch (from 0) at which frozen parameters are freed; 0 never.
        save_every: steps between checkpoints inside an epoch; 0 for none.
        keep: how many epochs' checkpoints to keep beside the last; 0 for none.
    """

    epochs: int
    device: torch.device
    precision: str = "bf16"
    clip: float = 0.0
    validate_every: int = 10
    score: str = "AP"
    compile: bool = False
    freeze_norms: bool = False
    unfreeze_epoch: int = 0
    save_every: int = 0
    keep: int = 0


@dataclass
class Progress:
    """Where a run stands: the next step to do and of how many in an epoch (0: not known), the
    best score, which figure that is, and this epoch's losses so far."""

    epoch: int = 0
    step: int = 0
    best: float = -math.inf
    score: str = "AP"
    sums: dict[str, float] = field(default_factory=dict)
    counted: int = 0
    steps: int = 0


@dataclass
class Trainer:
    """Everything a training needs, and the loop over it.

    Attributes:
        model: the network, on its device; parameters without ``requires_grad`` are frozen.
        criterion: (outputs, targets) → named losses; their sum is minimised.
        batches: the pictures.
        feed: batch → (network inputs, targets) on the device.
        optimizer, schedule: of all parameters.
        average: running average of the weights, which is then what is validated and kept.
        settings: how to run.
        examine: (weights, epoch) → metrics, among them ``settings.score``; asked in all processes.
        keep_best: called with the weights whenever the score rises, in the main process.
        folder: where ``last.pth`` goes.
        log: where lines and pictures go, in the main process.
        about: whose weights they are, for the checkpoint; see :func:`weights.about`.
        group: the processes.
        stop: hears Ctrl-C and SIGTERM.
    """

    model: nn.Module
    criterion: Criterion
    batches: Batches
    feed: Callable[[Any], tuple[torch.Tensor, Any]]
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    average: Average | None
    settings: Settings
    examine: Callable[[State, int], Mapping[str, float]]
    keep_best: Callable[[State], None]
    folder: Path
    log: Log | None
    about: Mapping[str, str] = field(default_factory=dict)
    group: Group = field(default_factory=Group)
    stop: Stop = field(default_factory=Stop)

    def __post_init__(self) -> None:
        self.progress = Progress(score=self.settings.score, steps=self.batches.steps)
        device = self.settings.device.type
        self.scaler = torch.amp.GradScaler(device, enabled=self.settings.precision == "fp16")
        self.network: Callable[[torch.Tensor], Any] = self.model
        self._parallel: DistributedDataParallel | None = None

    def fit(self, resume: bool = False) -> Progress:
        """Train to the end; a checkpoint is written after every epoch and whenever a run ends
        between two steps.

        Raises:
            DivergenceError: the loss became NaN or infinite; the last checkpoint is from before.
            StoppedError: by Ctrl-C or SIGTERM.
            UserError: a picture cannot be read.
            PeerLostError: another process of the training ended; the last checkpoint is of the last
                epoch or ``save_every`` steps.
        """
        if resume:
            self._restore(checkpoint.load(self.folder))
        if self.log is not None:
            self.log.begin(self.progress.epoch)
        self.wrap()
        with self.stop.listening():
            try:
                while self.progress.epoch < self.settings.epochs:
                    self._epoch()
            except (
                StoppedError,
                UserError,
            ):  # asked to end, or a broken picture: between two steps
                self._save()
                self._report()
                raise
        self._report()
        return self.progress

    def _report(self) -> None:
        if self.log is not None:
            report.draw(self.log.records(), self.folder / "curves.png", self.settings.score)

    def _epoch(self) -> None:
        """What remains of an epoch, its validation, its line in the log and its checkpoint."""
        progress, settings = self.progress, self.settings
        if settings.unfreeze_epoch and progress.epoch == settings.unfreeze_epoch:
            self.model.requires_grad_(True)
            self.wrap()
        started, first = time.perf_counter(), progress.step
        watch = Watch(self.group, progress.sums, progress.counted)
        self._train(watch)
        seconds = time.perf_counter() - started
        epoch = progress.epoch + 1
        record: dict[str, Any] = {
            "epoch": epoch,
            "pictures_per_second": (self.batches.steps - first) * self.batches.batch / seconds,
            "learning_rate": max(group["lr"] for group in self.optimizer.param_groups),
            **watch.means(),
        }
        if epoch == settings.epochs or epoch % settings.validate_every == 0:
            weights = self.model.state_dict() if self.average is None else self.average.state
            self.group.share(weights)
            metrics = dict(self.examine(weights, epoch))
            record |= metrics
            if metrics[settings.score] > progress.best:
                progress.best = metrics[settings.score]
                if self.group.main:
                    self.keep_best(weights)
        if self.log is not None:
            record["alarms"] = health.alarms([*self.log.records(), record], watch.curve)
            for alarm in record["alarms"]:
                tqdm.write(f"epoch {epoch}: ALARM: {alarm}", file=sys.stderr)
            self.log.epoch(record)
        # Only now: an interruption while validating comes back to validate.
        progress.epoch, progress.step = epoch, 0
        progress.sums, progress.counted = {}, 0
        self._save(keep=settings.keep)
        if settings.score in record:
            self._report()

    def _train(self, watch: Watch) -> None:
        """The epoch's remaining steps."""
        progress, batches = self.progress, self.batches
        self.model.train()
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
                self.settings.freeze_norms or not module.weight.requires_grad
            ):
                module.eval()
        bar = tqdm(
            total=batches.steps * batches.batch, initial=progress.step * batches.batch,
            unit=" pictures", desc=f"epoch {progress.epoch + 1}/{self.settings.epochs}",
            mininterval=2.0, disable=not self.group.main,
        )  # fmt: skip
        stream = batches.epoch(progress.epoch, progress.step)
        with bar:
            while progress.step < batches.steps:
                if self.group.any(bool(self.stop.signal)):
                    watch.fetch()
                    progress.sums, progress.counted = watch.sums, watch.steps
                    raise StoppedError(self.stop.signal or signal.SIGTERM)
                try:
                    parts = [next(stream) for _ in range(batches.parts)]
                except UserError:  # a broken picture: the weights are kept if they are sound
                    watch.fetch()
                    progress.sums, progress.counted = watch.sums, watch.steps
                    raise
                step = progress.epoch * batches.steps + progress.step
                set_rate(self.optimizer, self.schedule.rate(step, batches.steps))
                with lost_peers(self.group):
                    losses = self.step(parts)
                watch.add(progress.epoch, progress.step, [i for p in parts for i in p.ids], losses)
                progress.step += 1
                bar.update(batches.batch)
                saving = self.settings.save_every and (step + 1) % self.settings.save_every == 0
                if saving or progress.step % _FETCH_EVERY == 0 or progress.step == batches.steps:
                    last = watch.fetch()
                    progress.sums, progress.counted = watch.sums, watch.steps
                    bar.set_postfix(loss=f"{sum(last.values()):.5f}")
                    if self.log is not None:
                        self.log.scalars(step, {f"train/{name}": v for name, v in last.items()})
                if saving and progress.step < batches.steps:
                    self._save()

    def step(self, parts: Sequence[Any]) -> dict[str, torch.Tensor]:
        """One optimiser step over its parts; returns the mean of every named loss."""
        device, network = self.settings.device.type, self.network
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.settings.precision)
        means: dict[str, torch.Tensor] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for number, batch in enumerate(parts, 1):
            images, targets = self.feed(batch)
            with self._quiet() if number < len(parts) else nullcontext():
                with torch.autocast(device, dtype, enabled=dtype is not None):
                    outputs = network(images)
                losses = self.criterion(outputs, targets)
                total = torch.stack(list(losses.values())).sum() / len(parts)
                torch.autograd.backward(self.scaler.scale(total))
            for name, value in losses.items():
                means[name] = means.get(name, 0) + value.detach() / len(parts)
        if self.settings.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model)
        return means

    def wrap(self) -> None:
        """The model as it is called: over processes, and compiled."""
        network = self.model
        if self.group.size > 1:
            device = self.settings.device
            network = self._parallel = DistributedDataParallel(
                network,
                device_ids=[device] if device.type == "cuda" else None,
                gradient_as_bucket_view=True,
            )
            # The statistics of rank 0 are the ones that count, and nobody else's enter them.
            network.broadcast_buffers = False
        self.network = torch.compile(network) if self.settings.compile else network

    def _quiet(self) -> AbstractContextManager[Any]:
        """Gradients are exchanged once a step, after its last part."""
        return self._parallel.no_sync() if self._parallel is not None else nullcontext()

    def _save(self, keep: int = 0) -> None:
        """Write the last checkpoint, and keep it under the epoch's name if so many are kept."""
        if not self.group.main:
            return
        checkpoint.save(
            self.folder,
            {
                "model": self.model.state_dict(),
                "average": self.average and (self.average.steps, self.average.state),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "progress": vars(self.progress),
                "about": dict(self.about),
            },
        )
        if keep:
            checkpoint.keep(self.folder, self.progress.epoch, keep)

    def _restore(self, saved: dict[str, Any]) -> None:
        groups = self.optimizer.param_groups
        # Factors, decay and the like are the config's, which may have been changed (the rate is
        # set at every step); what the optimiser has gathered is the checkpoint's.
        wanted = [{k: v for k, v in g.items() if k not in ("params", "lr")} for g in groups]
        stored = saved["optimizer"]["param_groups"]
        try:
            if {frozenset(group) for group in stored} != {frozenset(group) for group in groups}:
                raise UserError("it was made with another optimiser (TRAIN.OPTIMIZER)")
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
        except (RuntimeError, ValueError, UserError) as error:
            heading, *details = str(error).splitlines()  # torch heads what differs
            raise UserError(
                "the checkpoint to resume does not fit this config: "
                + (details[0].strip() if details else heading)
            ) from error
        for group, options in zip(self.optimizer.param_groups, wanted, strict=True):
            group.update(options)
        if saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        if self.average is not None and saved["average"] is not None:
            self.average.steps = saved["average"][0]
            for name, value in saved["average"][1].items():
                self.average.state[name].copy_(value)
        # Before the figure had a name it was never PCKh.
        unnamed = "AP" if self.settings.score == "PCKh" else self.settings.score
        self.progress = Progress(**{"score": unnamed, **saved["progress"]})
        if self.progress.step and self.progress.steps not in (0, self.batches.steps):
            raise UserError(
                f"the checkpoint to resume is from within an epoch of {self.progress.steps} steps, "
                f"and this config's have {self.batches.steps}: TRAIN.BATCH or the pictures are "
                "others"
            )
        self.progress.steps = self.batches.steps
        if self.progress.score != self.settings.score:  # figures of two kinds do not compare
            self.progress.best, self.progress.score = -math.inf, self.settings.score
        if 0 < self.settings.unfreeze_epoch < self.progress.epoch:
            self.model.requires_grad_(True)
