"""Types of arguments, and folders that commands write to by default."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

LABEL_FORMATS = (
    "coco", "cvat", "label_studio", "yolo", "deeplabcut", "sleap", "alphatracker"
)  # fmt: skip
"""Tools whose labels are read; :data:`datasets.importers.sources.FORMATS`, without its imports."""


def positive(text: str) -> int:
    """A whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


def whole(text: str) -> int:
    """A whole number from 0 on."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, not {text}")
    return value


def number(text: str) -> float:
    """A finite number."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, not {text}")
    return value


def above_zero(text: str) -> float:
    """A finite number above 0."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def port(text: str) -> int:
    """A TCP port; 0 takes a free one."""
    return _whole(text, 2**16 - 1)


def share(text: str) -> float:
    """0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be in 0..1, not {text}")
    return value


def inner_share(text: str) -> float:
    """Above 0 and below 1."""
    value = number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and below 1, not {text}")
    return value


def seed(text: str) -> int:
    """A seed of random numbers."""
    return _whole(text, 2**32 - 1)


def _whole(text: str, most: int) -> int:
    value = int(text)
    if not 0 <= value <= most:
        raise argparse.ArgumentTypeError(f"must be in 0..{most}, not {text}")
    return value


def side(text: str) -> int:
    """The side of a network's input."""
    value = positive(text)
    if value % 64:
        raise argparse.ArgumentTypeError(f"must be a multiple of 64, not {text}")
    return value


def default_output(config: str) -> Path:
    """Where a command that was given a config writes: ``output/coco/NAME`` for
    ``configs/coco/NAME.yaml``."""
    from ..config.library import find_bundled

    path = Path(config)
    if not path.is_file():
        path = find_bundled(path) or path
    if path.name == "config.yaml":
        if any((path.parent / name).exists() for name in ("log.jsonl", "last.pth")):
            # Training wrote it beside its checkpoint; further results belong there too.
            return path.parent
        return Path("output", path.parent.resolve().name)  # of a data set
    folders = Path(os.path.normpath(path.parent)).parts[::-1]
    below = folders[: folders.index("configs")][::-1] if "configs" in folders else ()
    return Path("output", *below, path.stem)
