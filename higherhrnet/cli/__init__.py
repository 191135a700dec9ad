"""Multi-person keypoint estimation: HigherHRNet, trained, validated and used from one command."""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from .. import __version__
from ..errors import RunError, UserError, WriteError
from ..models import published
from ..training.stop import StoppedError
from . import ablate, bench, data, predict, train, valid, weights

_KEY = re.compile(r"(MODEL|DATASET|TOY|LOSS|TRAIN|TEST)\.[A-Z_0-9]+")

_SURROUNDINGS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""What a disk says when it is full, or gone: nobody's bug."""
_LESS_MEMORY = "Set TEST.BATCH, TEST.CROPS, DATASET.INPUT_SIZE or TEST.SCALES lower"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 failed while running, 2 wrong input."""
    status = _run(arguments)
    if dist.is_available() and dist.is_initialized():  # a training on GPUs that failed
        # Python's own way out would take down NCCL, which waits for processes that wait for us.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _run(arguments: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):  # file names that a terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words, overrides = split_overrides(sys.argv[1:] if arguments is None else arguments)
    wrong = _slip(overrides)
    if wrong:  # before what the shell cut off is taken for something else
        print(f"higherhrnet: {wrong}", file=sys.stderr)
        return 2
    options = _parser().parse_args(words)
    options.overrides = overrides
    if getattr(options, "offline", False):
        os.environ[published.OFFLINE] = "1"
    try:
        if overrides and not getattr(options, "settings", True):
            raise UserError(f"this command has no config, so '{overrides[0]}' changes nothing")
        status: int = options.run(options)
        return status
    except UserError as error:
        print(f"higherhrnet: {error}", file=sys.stderr)
        return 2
    except (RunError, WriteError) as error:
        print(f"higherhrnet: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in _SURROUNDINGS:
            raise  # a bug; a closed pipe is dealt with in __main__
        print(f"higherhrnet: {error.strerror}: {error.filename or 'an open file'}", file=sys.stderr)
        return 1
    except torch.OutOfMemoryError as error:
        advice = getattr(options, "less_memory", _LESS_MEMORY)
        print(f"higherhrnet: {str(error).splitlines()[0]} {advice}", file=sys.stderr)
        return 1
    except MemoryError:
        advice = getattr(options, "less_memory", _LESS_MEMORY)
        print(f"higherhrnet: there is not enough memory. {advice}", file=sys.stderr)
        return 1
    except StoppedError as error:
        print(f"higherhrnet: {error}", file=sys.stderr)
        return 128 + error.signal
    except predict.TerminatedError:
        print("higherhrnet: ended by SIGTERM", file=sys.stderr)
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        print("higherhrnet: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take ``SECTION.KEY VALUE`` pairs out of the command line, wherever they stand."""
    rest: list[str] = []
    overrides: list[str] = []
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        if _KEY.fullmatch(word) and not Path(word).is_file():  # TEST.JPG is a picture
            overrides += [word, *remaining[:1]]
            del remaining[:1]
        else:
            rest.append(word)
    return rest, overrides


def _slip(overrides: Sequence[str]) -> str:
    """What is wrong with settings before their meaning is looked at; empty if nothing is."""
    for key, value in zip(overrides[::2], overrides[1::2], strict=False):
        if value.startswith("[") and "]" not in value:
            return f"{key}: '{value}' is part of a list; put the whole list in quotes"
    return f"'{overrides[-1]}' has no value" if len(overrides) % 2 else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="higherhrnet",
        description=__doc__,
        epilog="Settings are changed by KEY VALUE pairs anywhere, e.g. TEST.FLIP False.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    for verb in (train, valid, predict, ablate, weights, data, bench):
        verb.add(verbs)
    return parser
