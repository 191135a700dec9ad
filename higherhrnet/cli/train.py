"""``higherhrnet train``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..config import Config, PoseConfig, override_config, read_config
from ..distributed import is_main_process
from ..errors import UserError
from ..evaluation.evaluator import format_metric
from ..factory.checkpoints import open_checkpoint
from ..factory.device import choose_device
from ..factory.training import train as train_poses
from ..io.paths import expand_weights
from . import types


def train(options: argparse.Namespace) -> int:
    """Train, or estimate what a training needs."""
    config = read_config(options.config, options.overrides)
    output = options.output or types.default_output(options.config)
    keys = options.overrides[::2]
    if config.TRAIN.MINUTES and "TRAIN.END_EPOCH" in keys:
        if "TRAIN.MINUTES" in keys:
            raise UserError("TRAIN.MINUTES and TRAIN.END_EPOCH are exclusive: give one of them")
        print(f"TRAIN.END_EPOCH instead of the config's TRAIN.MINUTES {config.TRAIN.MINUTES:g}")
        config = override_config(config, ["TRAIN.MINUTES", 0])
    if not isinstance(config, PoseConfig):
        return _train_task(config, output, options)
    if options.plan:
        _print_plan(config, options.device)
        return 0
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 and not options.resume:
        from ..research.training_plan import tell_hours

        if config.MODEL.PRETRAINED:  # before time is spent on measuring
            open_checkpoint(expand_weights(config.MODEL.PRETRAINED, "MODEL.PRETRAINED"))
        if hours := tell_hours(config, choose_device(options.device)):
            print(hours)
    run = train_poses(config, output, options.device, options.resume)
    if is_main_process():
        best_file = output / "best.safetensors"
        print(f"best {run.metric} {format_metric(run.best)}; weights in {best_file}")
    return 0


def _train_task(config: Config, output: Path, options: argparse.Namespace) -> int:
    from ..factory.task_training import train_task
    from ..tasks.base import get_task

    if options.plan:
        raise UserError(f"--plan is for pose networks, and this config is for {config.method}")
    run = train_task(config, output, options.device, options.resume)
    if is_main_process():
        best_file = output / get_task(config.method).best_file
        print(f"best {run.metric} {format_metric(run.best)}; weights in {best_file}")
    return 0


def _print_plan(config: PoseConfig, device_name: str) -> None:
    from ..research import training_plan
    from ..research.bench.table import describe_hardware, print_table

    device = choose_device(device_name)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    lines, rows = training_plan.plan_training(config, device, processes)
    print("\n".join(lines))
    print_table("plan", rows, describe_hardware(device))
