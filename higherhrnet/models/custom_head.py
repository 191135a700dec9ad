"""HRNet with a head of the user's own, ``MODEL.HEAD package:name``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..outputs import Outputs
from .hrnet import initialize
from .pose_model import PoseModel


class CustomHeadModel(PoseModel):
    """The backbone, and what ``make_head(channels, joints)`` returns on top of it.

    Args:
        joints: K.
        make_head: a function or class; called with the channels of the backbone's outputs and K, it
            gives a module with an attribute ``heads`` (a tuple of :class:`outputs.Head`, strides
            falling) whose forward takes the list of features and gives :class:`outputs.Outputs`.
            Its attribute ``resolutions`` says how many features it wants: 1 (default), those at
            1/4; or 4, at 1/4, 1/8, 1/16 and 1/32.
        width, num_modules, num_blocks, upsample_mode, activation_checkpointing: see :class:`HRNet`.
    """

    def __init__(
        self,
        joints: int,
        make_head: Callable[[tuple[int, ...], int], Any],
        width: int,
        num_modules: tuple[int, int, int] = (1, 4, 3),
        num_blocks: int = 4,
        upsample_mode: str = "nearest",
        activation_checkpointing: bool = False,
    ) -> None:
        resolutions = int(getattr(make_head, "resolutions", 1))
        super().__init__(
            width, num_modules, num_blocks, resolutions, upsample_mode, activation_checkpointing
        )
        self.joints = joints
        initialize(self)
        self.head: nn.Module = make_head(self.channels[:resolutions], joints)
        self.heads = tuple(self.head.heads)

    def forward(self, images: torch.Tensor) -> Outputs:  # type: ignore[override]
        """(B, 3, H, W) normalized images → what the head gives."""
        outputs: Outputs = self.head(self.features(images))
        return outputs
