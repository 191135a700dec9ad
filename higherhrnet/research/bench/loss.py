"""How fast the losses are, beside loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ...methods.bottom_up import losses
from . import reference
from .table import Row, median_seconds

_Work = Callable[[], torch.Tensor]


def run(
    device: torch.device, crowds: Sequence[int] = (1, 5, 30), batch: int = 16, joints: int = 17
) -> list[Row]:
    """Forward and backward of the tag losses (128 x 128 maps) and of the heatmap loss (256 x 256).

    Args:
        device: device.
        crowds: people an image.
        batch: images.
        joints: K.
    """
    rows: list[Row] = []
    generator = torch.Generator().manual_seed(0)
    for people in crowds:
        indices = torch.randint(0, 128 * 128, (batch, people, joints), generator=generator)
        absent = torch.rand(indices.shape, generator=generator) < 0.2
        indices = torch.where(absent, -1, indices)
        tags = torch.randn(batch, joints, 128, 128, generator=generator).to(device).requires_grad_()
        there, listed = indices.to(device), indices.tolist()

        def fast(tags: torch.Tensor = tags, there: torch.Tensor = there) -> torch.Tensor:
            return _both(tags, *losses.tag_losses(tags, there))

        def slow(tags: torch.Tensor = tags, listed: reference.Joints = listed) -> torch.Tensor:
            return _both(tags, *reference.tag_losses(tags, listed))

        rows.append(_row(f"tags, {batch} x {people} people", fast, slow, tags))
    prediction = (
        torch.randn(batch, joints, 256, 256, generator=generator).to(device).requires_grad_()
    )
    target = torch.rand(batch, joints, 256, 256, generator=generator).to(device)
    weight = (torch.rand(batch, 1, 256, 256, generator=generator) < 0.9).float().to(device)

    def forward_fused() -> torch.Tensor:
        return _both(prediction, losses.heatmap_loss(prediction, target, weight))

    def written_out() -> torch.Tensor:
        return _both(prediction, reference.heatmap_loss(prediction, target, weight))

    rows.append(_row(f"heatmaps, {batch}", forward_fused, written_out, prediction))
    return rows


def _both(leaf: torch.Tensor, *parts: torch.Tensor) -> torch.Tensor:
    """Value with the gradient left on the leaf."""
    leaf.grad = None
    total = torch.stack([part.mean() for part in parts]).sum()
    torch.autograd.backward(total)
    if total.is_cuda:
        torch.cuda.synchronize()
    return total.detach()


def _row(name: str, fast: _Work, slow: _Work, leaf: torch.Tensor) -> Row:
    value, gradient = slow().item(), leaf.grad
    difference = abs(fast().item() - value) / max(abs(value), 1e-12)
    assert leaf.grad is not None
    assert gradient is not None
    slope = (leaf.grad - gradient).abs().max().item()
    quick, long = median_seconds(fast, 9), median_seconds(slow, 3)
    return {
        "loss": name,
        "loops ms": 1000 * long,
        "ms": 1000 * quick,
        "ratio": long / quick,
        "value difference": difference,
        "gradient difference": slope,
    }
