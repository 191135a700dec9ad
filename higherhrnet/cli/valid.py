"""``higherhrnet valid``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from ..config import PoseConfig, read_config
from ..datasets.base import PoseDataset
from ..datasets.stats import crowding
from ..distributed import init_distributed
from ..errors import UserError
from ..evaluation import error_analysis, report
from ..evaluation.evaluator import format_metric, format_metrics
from ..evaluation.operating_point import OperatingPoint, calibrate
from ..factory.checkpoints import config_of, open_network
from ..factory.data import build_dataset, find_skeleton, report_findings
from ..factory.device import choose_device
from ..factory.evaluation import run_validation
from ..factory.inference import build_predictor
from ..factory.presets import (
    SAME_SCORES,
    describe_settings,
    preset_overrides,
    preset_settings,
)
from ..inference.stats import InferenceStats
from ..inference.validation import Validation
from ..io.atomic import write_json
from ..io.lock import lock_folder
from ..methods.base import method_of
from ..models.model_zoo import BUNDLED
from ..models.weights import Checkpoint, write_operating_point
from ..visualization import contact_sheet, save_image
from . import types


def valid(options: argparse.Namespace) -> int:
    """Predict annotated images, print and write the metrics."""
    config = read_config(options.config, options.overrides)
    output = options.output or types.default_output(options.config)
    file = open_network(options.weights)
    if not isinstance(config, PoseConfig):
        from .tasks import valid_task

        return valid_task(options, config, file, output)
    preset: dict[str, Any] = {}
    if options.preset is not None:
        preset = preset_settings(file, options.preset)
        settings = preset_overrides(file, options.preset)
        config = read_config(options.config, [*settings, *options.overrides])
    method = method_of(config)
    assert isinstance(config, PoseConfig)
    if options.calibrate:
        _check_calibration(file)
    # Weights know their joints; a file's are brought into their order.
    own = file.skeleton if config.DATASET.SKELETON == "auto" else None
    skeleton = own or find_skeleton(config, "test")
    device = choose_device(options.device)
    stats = InferenceStats()
    with (
        init_distributed(device.type == "cuda") as group,
        lock_folder(output, "validation") if group.main else nullcontext(),
    ):
        if device.type == "cuda" and group.size > 1:
            device = torch.device("cuda", group.local_rank)
        predictor, loaded = build_predictor(config, file, skeleton, device)
        if group.main:
            print(f"{file.path}: {loaded}")
        dataset = build_dataset(config, "test", skeleton)
        report_findings(config, test=dataset)
        result = run_validation(config, predictor, dataset, group=group, stats=stats)
        counts = group.total([*stats.dropped.values()])
        if not group.main:
            return 0
        dropped = dict(zip(stats.dropped, counts, strict=True))
        point = calibrate(
            result.poses, dataset.annotations, dataset.skeleton, config.TEST.DISPLAY_PRECISION
        )
        protocol = method.describe_protocol(config)
        _write(output, protocol, options.weights, result, len(dataset), dropped, point)
        _print(result, len(dataset), protocol)
        _tell_other_protocol(file, options.preset, protocol)
        limits = [
            *method.describe_dropped(config, dropped),
            f"{result.detections_beyond_limit} people beyond the 20 an image that COCO's "
            "evaluation uses",
        ]
        print(f"  dropped: {', '.join(limits)}")
        print(f"  operating point for images: {point}")
        if options.calibrate:
            measured = describe_settings(config, options.overrides, preset)
            write_operating_point(file.path, point.to_dict(), options.preset, measured)
            what = f"preset {options.preset}" if options.preset else "the operating point"
            print(f"{what} was written into {file.path}")
        if options.report:
            title = f"{options.weights} on {config.DATASET.TEST}"
            _write_report(output, title, result, dataset, config.TEST.EVALUATION, point)
            print(f"report.md, report.png, keypoint_errors.csv and worst.jpg in {output}")
        print(f"results.json and metrics.json in {output}")
        return 0


def _tell_other_protocol(
    file: Checkpoint, preset: str | None, protocol: Mapping[str, object]
) -> None:
    """Say in what the config's test settings are not those that the file predicts with."""
    if file.config is None or preset is not None:
        return
    own = config_of(file)
    differ = [
        f"{key} {value}"
        for key, value in method_of(own).describe_protocol(own).items()
        if protocol.get(key) != value and key not in SAME_SCORES
    ]
    if differ:
        print(f"  note: by itself (predict) the file has {', '.join(differ)}")


def _check_calibration(file: Checkpoint) -> None:
    if file.path.resolve().parent == BUNDLED.resolve():
        raise UserError(
            f"--calibrate writes into the weights file, but '{file.path}' belongs to the package; "
            "give a copy of it"
        )
    if file.config is None or file.path.suffix != ".safetensors":
        raise UserError(
            f"'{file.path}' cannot hold an operating point; convert it first: higherhrnet weights "
            f"convert {file.path} {file.path.with_suffix('')}_native.safetensors"
        )


def _write(
    output: Path,
    protocol: Mapping[str, object],
    name: str,
    result: Validation,
    images: int,
    dropped: Mapping[str, int],
    point: OperatingPoint,
) -> None:
    records = result.records
    write_json(output / "results.json", records)
    write_json(
        output / "metrics.json",
        {
            "metrics": result.metrics,
            "diagnostics": result.diagnostics,
            "protocol": protocol,
            "weights": name,
            "images": images,
            "people": len(records),
            "dropped": dropped,
            "detections_beyond_limit": result.detections_beyond_limit,
            "operating_point": point.to_dict(),
        },
    )


def _print(result: Validation, images: int, protocol: Mapping[str, object]) -> None:
    print(f"{images} images, {len(result.records)} people found; protocol:")
    print("  " + ", ".join(f"{name} {value}" for name, value in protocol.items()))
    print(format_metrics(result.metrics))
    for name in ("mask/IoU", "boxes/AP", "boxes/AP50"):
        if name in result.diagnostics:
            print(f"  {name:10s} {format_metric(result.diagnostics[name]):>6s}")
    if "tags/separability" in result.diagnostics:
        print(
            "  tags: {tags/within:.2f} within a person, {tags/between:.2f} between people, "
            "separability {tags/separability:.3f}, annotated joints grouped right "
            "{tags/grouped_right:.3f}".format_map(result.diagnostics)
        )


def _write_report(
    output: Path,
    title: str,
    result: Validation,
    dataset: PoseDataset,
    evaluation: str,
    point: OperatingPoint,
) -> None:
    annotations, skeleton = dataset.annotations, dataset.skeleton
    records = result.records
    rows = report.evaluate_parts(records, annotations, skeleton, crowding(annotations), evaluation)
    errors = error_analysis.joint_errors(records, annotations, skeleton)
    worst = error_analysis.find_worst(records, errors, 20)
    index = {image["id"]: n for n, image in enumerate(annotations["images"])}
    names = {image["id"]: str(image["file_name"]) for image in annotations["images"]}
    pairs = []
    for image_id, _ in worst:
        sample = dataset.sample(index[image_id])
        kept = point.apply(result.poses[image_id], skeleton)
        pairs += [(sample.image, sample.poses, sample.valid), (sample.image, kept, sample.valid)]
    if pairs:
        save_image(output / "worst.jpg", contact_sheet(pairs, skeleton, columns=6))
    listed = [(names[image_id], count) for image_id, count in worst]
    report.write_report(output, title, result.metrics, rows, errors, listed, skeleton)
