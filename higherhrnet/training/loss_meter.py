"""Losses on their way from the device: summed for the log, looked at for NaN, rarely fetched.

Reading a number back makes the host wait for the device. Losses are therefore kept there and
fetched together every few steps; the ids of the images are remembered meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..distributed import ProcessGroup
from ..errors import RunError


class DivergenceError(RunError):
    """The loss is not a number any more."""


class LossMeter:
    """Collects each step's named losses.

    Attributes:
        sums: sum of every named loss over the epoch's steps, mean over processes.
        steps: how many steps the sums hold.
        curve: this epoch's total losses, step by step.
    """

    def __init__(self, group: ProcessGroup, sums: Mapping[str, float], steps: int) -> None:
        self._group = group
        self.sums = dict(sums)
        self.steps = steps
        self.curve: list[float] = []
        self._waiting: list[tuple[int, int, list[Any], dict[str, torch.Tensor]]] = []

    def add(
        self, epoch: int, step: int, ids: list[Any], losses: Mapping[str, torch.Tensor]
    ) -> None:
        """One step's losses and the images they came from; nothing is fetched."""
        self._waiting.append((epoch, step, ids, dict(losses)))

    def fetch(self) -> dict[str, float]:
        """Bring what is waiting to the host; returns the last step's losses. All processes ask.

        Raises:
            DivergenceError: a loss is NaN or infinite; the sentence names step and images.
        """
        if not self._waiting:
            return {}
        names = list(self._waiting[0][3])
        rows = torch.stack([torch.stack(list(losses.values())) for *_, losses in self._waiting])
        values = rows.float().cpu()
        bad = [i for i, row in enumerate(values.sum(dim=1)) if not torch.isfinite(row)]
        if self._group.any(bool(bad)):
            said = self._group.gather(
                (bad[0], self._sentence(values, names, bad[0])) if bad else None
            )
            raise DivergenceError(min(entry for entry in said if entry is not None)[1])
        values = self._group.mean(values)
        self._waiting.clear()
        self.steps += len(values)
        for name, total in zip(names, values.double().sum(dim=0).tolist(), strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + total
        self.curve += values.sum(dim=1).tolist()
        return dict(zip(names, values[-1].tolist(), strict=True))

    def means(self) -> dict[str, float]:
        """Mean of every named loss, and their sum as ``loss``."""
        means = {name: total / max(self.steps, 1) for name, total in self.sums.items()}
        return {**means, "loss": sum(means.values())} if means else {}

    def _sentence(self, values: torch.Tensor, names: list[str], row: int) -> str:
        epoch, step, ids, _ = self._waiting[row]
        parts = ", ".join(
            f"{name} {value:.3g}" for name, value in zip(names, values[row].tolist(), strict=True)
        )
        return (
            f"the loss became {values[row].sum().item()} in epoch {epoch + 1}, step {step + 1} "
            f"({parts}) on images {ids}"
        )
