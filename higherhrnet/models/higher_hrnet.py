"""HigherHRNet (Cheng et al. 2020): heatmaps at 1/4 and 1/2 and tags at 1/4.

The first head reads HRNet's 1/4 features. Each further head stacks those features with the
previous head's output, doubles the resolution by a transposed convolution, refines with
residual blocks and predicts again (sec. 3.2-3.3, fig. 2). With no deconvolution this is the
plain HRNet + associative embedding baseline.
"""

from __future__ import annotations

import torch
from torch import nn

from ..fields import Head, Outputs
from .blocks import BasicBlock, norm
from .hrnet import Fusion, HRNet, initialise


class HigherHRNet(HRNet):
    """HRNet with one 1/4 head and ``deconvolutions`` heads of doubling resolution.

    Args:
        joints: K.
        width: HRNet width; also the channels after each transposed convolution.
        tag_heads: for each of the 1 + deconvolutions heads, whether it predicts tags.
        shared_tag: one tag map for all joints instead of one a joint.
        concatenate: feed each head's output to the next transposed convolution.
        residual_blocks: BasicBlocks after each transposed convolution.
        modules, blocks, fusion, recompute: see :class:`HRNet`.

    Raises:
        ValueError: ``tag_heads`` does not name every head.
    """

    def __init__(
        self,
        joints: int,
        width: int,
        tag_heads: tuple[bool, ...] = (True, False),
        shared_tag: bool = False,
        concatenate: bool = True,
        residual_blocks: int = 4,
        modules: tuple[int, int, int] = (1, 4, 3),
        blocks: int = 4,
        fusion: Fusion = "nearest",
        recompute: bool = False,
    ) -> None:
        super().__init__(width, modules, blocks, 1, fusion, recompute)
        if not tag_heads:
            raise ValueError("a HigherHRNet needs at least one head, but TAG_HEADS is empty")
        self.joints = joints
        self.concatenate = concatenate
        tags = 1 if shared_tag else joints
        self.heads = tuple(
            Head(stride=self.stride // 2**i, tags=tags if tagged else 0)
            for i, tagged in enumerate(tag_heads)
        )
        outputs = [joints + head.tags for head in self.heads]
        self.final_layers = nn.ModuleList(nn.Conv2d(width, count, 1) for count in outputs)
        self.deconv_layers = nn.ModuleList(
            nn.Sequential(
                nn.Sequential(
                    nn.ConvTranspose2d(
                        width + (count if concatenate else 0),
                        width,
                        kernel_size=4,
                        stride=2,
                        padding=1,
                        bias=False,
                    ),
                    norm(width),
                    nn.ReLU(inplace=True),
                ),
                *(nn.Sequential(BasicBlock(width, width)) for _ in range(residual_blocks)),
            )
            for count in outputs[:-1]
        )
        initialise(self)

    def forward(self, images: torch.Tensor) -> Outputs:  # type: ignore[override]
        """(B, 3, H, W) normalised images, H and W multiples of 32 → one entry a head."""
        x = self.features(images)[0]
        predictions = [self.final_layers[0](x)]
        for deconvolution, final in zip(
            self.deconv_layers, list(self.final_layers)[1:], strict=True
        ):
            if self.concatenate:
                x = torch.cat([x, predictions[-1]], dim=1)
            x = self.run(deconvolution, x)
            predictions.append(final(x))
        return Outputs(
            heatmaps=tuple(prediction[:, : self.joints] for prediction in predictions),
            tags=tuple(prediction[:, self.joints :] for prediction in predictions),
        )
