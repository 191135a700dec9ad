"""Parameter groups, learning rates as functions of the step, and an average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ..errors import UserError

ScheduleKind = Literal["multistep", "cosine"]


@dataclass(frozen=True)
class Schedule:
    """Warm-up, then steps down or a cosine.

    Attributes:
        kind: ``multistep`` (published) or ``cosine``.
        base: learning rate after warm-up.
        epochs: length of the whole training.
        milestones: epochs after which a multi-step rate is multiplied by ``factor``.
        factor: of each milestone.
        warmup: length of the linear start, in steps.
    """

    kind: ScheduleKind
    base: float
    epochs: int
    milestones: Sequence[int] = ()
    factor: float = 0.1
    warmup: int = 0

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of a step, counted from 0 over all epochs."""
        warm = min(1.0, (step + 1) / (self.warmup + 1))
        if self.kind == "cosine":
            done = min(step / max(self.epochs * steps_per_epoch, 1), 1.0)
            return self.base * warm * 0.5 * (1 + math.cos(math.pi * done))
        passed = sum(step // steps_per_epoch >= milestone for milestone in self.milestones)
        rate: float = self.base * warm * self.factor**passed
        return rate


def groups(model: nn.Module, factors: Mapping[str, float]) -> list[dict[str, Any]]:
    """Parameter groups for layer-wise learning rates.

    Frozen parameters are in them too: an optimiser passes over what has no gradient, and they
    may be freed later.

    Args:
        factors: prefix of parameter names → factor on the learning rate; the longest prefix that
            fits counts, and names that none fits have factor 1.

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
    return [{"params": parameters, "scale": factor} for factor, parameters in chosen.items()]


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


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the rate times its own ``scale``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)


class Average:
    """Exponential moving average of a model's parameters and buffers.

    Args:
        model: the model to follow.
        decay: weight of the past; smaller during the first steps, (1 + n) / (10 + n).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step towards the model."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        followed = model.state_dict()
        floating = [name for name, value in followed.items() if value.is_floating_point()]
        counts = followed.keys() - set(floating)
        torch._foreach_lerp_(
            [self.state[name] for name in floating],
            [followed[name] for name in floating],
            1 - decay,
        )
        if counts:
            torch._foreach_copy_(
                [self.state[name] for name in counts], [followed[name] for name in counts]
            )
