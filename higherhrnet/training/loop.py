"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from tqdm import tqdm

from ..fields import Batch, Outputs, Targets
from . import checkpoint
from .log import Log
from .optim import Average, Schedule, set_rate

Criterion = Callable[[Outputs, Targets], dict[str, torch.Tensor]]
Normalise = Callable[[torch.Tensor], torch.Tensor]


class Batches(Protocol):
    """Where an epoch's batches come from."""

    @property
    def batch(self) -> int: ...
    def __len__(self) -> int: ...
    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...


class DivergenceError(ArithmeticError):
    """The loss is not a number any more."""


@dataclass(frozen=True)
class Settings:
    """How to run.

    Attributes:
        epochs: passes over the pictures.
        device: where to train.
        precision: ``fp32``, ``bf16`` (autocast) or ``fp16`` (autocast with a loss scaler).
        clip: largest gradient norm, 0 for none.
        validate_every: epochs between validations.
        compile: run the network through ``torch.compile``.
    """

    epochs: int
    device: torch.device
    precision: str = "bf16"
    clip: float = 0.0
    validate_every: int = 10
    compile: bool = False


@dataclass
class Progress:
    """Where a run stands: the next step to do, and the best AP so far."""

    epoch: int = 0
    step: int = 0
    best: float = -math.inf


def fit(
    model: nn.Module,
    criterion: Criterion,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    average: Average | None,
    settings: Settings,
    normalise: Normalise,
    validate: Callable[[Mapping[str, torch.Tensor], int], Mapping[str, float]],
    keep_best: Callable[[Mapping[str, torch.Tensor]], None],
    folder: Path,
    log: Log,
    resume: bool = False,
) -> Progress:
    """Train; a checkpoint is written after every epoch, on Ctrl-C and on a broken picture.

    Args:
        validate: (weights, epoch) → metrics with an ``AP``.
        keep_best: called with the weights whenever AP rises.

    Raises:
        DivergenceError: the loss became NaN or infinite; the last checkpoint is from before.
        KeyboardInterrupt, ValueError: after the checkpoint has been written.
    """
    progress = Progress()
    scaler = torch.amp.GradScaler(settings.device.type, enabled=settings.precision == "fp16")
    if resume:
        _restore(checkpoint.load(folder), model, optimizer, scaler, average, progress)
    network = torch.compile(model) if settings.compile else model

    def state() -> dict[str, Any]:
        return {
            "model": model.state_dict(),
            "average": None if average is None else (average.steps, average.state),
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
            "progress": vars(progress),
        }

    try:
        while progress.epoch < settings.epochs:
            started = time.perf_counter()
            first = progress.step
            means = _one_epoch(
                model, network, criterion, batches, optimizer, schedule, average, scaler,
                settings, normalise, progress, log,
            )  # fmt: skip
            seconds = time.perf_counter() - started
            epoch = progress.epoch + 1
            record = {
                "epoch": epoch,
                "pictures_per_second": (len(batches) - first) * batches.batch / seconds,
                "learning_rate": optimizer.param_groups[0]["lr"],
                **means,
            }
            if epoch == settings.epochs or epoch % settings.validate_every == 0:
                weights = model.state_dict() if average is None else average.state
                metrics = validate(weights, epoch)
                record |= metrics
                log.scalars(epoch, {f"val/{k}": v for k, v in metrics.items()})
                if metrics["AP"] > progress.best:
                    progress.best = metrics["AP"]
                    keep_best(weights)
            log.epoch(record)
            # Only now: an interruption while validating comes back to validate.
            progress.epoch, progress.step = epoch, 0
            checkpoint.save(folder, state())
    except (KeyboardInterrupt, ValueError):  # ValueError: a picture that cannot be read
        checkpoint.save(folder, state())
        raise
    return progress


def _one_epoch(
    model: nn.Module,
    network: Callable[[torch.Tensor], Outputs],
    criterion: Criterion,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    average: Average | None,
    scaler: torch.amp.GradScaler,
    settings: Settings,
    normalise: Normalise,
    progress: Progress,
    log: Log,
) -> dict[str, float]:
    """The epoch's remaining steps; returns the mean of every named loss."""
    device = settings.device
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(settings.precision)
    model.train()
    sums: dict[str, torch.Tensor] = {}
    done = 0
    bar = tqdm(
        batches.epoch(progress.epoch, progress.step),
        total=len(batches), initial=progress.step, unit_scale=batches.batch, unit=" pictures",
        desc=f"epoch {progress.epoch + 1}/{settings.epochs}", mininterval=2.0,
    )  # fmt: skip
    for batch in bar:
        step = progress.epoch * len(batches) + progress.step
        set_rate(optimizer, schedule.rate(step, len(batches)))
        images = batch.images.to(device, memory_format=torch.channels_last, non_blocking=True)
        targets = Targets(
            *(tuple(part.to(device, non_blocking=True) for part in kind) for kind in batch.targets)
        )
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            outputs = network(normalise(images))
        losses = criterion(outputs, targets)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            parts = ", ".join(f"{name} {value.item():.3g}" for name, value in losses.items())
            raise DivergenceError(
                f"the loss became {total.item()} in epoch {progress.epoch + 1}, step "
                f"{progress.step + 1} ({parts}) on pictures {list(batch.ids)}"
            )
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(scaler.scale(total))
        if settings.clip:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        scaler.step(optimizer)
        scaler.update()
        if average is not None:
            average.update(model)
        progress.step += 1
        done += 1
        for name, value in {**losses, "loss": total}.items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach()
        if done % 10 == 0:
            log.scalars(step, {f"train/{name}": v.item() for name, v in losses.items()})
            bar.set_postfix(loss=f"{total.item():.5f}")
    return {name: (value / max(done, 1)).item() for name, value in sums.items()}


def _restore(
    saved: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: Average | None,
    progress: Progress,
) -> None:
    try:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the checkpoint to resume does not fit this config: {str(error).splitlines()[0]}"
        ) from error
    scaler.load_state_dict(saved["scaler"])
    if average is not None and saved["average"] is not None:
        average.steps = saved["average"][0]
        for name, value in saved["average"][1].items():
            average.state[name].copy_(value)
    vars(progress).update(saved["progress"])
