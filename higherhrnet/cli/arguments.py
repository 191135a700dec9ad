"""What the commands' arguments have in common."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Verbs = Any
"""What ``ArgumentParser.add_subparsers`` gives."""
Run = Callable[[argparse.Namespace], int]

DEFAULT_WEIGHTS = "higherhrnet_w18_mini"
TOP_DOWN_WEIGHTS = "hrnet_w18_mini"
TAIL = "KEY VALUE pairs change settings of the config, e.g. TEST.FLIP False."


def offline() -> argparse.ArgumentParser:
    """A parent with ``--offline``."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--offline", action="store_true", help="never fetch weights; say where they are to be had"
    )
    return parser


def device() -> argparse.ArgumentParser:
    """A parent with ``--device`` and ``--offline``."""
    parser = argparse.ArgumentParser(add_help=False, parents=[offline()])
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    return parser


def where() -> argparse.ArgumentParser:
    """A parent with ``--output`` and ``--device``."""
    parser = argparse.ArgumentParser(add_help=False, parents=[device()])
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for what is written")
    return parser


def add_weights(
    parser: argparse.ArgumentParser, required: bool = False, default: str | None = DEFAULT_WEIGHTS
) -> None:
    """``--weights``."""
    parser.add_argument(
        "--weights",
        required=required,
        default=None if required else default,
        metavar="FILE_OR_NAME",
        help=f"weights file, or a bundled name like {DEFAULT_WEIGHTS}",
    )


def positive(text: str) -> int:
    """A whole number above 0, for ``type=``."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


def number(text: str) -> float:
    """A finite number, for ``type=``."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, not {text}")
    return value


def above_zero(text: str) -> float:
    """A finite number above 0, for ``type=``."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def seed(text: str) -> int:
    """A start of random numbers, for ``type=``."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be in 0..{2**32 - 1}, not {text}")
    return value


def side(text: str) -> int:
    """The side of a network's input, for ``type=``."""
    value = positive(text)
    if value % 64:
        raise argparse.ArgumentTypeError(f"must be a multiple of 64, not {text}")
    return value


def default_output(config: str) -> Path:
    """Where a command that was given a config writes: ``configs/coco/NAME.yaml`` has its place in
    ``output/coco/NAME``."""
    path = Path(config)
    if path.name == "config.yaml":
        # What training wrote beside its checkpoint: its figures belong there too.
        return path.parent
    folders = Path(os.path.normpath(path.parent)).parts[::-1]
    below = folders[: folders.index("configs")][::-1] if "configs" in folders else ()
    return Path("output", *below, path.stem)
