"""Checkpoints → exported networks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock

from .. import __version__
from ..config import PoseConfig, override_config, to_yaml
from ..errors import UserError
from ..export.exporter import FORMATS, Batches, export_graph
from ..inference.engines.export_info import ExportInfo, TaskExportInfo
from ..inference.predictor import Predictor
from ..io.pixels import Image
from ..methods.base import method_of
from ..models.model_zoo import cache_dir
from ..models.pose_model import PoseModel
from ..models.weights import Checkpoint
from ..outputs import NetworkSpec
from ..skeleton import Skeleton
from ..tasks.base import ExportGraph
from ..tasks.inputs import InputShape
from .checkpoints import config_of, operating_point_of
from .presets import (
    PRESETS,
    measured_operating_point,
    preset_operating_point,
    preset_overrides,
    presets_over,
)
from .tasks import TaskPredictor

RUNTIMES = {"onnxruntime": "onnx", "openvino": "openvino"}
"""``TEST.ENGINE`` → the format that it reads."""


def export_network(
    file: Checkpoint,
    config: PoseConfig,
    model: PoseModel,
    predictor: Predictor,
    target: Path,
    precision: str = "fp32",
    size: tuple[int, int] | None = None,
    flip: bool = False,
    candidates: bool = False,
    preset: str | None = None,
    calibration: Batches = (),
) -> ExportInfo:
    """Write a checkpoint's network with all that predicting with it needs.

    Args:
        file: the checkpoint.
        config: its config with the wanted test settings.
        model: its network, float32 on the CPU.
        predictor: with these test settings.
        target: the file; its suffix decides the format.
        precision: ``fp32``, ``fp16`` or ``int8``.
        size: (H, W) of the images if it is to take but one.
        flip: do the flip test inside.
        candidates: decode peaks inside.
        preset: whose settings the config has; its operating point goes along.
        calibration: network inputs, for ``int8``.

    Raises:
        UserError: the settings cannot be part of a graph, or what writes it is not installed.
    """
    method = method_of(config)
    graph = method.build_graph(model, predictor, flip, candidates)
    network = replace(graph.network, size=_check_size(size, graph.network, config))
    point = measured_operating_point(file, preset, config)
    own = point.to_dict() if file.operating_point else None
    info = ExportInfo(
        method=method.name,
        skeleton=predictor.skeleton,
        network=network,
        outputs=graph.outputs,
        precision=precision,
        config=to_yaml(config),
        operating_point=own,
        presets=_presets(file, config, network, preset),
        version=__version__,
    )
    info = replace(info, predictors=_describe_predictors(info, predictor.skeleton, target))
    export_graph(graph, info, target, network.size, calibration)
    return info


def export_task_network(
    loaded: TaskPredictor,
    target: Path,
    precision: str,
    size: tuple[int, int] | None,
    calibration: Batches = (),
) -> TaskExportInfo:
    """Write a segmentation network, a detector or a classifier.

    Args:
        loaded: float32 on the CPU.
        target: the file; its suffix decides the format.
        precision: ``fp32``, ``fp16`` or ``int8``.
        size: (H, W) of the images if it is to take but one.
        calibration: network inputs, for ``int8``.

    Raises:
        UserError: it cannot be exported so, or what writes it is not installed.
    """
    graph = _build_task_graph(loaded)
    if size is not None and graph.size is not None and size != graph.size:
        raise UserError(
            f"--size: this network reads views of {graph.size[0]}x{graph.size[1]} alone"
        )
    size = size or graph.size
    if size is not None and (size[0] % graph.multiple or size[1] % graph.multiple):
        raise UserError(
            f"--size {size[0]} {size[1]}: both sides must be multiples of {graph.multiple}"
        )
    info = TaskExportInfo(
        loaded.task.name, loaded.classes, loaded.is_named, graph.outputs, precision, size,
        graph.multiple, to_yaml(loaded.config), __version__,
    )  # fmt: skip
    export_graph(graph, info, target, size, calibration)
    return info


def _build_task_graph(loaded: TaskPredictor) -> ExportGraph:
    assert loaded.model is not None  # exports are not exported again
    return loaded.task.build_graph(loaded.config, loaded.model.eval(), loaded.classes)


def _check_size(
    size: tuple[int, int] | None, network: NetworkSpec, config: PoseConfig
) -> tuple[int, int] | None:
    if network.size is not None and size not in (None, network.size):
        raise UserError(
            f"--size {size[0]} {size[1]}: this network reads crops of "
            f"{network.size[0]}x{network.size[1]} (MODEL.IMAGE_SIZE)"
        )
    if size is not None and (size[0] % 32 or size[1] % 32):
        raise UserError(f"--size {size[0]} {size[1]}: both sides must be multiples of 32")
    if size is not None and len(getattr(config.TEST, "SCALE_FACTOR", (1.0,))) > 1:
        raise UserError(
            "--size is one input size, but TEST.SCALE_FACTOR has several scales; add --preset fast "
            "or balanced, or TEST.SCALE_FACTOR '[1.0]'"
        )
    return network.size or size


def _presets(
    file: Checkpoint, config: PoseConfig, network: NetworkSpec, exported: str | None
) -> dict[str, Any]:
    """The checkpoint's presets that the exported network can do. ``accurate``, which is what a
    checkpoint does by itself, is one of them where another preset was exported."""
    presets = presets_over(file, config)
    if exported is not None and "accurate" not in presets:
        own = config_of(file)
        keys = {key for preset in file.presets.values() for key in preset["settings"]}
        presets["accurate"] = {
            "settings": {key: _value(own, key) for key in sorted(keys)},
            "operating_point": operating_point_of(file).to_dict(),
        }
    kept = {}
    for name, preset in presets.items():
        settings = [part for pair in preset["settings"].items() for part in pair]
        varied = config_of(file, settings)
        if not contradictions(varied, config, network):
            kept[name] = dict(preset)
    return kept


def contradictions(wanted: PoseConfig, exported: PoseConfig, network: NetworkSpec) -> list[str]:
    """Keys of settings that an exported network has inside, and that differ from its own."""
    keys = ["MODEL.NAME", "TEST.WITH_HEATMAPS", "DATASET.ENCODING"]
    if network.flip:
        keys += ["TEST.FLIP_TEST", "TEST.SHIFT_HEATMAP"]
    if network.size is not None:
        keys += ["DATASET.INPUT_SIZE", "MODEL.IMAGE_SIZE", "TEST.SCALE_FACTOR"]
    return [key for key in keys if _value(wanted, key) != _value(exported, key)]


def _value(config: PoseConfig, key: str) -> Any:
    """Of a setting, plain; None where the method has no such key."""
    section, name = key.split(".")
    value = getattr(getattr(config, section), name, None)
    return list(value) if isinstance(value, tuple) else value


def _describe_predictors(info: ExportInfo, skeleton: Skeleton, target: Path) -> dict[str, Any]:
    """What programs that read no config predict with: the own settings and each preset's."""
    file = Checkpoint(target, {}, info.config, skeleton, info.operating_point, presets=info.presets)
    found = {}
    for name in (None, *(preset for preset in PRESETS if preset in info.presets)):
        config = without_detector(config_of(file, preset_overrides(file, name)))
        predictor = method_of(config).build_predictor(
            config, _NoEngine(), info.network, skeleton, torch.device("cpu"), _no_detector
        )
        point = preset_operating_point(file, name) if name else operating_point_of(file)
        found[name or "default"] = {
            "settings": predictor.to_dict(),
            "operating_point": point.to_dict(),
        }
    return found


