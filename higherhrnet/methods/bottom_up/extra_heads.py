"""Masks and boxes of people from the trunk that finds their keypoints: losses, and what is read of
them in testing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from ... import geometry
from ...boxes import Boxes
from ...geometry import Affine
from ...outputs import Outputs, View, to_host
from ...poses import ABSENT, Poses

if TYPE_CHECKING:  # decoding needs no torch
    import torch

    from ...structures import Targets
    from ..base import Criterion

_STRIDE = 4
"""Of the masks."""


@dataclass(frozen=True)
class JointLoss:
    """The losses of the keypoints, and of the heads beside them.

    Attributes:
        keypoints: (outputs, targets) → named losses.
        mask_factor: of the mean cross-entropy of the pixels that count.
        box_factor: of FCOS's losses (Tian et al. 2019, eq. 2 and sec. 3.3).
    """

    keypoints: Criterion
    mask_factor: float
    box_factor: float

    def __call__(self, outputs: Outputs, targets: Targets) -> dict[str, torch.Tensor]:
        """Those of the keypoints, ``mask/4``, and ``boxes/classification``, ``boxes/sides``,
        ``boxes/centerness``."""
        losses = self.keypoints(outputs, targets)
        if outputs.masks:
            loss = mask_loss(outputs.masks[0], targets.masks[0])
            losses["mask/4"] = self.mask_factor * loss
        if outputs.boxes:
            from ...models.box_codec import box_losses

            height, width = outputs.heatmaps[0].shape[-2:]
            size = (height * _STRIDE, width * _STRIDE)
            for name, loss in box_losses(outputs.boxes, targets.boxes[0], size).items():
                losses[f"boxes/{name}"] = self.box_factor * loss
        return losses


def mask_loss(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of (B, 1, h, w) logits over the pixels of a mask (B, h, w) that count."""
    import torch
    from torch.nn import functional as F

    from ...structures import NOT_COUNTED

    counted = mask != NOT_COUNTED
    each = F.binary_cross_entropy_with_logits(
        logits[:, 0].float(), (mask == 1).float(), reduction="none"
    )
    return torch.where(counted, each, 0.0).sum() / counted.sum().clamp(min=1)


def mask_probability(views: Sequence[View]) -> npt.NDArray[np.float32]:
    """(h, w) probability that a pixel is a person's: mean over the plain and the flipped view of
    the largest scale."""
    largest = max(view.scale for view in views)
    maps = []
    for view in views:
        if view.scale == largest:
            probability = 1 / (1 + np.exp(-to_host(view.outputs.masks[0])[0, 0]))
            maps.append(cv2.flip(probability, 1) if view.flipped else probability)
    mean: npt.NDArray[np.float32] = np.mean(maps, axis=0, dtype=np.float32)
    return mean


def mask_to_image(
    probability: npt.NDArray[np.float32], to_input: Affine, shape: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """(H, W) the mask of :func:`mask_probability` in pixels of the image."""
    affine = geometry.invert(geometry.exact_map_affine(_STRIDE) @ to_input)[:2]
    warped = cv2.warpAffine(probability, affine, shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, dtype=np.float32)


def boxes_to_image(
    outputs: Outputs, size: tuple[int, ...], to_input: Affine, shape: tuple[int, int]
) -> Boxes:
    """People's boxes of one network input (H, W), in pixels of the image (H, W)."""
    import torch

    from ...models.box_codec import decode_boxes

    parts = [torch.from_numpy(to_host(part)) for part in outputs.boxes]
    (found,) = decode_boxes(parts, (size[0], size[1]))
    corners = found.boxes.double().numpy().reshape(-1, 2, 2)
    # Boxes go from edge to edge, the affine from center to center.
    corners = geometry.apply(geometry.invert(to_input), corners - 0.5) + 0.5
    corners = np.clip(corners, 0, np.array(shape[::-1], float))
    xywh = np.concatenate([corners[:, 0], corners[:, 1] - corners[:, 0]], axis=1)
    return Boxes.of(xywh, found.scores.double().numpy()).usable()


def mask_support(
    poses: Poses, probability: npt.NDArray[np.float32], to_input: Affine
) -> npt.NDArray[np.float64]:
    """(N,) mean probability of the mask at each person's joints; joints off the mask have 0.

    Args:
        poses: in pixels of the image.
        probability: see :func:`mask_probability`.
        to_input: image → network input at the largest scale.
    """
    xy = geometry.apply(geometry.exact_map_affine(_STRIDE) @ to_input, poses.xy)
    cells = np.rint(xy).astype(int)
    height, width = probability.shape
    inside = ((cells >= 0) & (cells < [width, height])).all(axis=2)
    cells = np.clip(cells, 0, [width - 1, height - 1])
    read = np.where(inside, probability[cells[..., 1], cells[..., 0]], 0.0)
    present = poses.visibility > ABSENT
    total: Any = (read * present).sum(axis=1)
    support: npt.NDArray[np.float64] = total / np.maximum(present.sum(axis=1), 1)
    return support
