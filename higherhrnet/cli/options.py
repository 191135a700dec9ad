"""Options that several commands share. Nothing heavy is imported: ``--help`` is immediate."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import types

DEFAULT_WEIGHTS = "higherhrnet_w18_mini"
TAIL = "KEY VALUE pairs change settings of the config, e.g. TEST.FLIP_TEST False."
CONFIG_HELP = "YAML file, or a name (higherhrnet configs list) like coco/higherhrnet_w32_512"
Commands = Any
"""What ``ArgumentParser.add_subparsers`` returns."""


def offline_option() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--offline", action="store_true", help="download nothing; say where files can be found"
    )
    return parser


def device_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, parents=[offline_option()])
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    parser.add_argument("--verbose", action="store_true", help="say what was chosen, and why")
    return parser


def gpu_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, parents=[output_options()])
    parser.add_argument(
        "--gpus", type=types.positive, metavar="N", help="N processes, one a GPU (by torchrun)"
    )
    parser.add_argument(
        "--restarts", type=types.whole, default=0, metavar="N",
        help="with --gpus: start all anew, up to N times, when one is lost; training goes on from "
        "its last checkpoint",
    )  # fmt: skip
    return parser


def output_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, parents=[device_options()])
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for what is written (default below output/)",
    )
    return parser


def add_weights(
    parser: argparse.ArgumentParser, required: bool = False, default: str | None = DEFAULT_WEIGHTS
) -> None:
    parser.add_argument(
        "--weights",
        required=required,
        default=None if required else default,
        metavar="FILE_OR_NAME",
        help=f"weights file, or a name (higherhrnet weights list) like {DEFAULT_WEIGHTS}",
    )


def add_preset(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("--preset", choices=("fast", "balanced", "accurate"), help=help)


def declare_verbs(
    commands: Commands, name: str, help: str, function: str, settings: bool = False
) -> Callable[..., argparse.ArgumentParser]:
    """A command of several verbs, each run by its own function in ``cli/NAME.py``.

    Args:
        commands: where it is added.
        name, help: of the command.
        function: name of a verb's function, with ``{}`` for the verb.
        settings: whether verbs take ``KEY VALUE`` pairs, unless one says otherwise.

    Returns:
        ``declare(verb, settings, **options)``, which adds a verb.
    """
    parser = commands.add_parser(name, help=help)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    usual = settings

    def declare(verb: str, settings: bool = usual, **options: Any) -> argparse.ArgumentParser:
        options.setdefault("epilog", TAIL if settings else None)
        added: argparse.ArgumentParser = verbs.add_parser(verb, **options)
        added.set_defaults(module=name, function=function.format(verb), settings=settings)
        return added

    return declare
