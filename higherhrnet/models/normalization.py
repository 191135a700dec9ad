"""From stored pixels to what a network reads."""

from __future__ import annotations

import torch

from ..device_constants import constant

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet's R, G, B in 0..1, as in all published HRNet weights."""


def normalize(images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) uint8 RGB → float32, ImageNet-normalized, in the same memory format."""
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, not {images.dtype}")
    mean = constant(MEAN, images.device).view(1, 3, 1, 1)
    std = constant(STD, images.device).view(1, 3, 1, 1)
    return (images.float() / 255 - mean) / std
