"""What decides predictions, so that only like ones are mixed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import PoseConfig
from ..inference.predictor import Predictor
from ..methods.base import method_of
from ..models.weights import Checkpoint


def describe_predictor(
    file: Checkpoint, predictor: Predictor, config: PoseConfig
) -> dict[str, Any]:
    """Network, settings and limits of a predictor, as JSON.

    Args:
        file: its weights, or export.
        predictor: made of these.
        config: by this.
    """
    method, point = method_of(config), predictor.operating_point
    return predictor.to_dict() | {
        "version": __version__,
        "weights": file.path.name,
        "sha256": _sha256(file.path),
        "protocol": method.describe_protocol(config),
        "other files": {one.name: _sha256(one) for one in method.input_files(config)},
        "operating_point": None if point is None else point.to_dict(),
    }


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
