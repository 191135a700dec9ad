"""HRNet with the ImageNet classification head (Wang et al. 2020, appendix), for pre-training."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from .blocks import Bottleneck, norm
from .hrnet import Fusion, HRNet

HEAD_CHANNELS = (32, 64, 128, 256)


class Classifier(HRNet):
    """Four resolutions widened, folded downwards into one, pooled and classified.

    Args:
        width, modules, blocks, fusion, recompute: see :class:`HRNet`.
        classes: number of classes.
    """

    def __init__(
        self,
        width: int,
        classes: int = 1000,
        modules: tuple[int, int, int] = (1, 4, 3),
        blocks: int = 4,
        fusion: Fusion = "nearest",
        recompute: bool = False,
    ) -> None:
        super().__init__(width, modules, blocks, 4, fusion, recompute)
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
        """(B, 3, H, W) normalised images → (B, classes) logits."""
        xs = self.features(images)
        y = self.incre_modules[0](xs[0])
        for down, widen, x in zip(
            self.downsamp_modules, list(self.incre_modules)[1:], xs[1:], strict=True
        ):
            y = widen(x) + down(y)
        pooled = self.final_layer(y).mean(dim=(2, 3))
        logits: torch.Tensor = self.classifier(pooled)
        return logits
