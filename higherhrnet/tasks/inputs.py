"""From pixels to what networks of the tasks read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..datasets import device_transforms as on_device
from ..datasets.crops import pad_to, pad_to_multiple, resize
from ..models.normalization import normalize
from ..models.precision import best_precision

STRIDE = 32
"""Sides of a network's input are multiples of it."""


@dataclass(frozen=True)
class InputShape:
    """Which images a network reads.

    Attributes:
        multiple: of which their sides are.
        size: (H, W) if it reads but one.
    """

    multiple: int = STRIDE
    size: tuple[int, int] | None = None

    def place(
        self, image: npt.NDArray[np.uint8], factor: float, flip: bool = False
    ) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
        """An image (H, W, 3) as the network's input: resized, flipped, and padded on the right and
        below.

        Args:
            factor: by which it is resized; an input of one size is filled instead.

        Returns:
            the input, and (h, w) of the image within it.
        """
        height, width = image.shape[:2]
        if self.size is not None:
            factor = min(self.size[0] / height, self.size[1] / width)
        shape = max(round(height * factor), 1), max(round(width * factor), 1)
        resized = resize(image, shape)
        seen = np.ascontiguousarray(resized[:, ::-1]) if flip else resized
        if self.size is not None:
            return pad_to(seen, self.size), shape
        return pad_to_multiple(seen, self.multiple), shape


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
