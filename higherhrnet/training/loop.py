"""The training loop: ``Trainer.fit`` → ``train_one_epoch`` → ``train_step``.

What happens beside the steps (log lines, alarms, curves, checkpoints) are callbacks; see
:mod:`training.callbacks`.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from ..distributed import ProcessGroup, lost_peers
from ..errors import UserError
from . import checkpoint
from .budget import TimeBudget
from .callbacks import Callback
from .loss_meter import LossMeter
from .signals import SignalHandler, StoppedError

_log = logging.getLogger(__name__)
Criterion = Callable[[Any, Any], dict[str, torch.Tensor]]
State = Mapping[str, torch.Tensor]
_FETCH_EVERY = 10
"""Steps between looks at the losses."""
_OF_SCHEDULER = frozenset(("initial_lr", "scale"))
"""Options of parameter groups that are not the optimizer's own; older versions had ``scale``."""


@contextmanager
def _fastest_convolutions() -> Iterator[None]:
    """Let cuDNN try its algorithms: training views have one size. Images in validation have many,
    and each size would be tried anew."""
    former = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = former


class Batches(Protocol):
    """Where an epoch's batches come from."""

    @property
    def batch_size(self) -> int:
        """Images a step, over all micro-batches and processes."""

    @property
    def micro_batches(self) -> int:
        """Batches that this process sees in one step."""

    @property
    def steps(self) -> int:
        """Steps an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """``micro_batches`` batches, with the ``ids`` of their images, for each step from
        ``start``."""


@dataclass(frozen=True)
class Settings:
    """How to run.

    Attributes:
        epochs: passes over the images.
        device: where to train.
        precision: ``fp32``, ``bf16`` (autocast) or ``fp16`` (autocast with a loss scaler).
        grad_clip_norm: largest gradient norm, 0 for none.
        validate_every: epochs between validations.
        metric: name of the metric that decides which weights are best.
        compile: run the network through ``torch.compile``.
        cuda_graphs: and replay its forward and backward passes as CUDA graphs.
        freeze_bn: keep batch norms as they were loaded: running statistics, not the batch's.
        unfreeze_epoch: epoch (from 0) at which frozen parameters are trained too; 0 never.
        early_stopping: validations without a gain after which the training ends; 0 never.
    """

    epochs: int
    device: torch.device
    precision: str = "bf16"
    grad_clip_norm: float = 0.0
    validate_every: int = 10
    metric: str = "AP"
    compile: bool = False
    cuda_graphs: bool = False
    freeze_bn: bool = False
    unfreeze_epoch: int = 0
    early_stopping: int = 0


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch, step: the next step to do, and its epoch, from 0.
        best: the best value of the metric.
        metric: its name.
        sums, counted: this epoch's losses so far, and of how many steps.
        steps: steps an epoch; 0 if not known.
        since_best: validations since the best one.
        fraction, seconds: of a training by time, how much of its schedule is over, and how long it
            took.
    """

    epoch: int = 0
    step: int = 0
    best: float = -math.inf
    metric: str = "AP"
    sums: dict[str, float] = field(default_factory=dict)
    counted: int = 0
    steps: int = 0
    since_best: int = 0
    fraction: float = 0.0
    seconds: float = 0.0


