"""What validation asks for beside a predictor and a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..boxes import Boxes
from ..distributed import ProcessGroup
from ..structures import Sample
from .predictor import Maps, Predictor

BoxesOf = Callable[[Sample], Boxes | None]
"""Sample → the boxes of its people; None where the predictor finds them itself."""


class Diagnostics(Protocol):
    """What else is measured during validation; the members are those of ``CocoEvaluator``."""

    def update(self, predictor: Predictor, sample: Sample, maps: Maps) -> None:
        """Add one image."""

    def gather(self, group: ProcessGroup) -> None:
        """Add what other processes measured; all must call."""

    def summarize(self) -> dict[str, float]:
        """Named values."""
