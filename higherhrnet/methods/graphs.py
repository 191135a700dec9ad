"""What the exported graphs of both methods share: tensors alone, of any batch and size.

Sub-pixel offsets are those of ``heatmaps.py``, on tensors; a test compares them.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..models.image_network import ImageNetwork
from ..outputs import Outputs

_FAINT = 1e-10


class PoseNetwork(ImageNetwork):
    """(B, H, W, 3) uint8 RGB → float32 outputs of a pose network."""

    def outputs(self, images: torch.Tensor, flip: bool) -> Outputs:
        """The network's outputs; with ``flip`` those of the flipped images follow in the batch."""
        found: Outputs = self.network(self.normalized(images, flip))
        heatmaps, tags = (tuple(maps.float() for maps in part) for part in found[:2])
        return Outputs(heatmaps, tags)


def resize(maps: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Bilinear, pixel edges aligned."""
    return F.interpolate(maps, size=shape, mode="bilinear", align_corners=False)


def split_index(flat: torch.Tensor, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x and y of flat indices into maps (..., H, W); a remainder by a size that is not known yet
    does not become ONNX."""
    height, width = maps.shape[2:]
    x = torch.arange(width, device=flat.device).expand(height, width).reshape(-1)
    y = torch.arange(height, device=flat.device)[:, None].expand(height, width).reshape(-1)
    return x[flat], y[flat]


def gather(maps: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(B, K, M) values of maps (B, K, H, W) at pixels (B, K, M)."""
    return maps.flatten(2).gather(2, y * maps.shape[3] + x)


def patches(maps: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> list[list[torch.Tensor]]:
    """3 by 3 of (B, K, M) values around pixels; beyond the border there is the border pixel."""
    wide = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    return [[gather(wide, x + dx, y + dy) for dx in range(3)] for dy in range(3)]


def quarter_offset(values: list[list[torch.Tensor]]) -> torch.Tensor:
    """(..., 2) see :func:`heatmaps.quarter_offset`."""
    right = values[1][2] > values[1][0]
    below = values[2][1] > values[0][1]
    return torch.stack([right, below], dim=-1).float() * 0.5 - 0.25


def parabola_offset(values: list[list[torch.Tensor]]) -> torch.Tensor:
    """(..., 2) see :func:`heatmaps.parabola_offset`."""
    slope, curve, _ = _log_derivatives(values)
    return _bound_step(-slope / curve.clamp(max=-_FAINT))


def dark_offset(values: list[list[torch.Tensor]]) -> torch.Tensor:
    """(..., 2) see :func:`heatmaps.dark_offset`."""
    slope, curve, cross = _log_derivatives(values)
    determinant = curve[..., 0] * curve[..., 1] - cross**2
    step = torch.stack(
        [cross * slope[..., 1] - curve[..., 1] * slope[..., 0],
         cross * slope[..., 0] - curve[..., 0] * slope[..., 1]], dim=-1,
    )  # fmt: skip
    is_top = determinant > _FAINT
    step = step / torch.where(is_top, determinant, 1.0)[..., None]
    return _bound_step(torch.where(is_top[..., None], step, 0.0))


def _log_derivatives(
    values: list[list[torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    log = [[value.clamp(min=_FAINT).log() for value in row] for row in values]
    middle, left, right = log[1][1], log[1][0], log[1][2]
    above, below = log[0][1], log[2][1]
    slope = torch.stack([right - left, below - above], dim=-1) / 2
    curve = torch.stack([right + left - 2 * middle, below + above - 2 * middle], dim=-1)
    cross = (log[2][2] - log[0][2] - log[2][0] + log[0][0]) / 4
    return slope, curve, cross


def _bound_step(step: torch.Tensor) -> torch.Tensor:
    return torch.where((step.abs() <= 1).all(dim=-1, keepdim=True), step, 0.0)


OFFSETS = {"quarter": quarter_offset, "parabola": parabola_offset, "dark": dark_offset}
"""The offsets of ``heatmaps.OFFSETS`` for graphs."""
