"""The two residual blocks of ResNet (He et al. 2016, fig. 5), under the official HRNet names."""

from __future__ import annotations

import torch
from torch import nn

BN_MOMENTUM = 0.1


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias that keeps (stride 1) or halves (stride 2) the resolution."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def norm(channels: int) -> nn.BatchNorm2d:
    """The batch normalization used throughout."""
    return nn.BatchNorm2d(channels, momentum=BN_MOMENTUM)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut: (B, inputs, H, W) → (B, channels, H, W)."""

    expansion = 1

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, channels)
        self.bn1 = norm(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = norm(channels)
        self.downsample = shortcut(inputs, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 around a shortcut: (B, inputs, H, W) → (B, 4 * channels, H, W)."""

    expansion = 4

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = norm(channels)
        self.conv3 = nn.Conv2d(channels, channels * 4, 1, bias=False)
        self.bn3 = norm(channels * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, channels * 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def shortcut(inputs: int, outputs: int) -> nn.Sequential | None:
    """A 1x1 projection where the number of channels changes, else nothing."""
    if inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), norm(outputs))
