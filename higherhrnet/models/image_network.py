"""A network that reads pixels: what exported graphs have in common."""

from __future__ import annotations

import torch
from torch import nn

from .normalization import MEAN, STD


class ImageNetwork(nn.Module):
    """(B, H, W, 3) uint8 RGB → what a network that reads normalized images makes of it.

    Args:
        network: in evaluation mode; half precision, if it is cast, is its own affair.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.dtype = torch.float32
        self.mean = nn.Buffer(torch.tensor(MEAN).view(1, 3, 1, 1))
        self.std = nn.Buffer(torch.tensor(STD).view(1, 3, 1, 1))

    def cast(self, dtype: torch.dtype) -> None:
        """Compute the network in another type; what comes before and after stays float32."""
        self.network.to(dtype)
        self.dtype = dtype

    def normalized(self, images: torch.Tensor, flip: bool = False) -> torch.Tensor:
        """(B, 3, H, W) network inputs; with ``flip`` the flipped images follow in the batch."""
        x = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        if flip:
            x = torch.cat([x, x.flip(3)])
        return x.to(self.dtype)
