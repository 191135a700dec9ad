"""What computes a segmentation network: PyTorch, or an exported file's runtime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..base import RunGraph
from ..inputs import InputShape, autocast, send_image

Image = npt.NDArray[np.uint8]


class LogitNetwork(Protocol):
    """(H, W, 3) uint8 RGB of a shape that it reads → (C, H/4, W/4) float32 logits."""

    @property
    def shape(self) -> InputShape:
        """Which images it reads."""

    def __call__(self, image: Image) -> torch.Tensor: ...


@dataclass(frozen=True)
class TorchNetwork:
    """A module.

    Attributes:
        model: (B, 3, H, W) normalized images → (B, C, h, w) logits; in evaluation mode.
        device: where it is.
        precision: ``auto``, ``fp32`` or ``bf16``.
        shape: which images it reads.
    """

    model: nn.Module
    device: torch.device
    precision: str = "auto"
    shape: InputShape = field(default_factory=InputShape)

    @torch.inference_mode()
    def __call__(self, image: Image) -> torch.Tensor:
        with autocast(self.device, self.precision):
            logits: torch.Tensor = self.model(send_image(image, self.device))[0]
        return logits.float()


@dataclass(frozen=True)
class ExportedNetwork:
    """An exported file.

    Attributes:
        run: what runs it.
        shape: which images it reads.
    """

    run: RunGraph
    shape: InputShape

    def __call__(self, image: Image) -> torch.Tensor:
        (logits,) = self.run(image[None], ["logits"])
        return torch.from_numpy(logits[0])
