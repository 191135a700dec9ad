"""``higherhrnet export``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..assignment import linear_sum_assignment
from ..boxes import Boxes
from ..config import PoseConfig, read_config
from ..errors import UserError
from ..evaluation.evaluator import main_metric
from ..export.exporter import FORMATS, Batches
from ..export.web_page import write_page
from ..factory.checkpoints import config_of, is_task, open_checkpoint, open_network
from ..factory.data import build_dataset
from ..factory.device import choose_device
from ..factory.evaluation import run_validation
from ..factory.export import calibration_batches, export_network
from ..factory.inference import build_model_with_weights, build_predictor, build_torch_predictor
from ..factory.presets import preset_overrides
from ..inference.engines.export_info import ExportInfo
from ..inference.inputs import find_inputs
from ..inference.predictor import Predictor
from ..io.images import read_image
from ..methods.base import method_of
from ..models.weights import Checkpoint
from ..poses import SEEN
from ..skeleton import load_skeleton

_EXACT = ["TEST.ENGINE", "torch", "TEST.COMPILE", False, "TEST.CUDA_GRAPHS", False]


def export(options: argparse.Namespace) -> int:
    """Write a network for another runtime, and say how near it comes."""
    file = open_checkpoint(options.weights)
    if is_task(file):
        from .export_tasks import export_task

        return export_task(options, file)
    if options.to == "web":
        return _export_page(options, file)
    target = check_options(options, file)
    _write(options, file, target, target)
    return 0


def _export_page(options: argparse.Namespace, file: Checkpoint) -> int:
    """A folder with the page and the network."""
    folder: Path = options.output or Path("output") / f"{file.path.stem}_web"
    options.to, options.decode = "onnx", True
    if options.preset is None and "fast" in file.presets and not options.overrides:
        options.preset = "fast"
        print("preset fast; --preset chooses another")
    with TemporaryDirectory() as scratch:
        options.output = Path(scratch) / "model.onnx"
        network = check_options(options, file)
        info = _write(options, file, network, folder)
        write_page(folder, network, info, file.path.stem)
    print(f"{folder}: serve it with: python -m http.server --directory {folder}")
    return 0


def _write(options: argparse.Namespace, file: Checkpoint, target: Path, shown: Path) -> ExportInfo:
    """Write the network, and say under the ``shown`` name what came of it."""
    settings = [*preset_overrides(file, options.preset), *options.overrides]
    config = config_of(file, [*settings, *_EXACT])
    skeleton = file.skeleton or load_skeleton(config.DATASET.SKELETON)
    device = choose_device("cpu")
    exact = config_of(file, [*settings, *_EXACT, "TEST.PRECISION", "fp32"])
    model, _ = build_model_with_weights(exact, file, skeleton)
    predictor = build_torch_predictor(exact, model, skeleton, device)
    size = tuple(options.size) if options.size else None
    info = export_network(
        file, config, model, predictor, target, options.precision, size, options.flip,
        options.decode, options.preset, _calibrate(options, file, exact, size),
    )  # fmt: skip
    print(f"{shown}: {_describe(target, info)}")
    if size is None:
        exported, _ = build_predictor(exact, open_network(str(target)), skeleton, device)
        print(_compare_people(predictor, exported))
    if options.compare is not None:
        print(_compare_metrics(options.compare, settings, file, target))
    return info


def check_options(options: argparse.Namespace, file: Checkpoint) -> Path:
    """Where the network is written.

    Raises:
        UserError: options contradict each other.
    """
    suffix = FORMATS[options.to]
    target: Path = options.output or Path("output") / f"{file.path.stem}{suffix}"
    if target.suffix != suffix:
        raise UserError(f"a file for --to {options.to} ends in {suffix}, unlike '{target}'")
    if options.precision == "int8" and options.images is None:
        raise UserError("--precision int8 is calibrated on images: name some with --images")
    if options.precision != "int8" and options.images is not None:
        raise UserError(f"--images calibrate --precision int8, not {options.precision}")
    return target


def find_calibration_images(options: argparse.Namespace) -> list[Path]:
    """The user's images for ``--precision int8``; none if it is another.

    Raises:
        UserError: they are named, and there are none.
    """
    if options.images is None:
        return []
    paths = find_inputs(options.images).images
    if not paths:
        raise UserError("--images names no image")
    return list(paths)


def _calibrate(
    options: argparse.Namespace,
    file: Checkpoint,
    config: PoseConfig,
    size: tuple[int, int] | None,
) -> Batches:
    """What the network sees of the user's images."""
    if options.images is None:
        return ()
    paths = find_calibration_images(options)
    method = method_of(config)
    own = method.prediction_overrides(None, options.overrides)
    if own:  # crops come from the people that the bundled detector finds
        settings = [*preset_overrides(file, options.preset), *options.overrides]
        config = config_of(file, [*settings, *_EXACT, *own])
    skeleton = file.skeleton or load_skeleton(config.DATASET.SKELETON)
    model, _ = build_model_with_weights(config, file, skeleton)
    predictor = build_torch_predictor(config, model, skeleton, choose_device("cpu"), size)
    return calibration_batches(predictor, map(read_image, paths))


