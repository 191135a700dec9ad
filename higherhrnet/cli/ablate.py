"""``higherhrnet ablate``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..config.library import find_config
from ..evaluation.evaluator import format_metric
from ..research.ablation.main import run_ablation
from ..research.ablation.plan import read_plan
from ..research.ablation.search import run_search
from ..research.ablation.search_plan import Search, read_search
from ..training.signals import StoppedError


def _search(search: Search, options: argparse.Namespace) -> int:
    output = options.output or Path("output") / search.title
    try:
        results = run_search(search, output, options.overrides, options.device, options.processes)
    except StoppedError as error:
        print(f"higherhrnet: {error.reason}; the same command goes on", file=sys.stderr)
        return 128 + error.signal
    for trial in results.trials[:5]:
        shown = "none" if trial.metric is None else format_metric(trial.metric)
        words = ", ".join(f"{key} {value}" for key, value in trial.values.items())
        print(f"  trial {trial.number}: {results.metric} {shown}  {words}")
    print(f"search.md, search.json, search.png and best.yaml in {output}")
    return 0


def ablate(options: argparse.Namespace) -> int:
    """Run a plan and write its report."""
    path = find_config(options.plan, "ablation plan")
    search = read_search(path)
    if search is not None:
        return _search(search, options)
    plan = read_plan(path)
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
