"""What prediction cost: seconds by stage, and how much the limits dropped."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass
class InferenceStats:
    """Counters that are passed along; safe to share between threads.

    Attributes:
        synchronize: a GPU that is waited for at the end of every stage, so that each stage's time
            is its own; slower. None leaves a GPU's time to the stage that first needs its result.
        seconds: time spent by stage.
        dropped: ``candidates`` of a joint beyond the most that are kept, ``people`` beyond the most
            that are wanted, ``duplicates``: people too like others.
    """

    synchronize: torch.device | None = None
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    dropped: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("candidates", "people", "duplicates"), 0)
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage."""
        start = time.perf_counter()
        yield
        if self.synchronize is not None and self.synchronize.type == "cuda":
            import torch

            torch.cuda.synchronize(self.synchronize)
        with self._lock:
            self.seconds[stage] += time.perf_counter() - start

    def count(self, **dropped: int) -> None:
        """Add to what limits dropped."""
        with self._lock:
            for what, number in dropped.items():
                self.dropped[what] += number
