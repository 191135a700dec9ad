"""What is done to a batch's pixels where the network runs: warping and color changes."""

from __future__ import annotations

import torch

from ..device_constants import constant
from ..structures import PackedImages

_GREY = (0.299, 0.587, 0.114)


def warp(
    packed: PackedImages, shape: tuple[int, int], pixels: torch.Tensor | None = None
) -> torch.Tensor:
    """Bilinear views of images of any sizes; black outside them.

    The same views as ``cv2.warpAffine`` makes on the host but for its rounding of positions to
    1/32 pixel and of weights to 1/32768: gray values differ by up to a few steps at edges.

    Args:
        packed: whole images and the affines from views to them.
        shape: (H, W) of the views.
        pixels: where the device's own store of all images is, if the batch brings none.

    Returns:
        (B, 3, H, W) uint8, channels_last.
    """
    source = packed.pixels if pixels is None else pixels
    device = source.device
    x_step, y_step = (
        torch.arange(size, device=device, dtype=torch.float64) for size in (shape[1], shape[0])
    )
    a = packed.affine[:, :, :, None, None]  # (B, 2, 3, 1, 1)
    position = a[:, :, 0] * x_step + a[:, :, 1] * y_step[:, None] + a[:, :, 2]  # (B, 2, H, W)
    corner = position.floor()
    weight = (position - corner).float()
    corner = corner.long()
    height, width = (packed.shape[:, i, None, None] for i in (0, 1))
    channel = torch.arange(3, device=device)
    total = torch.zeros(len(a), *shape, 3, device=device)
    for dy in (0, 1):
        y = corner[:, 1] + dy
        wy = weight[:, 1] if dy else 1 - weight[:, 1]
        for dx in (0, 1):
            x = corner[:, 0] + dx
            wx = weight[:, 0] if dx else 1 - weight[:, 0]
            inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
            pixel = packed.start[:, None, None] + 3 * (y * width + x)
            read = source[torch.where(inside, pixel, 0)[..., None] + channel]
            total += read * (wx * wy * inside)[..., None]
    return total.round_().to(torch.uint8).permute(0, 3, 1, 2)


def change_color(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Scale brightness, then contrast about the image's mean, then saturation about gray.

    Args:
        images: (B, 3, H, W) uint8 RGB.
        factors: (B, 3) brightness, contrast, saturation; rows of ones change nothing.

    Returns:
        uint8 like ``images``.
    """
    brightness, contrast, saturation = (factors[:, i, None, None, None] for i in range(3))
    x = images.float() * brightness
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = mean + (x - mean) * contrast
    weights = constant(_GREY, images.device).view(1, 3, 1, 1)
    gray = (x * weights).sum(dim=1, keepdim=True)
    x = gray + (x - gray) * saturation
    return x.round_().clamp_(0, 255).to(torch.uint8)
