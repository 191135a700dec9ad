"""From a loader's batch to the network's input and targets, on the network's device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..datasets import on_device
from ..fields import Batch, Marks, Packed, Targets


@dataclass(frozen=True)
class Feed:
    """Sends pixels and joint cells, and makes everything larger than these over there.

    Attributes:
        device: where to.
        encode: marks → targets, the codec's.
        normalise: uint8 images → network input.
        shape: (H, W) of the views.
        pixels: the device's store of all pictures' bytes, if it has one.
    """

    device: torch.device
    encode: Callable[[Marks], Targets]
    normalise: Callable[[torch.Tensor], torch.Tensor]
    shape: tuple[int, int]
    pixels: torch.Tensor | None = None

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, Targets]:
        """Normalised (B, 3, H, W) float32 channels_last images, and their targets."""
        marks = Marks(tuple(map(self._sent, batch.marks.cells)), self._sent(batch.marks.valid))
        if isinstance(batch.images, Packed):
            packed = Packed(*map(self._sent, batch.images))
            images = on_device.warp(packed, self.shape, self.pixels)
        else:
            images = batch.images.to(
                self.device, memory_format=torch.channels_last, non_blocking=True
            )
        if bool((batch.colour != 1).any()):  # still on the host: no waiting
            images = on_device.change_colour(images, self._sent(batch.colour))
        return self.normalise(images), self.encode(marks)

    def _sent(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.device, non_blocking=True)
