"""Losses: masked heatmap MSE and tag pull / push, as named scalars.

Everything is gathers and masked sums over (B, P, K): no loop over images, people or joints, and
nothing is read back from the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...outputs import Head, Outputs
from ...structures import ALL_ANNOTATED, Targets


def heatmap_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    annotated: torch.Tensor = ALL_ANNOTATED,
    kind: str = "mse",
) -> torch.Tensor:
    """Masked squared error, mean over joints and all pixels (HigherHRNet, sec. 3.4).

    Args:
        prediction: (B, K, H, W), of any floating type.
        target: (B, K, H, W) float32.
        weight: broadcast against them, 1 where the error counts, else 0.
        annotated: ([B,] K or 1) 1 for the joints that count. The mean stays one over all joints,
            as it is one over all pixels.
        kind: one of :data:`HEATMAP_LOSSES`.

    Returns:
        (B,) one value an image.
    """
    factors = [weight]
    if annotated.numel() > 1:
        factors.append(annotated[..., None, None])
    if kind != "mse":
        with torch.no_grad():
            factors.append(HEATMAP_LOSSES[kind](prediction.float(), target.detach()))
    each: torch.Tensor = _WeightedSquares.apply(prediction, target, *factors)
    return each


class _WeightedSquares(torch.autograd.Function):
    """Mean weighted square an image, with one map-sized tensor kept where autograd keeps three."""

    @staticmethod
    def forward(
        ctx: Any, prediction: torch.Tensor, target: torch.Tensor, *factors: torch.Tensor
    ) -> torch.Tensor:
        error = torch.sub(prediction, target)  # float32 if either is
        weighted = error * factors[0]
        for factor in factors[1:]:
            weighted *= factor
        ctx.factors = len(factors)
        ctx.save_for_backward(weighted)
        ctx.dtype = prediction.dtype
        return torch.linalg.vecdot(error.flatten(1), weighted.flatten(1)) / error[0].numel()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (weighted,) = ctx.saved_tensors
        factor = gradients[0] * (2 / weighted[0].numel())
        gradient = weighted * factor[:, None, None, None]
        into_target = -gradient if ctx.needs_input_grad[1] else None
        return gradient.to(ctx.dtype), into_target, *(None,) * ctx.factors


_FOREGROUND = 0.01
"""Targets above it are foreground: three standard deviations around a joint."""


def adapt_scales(target: torch.Tensor, scales: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets whose Gaussians have the widths that the network predicts, and what that costs
    (SWAHR, Luo et al. 2021, sec. 3.3, eq. 4 to 6).

    With a width of sigma * s a Gaussian H becomes H^(1 / s²). The network predicts 1 / s - 1; the
    cost is its square, around joints.

    Args:
        target: (B, K, H, W) in 0..1.
        scales: as many.

    Returns:
        the adapted targets and the cost of each pixel, both (B, K, H, W) float32; gradients flow
        into ``scales``.
    """
    narrower = 1 + scales.float()
    near = target > 0
    logarithm = torch.where(near, target, 1.0).log()
    adapted = torch.where(near, (narrower.square() * logarithm).exp(), 0.0)
    return adapted, (narrower - 1).square() * near


