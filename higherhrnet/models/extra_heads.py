"""Heads beside those of the keypoints, on the same trunk (Wang et al. 2020: V2 and V2p)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torchvision.models.detection.fcos import FCOSHead

from .detector import FeaturePyramid
from .hrnet import concatenate_resolutions
from .segmentation import build_head

BOX_STRIDES = (8, 16, 32, 64)
"""Of the levels of the box head's pyramid, input pixels."""
_CHANNELS, _CONVS = 96, 2


class MaskHead(nn.Module):
    """HRNetV2's head for one class: silhouettes of people.

    Args:
        inputs: channels of the four resolutions together.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.last_layer = build_head(inputs, 1)

    def forward(self, features: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Four maps → (B, 1, H/4, W/4) logits."""
        return (self.last_layer(concatenate_resolutions(features)),)


class BoxHead(nn.Module):
    """HRNetV2p's pyramid under FCOS's head for one class: boxes of people.

    Args:
        inputs: channels of the four resolutions together.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.neck = FeaturePyramid(inputs, _CHANNELS, len(BOX_STRIDES), BOX_STRIDES[0])
        self.head = FCOSHead(_CHANNELS, 1, 1, _CONVS)

    def forward(self, features: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Four maps → logits (B, N, 1), sides (B, N, 4), centerness (B, N, 1)."""
        found = self.head(self.neck(features))
        return found["cls_logits"], found["bbox_regression"], found["bbox_ctrness"]


EXTRA_HEADS: dict[str, Callable[[int], nn.Module]] = {"masks": MaskHead, "boxes": BoxHead}
"""``MODEL.HEADS`` and field of :class:`Outputs` → its head."""