@dataclass
class Trainer:
    """Everything that a training needs, and the loop over it.

    Attributes:
        model: the network, on its device; parameters without ``requires_grad`` are frozen.
        criterion: (outputs, targets) → named losses; their sum is minimized.
        batches: the images.
        to_device: batch → (network inputs, targets) on the device.
        optimizer: of all parameters.
        scheduler: sets the learning rate of every step.
        ema: average of the weights, which is then what is validated and kept; see ``ModelEma``.
        settings: how to run.
        validate: (weights, epoch) → metrics, among them ``settings.metric``; called in all
            processes.
        folder: where ``last.pth`` goes.
        callbacks: called in this order, in every process that has them.
        metadata: goes into the checkpoint; see :func:`weights.metadata_of`.
        group: the processes.
        signals: remembers Ctrl-C and SIGTERM.
        budget: ends the training, instead of ``settings.epochs``; it is validated once then.
    """

    model: nn.Module
    criterion: Criterion
    batches: Batches
    to_device: Callable[[Any], tuple[torch.Tensor, Any]]
    optimizer: torch.optim.Optimizer
    scheduler: LambdaLR
    settings: Settings
    validate: Callable[[State, int], Mapping[str, float]]
    folder: Path
    ema: AveragedModel | None = None
    callbacks: Sequence[Callback] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    group: ProcessGroup = field(default_factory=ProcessGroup)
    signals: SignalHandler = field(default_factory=SignalHandler)
    budget: TimeBudget | None = None

    def __post_init__(self) -> None:
        self.progress = Progress(metric=self.settings.metric, steps=self.batches.steps)
        device = self.settings.device.type
        self.scaler = torch.amp.GradScaler(device, enabled=self.settings.precision == "fp16")
        self.network: Callable[[torch.Tensor], Any] = self.model
        self._parallel: DistributedDataParallel | None = None

    @property
    def weights(self) -> State:
        """What is validated and kept: the average of the weights, or the weights."""
        return (self.model if self.ema is None else self.ema.module).state_dict()

    @property
    def global_step(self) -> int:
        """Steps done, over all epochs."""
        return self.progress.epoch * self.batches.steps + self.progress.step

    def fit(self, resume: bool = False) -> Progress:
        """Train to the end.

        A checkpoint is written after every epoch and whenever a run ends between two steps.

        Raises:
            DivergenceError: the loss became NaN or infinite; the last checkpoint is from before.
            StoppedError: by Ctrl-C or SIGTERM.
            UserError: an image cannot be read.
            PeerLostError: another process of the training ended.
        """
        if resume:
            self._restore(checkpoint.load(self.folder))
            if self._is_done(self.progress.epoch):  # and nothing in the folder changes
                _log.info("the run ended after epoch %d: nothing is left", self.progress.epoch)
                return self.progress
        self._call("on_train_start")
        self.wrap_model()
        with self.signals.handling():
            try:
                while not self._is_done(self.progress.epoch):
                    self._run_epoch()
            except (StoppedError, UserError):  # between two steps
                self.save()
                self._call("on_train_end")
                raise
        self._call("on_train_end")
        return self.progress

    def _run_epoch(self) -> None:
        """What remains of an epoch, its validation, and the callbacks."""
        progress, settings = self.progress, self.settings
        if settings.unfreeze_epoch and progress.epoch == settings.unfreeze_epoch:
            self.model.requires_grad_(True)
            self.wrap_model()
        start, first = time.perf_counter(), progress.step
        with _fastest_convolutions():
            meter = self.train_one_epoch()
        seconds = time.perf_counter() - start
        epoch = progress.epoch + 1
        record: dict[str, Any] = {
            "epoch": epoch,
            "images_per_second": (progress.step - first) * self.batches.batch_size / seconds,
            "learning_rate": max(self._rates(self.global_step - 1)),
            **meter.means(),
        }
        is_due = self.budget is None and epoch % settings.validate_every == 0
        if is_due or self._is_done(epoch):
            weights = self.weights
            self.group.share(weights)
            record |= self.validate(weights, epoch)
        # Only now: a run that is interrupted while it validates will validate again.
        progress.epoch, progress.step, progress.sums, progress.counted = epoch, 0, {}, 0
        self._call("on_epoch_end", record, meter.curve)

    @property
    def _is_out_of_time(self) -> bool:
        return self.budget is not None and self.budget.fraction >= 1

    def _is_done(self, epoch: int) -> bool:
        """Whether so many epochs end the training, or its time is over, or it gains no more."""
        patience = self.settings.early_stopping
        if patience and self.progress.since_best >= patience:
            return True
        return self._is_out_of_time if self.budget else epoch >= self.settings.epochs

    def train_one_epoch(self) -> LossMeter:
        """The epoch's remaining steps, or those that there is time for."""
        progress, batches = self.progress, self.batches
        self._set_train_mode()
        meter = LossMeter(self.group, progress.sums, progress.counted)
        stream = batches.epoch(progress.epoch, progress.step)
        bar = tqdm(
            desc=self._describe_epoch(), unit=" images",
            total=batches.steps * batches.batch_size, initial=progress.step * batches.batch_size,
            mininterval=2.0, disable=not self.group.main,
        )  # fmt: skip
        with bar:
            try:
                while progress.step < batches.steps:
                    if self.group.any(bool(self.signals.signal)):
                        raise StoppedError(self.signals.signal or signal.SIGTERM)
                    micro_batches = [next(stream) for _ in range(batches.micro_batches)]
                    with lost_peers(self.group):
                        losses = self.train_step(micro_batches)
                    ids = [image for batch in micro_batches for image in batch.ids]
                    meter.add(progress.epoch, progress.step, ids, losses)
                    progress.step += 1
                    bar.update(batches.batch_size)
                    self._advance_budget()
                    is_last = progress.step == batches.steps or self._is_out_of_time
                    if progress.step % _FETCH_EVERY == 0 or is_last:
                        latest = self.fetch_losses(meter)
                        bar.set_postfix(loss=f"{sum(latest.values()):.5f}")
                        self._call("on_losses", latest)
                    if is_last:
                        break
                    self._call("on_step_end", meter)
            except (StoppedError, UserError):  # the weights are kept if they are sound
                self.fetch_losses(meter)
                raise
        return meter

    def _describe_epoch(self) -> str:
        epoch = self.progress.epoch + 1
        return f"epoch {epoch}" + ("" if self.budget else f"/{self.settings.epochs}")

    def _advance_budget(self) -> None:
        """Agree with the other processes on how much of the time is over."""
        if self.budget is None:
            return
        self.budget.fraction = self.group.max(self.budget.advance())
        self.progress.fraction, self.progress.seconds = self.budget.fraction, self.budget.used
        if self.group.main:
            self.budget.tell_pace(self.batches.batch_size, self.batches.steps)

    def train_step(self, micro_batches: Sequence[Any]) -> dict[str, torch.Tensor]:
        """One optimizer step; returns the mean of every named loss."""
        device, network = self.settings.device.type, self.network
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.settings.precision)
        count = len(micro_batches)
        means: dict[str, torch.Tensor] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for number, batch in enumerate(micro_batches, 1):
            images, targets = self.to_device(batch)
            with self._no_sync() if number < count else nullcontext():
                if self.settings.cuda_graphs:
                    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
                with torch.autocast(device, dtype, enabled=dtype is not None):
                    outputs = network(images)
                losses = self.criterion(outputs, targets)
                total = torch.stack(list(losses.values())).sum() / count
                torch.autograd.backward(self.scaler.scale(total))
            for name, value in losses.items():
                means[name] = means.get(name, 0) + value.detach() / count
        if self.settings.grad_clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.grad_clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        return means

    def fetch_losses(self, meter: LossMeter) -> dict[str, float]:
        """Bring the losses to the host; returns those of the last step. All processes call."""
        latest = meter.fetch()
        self.progress.sums, self.progress.counted = meter.sums, meter.steps
        return latest

    def wrap_model(self) -> None:
        """Make :attr:`network`: the model over processes, and compiled."""
        network = self.model
        if self.group.size > 1:
            device = self.settings.device
            network = self._parallel = DistributedDataParallel(
                network,
                device_ids=[device] if device.type == "cuda" else None,
                gradient_as_bucket_view=True,
            )
            # Batch norm's running statistics are those of rank 0.
            network.broadcast_buffers = False
        mode = "reduce-overhead" if self.settings.cuda_graphs else None
        self.network = torch.compile(network, mode=mode) if self.settings.compile else network

    def save(self) -> None:
        """Write the last checkpoint, in the main process."""
        if not self.group.main:
            return
        ema = self.ema
        checkpoint.save(
            self.folder,
            {
                "model": self.model.state_dict(),
                "average": None if ema is None else (int(ema.n_averaged), ema.module.state_dict()),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "progress": vars(self.progress),
                "about": dict(self.metadata),
            },
        )

    def _set_train_mode(self) -> None:
        """Training mode, with frozen batch norms in evaluation mode."""
        self.model.train()
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
                self.settings.freeze_bn or not module.weight.requires_grad
            ):
                module.eval()

    def _no_sync(self) -> AbstractContextManager[Any]:
        """Gradients are exchanged once a step, after its last micro-batch."""
        return self._parallel.no_sync() if self._parallel is not None else nullcontext()

    def _call(self, hook: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self, *arguments)

    def _restore(self, saved: dict[str, Any]) -> None:
        self._restore_optimizer(saved)
        if saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        if self.ema is not None and saved["average"] is not None:
            self.ema.n_averaged.fill_(saved["average"][0])
            self.ema.module.load_state_dict(saved["average"][1])
        self._restore_progress(saved["progress"])
        if 0 < self.settings.unfreeze_epoch < self.progress.epoch:
            self.model.requires_grad_(True)
        self.scheduler.last_epoch = self.global_step
        for group, rate in zip(
            self.optimizer.param_groups, self._rates(self.global_step), strict=True
        ):
            group["lr"] = rate

    def _rates(self, step: int) -> list[float]:
        """Learning rate of every parameter group in a step, counted over all epochs."""
        pairs = zip(self.scheduler.base_lrs, self.scheduler.lr_lambdas, strict=True)
        return [float(base * factor(step)) for base, factor in pairs]

    def _restore_optimizer(self, saved: dict[str, Any]) -> None:
        groups = self.optimizer.param_groups
        # Rates, decay and the like are the config's, which may have been changed; what the
        # optimizer has gathered is the checkpoint's.
        wanted = [{k: v for k, v in g.items() if k not in ("params", "lr")} for g in groups]
        try:
            stored = saved["optimizer"]["param_groups"]
            if {frozenset(g) - _OF_SCHEDULER for g in stored} != {
                frozenset(g) - _OF_SCHEDULER for g in groups
            }:
                raise UserError("it was made with another optimizer (TRAIN.OPTIMIZER)")
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

    def _restore_progress(self, saved: Mapping[str, Any]) -> None:
        renamed = {"metric" if key == "score" else key: value for key, value in saved.items()}
        # Before the metric had a name in the checkpoint it was never PCKh.
        unnamed = "AP" if self.settings.metric == "PCKh" else self.settings.metric
        self.progress = Progress(**{"metric": unnamed, **renamed})
        if self.progress.step and self.progress.steps not in (0, self.batches.steps):
            raise UserError(
                f"the checkpoint to resume is from within an epoch of {self.progress.steps} steps, "
                f"and this config's have {self.batches.steps}: TRAIN.BATCH_SIZE or the images "
                "have changed"
            )
        self.progress.steps = self.batches.steps
        if self.budget is not None:
            self.budget.spent = self.progress.seconds
            self.budget.fraction = self.progress.fraction
        if self.progress.metric != self.settings.metric:  # values of two metrics do not compare
            self.progress.best, self.progress.metric = -math.inf, self.settings.metric
            self.progress.since_best = 0
