"""What computes a detector: PyTorch, or an exported file's runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import batched_nms

from ...models.detector import Detections, Detector
from ..base import RunGraph
from ..inputs import STRIDE, InputShape, autocast, send_image

Image = npt.NDArray[np.uint8]
_CANDIDATES = 1000
"""Boxes of a level that go into NMS, as in torchvision's FCOS."""


class BoxNetwork(Protocol):
    """(H, W, 3) uint8 RGB of a shape that it reads → boxes."""

    @property
    def shape(self) -> InputShape:
        """Which images it reads."""

    def __call__(self, image: Image) -> Detections: ...


@dataclass(frozen=True)
class TorchDetector:
    """A module.

    Attributes:
        model: in evaluation mode.
        device: where it is.
        precision: ``auto``, ``fp32`` or ``bf16``.
    """

    model: Detector
    device: torch.device
    precision: str = "auto"

    @property
    def shape(self) -> InputShape:
        """Which images it reads."""
        return InputShape(max(self.model.strides[-1], STRIDE))

    @torch.inference_mode()
    def __call__(self, image: Image) -> Detections:
        with autocast(self.device, self.precision):
            found = self.model(send_image(image, self.device))
        assert isinstance(found, list)
        return found[0]


@dataclass(frozen=True)
class ExportedDetector:
    """An exported file, which gives boxes and scores of all places, and NMS.

    Attributes:
        run: what runs it.
        shape: which images it reads.
        strides: of the pyramid's levels, input pixels.
        score: the lowest that is given out.
        overlap: of two boxes of a class that overlap more (IoU) one is.
        count: at most so many boxes an image.
    """

    run: RunGraph
    shape: InputShape
    strides: tuple[int, ...]
    score: float
    overlap: float
    count: int

    def __call__(self, image: Image) -> Detections:
        boxes, scores = self.run(image[None], ["boxes", "scores"])
        height, width = image.shape[:2]
        levels = [(height // stride) * (width // stride) for stride in self.strides]
        candidates = select_candidates(
            torch.from_numpy(boxes[0]), torch.from_numpy(scores[0]), levels, self.score
        )
        limits = torch.tensor([width, height, width, height], dtype=torch.float32)
        clipped = candidates.boxes.clamp(min=0).minimum(limits)
        kept = batched_nms(clipped, candidates.scores, candidates.labels, self.overlap)
        kept = kept[: self.count]
        return Detections(clipped[kept], candidates.scores[kept], candidates.labels[kept])


def select_candidates(
    boxes: torch.Tensor, scores: torch.Tensor, levels: Sequence[int], score: float
) -> Detections:
    """The boxes of all places that go into NMS, as torchvision's FCOS chooses them: of each level
    the best 1000 above a score.

    Args:
        boxes: (N, 4).
        scores: (N, C).
        levels: how many of the N places each level has, in order.
        score: the limit.
    """
    chosen: list[Detections] = []
    ends = np.cumsum(levels)
    for end, number in zip(ends, levels, strict=True):
        places, level = boxes[end - number : end], scores[end - number : end]
        flat = level.flatten()
        above = (flat > score).nonzero()[:, 0]
        best, order = flat[above].topk(min(_CANDIDATES, len(above)))
        numbers = above[order]
        classes = scores.shape[1]
        chosen.append(Detections(places[numbers // classes], best, numbers % classes))
    columns = zip(*chosen, strict=True)
    return Detections(*(torch.cat(column) for column in columns))
