"""Ending a training on a signal, between two steps instead of in the middle of one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StoppedError(Exception):
    """A signal ended the training; its checkpoint is written.

    Attributes:
        signal: its number; the exit status is 128 more.
        reason: it in words.
    """

    def __init__(self, number: int) -> None:
        self.signal = number
        interrupted = number == signal.SIGINT
        self.reason = "interrupted" if interrupted else f"ended by {signal.Signals(number).name}"
        super().__init__(f"{self.reason}; a checkpoint is written, go on with --resume")

    def __reduce__(self) -> tuple[type[StoppedError], tuple[int]]:
        """Through a process boundary the number travels, not the sentence."""
        return StoppedError, (self.signal,)


class SignalHandler:
    """Remembers the signal that asked to end.

    Attributes:
        signal: its number, 0 while there was none.
    """

    def __init__(self) -> None:
        self.signal = 0

    @contextmanager
    def handling(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM (the notice of a cluster) set :attr:`signal`; a second one is obeyed
        at once. Outside the main thread Python allows no handlers, and signals are not caught."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self.signal:
                raise KeyboardInterrupt
            self.signal = number

        former = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                former[number] = signal.signal(number, handle)
        except ValueError:
            pass
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
