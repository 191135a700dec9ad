"""The command line: five verbs on one program."""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import build
from .config import read_config
from .training.loop import DivergenceError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 failed while running, 2 wrong input."""
    words, overrides = split_overrides(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words)
    options.overrides = overrides
    try:
        status: int = options.run(options)
        return status
    except ValueError as error:
        print(f"higherhrnet: {error}", file=sys.stderr)
        return 2
    except (DivergenceError, OSError) as error:
        print(f"higherhrnet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("higherhrnet: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


_KEY = re.compile(r"[A-Z]+\.[A-Z_0-9]+")


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take ``SECTION.KEY VALUE`` pairs out of the command line, wherever they stand."""
    rest: list[str] = []
    overrides: list[str] = []
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        if _KEY.fullmatch(word):
            overrides += [word, *remaining[:1]]
            del remaining[:1]
        else:
            rest.append(word)
    return rest, overrides


def _train(options: argparse.Namespace) -> int:
    config = read_config(options.config, options.overrides)
    output = options.output or Path("output") / Path(options.config).stem
    best = build.train(config, output, options.device, options.resume)
    print(f"best AP {100 * best:.2f}; weights in {output / 'best.safetensors'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="higherhrnet", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    train = verbs.add_parser("train", help="train what a config describes")
    train.add_argument("config", metavar="CONFIG")
    train.add_argument("--output", type=Path, metavar="DIR")
    train.add_argument("--resume", action="store_true")
    train.add_argument("--device", default="auto")
    train.set_defaults(run=_train)
    return parser
