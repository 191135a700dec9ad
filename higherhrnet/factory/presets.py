"""Presets: named test settings of a checkpoint, from fast to accurate, with operating points."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from ..config import PoseConfig, override_config
from ..errors import UserError
from ..evaluation.operating_point import OperatingPoint
from ..inference.engines.exported import is_export
from ..methods.base import method_of
from ..models.weights import Checkpoint
from .checkpoints import config_of, operating_point_of

_log = logging.getLogger(__name__)
PRESETS = ("fast", "balanced", "accurate")
VIDEO_PRESET = "fast"
"""What videos are predicted with, where a checkpoint was calibrated for it."""


def preset_settings(file: Checkpoint, name: str) -> dict[str, Any]:
    """``SECTION.KEY`` → value of the file's preset, else of the method's.

    ``accurate`` is what the checkpoint does by itself, if it has none of that name.

    Raises:
        UserError: there is no preset of this name.
    """
    if name not in PRESETS:
        raise UserError(f"preset '{name}' must be one of {', '.join(PRESETS)}")
    if name in file.presets:
        return dict(file.presets[name]["settings"])
    if is_export(file.path):
        raise UserError(f"'{file.path}' was exported without preset {name}")
    return dict(method_of(config_of(file)).presets.get(name, {}))


def preset_overrides(file: Checkpoint, name: str | None) -> list[Any]:
    """The preset as ``KEY, VALUE, …``; none for no preset."""
    settings = {} if name is None else preset_settings(file, name)
    return [part for pair in settings.items() for part in pair]


def preset_operating_point(file: Checkpoint, name: str | None) -> OperatingPoint:
    """The preset's operating point, else the checkpoint's own."""
    if name is None or (name == "accurate" and name not in file.presets):
        return operating_point_of(file)
    if name in file.presets:
        return operating_point_of(
            replace(file, operating_point=file.presets[name]["operating_point"])
        )
    _log.info(
        "'%s' was not calibrated for preset %s: its own operating point is taken (calibrate: "
        "higherhrnet valid CONFIG --weights FILE --preset %s --calibrate)",
        file.path, name, name,
    )  # fmt: skip
    return operating_point_of(file)


def measured_operating_point(
    file: Checkpoint, name: str | None, config: PoseConfig
) -> OperatingPoint:
    """Like :func:`preset_operating_point`, without the figures of its calibration where scores are
    others than then.

    Args:
        file: the checkpoint.
        name: of the preset.
        config: of the predictions, with the preset's settings and whatever was changed.
    """
    point = preset_operating_point(file, name)
    if not point.images:
        return point
    measured = preset_overrides(file, name) if name in file.presets else []
    calibrated = method_of(config).describe_protocol(config_of(file, measured))
    now = method_of(config).describe_protocol(config)
    if any(calibrated.get(key) != now.get(key) for key in now.keys() - SAME_SCORES):
        return replace(point, precision=0.0, recall=0.0, images=0)
    return point


def presets_over(file: Checkpoint, config: PoseConfig) -> dict[str, Any]:
    """The file's presets as those of another file with this config."""
    found = {}
    for name, preset in file.presets.items():
        varied = override_config(config, preset_overrides(file, name))
        point = measured_operating_point(file, name, varied)
        found[name] = {**preset, "operating_point": point.to_dict()}
    return found


def choose_video_preset(file: Checkpoint, overrides: list[Any]) -> str | None:
    """The preset for videos where the user asked for none: theirs if it is calibrated and no test
    settings were given."""
    own = any(str(key).startswith("TEST.") for key in overrides[::2])
    return VIDEO_PRESET if VIDEO_PRESET in file.presets and not own else None


def describe_settings(config: PoseConfig, overrides: list[Any], former: dict[str, Any]) -> Any:
    """The settings of a preset that is being calibrated: the former ones, and what of the overrides
    decides predictions."""
    changed = dict(zip(overrides[::2], overrides[1::2], strict=True))
    decides = [k for k in changed if k.startswith("TEST.") and k not in _OF_DATA]
    keys = [*former, *(k for k in [*decides, *_SIZES] if k in changed and k not in former)]
    found = {}
    for key in keys:
        section, entry = key.split(".")
        value = getattr(getattr(config, section), entry)
        found[key] = list(value) if isinstance(value, tuple) else value
    return found


SAME_SCORES = {"boxes", "box jitter", "precision", "engine", "assignment", "evaluation"}
"""What of a protocol leaves scores nearly as they are."""
_OF_DATA = ("TEST.BBOX_SOURCE", "TEST.BBOX_JITTER", "TEST.EVALUATION", "TEST.DISPLAY_PRECISION")
"""Test settings that say what is measured, not how people are found."""
_SIZES = ("DATASET.INPUT_SIZE", "DATASET.MAX_NUM_PEOPLE", "DATASET.BBOX_PADDING")
