"""The command ``higherhrnet``: one module a subcommand, imported when it is called."""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from ..errors import RunError, UserError, WriteError, lack_of
from ..launch import adopt_slurm
from .overrides import check_overrides, split_overrides, suggest_setting
from .parser import build_parser
from .processes import start_several
from .suggestions import refuse_options

_ENVIRONMENT = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM,
    errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR,
)  # fmt: skip
"""What a disk reports when it is full, gone or closed to this user: no bug."""
_LESS_MEMORY = (
    "Set TEST.BATCH_SIZE, TEST.CROPS_PER_BATCH, DATASET.INPUT_SIZE or TEST.SCALE_FACTOR lower"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 failed while running, 2 wrong input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "OMP_WAIT_POLICY" not in os.environ:
        # GNU OpenMP's threads spin until all have done their part: beside one other busy process
        # on two cores the network takes 30 times as long. This short a spin costs nothing on an
        # idle machine, unlike a passive wait (40 %).
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    for stream in (sys.stdout, sys.stderr):  # file names that a terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words, overrides = split_overrides(arguments)
    wrong = check_overrides(overrides)
    if wrong:  # before what the shell cut off is taken for something else
        print(f"higherhrnet: {wrong}", file=sys.stderr)
        return 2
    options = _parse(words)
    options.overrides = overrides
    if getattr(options, "offline", False):
        os.environ["HIGHERHRNET_OFFLINE"] = "1"
    try:
        if overrides and not getattr(options, "settings", True):
            raise UserError(f"this command has no config, so '{overrides[0]}' changes nothing")
        from .messages import configure_logging

        configure_logging(getattr(options, "verbose", False))
        adopt_slurm()
        start_several(options, arguments)
        command = getattr(import_module(f".{options.module}", __name__), options.function)
        status: int = command(options)
        return status
    except (Exception, KeyboardInterrupt) as error:
        found = _explain(error, getattr(options, "less_memory", _LESS_MEMORY))
        if found is None:
            raise
        status, message = found
        print(f"higherhrnet: {message}", file=sys.stderr)
        return status


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = build_parser()
    options, unknown = parser.parse_known_args(words)
    if unknown:
        hint = next((hint for word in unknown if (hint := suggest_setting(word))), "")
        if hint:
            parser.error(hint)
        refuse_options(parser, words, unknown)
    return options


def _explain(error: BaseException, less_memory: str) -> tuple[int, str] | None:
    """Exit status and sentence of an error that is no bug; None for those that keep their
    traceback."""
    from ..training.signals import StoppedError

    torch = sys.modules.get("torch")
    if isinstance(error, UserError):
        return 2, str(error)
    if isinstance(error, RunError | WriteError):
        return 1, str(error)
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT:
        return 1, f"{error.strerror}: {error.filename or 'an open file'}"
    lack = lack_of(error)
    if lack == "memory" and torch and isinstance(error, torch.OutOfMemoryError):
        return 1, f"{str(error).splitlines()[0]} {less_memory}"
    if lack == "memory":
        return 1, f"there is not enough memory. {less_memory}"
    if lack == "threads":
        return 1, (
            "the system starts no more threads or processes. Set TEST.WORKERS, TRAIN.WORKERS or "
            "OMP_NUM_THREADS lower"
        )
    if isinstance(error, StoppedError):
        return 128 + error.signal, str(error)
    if isinstance(error, KeyboardInterrupt):
        if type(error) is KeyboardInterrupt:
            return 128 + signal.SIGINT, "interrupted"
        return 128 + signal.SIGTERM, "ended by SIGTERM"  # predict.TerminatedError
    return None
