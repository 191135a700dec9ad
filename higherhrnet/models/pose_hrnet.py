"""Top-down HRNet (Sun et al. 2019): one heatmap per joint at 1/4 of a person's crop."""

from __future__ import annotations

import torch
from torch import nn

from ..outputs import Head, Outputs
from .hrnet import initialize
from .pose_model import PoseModel


class PoseHRNet(PoseModel):
    """HRNet with a single 1x1 convolution on its 1/4 features.

    Args:
        joints: K.
        width, num_modules, num_blocks, upsample_mode, activation_checkpointing: see :class:`HRNet`.
    """

    heads = (Head(stride=4),)

    def __init__(
        self,
        joints: int,
        width: int,
        num_modules: tuple[int, int, int] = (1, 4, 3),
        num_blocks: int = 4,
        upsample_mode: str = "nearest",
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(width, num_modules, num_blocks, 1, upsample_mode, activation_checkpointing)
        self.joints = joints
        self.final_layer = nn.Conv2d(width, joints, 1)
        initialize(self)

    def forward(self, images: torch.Tensor) -> Outputs:  # type: ignore[override]
        """(B, 3, H, W) normalized crops → heatmaps (B, K, H/4, W/4), no tags."""
        heatmaps = self.final_layer(self.features(images)[0])
        return Outputs(heatmaps=(heatmaps,), tags=(heatmaps[:, :0],))
