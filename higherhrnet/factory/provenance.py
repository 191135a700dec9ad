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
        "sha256": _sha256(*_parts_of(file.path)),
        "protocol": method.describe_protocol(config),
        "other files": {one.name: _sha256(*_parts_of(one)) for one in method.input_files(config)},
        "operating_point": None if point is None else point.to_dict(),
    }


def _parts_of(file: Path) -> list[Path]:
    """OpenVINO's weights lie beside its graph."""
    weights = file.with_suffix(".bin")
    return [file, weights] if file.suffix == ".xml" and weights.is_file() else [file]


def _sha256(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
