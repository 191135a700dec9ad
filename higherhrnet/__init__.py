"""HigherHRNet: bottom-up multi-person keypoint estimation in PyTorch.

>>> import higherhrnet
>>> predictor = higherhrnet.load("higherhrnet_w18_mini")  # or any checkpoint file
>>> poses = predictor("photo.jpg")  # or an (H, W, 3) uint8 RGB array
>>> poses.xy, poses.score, poses.person_score  # (N, K, 2) pixels, (N, K), (N,)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Boxes", "Poses", "Skeleton", "__version__", "load", "predict_many", "read_picture"]

if TYPE_CHECKING:
    from .boxes import Boxes
    from .build import load
    from .datasets.pictures import read_picture
    from .inference.pipeline import predict_many
    from .poses import Poses
    from .skeleton import Skeleton


_ROOMS = {
    "load": "build",
    "predict_many": "inference.pipeline",
    "read_picture": "datasets.pictures",
    "Boxes": "boxes",
    "Poses": "poses",
    "Skeleton": "skeleton",
}


def __getattr__(name: str) -> Any:
    """Import on first use: ``import higherhrnet`` costs no second of torch."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'higherhrnet' has no attribute '{name}'")
    return getattr(import_module(f".{_ROOMS[name]}", __name__), name)
