"""``export`` of segmentation networks, detectors and classifiers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..config import read_config
from ..distributed import ProcessGroup
from ..errors import UserError
from ..export.exporter import FORMATS
from ..factory.checkpoints import any_config_of, open_network
from ..factory.export import export_task_network, task_calibration_batches
from ..factory.task_training import evaluate
from ..factory.tasks import load_task, open_test_set
from ..inference.engines.export_info import TaskExportInfo
from ..io.images import read_image
from ..models.weights import Checkpoint
from .export import check_options, describe_change, describe_file, find_calibration_images
from .tasks import refuse


def export_task(options: argparse.Namespace, file: Checkpoint) -> int:
    """Write a network for another runtime, and say what that costs."""
    refuse(options, ("flip", "decode", "preset"))
    if options.to not in FORMATS:
        raise UserError("networks without poses are exported --to onnx, openvino or torch_export")
    target = check_options(options, file)
    exact = list(options.overrides)
    if hasattr(any_config_of(file), "TEST"):  # classifiers have no choice
        exact += ["TEST.PRECISION", "fp32"]
    loaded = load_task(file, torch.device("cpu"), exact)
    images = find_calibration_images(options)
    size = tuple(options.size) if options.size else None
    batches = task_calibration_batches(loaded, map(read_image, images)) if images else ()
    about = export_task_network(loaded, target, options.precision, size, batches)
    print(f"{target}: {_describe(target, about)}")
    if options.compare is not None:
        print(_compare(options.compare, exact, file, target))
    return 0


def _describe(target: Path, about: TaskExportInfo) -> str:
    size = about.size
    sides = f"H x W, multiples of {about.multiple}" if size is None else f"{size[0]} x {size[1]}"
    return (
        f"{describe_file(target, about.precision)}; images (B, H, W, 3) uint8 RGB, "
        f"{sides}; outputs {', '.join(about.outputs)}"
    )


def _compare(name: str, settings: Sequence[Any], file: Checkpoint, target: Path) -> str:
    """The main metric of the weights and of the export."""
    config = read_config(name, settings)
    values = []
    for network in (file, open_network(str(target))):
        loaded = load_task(network, torch.device("cpu"), config=config)
        test, _ = open_test_set(loaded)
        parts = evaluate(loaded.task, loaded.predict, test, ProcessGroup())
        values.append(100 * loaded.task.summarize(config, test, parts)[loaded.task.metric])
    return describe_change(loaded.task.metric, len(test), values)
