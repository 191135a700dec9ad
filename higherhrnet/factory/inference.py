"""Checkpoints and configs → predictors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..boxes import Boxes
from ..config import PoseConfig, as_pairs
from ..errors import UserError
from ..inference.engines.export_info import AnyInfo, ExportInfo
from ..inference.engines.exported import is_export, open_export, read_info
from ..inference.engines.torch_engine import TorchEngine
from ..inference.predictor import Predictor
from ..io.pixels import Image
from ..methods.base import FindBoxes, method_of
from ..models.pose_model import PoseModel
from ..models.state_dict import infer_architecture
from ..models.weights import Checkpoint, LoadReport, load_weights
from ..outputs import NetworkSpec
from ..skeleton import Skeleton, load_skeleton
from .checkpoints import config_of, is_task, open_network, upsample_mode_of
from .device import choose_device
from .export import cached_export, contradictions, without_detector
from .presets import measured_operating_point, preset_overrides
from .tasks import load_task


def load(
    name_or_file: str | Path = "higherhrnet_w18_mini",
    device: str = "auto",
    overrides: Sequence[Any] | Mapping[str, Any] = (),
    raw: bool = False,
    preset: str | None = None,
) -> Predictor:
    """A predictor from a bundled or published name, or any checkpoint file.

    Args:
        name_or_file: a name, a native ``.safetensors``, an official ``.pth``, or a network that
            ``higherhrnet export`` wrote: ``.onnx``, ``.xml``, ``.pt2``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        overrides: config ``KEY, VALUE, …`` over those in the checkpoint, e.g.
            ``["TEST.FLIP_TEST", False]``, or a dict of these; values as YAML text or as what they
            mean.
        raw: return all people, as benchmarks want it, instead of those that the checkpoint's
            operating point keeps.
        preset: ``fast``, ``balanced`` or ``accurate`` test settings, each with its own operating
            point; None takes the checkpoint's own.

    Raises:
        UserError: no such file, or not a checkpoint of a pose network.
    """
    file = open_network(str(name_or_file))
    if is_task(file):
        raise UserError(f"'{file.path}' finds no poses: higherhrnet.load_task reads it")
    return load_predictor(file, device, as_pairs(overrides), raw, preset)


def load_predictor(
    file: Checkpoint,
    device: str,
    overrides: Sequence[Any] = (),
    raw: bool = False,
    preset: str | None = None,
) -> Predictor:
    """Like :func:`load`, from a checkpoint that was read."""
    config = config_of(file, [*preset_overrides(file, preset), *overrides])
    own = file.skeleton if config.DATASET.SKELETON == "auto" else None
    own = own or load_skeleton(config.DATASET.SKELETON)
    skeleton = file.skeleton or own
    if "DATASET.SKELETON" in overrides and own.joints != skeleton.joints:
        raise UserError(
            f"'{file.path}' predicts the joints of skeleton '{skeleton.name}', which config key "
            f"'DATASET.SKELETON' {config.DATASET.SKELETON} contradicts"
        )
    predictor, _ = build_predictor(config, file, skeleton, choose_device(device))
    predictor.operating_point = None if raw else measured_operating_point(file, preset, config)
    return predictor


def build_model_with_weights(
    config: PoseConfig, file: Checkpoint, skeleton: Skeleton
) -> tuple[PoseModel, LoadReport]:
    """The config's network with a file's weights.

    Raises:
        UserError: they are of another model, also in what no tensor's shape shows.
    """
    if is_task(file):
        config_of(file)  # which says that it is another model's
    own = config.MODEL.UPSAMPLE_MODE
    stored = upsample_mode_of(file) or own
    if stored != own:
        raise UserError(
            f"'{file.path}' was trained with MODEL.UPSAMPLE_MODE {stored}, but the config has {own}"
        )
    check_architecture(config, file)
    model = method_of(config).build_model(config, len(skeleton))
    return model, load_weights(model, file, skeleton)


def check_architecture(config: PoseConfig, file: Checkpoint) -> None:
    """That a network of the config has the size of the file's, before memory is taken for it.

    Raises:
        UserError: it has not.
    """
    found, m = infer_architecture(file.state), config.MODEL
    claimed = (m.WIDTH, tuple(m.NUM_MODULES), m.NUM_BLOCKS)
    held = None if found is None else (found.width, found.num_modules, found.num_blocks)
    if held != claimed:
        what = "no HRNet" if held is None else "an HRNet of width {}, modules {}, blocks {}"
        raise UserError(
            f"'{file.path}' is a checkpoint of another model: it holds {what.format(*held or ())}, "
            f"and the config says width {claimed[0]}, modules {claimed[1]}, blocks {claimed[2]}"
        )


def build_predictor(
    config: PoseConfig, file: Checkpoint, skeleton: Skeleton, device: torch.device
) -> tuple[Predictor, str]:
    """A predictor with the config's test protocol, its detector if it names one, and the engine
    that the file or ``TEST.ENGINE`` asks for.

    Returns:
        the predictor, and how the file met it, in words.

    Raises:
        UserError: the file is of another model, or was exported for another protocol.
    """
    method, runtime = method_of(config), config.TEST.ENGINE
    if runtime != "torch" or is_export(file.path):
        for key in ("COMPILE", "CUDA_GRAPHS"):
            if getattr(config.TEST, key):
                raise UserError(f"TEST.{key} is for PyTorch, not for exported networks")
        if getattr(config.TEST, "MASK_SUPPORT", 0):
            raise UserError("TEST.MASK_SUPPORT is for PyTorch: exported networks have no masks")
        if config.TEST.PRECISION in ("bf16", "fp16"):
            raise UserError(
                f"TEST.PRECISION {config.TEST.PRECISION} is for PyTorch; an exported network has "
                "its own (auto and fp32 are taken)"
            )
    if is_export(file.path):
        if runtime != "torch":
            raise UserError(
                f"TEST.ENGINE {runtime} is for weights; '{file.path}' is exported already, and "
                "its suffix says what runs it"
            )
        engine = open_export(file.path, str(device), config.TEST.PRECISION)
        _check_export(config, file, engine.info, skeleton)
        predictor = method.build_predictor(
            config, engine, engine.info.network, skeleton, device, load_finder
        )
        return predictor, f"exported {engine.info.precision} network, run by {engine.runtime}"
    model, loaded = build_model_with_weights(config, file, skeleton)
    if runtime == "torch":
        return build_torch_predictor(config, model, skeleton, device), str(loaded)
    described = build_torch_predictor(
        without_detector(config), model, skeleton, torch.device("cpu")
    )
    engine = open_export(
        cached_export(file, config, model, described), str(device), config.TEST.PRECISION
    )
    predictor = method.build_predictor(
        config, engine, engine.info.network, skeleton, device, load_finder
    )
    return predictor, str(loaded)


def build_torch_predictor(
    config: PoseConfig,
    model: PoseModel,
    skeleton: Skeleton,
    device: torch.device,
    size: tuple[int, int] | None = None,
) -> Predictor:
    """A predictor with the config's test protocol around a network, and its detector if it names
    one; with a size (H, W) images are fitted into it, as into an export's."""
    model.to(device).to(memory_format=torch.channels_last).eval()
    test = config.TEST
    engine = TorchEngine(model, device, test.PRECISION, test.COMPILE, test.CUDA_GRAPHS)
    return method_of(config).build_predictor(
        config, engine, NetworkSpec(model.heads, size=size), skeleton, device, load_finder
    )


