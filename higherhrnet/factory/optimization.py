"""Config → what a training changes weights with: optimizer, schedule, average, callbacks."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..config import Config
from ..errors import UserError
from ..models.precision import disable_tf32
from ..training import loop, optim
from ..training.budget import TimeBudget
from ..training.callbacks import (
    BestCheckpoint,
    Callback,
    Curves,
    EarlyStopping,
    Logging,
    PeriodicCheckpoint,
)
from ..training.logger import RunLog

_BUDGET_EMA_DECAY = 0.998


def prepare_for_training(config: Config, model: nn.Module, device: torch.device) -> nn.Module:
    """The network with frozen parameters, and the batch norms and arithmetic of the config."""
    t = config.TRAIN
    if device.type == "cuda" and t.PRECISION == "fp32":
        disable_tf32()
    try:
        optim.freeze(model, t.FREEZE)
    except UserError as error:
        raise UserError(f"config key 'TRAIN.FREEZE': {error}") from error
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError("config key 'TRAIN.FREEZE' leaves nothing to train")
    if t.BN_MODE == "sync":
        if device.type != "cuda":
            raise UserError(f"config key 'TRAIN.BN_MODE': sync needs GPUs, not '{device}'")
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted
    return model


def build_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """Adam as published for poses, or SGD with momentum as for all else."""
    t = config.TRAIN
    factors = {}
    for entry in t.LR_MULT:
        prefix, _, factor = entry.rpartition(" ")
        try:
            factors[prefix.strip()] = float(factor)
        except ValueError as error:
            raise UserError(
                f"config key 'TRAIN.LR_MULT' lists 'PREFIX FACTOR', not '{entry}'"
            ) from error
        if not 0 <= factors[prefix.strip()] < math.inf:
            raise UserError(f"config key 'TRAIN.LR_MULT': '{entry}' is no factor for a rate")
    try:
        parameters = optim.group_parameters(model, t.LR, factors)
    except UserError as error:
        raise UserError(f"config key 'TRAIN.LR_MULT': {error}") from error
    if t.OPTIMIZER == "adam":
        return torch.optim.Adam(parameters, lr=t.LR, weight_decay=t.WEIGHT_DECAY, fused=True)
    return torch.optim.SGD(
        parameters, lr=t.LR, momentum=t.MOMENTUM, nesterov=t.NESTEROV and t.MOMENTUM > 0,
        weight_decay=t.WEIGHT_DECAY, fused=True,
    )  # fmt: skip


def build_scheduler(
    config: Config,
    optimizer: torch.optim.Optimizer,
    steps_per_epoch: int,
    budget: TimeBudget | None = None,
) -> torch.optim.lr_scheduler.LambdaLR:
    """The config's learning rate schedule, over its epochs or its time."""
    t = config.TRAIN
    return optim.build_scheduler(
        optimizer, t.LR_SCHEDULER, steps_per_epoch, t.END_EPOCH, t.LR_STEP, t.LR_FACTOR,
        t.WARMUP_STEPS, None if budget is None else lambda: budget.fraction,
    )  # fmt: skip


def build_ema(config: Config, model: nn.Module) -> optim.ModelEma | None:
    """The config's average of the weights; a training by time has one, as it may end early."""
    t = config.TRAIN
    decay = t.EMA_DECAY or (_BUDGET_EMA_DECAY if t.MINUTES else 0.0)
    return optim.ModelEma(model, decay) if decay else None


def build_callbacks(config: Config, log: RunLog | None, best: BestCheckpoint) -> list[Callback]:
    """What happens beside the steps; ``log`` is the main process's."""
    written: list[Callback] = [] if log is None else [Logging(log)]
    drawn: list[Callback] = [] if log is None else [Curves(log)]
    t = config.TRAIN
    ended: list[Callback] = [EarlyStopping()] if t.EARLY_STOPPING else []
    return [best, *written, PeriodicCheckpoint(t.SAVE_EVERY, t.KEEP_CHECKPOINTS), *drawn, *ended]


def build_settings(config: Config, device: torch.device, metric: str) -> loop.Settings:
    """How the loop runs."""
    t = config.TRAIN
    if t.CUDA_GRAPHS and device.type != "cuda":
        raise UserError(f"config key 'TRAIN.CUDA_GRAPHS' needs a GPU, not '{device}'")
    return loop.Settings(
        epochs=t.END_EPOCH,
        device=device,
        precision=t.PRECISION,
        grad_clip_norm=t.GRAD_CLIP_NORM,
        validate_every=t.VALIDATE_EVERY,
        metric=metric,
        compile=t.COMPILE,
        cuda_graphs=t.CUDA_GRAPHS,
        freeze_bn=t.BN_MODE == "frozen",
        unfreeze_epoch=t.UNFREEZE_EPOCH,
        early_stopping=t.EARLY_STOPPING,
    )
