"""Exported networks → predictors, without PyTorch and without a config: what the package
``higherhrnet-runtime`` loads with. Its wheel holds this file and what it imports."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ..errors import UserError
from ..evaluation.operating_point import OperatingPoint
from ..inference.engines.exported import is_export, open_export
from ..inference.predictor import Predictor

_PREDICTORS = {
    "bottom-up": ("bottom_up", "BottomUpPredictor"),
    "top-down": ("top_down", "TopDownPredictor"),
}


def load_exported(
    path: str | Path,
    preset: str | None = None,
    raw: bool = False,
    device: str = "cpu",
    precision: str = "auto",
) -> Predictor:
    """A predictor for a network that ``higherhrnet export`` wrote.

    Args:
        path: ``.onnx``, or ``.xml`` where OpenVINO is installed.
        preset: ``fast``, ``balanced`` or ``accurate``, where the file has them; None takes the test
            settings that it was exported with.
        raw: return all people, not only those that the operating point keeps.
        device: ``cpu``, or ``cuda:N`` with onnxruntime-gpu.
        precision: ``fp32`` keeps OpenVINO from computing in bfloat16.

    Raises:
        UserError: no such file, not such a file, or no such preset.
    """
    if not is_export(path):
        raise UserError(
            f"'{path}' is no exported network (.onnx, .xml): higherhrnet export MODEL makes one"
        )
    engine = open_export(path, device, precision)
    info = engine.info
    chosen = info.predictors.get(preset or "default")
    if chosen is None:
        has = ", ".join(name for name in info.predictors if name != "default") or "none"
        raise UserError(f"'{path}' has no preset '{preset}'; it has {has}")
    folder, name = _PREDICTORS[info.method]
    cls: type[Predictor] = getattr(import_module(f".{folder}.predictor", __package__), name)
    predictor = cls.from_dict(chosen["settings"], engine, info.skeleton)
    if not raw:
        predictor.operating_point = OperatingPoint.from_dict(chosen["operating_point"])
    return predictor
