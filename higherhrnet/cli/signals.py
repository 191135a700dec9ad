"""SIGTERM, the notice of a cluster or a container."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..distributed import ProcessGroup


class TerminatedError(KeyboardInterrupt):
    """SIGTERM, the notice of a cluster or a container, is treated as Ctrl-C is."""


@contextmanager
def catch_sigterm(group: ProcessGroup) -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C. Several processes end at once instead: they would wait for the one
    that is gone."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise TerminatedError

    if group.size > 1 or threading.current_thread() is not threading.main_thread():
        yield  # elsewhere Python allows no handlers
        return
    former = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
