"""HRNet: a backbone that keeps high resolution throughout (Sun et al. 2019; Wang et al. 2020).

A stem brings the image to 1/4. Four stages then run 1, 2, 3 and 4 branches in parallel, each
branch at half the resolution and twice the channels of the one above, and every module ends in
an exchange between all branches (Wang et al. 2020, sec. 3.2-3.3). One number, the width W of
the first branch, names the network: HRNet-W32.

Module names are those of the official code, so official state dicts load as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .activation_checkpointing import checkpoint_activations
from .blocks import BasicBlock, Bottleneck, conv3x3, norm


class HighResolutionModule(nn.Module):
    """Residual branches in parallel, then an exchange where every output sums all branches.

    Args:
        channels: channels of each branch, highest resolution first.
        outputs: how many of the resolutions are given out, highest first.
        num_blocks: BasicBlocks in each branch.
        upsample_mode: how a lower resolution is brought up; published pose networks use nearest.
        align_corners: how bilinear upsampling aligns maps.
    """

    def __init__(
        self,
        channels: Sequence[int],
        outputs: int,
        num_blocks: int = 4,
        upsample_mode: str = "nearest",
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width) for _ in range(num_blocks)))
            for width in channels
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(
                _exchange(channels, source, target, upsample_mode, align_corners)
                for source in range(len(channels))
            )
            for target in range(outputs)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, xs: list[torch.Tensor]) -> list[torch.Tensor]:
        """List of branches (B, W * 2**i, h / 2**i, w / 2**i) → the first ``outputs`` of them."""
        xs = [branch(x) for branch, x in zip(self.branches, xs, strict=True)]
        fused = []
        for layers in self.fuse_layers:
            assert isinstance(layers, nn.ModuleList)
            total = layers[0](xs[0])
            for layer, x in zip(list(layers)[1:], xs[1:], strict=True):
                total = total + layer(x)
            fused.append(self.relu(total))
        return fused


def _exchange(
    channels: Sequence[int], source: int, target: int, upsample_mode: str, align_corners: bool
) -> nn.Module:
    """What carries branch ``source`` to the resolution and channels of branch ``target``."""
    if source == target:
        return nn.Identity()
    if source > target:
        upsample = nn.Upsample(
            scale_factor=2 ** (source - target),
            mode=upsample_mode,
            align_corners=align_corners if upsample_mode == "bilinear" else None,
        )
        project = nn.Conv2d(channels[source], channels[target], 1, bias=False)
        return nn.Sequential(project, norm(channels[target]), upsample)
    steps: list[nn.Module] = []
    for step in range(target - source):
        last = step == target - source - 1
        width = channels[target] if last else channels[source]
        layers = [conv3x3(channels[source], width, stride=2), norm(width)]
        steps.append(nn.Sequential(*layers, *([] if last else [nn.ReLU(inplace=True)])))
    return nn.Sequential(*steps)


class HRNet(nn.Module):
    """Stem and four stages.

    Args:
        width: channels of the highest resolution (18, 32, 48; any even number ≥ 4 works).
        num_modules: exchange modules in stages 2, 3 and 4.
        num_blocks: BasicBlocks in each branch, Bottlenecks in stage 1.
        outputs: resolutions given out by the last module: 1 for pose networks (HRNet-V1), 4 for
            the multi-resolution outputs (V2, V2p, classification).
        upsample_mode, align_corners: upsampling inside the exchange.
        activation_checkpointing: in training store only what enters layer 1 and each module, and
            compute the rest again in the backward pass: about a quarter of the memory for a
            third more time.
    """

    stride = 4

    def __init__(
        self,
        width: int,
        num_modules: tuple[int, int, int] = (1, 4, 3),
        num_blocks: int = 4,
        outputs: int = 1,
        upsample_mode: str = "nearest",
        activation_checkpointing: bool = False,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.activation_checkpointing = activation_checkpointing
        self.channels = tuple(width * 2**i for i in range(4))
        self.conv1 = conv3x3(3, 64, stride=2)
        self.bn1 = norm(64)
        self.conv2 = conv3x3(64, 64, stride=2)
        self.bn2 = norm(64)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(
            Bottleneck(64, 64), *(Bottleneck(256, 64) for _ in range(num_blocks - 1))
        )
        previous: tuple[int, ...] = (256,)
        for stage, count in zip((2, 3, 4), num_modules, strict=True):
            current = self.channels[:stage]
            setattr(self, f"transition{stage - 1}", _transition(previous, current))
            last = outputs if stage == 4 else stage
            setattr(
                self,
                f"stage{stage}",
                nn.Sequential(
                    *(
                        HighResolutionModule(
                            current,
                            last if i == count - 1 else stage,
                            num_blocks,
                            upsample_mode,
                            align_corners,
                        )
                        for i in range(count)
                    )
                ),
            )
            previous = current

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) normalized → ``outputs`` maps (B, W * 2**i, H / 4 / 2**i, W / 4 / 2**i)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        xs = [self.run(self.layer1, x)]
        for stage in (2, 3, 4):
            transition = getattr(self, f"transition{stage - 1}")
            xs = [transition[i](xs[min(i, len(xs) - 1)]) for i in range(len(transition))]
            for module in getattr(self, f"stage{stage}"):
                xs = self.run(module, xs)
        return xs

    def run(self, part: nn.Module, inputs: Any) -> Any:
        """``part(inputs)``, with activations stored or to be computed again."""
        if self.activation_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint_activations(part, inputs)
        return part(inputs)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return self.features(x)


def _transition(previous: Sequence[int], current: Sequence[int]) -> nn.ModuleList:
    """Layers that start a stage: adapt channels where they differ and add the next branch."""
    layers: list[nn.Module] = []
    for i, width in enumerate(current):
        if i >= len(previous):
            new_branch = nn.Sequential(
                conv3x3(previous[-1], width, stride=2), norm(width), nn.ReLU(inplace=True)
            )
            layers.append(nn.Sequential(new_branch))
        elif previous[i] != width:
            layers.append(
                nn.Sequential(conv3x3(previous[i], width), norm(width), nn.ReLU(inplace=True))
            )
        else:
            layers.append(nn.Identity())
    return nn.ModuleList(layers)


def concatenate_resolutions(
    features: Sequence[torch.Tensor], align_corners: bool = False
) -> torch.Tensor:
    """HRNet-V2: all resolutions brought up bilinearly and stacked (Wang et al. 2020, fig. 4b).

    Four maps → (B, 15 W, H/4, W/4).
    """
    size = features[0].shape[-2:]
    upsampled = [
        F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)
        for x in features[1:]
    ]
    return torch.cat([features[0], *upsampled], dim=1)


def initialize(module: nn.Module) -> None:
    """The published start: convolutions N(0, 0.001²), biases 0, batch norms identity."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, std=0.001)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