def describe_file(target: Path, precision: str) -> str:
    """Its precision and size; OpenVINO's has its weights beside it."""
    parts = [target, target.with_suffix(".bin")] if target.suffix == ".xml" else [target]
    size = sum(part.stat().st_size for part in parts)
    return f"{precision}, {size / 1e6:.1f} MB"


def _describe(target: Path, info: ExportInfo) -> str:
    sides = "H x W, multiples of 32" if info.network.size is None else "{} x {}".format(
        *info.network.size
    )  # fmt: skip
    inside = ", flip test inside" if info.network.flip else ""
    return (
        f"{describe_file(target, info.precision)}; images (B, H, W, 3) uint8 RGB, "
        f"{sides}{inside}; outputs {', '.join(info.outputs)}"
    )


def _compare_people(ours: Predictor, exported: Predictor) -> str:
    """The people of the bundled photograph, by PyTorch in float32 and by the export."""
    with as_file(files("higherhrnet") / "assets" / "demo.jpg") as file:
        image = read_image(file)
    boxes = None if ours.finds_people else Boxes.of([[0, 0, image.shape[1], image.shape[0]]])
    expected, found = (predictor(image, boxes) for predictor in (ours, exported))
    both = (expected.visibility == SEEN)[:, None] & (found.visibility == SEEN)
    apart = np.linalg.norm(expected.xy[:, None] - found.xy, axis=3)  # (N, M, K)
    mean = np.where(both, apart, 0).sum(axis=2) / np.maximum(both.sum(axis=2), 1e-6)
    rows, columns = linear_sum_assignment(mean)
    distance = apart[rows, columns][both[rows, columns]]
    if not len(distance):
        return f"demo photograph: {len(found)} people, PyTorch finds {len(expected)}"
    return (
        f"demo photograph: {len(found)} people, PyTorch finds {len(expected)}; joints at most "
        f"{distance.max():.3f} px apart, median {np.median(distance):.4f}"
    )


def _compare_metrics(name: str, settings: Sequence[Any], file: Checkpoint, target: Path) -> str:
    """AP of the weights and of the export."""
    config = read_config(name, [*settings, *_EXACT])
    method_of(config)
    assert isinstance(config, PoseConfig)
    skeleton = file.skeleton or load_skeleton(config.DATASET.SKELETON)
    dataset = build_dataset(config, "test", skeleton)
    metric = main_metric(
        dataset.annotations,
        dataset.skeleton,
        config.TEST.EVALUATION,
        method_of(config).finds_people,
    )
    values = []
    for network in (file, open_network(str(target))):
        predictor, _ = build_predictor(config, network, skeleton, choose_device("cpu"))
        values.append(100 * run_validation(config, predictor, dataset).metrics[metric])
    return describe_change(metric, len(dataset), values)


def describe_change(metric: str, images: int, values: Sequence[float]) -> str:
    """A metric before and after, in percent."""
    before, after = values
    return (
        f"{metric} on {images} images: {before:.2f} before, {after:.2f} after "
        f"({after - before:+.2f})"
    )
