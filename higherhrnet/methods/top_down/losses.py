"""The top-down loss: squared heatmap errors of labeled joints (Sun et al. 2019, sec. 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...device_constants import constant
from ...outputs import Head, Outputs
from ...structures import Targets


@dataclass(frozen=True)
class TopDownLoss:
    """Squared heatmap errors of the joints that are labeled (Sun et al. 2019, sec. 3).

    Attributes:
        heads: the network's outputs; one.
        joint_weights: K factors of errors; none weighs all joints alike.
        ohkm_topk: only so many joints of a person count, those with the largest errors (Chen et al.
            2018, online hard keypoint mining); 0 counts all.
    """

    heads: tuple[Head, ...]
    joint_weights: tuple[float, ...] = ()
    ohkm_topk: int = 0

    def __call__(self, outputs: Outputs, targets: Targets) -> dict[str, torch.Tensor]:
        """``heatmap/4``: half the mean over persons, joints and pixels of squared errors."""
        weight = targets.weights[0]
        if self.joint_weights:
            weight = weight * constant(self.joint_weights, weight.device).view(1, -1, 1, 1)
        error = (outputs.heatmaps[0] - targets.heatmaps[0]) * weight
        each = 0.5 * error.float().square().mean(dim=(2, 3))  # (B, K)
        if self.ohkm_topk:
            each = each.topk(min(self.ohkm_topk, each.shape[1]), dim=1).values
        return {f"heatmap/{self.heads[0].stride}": each.mean()}
