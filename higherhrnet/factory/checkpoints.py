"""Names and files → checkpoints, and checkpoints → configs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import Config, PoseConfig, parse_config
from ..config.schema import SCHEMAS
from ..errors import UserError
from ..evaluation.operating_point import OperatingPoint
from ..inference.engines.export_info import TaskExportInfo
from ..inference.engines.exported import is_export, read_info
from ..io import yaml
from ..methods.base import METHODS, get_method
from ..models.hub import PREFIX
from ..models.model_zoo import MODEL_ZOO, find_weights
from ..models.state_dict import infer_architecture
from ..models.weights import Checkpoint, read_checkpoint
from ..skeleton import SKELETONS, Skeleton, load_skeleton

_TASK_MODELS = tuple(name for name, schema in SCHEMAS.items() if schema.method not in METHODS)
_SKELETON_BY_JOINTS: dict[int | None, str] = {len(s): s.name for s in SKELETONS.values()}


def open_checkpoint(name_or_file: str) -> Checkpoint:
    """What a weights file holds, with what is known of it by name; see :func:`find_weights`.

    Raises:
        UserError: it cannot be found or read.
        OSError: the download failed.
    """
    if is_export(name_or_file):
        raise UserError(
            f"'{name_or_file}' is an exported network, which holds no weights to train, convert or "
            "inspect: take the checkpoint that it was made from"
        )
    file = read_checkpoint(find_weights(name_or_file))
    known = {entry.file: entry for entry in MODEL_ZOO.values()}.get(file.path.name)
    return replace(file, settings=known.settings) if known else file


def open_network(name_or_file: str) -> Checkpoint:
    """Like :func:`open_checkpoint`; an exported network gives what it says of itself, and no state.

    Raises:
        UserError: it cannot be found or read.
        OSError: the download failed.
    """
    if not is_export(name_or_file):
        return open_checkpoint(name_or_file)
    path = find_weights(name_or_file) if name_or_file.startswith(PREFIX) else Path(name_or_file)
    info = read_info(path)
    if isinstance(info, TaskExportInfo):
        return Checkpoint(path, {}, info.config, classes=info.classes if info.is_named else ())
    return Checkpoint(
        path, {}, info.config, info.skeleton, info.operating_point, presets=info.presets
    )


def skeleton_of(file: Checkpoint) -> Skeleton | None:
    """Whose joints a checkpoint predicts: as it says, else by their number; None for a backbone."""
    if file.skeleton is not None:
        return file.skeleton
    found = infer_architecture(file.state)
    name = _SKELETON_BY_JOINTS.get(found.joints) if found else None
    return SKELETONS[name] if name else None


def upsample_mode_of(file: Checkpoint) -> str | None:
    """How a checkpoint's network upsamples, which no tensor shows; None if the file does not say.

    Nothing else of its config is read: it may be an older version's, and ``FUSION`` was the key.
    """
    section = model_section(file)
    mode: str | None = section.get("UPSAMPLE_MODE", section.get("FUSION"))
    return mode


def model_section(file: Checkpoint) -> Mapping[str, Any]:
    """``MODEL`` of a checkpoint's config, as it was written; empty if it has none.

    Raises:
        UserError: the config is no config.
    """
    try:
        stored = yaml.parse(file.config) if file.config else None
        section = (stored or {}).get("MODEL") or {}
        section.items()
    except (UserError, AttributeError) as error:
        raise UserError(f"'{file.path}' is damaged: its config cannot be read") from error
    return dict(section)


def operating_point_of(file: Checkpoint) -> OperatingPoint:
    """A checkpoint's operating point for images; the default if it was never calibrated.

    Raises:
        UserError: its limits are of another version.
    """
    try:
        return OperatingPoint.from_dict(file.operating_point or {})
    except UserError as error:
        raise UserError(f"'{file.path}' is damaged: {error}") from error


def config_of(file: Checkpoint, overrides: Sequence[Any] = ()) -> PoseConfig:
    """The config of a pose network; see :func:`any_config_of`.

    Raises:
        UserError: the file holds no pose network, or one of an unknown number of joints.
    """
    config = any_config_of(file, overrides)
    if not isinstance(config, PoseConfig):
        raise UserError(f"'{file.path}' is a checkpoint of another model: a {config.MODEL.NAME}")
    return config


def any_config_of(file: Checkpoint, overrides: Sequence[Any] = ()) -> Config:
    """The config inside a native checkpoint, else one that fits a foreign file's tensors.

    Raises:
        UserError: the file holds no network of ours, or one of an unknown number of joints.
    """
    overrides = [*file.settings, *overrides]
    text = file.config if file.config is not None else _guess_config(file, overrides)
    return parse_config(text, overrides, str(file.path), quiet=True)


def is_task(file: Checkpoint) -> bool:
    """Whether a checkpoint is of a network that finds no poses: a classifier, a segmentation
    network or a detector."""
    return kind_of(file) in _TASK_MODELS


def kind_of(file: Checkpoint) -> str | None:
    """``MODEL.NAME`` of a checkpoint or an export, as its config says, else by its tensors."""
    if file.config is not None:
        name: str | None = model_section(file).get("NAME")
        return name
    found = infer_architecture(file.state)
    return None if found is None else found.kind


def _guess_config(file: Checkpoint, overrides: Sequence[Any]) -> str:
    """YAML of a config that fits the tensors of a file without one."""
    joints = None
    if "DATASET.SKELETON" in overrides:
        name = str(overrides[overrides.index("DATASET.SKELETON") + 1])
        joints = len(load_skeleton(name)) if name != "auto" else None
    found = infer_architecture(file.state, joints)
    if found is not None and found.kind in ("seg_hrnet", "cls_hrnet"):
        model = {
            "NAME": found.kind,
            "WIDTH": found.width,
            "NUM_MODULES": list(found.num_modules),
            "NUM_BLOCKS": found.num_blocks,
        }
        bias = file.state.get("last_layer.0.bias")
        if bias is not None and not bias.any():  # mmsegmentation's has none
            model["ALIGN_CORNERS"] = False
        return json.dumps({"MODEL": model})
    schema = SCHEMAS.get(found.kind) if found else None
    if found is None or schema is None or schema.method not in METHODS:
        kind = "no HRNet" if found is None else f"a {found.kind} of width {found.width}"
        raise UserError(f"'{file.path}' is a checkpoint of another model: it holds {kind}")
    if found.joints not in _SKELETON_BY_JOINTS and "DATASET.SKELETON" not in overrides:
        raise UserError(
            f"'{file.path}' predicts {found.joints} joints, which is no built-in skeleton; "
            "give one with DATASET.SKELETON FILE.yaml"
        )
    guess: dict[str, dict[str, Any]] = {
        "MODEL": {
            "NAME": found.kind,
            "WIDTH": found.width,
            "NUM_MODULES": list(found.num_modules),
            "NUM_BLOCKS": found.num_blocks,
        },
        "DATASET": {"SKELETON": _SKELETON_BY_JOINTS.get(found.joints, "coco")},
    }
    for section, values in get_method(schema.method).describe_architecture(found).items():
        guess.setdefault(section, {}).update(values)
    return json.dumps(guess)