def _foreground(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 around joints, 0.1 elsewhere (DEKR, Geng et al. 2021, sec. 3.3)."""
    return torch.where(target > _FOREGROUND, 1.0, 0.1)


def _weight_adaptive(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """H^γ |1 - P| + (1 - H^γ) |P| with γ = 0.01 (SWAHR, Luo et al. 2021, sec. 3.4, eq. 8): around
    joints what is missed counts, elsewhere what is invented."""
    near = target**0.01
    return near * (1 - prediction).abs() + (1 - near) * prediction.abs()


def _focal(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """|1 - s| with s = P - 0.1 around joints and s = 1 - P - 0.02 elsewhere (Li et al. 2020, Simple
    Pose, sec. 3.3, focal L2): what is right already counts little."""
    return torch.where(target > _FOREGROUND, 1.1 - prediction, prediction + 0.02).abs()


HEATMAP_LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mse": lambda prediction, target: torch.ones_like(target),
    "foreground": _foreground,
    "weight_adaptive": _weight_adaptive,
    "focal": _focal,
}
"""(prediction, target), both (B, K, H, W) float32 → weights of the squared errors, which count as
constants for the gradient."""


def tag_losses(
    tags: torch.Tensor, indices: torch.Tensor, push_type: str = "exp", dim: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pull a person's tags together, push people's mean tags apart (Newell et al. 2017, eq. 1-2).

    pull = mean over people of mean over joints of |t - mean|²;
    push = 1/2 (Σ over ordered pairs of exp(-d²)) / (N (N - 1)), or of max(0, 1 - d).

    Args:
        tags: (B, dim * (K or 1), H, W), all maps of one dimension together.
        indices: (B, P, K) flat indices, -1 where there is no joint.
        push_type: shape of the push.
        dim: of a tag; distances are Euclidean.

    Returns:
        pull and push, each (B,); 0 for images without people, push also with one person.
    """
    batch, people, joints = indices.shape
    if people == 0:
        nothing = tags.float().flatten(1)[:, :0].sum(dim=1)
        return nothing, nothing
    maps = tags.float().reshape(batch, dim, -1, tags.shape[2] * tags.shape[3])
    per_joint = maps.expand(batch, dim, joints, -1)  # (B, D, K, H * W)
    present = indices >= 0
    at = indices.clamp(min=0).transpose(1, 2)[:, None].expand(-1, dim, -1, -1)
    read = per_joint.gather(3, at).transpose(2, 3)  # (B, D, P, K)
    count = present.sum(dim=2)
    mean = (read * present[:, None]).sum(dim=3) / count.clamp(min=1)[:, None]  # (B, D, P)
    square = ((read - mean[..., None]) ** 2).sum(dim=1)  # (B, P, K)
    spread = (square * present).sum(dim=2) / count.clamp(min=1)
    is_person = count > 0
    number = is_person.sum(dim=1)
    pull = (spread * is_person).sum(dim=1) / number.clamp(min=1)
    difference = mean[..., :, None] - mean[..., None, :]
    if push_type == "exp":
        closeness = torch.exp(-(difference**2).sum(dim=1))
    else:
        apart = difference[:, 0].abs() if dim == 1 else _norm(difference)
        closeness = (1 - apart).clamp(min=0)
    pairs = is_person[:, :, None] & is_person[:, None, :]
    pairs = pairs & ~torch.eye(people, dtype=torch.bool, device=pairs.device)
    push = 0.5 * (closeness * pairs).sum(dim=(1, 2)) / (number * (number - 1)).clamp(min=1)
    return pull, push


def _norm(difference: torch.Tensor) -> torch.Tensor:
    """Length over dimension 1, with a gradient of 0 where it is 0."""
    square = (difference**2).sum(dim=1)
    return torch.where(square > 0, square, 1).sqrt() * (square > 0)


@dataclass(frozen=True)
class BottomUpLoss:
    """Sum of all heads' losses; the defaults are the published factors.

    Attributes:
        heads: the network's outputs.
        heatmap_factors: weight of each head's heatmap loss.
        pull_factors, push_factors: weights of each head's tag losses.
        push_type: shape of the push.
        heatmap_type: one of :data:`HEATMAP_LOSSES`.
        scale_factor: weight of what scale-adaptive Gaussians cost, where the network predicts them.
    """

    heads: tuple[Head, ...]
    heatmap_factors: Sequence[float] = (1.0, 1.0)
    pull_factors: Sequence[float] = (0.001, 0.001)
    push_factors: Sequence[float] = (0.001, 0.001)
    push_type: str = "exp"
    heatmap_type: str = "mse"
    scale_factor: float = 1.0

    def __post_init__(self) -> None:
        for factors in (self.heatmap_factors, self.pull_factors, self.push_factors):
            if len(factors) != len(self.heads):
                raise ValueError(f"{len(factors)} factors were given for {len(self.heads)} heads")

    def __call__(self, outputs: Outputs, targets: Targets) -> dict[str, torch.Tensor]:
        """Weighted scalars, means over the batch, named by what and stride; their sum is the loss.

        ``heatmap/4``, ``heatmap/2``, …, ``pull/4``, ``push/4`` for heads with tags, and ``scale/4``
        … for heads with scales.
        """
        losses = {}
        for i, head in enumerate(self.heads):
            target, weight = targets.heatmaps[i], targets.weights[i]
            if outputs.scales:
                target, cost = adapt_scales(target, outputs.scales[i])
                cost = cost * weight * targets.annotated[..., None, None]
                losses[f"scale/{head.stride}"] = self.scale_factor * cost.mean()
            each = heatmap_loss(
                outputs.heatmaps[i], target, weight, targets.annotated, self.heatmap_type
            )
            losses[f"heatmap/{head.stride}"] = self.heatmap_factors[i] * each.mean()
            if head.tags:
                pull, push = tag_losses(
                    outputs.tags[i], targets.indices[i], self.push_type, head.tag_dim
                )
                losses[f"pull/{head.stride}"] = self.pull_factors[i] * pull.mean()
                losses[f"push/{head.stride}"] = self.push_factors[i] * push.mean()
        return losses
