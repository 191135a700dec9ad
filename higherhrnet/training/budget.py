"""Training for a given time instead of a number of epochs."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

_log = logging.getLogger(__name__)
_PACE_STEPS = 20
"""Steps after which the pace is told."""


@dataclass
class TimeBudget:
    """How much of a training's time is over: the learning rate follows it, and it ends the run.

    The clock of the schedule starts after the first step, which may compile the network.

    Attributes:
        seconds: of the whole training, with validation at the end and with earlier runs that
            this one resumes.
        reserve: seconds that are left for validation and the last checkpoint.
        started: ``time.monotonic()`` when the run began.
        fraction: share of the schedule that is over, 0..1; the same in all processes.
        spent: seconds of earlier runs.
    """

    seconds: float
    reserve: float = 0.0
    started: float = field(default_factory=time.monotonic)
    fraction: float = 0.0
    spent: float = 0.0
    _first: tuple[float, float] | None = None
    _steps: int = 0

    @property
    def used(self) -> float:
        """Seconds of this and earlier runs."""
        return self.spent + time.monotonic() - self.started

    def advance(self) -> float:
        """After a step: the fraction as this process sees it; all are to take the largest."""
        self._steps += 1
        used = self.used
        if self._first is None:
            self._first = used, self.fraction
        begun, fraction = self._first
        left = self.seconds - self.reserve - begun
        if left <= 0:
            return 1.0
        return min(fraction + (1 - fraction) * (used - begun) / left, 1.0)

    def pace(self) -> float | None:
        """Seconds a step, once; when enough steps are done to tell."""
        if self._first is None or self._steps != _PACE_STEPS + 1:
            return None
        return (self.used - self._first[0]) / _PACE_STEPS

    def tell_pace(self, batch_size: int, steps_per_epoch: int) -> None:
        """Log the pace and what it allows for, once."""
        pace = self.pace()
        if pace is None:
            return
        left = max(self.seconds - self.reserve - self.used, 0.0)
        steps = self._steps + left / pace
        _log.info(
            "TRAIN.MINUTES: %.1f images/s; about %.1f epochs fit, with %.0f s for validation",
            batch_size / pace, steps / steps_per_epoch, self.reserve,
        )  # fmt: skip
