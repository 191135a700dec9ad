"""``higherhrnet train``."""

from __future__ import annotations

import argparse
import os

from .. import build
from ..bench import plan, table
from ..config import read_config
from ..evaluation.results import shown
from ..training.distributed import is_main_process
from . import arguments


def add(verbs: arguments.Verbs) -> None:
    """Declare the command."""
    train = verbs.add_parser(
        "train",
        parents=[arguments.where()],
        epilog=arguments.TAIL,
        help="train what a config describes",
    )
    train.add_argument("config", metavar="CONFIG")
    train.add_argument("--resume", action="store_true", help="go on from DIR/last.pth")
    train.add_argument(
        "--plan", action="store_true", help="say what it needs (memory, work) and train nothing"
    )
    train.set_defaults(
        run=_train,
        less_memory="Set TRAIN.MICRO_BATCH lower or TRAIN.CHECKPOINTING True; higherhrnet train "
        "CONFIG --plan shows what fits",
    )


def _train(options: argparse.Namespace) -> int:
    config = read_config(options.config, options.overrides)
    if options.plan:
        on = build.device(options.device)
        lines, rows = plan.run(config, on, int(os.environ.get("WORLD_SIZE", "1")))
        print("\n".join(lines))
        table.show("plan", rows, table.hardware(on))
        return 0
    output = options.output or arguments.default_output(options.config)
    if config.MODEL.NAME == "classifier":
        best = build.pretrain(config, output, options.device, options.resume)
        if is_main_process():
            print(f"best accuracy {100 * best:.2f}; weights in {output / 'best.pth'}")
        return 0
    run = build.train(config, output, options.device, options.resume)
    if is_main_process():
        print(f"best {run.score} {shown(run.best)}; weights in {output / 'best.safetensors'}")
    return 0