def without_detector(config: PoseConfig) -> PoseConfig:
    """The same, but boxes come with the images: a detector is none of a network's business."""
    if not hasattr(config.TEST, "BBOX_SOURCE"):
        return config
    return override_config(config, ["TEST.BBOX_SOURCE", "ground_truth"])


class _NoEngine:
    """Stands where a predictor is only described."""

    device, fixed_batch = "cpu", False

    def __call__(self, images: Any) -> Any:
        raise NotImplementedError


def _no_detector(*_: Any) -> Any:
    raise NotImplementedError


def cached_export(
    file: Checkpoint, config: PoseConfig, model: PoseModel, predictor: Predictor
) -> Path:
    """The network as a float32 file for ``TEST.ENGINE``, made once for each content.

    It lies in ``exports/`` of the cache folder under a name of everything that decides it: network,
    weights, joints, merging of outputs, versions. The settings inside are those of its first use,
    and are not read.
    """
    runtime = config.TEST.ENGINE
    outputs = getattr(config.TEST, "WITH_HEATMAPS", ())
    decides = [config.MODEL, outputs, predictor.skeleton.to_dict(), runtime, _versions()]
    digest = hashlib.sha256(repr(decides).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    target = cache_dir() / "exports" / f"{digest.hexdigest()[:32]}{FORMATS[RUNTIMES[runtime]]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not target.is_file():
            export_network(file, config, model, predictor, target)
    return target


def _versions() -> dict[str, str]:
    names = ("onnx", "onnxscript", "openvino")
    return {
        "higherhrnet": __version__,
        "torch": torch.__version__,
        **{name: version(name) for name in names if find_spec(name) is not None},
    }


def calibration_batches(predictor: Predictor, images: Iterable[Image]) -> Batches:
    """What the network sees of images when the predictor predicts them."""
    recorder = _Recorder(predictor.engine)
    recording = replace(predictor, engine=recorder)
    for image in images:
        recording(image)
    return recorder.batches


def task_calibration_batches(loaded: TaskPredictor, images: Iterable[Image]) -> Batches:
    """What a network without poses sees of images when it predicts them.

    Args:
        loaded: float32 on the CPU.
        images: (H, W, 3) uint8 RGB.
    """
    graph = _build_task_graph(loaded)
    batches: list[npt.NDArray[np.uint8]] = []

    @torch.inference_mode()
    def run(inputs: Image, outputs: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        batches.append(inputs.copy())
        found = dict(zip(graph.outputs, graph.module(torch.from_numpy(inputs)), strict=True))
        return [found[name].numpy() for name in outputs]

    shape = InputShape(graph.multiple)
    predict = loaded.task.build_exported_predictor(loaded.config, run, shape, loaded.classes)
    for image in images:
        predict(image)
    return batches


class _Recorder:
    """An engine that keeps what goes through another one."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.device, self.fixed_batch = engine.device, engine.fixed_batch
        self.batches: list[Any] = []

    def __call__(self, images: Any) -> Any:
        self.batches.append(images.copy())
        return self._engine(images)
