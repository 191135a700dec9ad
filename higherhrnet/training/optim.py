"""Parameter groups, learning rate schedules, and an average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from ..errors import UserError

_POLY_POWER = 0.9


def build_scheduler(
    optimizer: torch.optim.Optimizer,
    kind: str,
    steps_per_epoch: int,
    epochs: int,
    milestones: Sequence[int] = (),
    factor: float = 0.1,
    warmup_steps: int = 0,
    fraction: Callable[[], float] | None = None,
) -> LambdaLR:
    """Linear warm-up, then steps down, a cosine, or a power of what is left.

    Call ``step()`` after every optimizer step.

    The factor of a step is computed from its number, not from the step before, so that a resumed
    run has the same rates to the last bit.

    Args:
        optimizer: its groups' rates are those after warm-up.
        kind: ``multistep`` (published), ``cosine``, or ``poly``: what is left of the training to
            the power 0.9 (HRNet's segmentation, Wang et al. 2020, sec. 5).
        steps_per_epoch: optimizer steps.
        epochs: length of the whole training.
        milestones: epochs after which a multi-step rate is multiplied by ``factor``.
        factor: of each milestone.
        warmup_steps: length of the linear start.
        fraction: how much of the training is over, 0..1, if not steps decide that; steps down come
            where their epochs would.
    """
    total = epochs * steps_per_epoch

    def multiplier(step: int) -> float:
        warm = min(1.0, (step + 1) / (warmup_steps + 1))
        at = step if fraction is None else fraction() * total
        done = min(at / max(total, 1), 1.0)
        if kind == "cosine":
            return warm * 0.5 * (1 + math.cos(math.pi * done))
        if kind == "poly":
            return float(warm * (1 - done) ** _POLY_POWER)
        passed = sum(at // max(steps_per_epoch, 1) >= milestone for milestone in milestones)
        return float(warm * factor**passed)

    return LambdaLR(optimizer, multiplier)


def group_parameters(
    model: nn.Module, lr: float, factors: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Parameter groups for layer-wise learning rates.

    Frozen parameters are in them too: an optimizer skips what has no gradient, and they may be
    trained later.

    Args:
        lr: the learning rate.
        factors: prefix of parameter names → factor on the rate; the longest prefix that fits
            counts, and names that none fits have factor 1.

    Raises:
        UserError: a prefix fits nothing.
    """
    chosen: dict[float, list[nn.Parameter]] = {}
    used: set[str] = set()
    for name, parameter in model.named_parameters():
        prefix = max((p for p in factors if name.startswith(p)), key=len, default=None)
        used.update(p for p in factors if name.startswith(p))
        factor = 1.0 if prefix is None else factors[prefix]
        chosen.setdefault(factor, []).append(parameter)
    for prefix in factors:
        if prefix not in used:
            raise UserError(f"no parameter starts with '{prefix}'")
    return [{"params": parameters, "lr": lr * factor} for factor, parameters in chosen.items()]


def freeze(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Stop training the parameters whose names start with one of the prefixes.

    Raises:
        UserError: a prefix fits nothing.
    """
    for prefix in prefixes:
        chosen = [p for name, p in model.named_parameters() if name.startswith(prefix)]
        if not chosen:
            raise UserError(f"no parameter starts with '{prefix}'")
        for parameter in chosen:
            parameter.requires_grad_(False)


class ModelEma(AveragedModel):
    """Exponential moving average of a model's parameters and buffers.

    Unlike torch's it averages from the first step on, and its count stays on the host, so that a
    step never waits for the GPU.

    Args:
        model: the model to follow; call ``update_parameters(model)`` after every step.
        decay: weight of the past; smaller during the first steps, (1 + n) / (10 + n) in step n.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take one step towards the model."""
        self.n_averaged += 1
        step = int(self.n_averaged)
        weight = min(self.decay, (1 + step) / (10 + step))
        averaged, current = self.module.state_dict(), model.state_dict()
        floating = [name for name, value in current.items() if value.is_floating_point()]
        counts = [name for name in current if name not in set(floating)]
        torch._foreach_lerp_(
            [averaged[name] for name in floating], [current[name] for name in floating], 1 - weight
        )
        if counts:  # batch norm's
            torch._foreach_copy_(
                [averaged[name] for name in counts], [current[name] for name in counts]
            )
