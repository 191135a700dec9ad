"""The predictors of a server: those of one or two checkpoints, by method and preset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..evaluation.operating_point import OperatingPoint
from ..factory.checkpoints import config_of, open_network
from ..factory.inference import load_predictor
from ..factory.presets import PRESETS, measured_operating_point, preset_overrides
from ..inference.predictor import Predictor
from ..methods.base import method_of
from ..skeleton import Skeleton

DEFAULT = "default"


@dataclass(frozen=True)
class ServedModel:
    """One checkpoint.

    Attributes:
        name: as the user gave it.
        predictors: preset, or ``default`` → a predictor that returns all people.
        operating_points: likewise, which of them are shown.
    """

    name: str
    predictors: dict[str, Predictor]
    operating_points: dict[str, OperatingPoint]

    @property
    def method(self) -> str:
        """``bottom-up`` or ``top-down``."""
        return self.predictors[DEFAULT].method

    @property
    def skeleton(self) -> Skeleton:
        """Whose joints it predicts."""
        return self.predictors[DEFAULT].skeleton

    def describe(self) -> dict[str, Any]:
        """For clients."""
        return {
            "name": self.name,
            "method": self.method,
            "presets": list(self.predictors),
            "operating_points": {n: p.to_dict() for n, p in self.operating_points.items()},
            "skeleton": self.skeleton.to_drawing(),
        }


def serve_model(
    name: str, device: str, overrides: Sequence[Any], preset: str | None = None
) -> ServedModel:
    """Load a checkpoint; its presets share one engine.

    Args:
        name: weights, a name, or an exported network.
        device, overrides: see :func:`load`. Boxes for top-down weights are found by what
            ``TEST.BBOX_SOURCE`` names among them, or by the bundled detector.
        preset: of requests that name none; None takes the checkpoint's own settings.

    Raises:
        UserError: it cannot be loaded.
    """
    file = open_network(name)
    method = method_of(config_of(file, overrides))
    overrides = [*overrides, *method.prediction_overrides(None, overrides)]
    predictors: dict[str, Predictor] = {}
    points: dict[str, OperatingPoint] = {}
    # A checkpoint that has presets is its own accurate one, if it has none of that name.
    wanted = [
        each for each in PRESETS if each in file.presets or (each == "accurate" and file.presets)
    ]
    for key, chosen in ((DEFAULT, preset), *((each, each) for each in wanted)):
        made = load_predictor(file, device, overrides, raw=True, preset=chosen)
        engine = predictors[DEFAULT].engine if predictors else made.engine
        predictors[key] = replace(made, engine=engine)
        config = config_of(file, [*preset_overrides(file, chosen), *overrides])
        points[key] = measured_operating_point(file, chosen, config)
    return ServedModel(name, predictors, points)
