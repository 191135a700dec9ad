"""``higherhrnet ablate``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..evaluation.evaluator import format_metric
from ..research.ablation.main import run_ablation
from ..research.ablation.plan import read_plan
from ..training.signals import StoppedError


def ablate(options: argparse.Namespace) -> int:
    """Run a plan and write its report."""
    plan = read_plan(options.plan)
    output = options.output or Path("output") / plan.title
    command = " ".join(["higherhrnet", *sys.argv[1:]])
    try:
        results = run_ablation(
            plan, output, options.overrides, options.device, options.processes, command
        )
    except StoppedError as error:
        print(f"higherhrnet: {error.reason}; the same command continues the plan", file=sys.stderr)
        return 128 + error.signal
    width = max(len(row.name) for row in results.evaluations)
    for row in results.evaluations:
        print(f"  {row.name:{width}s}  AP {format_metric(row.metrics['AP'])}")
    print(f"report.md, report.json, tables and plots in {output}")
    return 0
