"""``--gpus N``: a command in several processes, one a GPU."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from ..errors import UserError
from ..launch import start_processes


def start_several(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Become the launcher of ``--gpus N`` processes; returns where one process is wanted, or this
    is one of them already.

    Raises:
        UserError: there are fewer GPUs.
    """
    count = getattr(options, "gpus", None)
    if count is None:
        return
    if "WORLD_SIZE" in os.environ:
        if "TORCHELASTIC_RESTART_COUNT" in os.environ:  # one of those that were started
            return
        raise UserError(
            f"--gpus {count}: this is one of {os.environ['WORLD_SIZE']} tasks already, which share "
            "the work; start one task a GPU, or one alone with --gpus"
        )
    if options.device != "cpu":  # on a CPU they share its cores
        import torch

        there = torch.cuda.device_count()
        if there < count:
            raise UserError(
                f"--gpus {count}: this machine has {there} GPUs; with --device cpu so many "
                "processes share its cores"
            )
    if count > 1:
        start_processes(arguments, count, options.restarts)
