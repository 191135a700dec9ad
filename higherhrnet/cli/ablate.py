"""``higherhrnet ablate``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..ablation import plan, study
from ..evaluation.results import shown
from ..training.stop import StoppedError
from . import arguments


def add(verbs: arguments.Verbs) -> None:
    """Declare the command."""
    ablate = verbs.add_parser(
        "ablate",
        parents=[arguments.where()],
        epilog=arguments.TAIL,
        help="train and compare what a plan lists, and report why they differ",
    )
    ablate.add_argument("plan", type=Path, metavar="PLAN", help="configs/ablation/*.yaml")
    ablate.add_argument(
        "--processes",
        type=arguments.positive,
        default=1,
        metavar="N",
        help="runs at the same time (default 1)",
    )
    ablate.set_defaults(run=_ablate)


def _ablate(options: argparse.Namespace) -> int:
    wanted = plan.read_plan(options.plan)
    output = options.output or Path("output") / options.plan.stem
    command = " ".join(["higherhrnet", *sys.argv[1:]])
    try:
        found = study.run(
            wanted, output, options.overrides, options.device, options.processes, command
        )
    except StoppedError as error:
        print(
            f"higherhrnet: {error.reason}; the same command goes on where it stopped",
            file=sys.stderr,
        )
        return 128 + error.signal
    width = max(len(row.name) for row in found.rows)
    for row in found.rows:
        print(f"  {row.name:{width}s}  AP {shown(row.metrics['AP'])}")
    print(f"report.md, report.json, tables and plots in {output}")
    return 0
