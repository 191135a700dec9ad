"""From pixels to what networks of the tasks read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ..datasets import device_transforms as on_device
from ..models.normalization import normalize
from ..models.precision import best_precision

STRIDE = 32
"""Sides of a network's input are multiples of it."""


def send_images(images: torch.Tensor, color: torch.Tensor, device: torch.device) -> torch.Tensor:
    """(B, 3, H, W) uint8 views → normalized float32 on the device, their colors changed.

    Args:
        images: on the host.
        color: (B, 3) factors of brightness, contrast and saturation.
    """
    sent = images.to(device, memory_format=torch.channels_last, non_blocking=True)
    if bool((color != 1).any()):  # still on the host: no waiting
        sent = on_device.change_color(sent, color.to(device))
    return normalize(sent)


def send_image(image: npt.NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """(H, W, 3) uint8 → (1, 3, H, W) normalized float32 on the device."""
    sent = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
    return normalize(sent.contiguous(memory_format=torch.channels_last))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Computes in bfloat16 where ``precision`` says so, or ``auto`` and the hardware does it."""
    chosen = best_precision(device) if precision == "auto" else precision
    return torch.autocast(device.type, torch.bfloat16, enabled=chosen == "bf16")
