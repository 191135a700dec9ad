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
__all__ = [
    "Boxes",
    "Callback",
    "Poses",
    "Skeleton",
    "UserError",
    "__version__",
    "load",
    "load_task",
    "predict_dataset",
    "predict_many",
    "read_image",
    "train",
]

if TYPE_CHECKING:
    from .boxes import Boxes
    from .errors import UserError
    from .factory.inference import load
    from .factory.predict_dataset import predict_dataset
    from .factory.tasks import load_task
    from .factory.training import train
    from .inference.pipeline import predict_many
    from .io.images import read_image
    from .poses import Poses
    from .skeleton import Skeleton
    from .training.callbacks import Callback


_MODULES = {
    "load": "factory.inference",
    "load_task": "factory.tasks",
    "predict_dataset": "factory.predict_dataset",
    "predict_many": "inference.pipeline",
    "read_image": "io.images",
    "train": "factory.training",
    "Callback": "training.callbacks",
    "Boxes": "boxes",
    "UserError": "errors",
    "Poses": "poses",
    "Skeleton": "skeleton",
}


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import on first use: ``import higherhrnet`` costs no second of torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'higherhrnet' has no attribute '{name}'")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
