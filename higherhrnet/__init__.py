"""HigherHRNet: bottom-up multi-person keypoint estimation in PyTorch.

>>> import higherhrnet
>>> predictor = higherhrnet.load("higherhrnet_w18_mini")  # or any checkpoint file
>>> poses = predictor("photo.jpg")  # or an (H, W, 3) uint8 RGB array
>>> poses.xy, poses.score, poses.person_score  # (N, K, 2) pixels, (N, K), (N,)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Poses", "Skeleton", "__version__", "load"]

if TYPE_CHECKING:
    from .build import load
    from .poses import Poses
    from .skeleton import Skeleton


def __getattr__(name: str) -> Any:
    """Import on first use: ``import higherhrnet`` costs no second of torch."""
    if name == "load":
        from .build import load

        return load
    if name == "Poses":
        from .poses import Poses

        return Poses
    if name == "Skeleton":
        from .skeleton import Skeleton

        return Skeleton
    raise AttributeError(f"module 'higherhrnet' has no attribute '{name}'")
