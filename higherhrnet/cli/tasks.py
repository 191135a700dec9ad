"""``valid``, ``predict`` and ``export`` of segmentation networks, detectors and classifiers."""

from __future__ import annotations

import argparse
import logging
import os
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import torch
from tqdm import tqdm

from ..config import Config
from ..distributed import init_distributed
from ..errors import UserError
from ..evaluation.evaluator import format_metrics
from ..export.exporter import FORMATS
from ..factory.device import choose_device
from ..factory.export import TaskExportInfo, export_task_network
from ..factory.task_training import evaluate
from ..factory.tasks import TaskPredictor, load_task, open_test_set
from ..inference.inputs import describe_skipped, find_inputs, output_names, refuse_overwriting
from ..io.atomic import atomic_write, write_json
from ..io.images import read_image
from ..io.lock import lock_folder, remove_leftovers
from ..io.pixels import Image
from ..models.weights import Checkpoint

_log = logging.getLogger(__name__)


def valid_task(options: argparse.Namespace, config: Config, file: Checkpoint, output: Path) -> int:
    """Predict annotated images, print and write the metrics."""
    _refuse(options, ("preset", "calibrate", "report"))
    device = choose_device(options.device)
    with (
        init_distributed(device.type == "cuda") as group,
        lock_folder(output, "validation") if group.main else nullcontext(),
    ):
        if device.type == "cuda" and group.size > 1:
            device = torch.device("cuda", group.local_rank)
        loaded = load_task(file, device, config=config)
        test, classes = open_test_set(loaded)
        begun = time.perf_counter()
        parts = evaluate(loaded.task, loaded.predict, test, group)
        seconds = time.perf_counter() - begun
        if not group.main:
            return 0
        metrics = loaded.task.summarize(config, test, parts)
        protocol = loaded.task.describe_protocol(config)
        print(f"{len(test)} images, {len(test) / seconds:.1f} images/s; protocol:")
        print("  " + ", ".join(f"{name} {value}" for name, value in protocol.items()))
        print(format_metrics(metrics))
        written = ["metrics.json"]
        write_json(
            output / "metrics.json",
            {
                "metrics": metrics,
                "protocol": protocol,
                "weights": options.weights,
                "images": len(test),
                "classes": list(classes),
            },
        )
        if records := loaded.task.records(test, parts):
            write_json(output / "results.json", records)
            written.append("results.json")
        print(f"{' and '.join(written)} in {output}")
    return 0


def predict_task(options: argparse.Namespace, file: Checkpoint) -> int:
    """Predict and draw images; broken ones are reported and passed over."""
    _refuse(options, ("boxes", "mode", "preset", "raw", "smooth", "live", "min_score", "skip_done"))
    if "heatmaps" in options.show or not options.track:
        raise UserError(f"'{options.weights}' has no heatmaps to show, and no people to track")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("images are shared among several processes for pose networks alone")
    inputs = find_inputs(options.inputs, getattr(options, "recursive", False))
    if inputs.skipped:
        print(f"higherhrnet: {describe_skipped(inputs.skipped)}")
    if inputs.has_videos or inputs.addresses:
        raise UserError("videos, cameras and addresses are for pose networks; name image files")
    output: Path = options.output or Path("output/predict")
    loaded = load_task(file, choose_device(options.device), options.overrides)
    names = [name.removesuffix("_poses.jpg") for name in output_names(inputs.images, ".jpg")]
    drawn = [output / f"{name}{ending}" for name in names for ending in loaded.task.endings]
    refuse_overwriting([output / "predictions.json", *drawn], inputs.images)
    images: list[dict[str, Any]] = []
    failures = 0
    with lock_folder(output, "prediction", clean=False):
        remove_leftovers(output, "task prediction")
        try:
            for path, name in zip(tqdm(inputs.images, unit=" images"), names, strict=True):
                try:
                    image = read_image(path)
                    found = loaded.predict(image)
                    _draw(loaded, image, found, output / name, "none" not in options.show)
                except UserError as error:
                    about = "" if str(path) in str(error) else f"'{path}': "
                    _log.error("%s%s", about, error)
                    failures += 1
                    continue
                images.append(
                    {
                        "file_name": str(path),
                        "height": image.shape[0],
                        "width": image.shape[1],
                        **loaded.task.describe(loaded.config, found, loaded.classes),
                    }
                )
        finally:  # what was found before Ctrl-C is written
            if images:
                write_json(output / "predictions.json", loaded.task.collect(images, loaded.classes))
    noun = "image" if len(images) == 1 else "images"
    print(f"{len(images)} {noun}" + (f"; predictions.json in {output}" if images else ""))
    return 2 if failures else 0


def _draw(loaded: TaskPredictor, image: Image, found: Any, stem: Path, with_drawings: bool) -> None:
    """Write what was found as images: label maps as PNG, and drawings as JPEG."""
    drawn = loaded.task.draw(loaded.config, image, found, loaded.classes)
    for ending, pixels in drawn.items():
        if not with_drawings and ending.endswith(".jpg"):
            continue
        stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels
        file = stem.with_name(stem.name + ending)
        done, encoded = cv2.imencode(file.suffix, stored)
        if not done:
            height, width = pixels.shape[:2]
            raise UserError(f"an image of {width}x{height} pixels is too large for '{file}'")
        with atomic_write(file) as partial:
            partial.write_bytes(encoded.tobytes())


def export_task(options: argparse.Namespace, file: Checkpoint) -> int:
    """Write a network for another runtime."""
    _refuse(options, ("flip", "decode", "preset", "images", "compare"))
    if options.to not in FORMATS or options.precision == "int8":
        raise UserError(
            "networks without poses are exported --to onnx, openvino or torch_export, in fp32 or "
            "fp16"
        )
    suffix = FORMATS[options.to]
    target: Path = options.output or Path("output") / f"{file.path.stem}{suffix}"
    if target.suffix != suffix:
        raise UserError(f"a file for --to {options.to} ends in {suffix}, unlike '{target}'")
    loaded = load_task(file, torch.device("cpu"), [*options.overrides, "TEST.PRECISION", "fp32"])
    size = tuple(options.size) if options.size else None
    about = export_task_network(loaded, target, options.precision, size)
    print(f"{target}: {_describe(about)}")
    return 0


def _describe(about: TaskExportInfo) -> str:
    size = about.size
    sides = f"H x W, multiples of {about.multiple}" if size is None else f"{size[0]} x {size[1]}"
    return (
        f"{about.precision}; images (B, H, W, 3) uint8 RGB, {sides}; outputs "
        f"{', '.join(about.outputs)}"
    )


def _refuse(options: argparse.Namespace, names: tuple[str, ...]) -> None:
    """Options that mean nothing here.

    Raises:
        UserError: one of them is given.
    """
    for name in names:
        value = getattr(options, name, None)
        if value is not None and value is not False:
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option} is for pose networks, and '{options.weights}' is none")
