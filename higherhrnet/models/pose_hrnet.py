"""Top-down HRNet (Sun et al. 2019): one heatmap per joint at 1/4 of a person's crop."""

from __future__ import annotations

import torch
from torch import nn

from ..fields import Head, Outputs
from .hrnet import Fusion, HRNet, initialise


class PoseHRNet(HRNet):
    """HRNet with a single 1x1 convolution on its 1/4 features.

    Args:
        joints: K.
        width, modules, blocks, fusion, recompute: see :class:`HRNet`.
    """

    heads = (Head(stride=4),)

    def __init__(
        self,
        joints: int,
        width: int,
        modules: tuple[int, int, int] = (1, 4, 3),
        blocks: int = 4,
        fusion: Fusion = "nearest",
        recompute: bool = False,
    ) -> None:
        super().__init__(width, modules, blocks, 1, fusion, recompute)
        self.joints = joints
        self.final_layer = nn.Conv2d(width, joints, 1)
        initialise(self)

    def forward(self, images: torch.Tensor) -> Outputs:  # type: ignore[override]
        """(B, 3, H, W) normalised crops → heatmaps (B, K, H/4, W/4), no tags."""
        heatmaps = self.final_layer(self.features(images)[0])
        return Outputs(heatmaps=(heatmaps,), tags=(heatmaps[:, :0],))
