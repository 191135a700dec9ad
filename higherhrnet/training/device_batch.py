"""From a loader's batch to the network's input and targets, on the network's device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..datasets import device_transforms as on_device
from ..structures import Batch, KeypointIndices, PackedImages, Targets, map_tensors


@dataclass(frozen=True)
class BatchToDevice:
    """Sends pixels and keypoint indices, and makes everything larger on the device.

    Attributes:
        device: where to.
        encode: keypoint indices → targets, the codec's.
        normalize: uint8 images → network input.
        shape: (H, W) of the views.
        pixels: the device's store of all images' bytes, if it has one.
    """

    device: torch.device
    encode: Callable[[KeypointIndices], Targets]
    normalize: Callable[[torch.Tensor], torch.Tensor]
    shape: tuple[int, int]
    pixels: torch.Tensor | None = None

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, Targets]:
        """Normalized (B, 3, H, W) float32 channels_last images, and their targets."""
        keypoints = map_tensors(batch.keypoints, self._send)
        if isinstance(batch.images, PackedImages):
            packed = PackedImages(*map(self._send, batch.images))
            images = on_device.warp(packed, self.shape, self.pixels)
        else:
            images = batch.images.to(
                self.device, memory_format=torch.channels_last, non_blocking=True
            )
        if bool((batch.color != 1).any()):  # still on the host: no waiting
            images = on_device.change_color(images, self._send(batch.color))
        return self.normalize(images), self.encode(keypoints)

    def _send(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.device, non_blocking=True)