def check_network(config: PoseConfig, file: Checkpoint, skeleton: Skeleton) -> None:
    """That a file can be predicted with as the config says.

    Raises:
        UserError: it is of another model, or was exported for another protocol.
    """
    if is_export(file.path):
        _check_export(config, file, read_info(file.path), skeleton)
    else:
        build_model_with_weights(config, file, skeleton)


def _check_export(config: PoseConfig, file: Checkpoint, info: AnyInfo, skeleton: Skeleton) -> None:
    if not isinstance(info, ExportInfo):
        raise UserError(f"'{file.path}' is an exported network for {info.task}: it finds no poses")
    if info.skeleton.joints != skeleton.joints:
        raise UserError(
            f"'{file.path}' predicts the joints of skeleton '{info.skeleton.name}' in their order, "
            f"and those of '{skeleton.name}' are others"
        )
    differ = contradictions(config, config_of(file), info.network)
    if differ:
        raise UserError(
            f"'{file.path}' has settings inside that contradict the config: {', '.join(differ)}; "
            "export it again with the config's, or leave them as they are"
        )


def load_finder(
    name: str, device: torch.device, overrides: Sequence[Any] = ()
) -> Predictor | FindBoxes:
    """What finds boxes of people: a bottom-up network, or a detector.

    Args:
        name: a bundled name, or a weights file.
        device: where it computes.
        overrides: ``KEY, VALUE, …`` over the checkpoint's config.

    Raises:
        UserError: the weights are of neither.
    """
    file = open_network(name)
    if not is_task(file):
        return load_predictor(file, str(device), overrides, raw=True)
    loaded = load_task(file, device, overrides if "fp16" not in overrides else ())
    if loaded.task.name != "detection" or "person" not in loaded.classes:
        raise UserError(f"config key 'TEST.BBOX_SOURCE': '{name}' does not find boxes of people")
    person = loaded.classes.index("person")

    def find(image: Image) -> Boxes:
        found = loaded.predict(image)
        mine = found.labels == person
        return Boxes.of(found.xywh[mine], found.score[mine])

    return find
