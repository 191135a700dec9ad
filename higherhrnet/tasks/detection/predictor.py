"""Images → boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import batched_nms, box_iou

from ...datasets.crops import fit_factor
from ...models.detector import Detections
from .networks import BoxNetwork

Image = npt.NDArray[np.uint8]
_VOTE_OVERLAP = 0.75
"""IoU from which boxes of several views vote for one place; 0.7 to 0.8 are alike in box AP."""


@dataclass(frozen=True)
class FoundBoxes:
    """Boxes of N things in one image, best first.

    Attributes:
        xywh: (N, 4) float64 left, top, width, height, pixels of the image.
        score: (N,) float64.
        labels: (N,) int64 class numbers from 0.
    """

    xywh: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.xywh)

    def at_least(self, score: float) -> FoundBoxes:
        """Those that are as sure."""
        kept = self.score >= score
        return FoundBoxes(self.xywh[kept], self.score[kept], self.labels[kept])


@dataclass(frozen=True)
class DetectionPredictor:
    """A detector with its test protocol.

    Attributes:
        network: (H, W, 3) uint8 → boxes.
        short_side, max_side: images are resized to this short side, if no side gets longer.
        scales: by which the resized image is scaled.
        flip: also look at the flipped image.
        overlap: boxes of one class, of several views, that overlap more (IoU) are one.
        count: most boxes of an image.
    """

    network: BoxNetwork
    short_side: int
    max_side: int
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    overlap: float = 0.5
    count: int = 100

    def __call__(self, image: Image) -> FoundBoxes:
        """Boxes of one image."""
        views = [
            self._view(image, scale, flipped)
            for scale in self.scales
            for flipped in ([False, True] if self.flip else [False])
        ]
        return views[0] if len(views) == 1 else merge_views(views, self.overlap, self.count)

    def _view(self, image: Image, scale: float, flipped: bool) -> FoundBoxes:
        size = image.shape[0], image.shape[1]
        factor = scale * fit_factor(size, self.short_side, self.max_side)
        canvas, (height, width) = self.network.shape.place(image, factor, flipped)
        found = self.network(canvas)
        boxes = to_image(found, (width / size[1], height / size[0]), size)
        return mirror(boxes, size[1]) if flipped else boxes


def mirror(found: FoundBoxes, width: int) -> FoundBoxes:
    """Boxes of the flipped image as boxes of an image of this width, and the other way round."""
    xywh = found.xywh.copy()
    xywh[:, 0] = width - xywh[:, 0] - xywh[:, 2]
    return replace(found, xywh=xywh)


def merge_views(views: Sequence[FoundBoxes], overlap: float, count: int) -> FoundBoxes:
    """The boxes of several views of one image: NMS, then box voting (Gidaris & Komodakis 2015, sec.
    4.3): each box that is left becomes the mean of all that lie as it does (IoU above 0.75),
    weighted by score and IoU.

    Args:
        views: boxes in pixels of the image.
        overlap: boxes of one class that overlap more (IoU) are one.
        count: most boxes that are kept.
    """
    xywh, score, labels = (
        np.concatenate([getattr(view, name) for view in views])
        for name in ("xywh", "score", "labels")
    )
    corners = torch.from_numpy(np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1))
    numbers = torch.from_numpy(labels)
    kept = batched_nms(corners, torch.from_numpy(score), numbers, overlap)[:count]
    alike = box_iou(corners[kept], corners) * (numbers[kept][:, None] == numbers)
    weight = torch.where(alike > _VOTE_OVERLAP, alike * torch.from_numpy(score), 0.0)
    voted = (weight @ corners / weight.sum(dim=1, keepdim=True)).numpy()
    best = kept.numpy()
    return FoundBoxes(
        np.concatenate([voted[:, :2], voted[:, 2:] - voted[:, :2]], axis=1),
        score[best],
        labels[best],
    )


def to_image(found: Detections, factors: tuple[float, float], size: tuple[int, int]) -> FoundBoxes:
    """Boxes of a network's input as boxes of the image (H, W), cut at its edges."""
    corners = found.boxes.double().cpu().numpy() / np.array([*factors, *factors])
    corners = np.clip(corners, 0, np.array([size[1], size[0]] * 2, float))
    sides = corners[:, 2:] - corners[:, :2]
    kept = (sides > 0).all(axis=1)
    return FoundBoxes(
        np.concatenate([corners[:, :2], sides], axis=1)[kept],
        found.scores.double().cpu().numpy()[kept],
        found.labels.cpu().numpy()[kept],
    )


def draw_boxes(image: Image, found: FoundBoxes, classes: Sequence[str]) -> Image:
    """The image with a rectangle around everything; its class, if there are several, and score."""
    drawn = image.copy()
    thickness = max(round(min(image.shape[:2]) / 250), 1)
    scale = max(min(image.shape[:2]) / 900, 0.4)
    order = np.argsort(found.score, kind="stable")  # the surest lie on top
    for (x, y, w, h), score, label in zip(
        found.xywh[order], found.score[order], found.labels[order], strict=True
    ):
        color = _color(int(label))
        corner, far = (round(x), round(y)), (round(x + w), round(y + h))
        cv2.rectangle(drawn, corner, far, color, thickness, cv2.LINE_AA)
        text = f"{score:.2f}" if len(classes) == 1 else f"{classes[label]} {score:.2f}"
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        below = max(corner[1], height + 6)
        cv2.rectangle(
            drawn, (corner[0], below - height - 6), (corner[0] + width + 4, below), color, -1
        )
        cv2.putText(
            drawn, text, (corner[0] + 2, below - 4), cv2.FONT_HERSHEY_SIMPLEX, scale,
            (0, 0, 0), 1, cv2.LINE_AA,
        )  # fmt: skip
    return drawn


def _color(label: int) -> tuple[int, int, int]:
    """A bright color of a class; the golden angle keeps neighbors apart."""
    hue = int(60 + label * 137.508) % 180
    pixel = cv2.cvtColor(np.array([[[hue, 190, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return int(pixel[0]), int(pixel[1]), int(pixel[2])
