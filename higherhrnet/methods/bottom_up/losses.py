"""Losses: masked heatmap MSE and tag pull / push, as named scalars.

Everything is gathers and masked sums over (B, P, K): no loop over images, people or joints, and
nothing is read back from the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...structures import ALL_ANNOTATED, Head, Outputs, Targets


def heatmap_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    annotated: torch.Tensor = ALL_ANNOTATED,
) -> torch.Tensor:
    """Masked squared error, mean over joints and all pixels (HigherHRNet, sec. 3.4).

    Args:
        prediction: (B, K, H, W), of any floating type.
        target: (B, K, H, W) float32.
        weight: broadcast against them, 1 where the error counts, else 0.
        annotated: ([B,] K or 1) 1 for the joints that count. The mean stays one over all joints,
            as it is one over all pixels.

    Returns:
        (B,) one value an image.
    """
    joints = annotated[..., None, None]
    each: torch.Tensor = _MaskedSquares.apply(prediction, target, weight, joints)
    return each


class _MaskedSquares(torch.autograd.Function):
    """Mean masked square an image, with one map-sized tensor kept where autograd keeps three."""

    @staticmethod
    def forward(
        ctx: Any,
        prediction: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor,
        joints: torch.Tensor,
    ) -> torch.Tensor:
        error = torch.sub(prediction, target).mul_(weight)  # float32 if either is
        if joints.numel() > 1:
            error.mul_(joints)
        ctx.save_for_backward(error)
        ctx.dtype = prediction.dtype
        flat = error.flatten(1)
        return torch.linalg.vecdot(flat, flat) / flat.shape[1]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (error,) = ctx.saved_tensors  # masked, and a mask of 0 and 1 is its own square
        factor = gradients[0] * (2 / error[0].numel())
        return (error * factor[:, None, None, None]).to(ctx.dtype), None, None, None


def tag_losses(
    tags: torch.Tensor, indices: torch.Tensor, push_type: str = "exp"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pull a person's tags together, push people's mean tags apart (Newell et al. 2017, eq. 1-2).

    pull = mean over people of mean over joints of (t - mean)²;
    push = 1/2 (Σ over ordered pairs of exp(-d²)) / (N (N - 1)), or of max(0, 1 - |d|).

    Args:
        tags: (B, K or 1, H, W).
        indices: (B, P, K) flat indices, -1 where there is no joint.
        push_type: shape of the push.

    Returns:
        pull and push, each (B,); 0 for images without people, push also with one person.
    """
    batch, people, joints = indices.shape
    if people == 0:
        nothing = tags.float().flatten(1)[:, :0].sum(dim=1)
        return nothing, nothing
    per_joint = tags.float().flatten(2).expand(batch, joints, -1)  # (B, K, H * W)
    present = indices >= 0
    read = per_joint.gather(2, indices.clamp(min=0).transpose(1, 2)).transpose(1, 2)  # (B, P, K)
    count = present.sum(dim=2)
    mean = (read * present).sum(dim=2) / count.clamp(min=1)  # (B, P)
    spread = ((read - mean[..., None]) ** 2 * present).sum(dim=2) / count.clamp(min=1)
    is_person = count > 0
    number = is_person.sum(dim=1)
    pull = (spread * is_person).sum(dim=1) / number.clamp(min=1)
    difference = mean[:, :, None] - mean[:, None, :]
    closeness = (
        torch.exp(-(difference**2)) if push_type == "exp" else (1 - difference.abs()).clamp(min=0)
    )
    pairs = is_person[:, :, None] & is_person[:, None, :]
    pairs = pairs & ~torch.eye(people, dtype=torch.bool, device=pairs.device)
    push = 0.5 * (closeness * pairs).sum(dim=(1, 2)) / (number * (number - 1)).clamp(min=1)
    return pull, push


@dataclass(frozen=True)
class BottomUpLoss:
    """Sum of all heads' losses; the defaults are the published factors.

    Attributes:
        heads: the network's outputs.
        heatmap_factors: weight of each head's heatmap loss.
        pull_factors, push_factors: weights of each head's tag losses.
        push_type: shape of the push.
    """

    heads: tuple[Head, ...]
    heatmap_factors: Sequence[float] = (1.0, 1.0)
    pull_factors: Sequence[float] = (0.001, 0.001)
    push_factors: Sequence[float] = (0.001, 0.001)
    push_type: str = "exp"

    def __post_init__(self) -> None:
        for factors in (self.heatmap_factors, self.pull_factors, self.push_factors):
            if len(factors) != len(self.heads):
                raise ValueError(f"{len(factors)} factors were given for {len(self.heads)} heads")

    def __call__(self, outputs: Outputs, targets: Targets) -> dict[str, torch.Tensor]:
        """Weighted scalars, means over the batch, named by what and stride; their sum is the loss.

        ``heatmap/4``, ``heatmap/2``, …, and ``pull/4``, ``push/4`` for heads with tags.
        """
        losses = {}
        for i, head in enumerate(self.heads):
            each = heatmap_loss(
                outputs.heatmaps[i], targets.heatmaps[i], targets.weights[i], targets.annotated
            )
            losses[f"heatmap/{head.stride}"] = self.heatmap_factors[i] * each.mean()
            if head.tags:
                pull, push = tag_losses(outputs.tags[i], targets.indices[i], self.push_type)
                losses[f"pull/{head.stride}"] = self.pull_factors[i] * pull.mean()
                losses[f"push/{head.stride}"] = self.push_factors[i] * push.mean()
        return losses
