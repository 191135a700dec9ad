"""Where the library's log messages go: information to stdout, all else to stderr."""

from __future__ import annotations

import logging
import sys


class _Terminal(logging.Handler):
    """Writes so that progress bars stay whole."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        if record.levelno <= logging.INFO:
            tqdm.write(record.getMessage(), file=sys.stdout)
            sys.stdout.flush()
        else:
            tqdm.write(f"higherhrnet: {record.getMessage()}", file=sys.stderr)

    def handleError(self, record: logging.LogRecord) -> None:
        raise


def configure_logging(verbose: bool = False) -> None:
    """Show the messages of this package on the terminal; with ``verbose`` its choices too."""
    log = logging.getLogger("higherhrnet")
    log.handlers = [_Terminal()]
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 image``, ``2 images``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
