"""HigherHRNet (Cheng et al. 2020): heatmaps at 1/4 and 1/2 and tags at 1/4.

The first head reads HRNet's 1/4 features. Each further head stacks those features with the
previous head's output, doubles the resolution by a transposed convolution, refines with
residual blocks and predicts again (sec. 3.2-3.3, fig. 2). With no deconvolution this is the
plain HRNet + associative embedding baseline.
"""

from __future__ import annotations

import torch
from torch import nn

from ..outputs import Head, Outputs
from .blocks import BasicBlock, norm
from .hrnet import initialize
from .pose_model import PoseModel


class HigherHRNet(PoseModel):
    """HRNet with one head at 1/4 and further heads of doubling resolution.

    Args:
        joints: K.
        width: HRNet width; also the channels after each transposed convolution.
        tag_heads: for each head, 1/4 first, whether it predicts tags.
        tag_per_joint: one tag map for each joint instead of one for all.
        tag_dim: so many of them for each dimension of a tag.
        cat_output: feed each head's output to the next transposed convolution.
        num_basic_blocks: BasicBlocks after each transposed convolution.
        scale_adaptive: each head also predicts the width of its Gaussians (SWAHR, Luo et al. 2021,
            sec. 3.3), for training alone.
        extra_heads: keys of ``extra_heads.EXTRA_HEADS``: heads that read all four resolutions.
        num_modules, num_blocks, upsample_mode, activation_checkpointing: see :class:`HRNet`.

    Raises:
        ValueError: ``tag_heads`` is empty.
    """

    def __init__(
        self,
        joints: int,
        width: int,
        tag_heads: tuple[bool, ...] = (True, False),
        tag_per_joint: bool = True,
        cat_output: bool = True,
        num_basic_blocks: int = 4,
        num_modules: tuple[int, int, int] = (1, 4, 3),
        num_blocks: int = 4,
        upsample_mode: str = "nearest",
        activation_checkpointing: bool = False,
        tag_dim: int = 1,
        scale_adaptive: bool = False,
        extra_heads: tuple[str, ...] = (),
    ) -> None:
        resolutions = 4 if extra_heads else 1
        super().__init__(
            width, num_modules, num_blocks, resolutions, upsample_mode, activation_checkpointing
        )
        if not tag_heads:
            raise ValueError("a HigherHRNet needs at least one head, but tag_heads is empty")
        self.joints = joints
        self.cat_output = cat_output
        tags = tag_dim * (joints if tag_per_joint else 1)
        self.heads = tuple(
            Head(stride=self.stride // 2**i, tags=tags if tagged else 0, tag_dim=tag_dim)
            for i, tagged in enumerate(tag_heads)
        )
        outputs = [joints + head.tags for head in self.heads]
        self.final_layers = nn.ModuleList(nn.Conv2d(width, count, 1) for count in outputs)
        self.deconv_layers = nn.ModuleList(
            nn.Sequential(
                nn.Sequential(
                    nn.ConvTranspose2d(
                        width + (count if cat_output else 0),
                        width,
                        kernel_size=4,
                        stride=2,
                        padding=1,
                        bias=False,
                    ),
                    norm(width),
                    nn.ReLU(inplace=True),
                ),
                *(nn.Sequential(BasicBlock(width, width)) for _ in range(num_basic_blocks)),
            )
            for count in outputs[:-1]
        )
        self.scale_layers = nn.ModuleList(
            nn.Conv2d(width, joints, 1) for _ in self.heads if scale_adaptive
        )
        initialize(self)
        self.extra_heads = nn.ModuleDict()
        if extra_heads:
            from .extra_heads import EXTRA_HEADS  # with torchvision, which poses do not need

            channels = sum(self.channels)
            self.extra_heads.update({name: EXTRA_HEADS[name](channels) for name in extra_heads})

    def forward(self, images: torch.Tensor) -> Outputs:  # type: ignore[override]
        """(B, 3, H, W) normalized images, H and W multiples of 32 → one entry a head."""
        resolutions = self.features(images)
        outputs = self._predict_keypoints(resolutions[0])
        more = {name: head(resolutions) for name, head in self.extra_heads.items()}
        return outputs._replace(**more)

    def _predict_keypoints(self, x: torch.Tensor) -> Outputs:
        features = [x]
        predictions = [self.final_layers[0](x)]
        for deconvolution, final in zip(
            self.deconv_layers, list(self.final_layers)[1:], strict=True
        ):
            if self.cat_output:
                x = torch.cat([x, predictions[-1]], dim=1)
            x = self.run(deconvolution, x)
            features.append(x)
            predictions.append(final(x))
        return Outputs(
            heatmaps=tuple(prediction[:, : self.joints] for prediction in predictions),
            tags=tuple(prediction[:, self.joints :] for prediction in predictions),
            scales=tuple(layer(x) for layer, x in zip(self.scale_layers, features, strict=False)),
        )
