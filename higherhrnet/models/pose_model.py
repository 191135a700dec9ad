"""What networks that predict keypoints have in common."""

from __future__ import annotations

from ..outputs import Head
from .hrnet import HRNet


class PoseModel(HRNet):
    """An HRNet with heads: (B, 3, H, W) normalized images → :class:`Outputs`, one entry a head.

    Attributes:
        heads: what each output predicts, and at which stride.
        joints: K.
    """

    heads: tuple[Head, ...]
    joints: int
