"""HRNetV2 for semantic segmentation (Wang et al. 2020, sec. 5), under the official names."""

from __future__ import annotations

import torch
from torch import nn

from .blocks import norm
from .hrnet import HRNet, concatenate_resolutions


class SegmentationHRNet(HRNet):
    """All four resolutions at 1/4, stacked to 15 W channels, mixed and classified.

    Args:
        classes: C.
        width, num_modules, num_blocks, upsample_mode, activation_checkpointing: see :class:`HRNet`.
        align_corners: how bilinear upsampling aligns maps, in the exchange and in the head.
    """

    def __init__(
        self,
        classes: int,
        width: int,
        num_modules: tuple[int, int, int] = (1, 4, 3),
        num_blocks: int = 4,
        upsample_mode: str = "bilinear",
        activation_checkpointing: bool = False,
        align_corners: bool = True,
    ) -> None:
        super().__init__(
            width, num_modules, num_blocks, 4, upsample_mode, activation_checkpointing,
            align_corners,
        )  # fmt: skip
        self.classes, self.align_corners = classes, align_corners
        self.last_layer = build_head(sum(self.channels), classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(B, 3, H, W) normalized images, H and W multiples of 32 → (B, C, H/4, W/4) logits."""
        features = concatenate_resolutions(self.features(images), self.align_corners)
        logits: torch.Tensor = self.last_layer(features)
        return logits


def build_head(inputs: int, classes: int) -> nn.Sequential:
    """The head of HRNetV2: a 1x1 convolution of all channels, and one that classifies."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 1), norm(inputs), nn.ReLU(inplace=True),
        nn.Conv2d(inputs, classes, 1),
    )  # fmt: skip
