"""HRNet with the ImageNet classification head (Wang et al. 2020, appendix), for pre-training."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from .blocks import Bottleneck, norm
from .hrnet import HRNet

HEAD_CHANNELS = (32, 64, 128, 256)


class Classifier(HRNet):
    """Four resolutions widened, folded downwards into one, pooled and classified.

    Args:
        width, num_modules, num_blocks, upsample_mode, activation_checkpointing: see :class:`HRNet`.
        classes: number of classes.
    """

    def __init__(
        self,
        width: int,
        classes: int = 1000,
        num_modules: tuple[int, int, int] = (1, 4, 3),
        num_blocks: int = 4,
        upsample_mode: str = "nearest",
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(width, num_modules, num_blocks, 4, upsample_mode, activation_checkpointing)
        widened = [channels * Bottleneck.expansion for channels in HEAD_CHANNELS]
        self.incre_modules = nn.ModuleList(
            nn.Sequential(Bottleneck(inputs, channels))
            for inputs, channels in zip(self.channels, HEAD_CHANNELS, strict=True)
        )
        self.downsamp_modules = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1),
                norm(outputs),
                nn.ReLU(inplace=True),
            )
            for inputs, outputs in pairwise(widened)
        )
        self.final_layer = nn.Sequential(
            nn.Conv2d(widened[-1], 2048, 1), norm(2048), nn.ReLU(inplace=True)
        )
        self.classifier = nn.Linear(2048, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(B, 3, H, W) normalized images → (B, classes) logits."""
        xs = self.features(images)
        y = self.incre_modules[0](xs[0])
        for down, widen, x in zip(
            self.downsamp_modules, list(self.incre_modules)[1:], xs[1:], strict=True
        ):
            y = widen(x) + down(y)
        pooled = self.final_layer(y).mean(dim=(2, 3))
        logits: torch.Tensor = self.classifier(pooled)
        return logits
