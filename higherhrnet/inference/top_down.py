"""The top-down mode: a box around each person, and a crop of each box."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from .. import geometry
from ..boxes import Boxes
from ..codecs.top_down import CropMaps, TopDownCodec
from ..errors import UserError
from ..evaluation.oks import suppress, suppress_softly
from ..fields import Outputs, View
from ..poses import Poses
from .predictor import Image, Predictor, Prepared, Scene

Detector = Callable[[Sequence[Image]], list[Boxes]]
"""Pictures → boxes of the people in each."""
_KEPT_SOFTLY = 20


@dataclass
class Crops(Prepared):
    """A picture cut into its people.

    Attributes:
        image: the picture, as long as nobody has found the people; else None.
        boxes: of N people.
        inputs: (N, 3, h, w) uint8.
    """

    image: Image | None
    boxes: Boxes
    inputs: torch.Tensor


@dataclass(kw_only=True)
class TopDown(Predictor):
    """Finds the joints of one person at a time, in boxes that are given or detected.

    Attributes:
        codec: turns the network's answers into people.
        view: (H, W) of a person's crop.
        padding: growth of boxes.
        flip: look at mirrored crops as well.
        crops: most crops that go through the network together.
        detector: finds the boxes of pictures that come without; None asks for boxes.
        box_score: boxes scoring less are left out.
        same: people more alike (OKS) than this are one; 1 keeps all.
        soft: keep the 20 best instead, ranked the lower the more alike they are to better ones.
    """

    codec: TopDownCodec
    view: tuple[int, int] = (256, 192)
    padding: float = 1.25
    flip: bool = True
    crops: int = 64
    detector: Detector | None = None
    box_score: float = 0.0
    same: float = 0.9
    soft: bool = False

    def fitted(self, scene: Scene) -> Crops:
        """Crops of all people; none yet if the detector is to find them first."""
        shape = (scene.image.shape[0], scene.image.shape[1])
        if scene.boxes is not None:
            boxes = scene.boxes.usable(self.box_score).within(shape)
            return Crops(shape, None, boxes, self._cut(scene.image, boxes))
        if self.detector is None:
            raise UserError(
                "the top-down mode needs boxes around people, and this picture comes without: name "
                "a detector, a result file or bottom-up weights with TEST.BOXES"
            )
        return Crops(shape, scene.image, Boxes.of([]), torch.zeros(0))

    @torch.inference_mode()
    def answer(self, pictures: Sequence[Prepared]) -> list[list[View]]:
        """See :class:`Predictor`; all crops of all pictures go through the network together."""
        cut = [picture for picture in pictures if isinstance(picture, Crops)]
        self._detect([picture for picture in cut if picture.image is not None])
        with self.timed("network"):
            inputs = torch.cat([picture.inputs for picture in cut])
            counts = [len(picture.boxes) for picture in cut]
            plain = self._looked(inputs)
            mirrored = self._looked(inputs.flip(3)) if self.flip else plain
        answers = []
        ends = np.cumsum([0, *counts])
        for first, last in pairwise(ends):
            one, other = plain[first:last], mirrored[first:last]
            views = [View(Outputs((one,), (one[:, :0],)), 1.0, mirrored=False)]
            if self.flip:
                views.append(View(Outputs((other,), (other[:, :0],)), 1.0, mirrored=True))
            answers.append(views)
        return answers

    @torch.inference_mode()
    def decoded(self, prepared: Prepared, views: Sequence[View]) -> tuple[Poses, CropMaps]:
        """See :class:`Predictor`."""
        assert isinstance(prepared, Crops)
        boxes = prepared.boxes
        with self.timed("merge"):
            heatmaps = self.codec.merge(views)
        with self.timed("decode"):
            shape = (heatmaps.shape[2], heatmaps.shape[3])
            back = [geometry.invert(affine) for affine in self.affines(boxes, shape)]
            poses = self.codec.decode(heatmaps, back, boxes)
            kept = self._distinct(poses, boxes)
        left = len(poses) - len(kept)
        self.count(**{"people" if self.soft else "alike": left})
        return poses.select(kept), CropMaps(heatmaps, back, prepared.shape)

    def affines(self, boxes: Boxes, shape: tuple[int, int]) -> list[geometry.Affine]:
        """Picture → canvas (H, W) for each box."""
        affines = []
        for x, y, w, h in boxes.xywh:
            centre, (width, _) = geometry.box_crop((x, y, w, h), self.view, self.padding)
            affines.append(geometry.person_crop(centre, width, shape))
        return affines

    def _cut(self, image: Image, boxes: Boxes) -> torch.Tensor:
        """(N, 3, h, w) uint8 crops."""
        crops = np.zeros((len(boxes), *self.view, 3), np.uint8)
        for crop, affine in zip(crops, self.affines(boxes, self.view), strict=True):
            crop[:] = geometry.warp(image, affine, self.view)
        return torch.from_numpy(crops).permute(0, 3, 1, 2)

    def _detect(self, pictures: Sequence[Crops]) -> None:
        """Fill in boxes and crops of pictures that came without boxes."""
        if not pictures:
            return
        assert self.detector is not None
        images = [picture.image for picture in pictures if picture.image is not None]
        with self.timed("detector"):
            found = self.detector(images)
        with self.timed("warp"):
            for picture, image, boxes in zip(pictures, images, found, strict=True):
                picture.boxes = boxes.usable(self.box_score)
                picture.inputs, picture.image = self._cut(image, picture.boxes), None

    def _looked(self, inputs: torch.Tensor) -> torch.Tensor:
        """Heatmaps (N, K, h, w) of crops (N, 3, H, W), so many at once."""
        joints = len(self.skeleton)
        stride = self.codec.heads[0].stride
        maps = [torch.zeros(0, joints, self.view[0] // stride, self.view[1] // stride)]
        fixed = self.compiled or self.graphs  # each number of crops would be prepared anew
        for first in range(0, len(inputs), self.crops):
            part = inputs[first : first + self.crops]
            missing = self.crops - len(part) if fixed else 0
            padded = torch.cat([part, part.new_zeros(missing, *part.shape[1:])])
            maps.append(self.network(padded).heatmaps[0][: len(part)])
        return torch.cat([m.to(maps[-1].device) for m in maps])

    def _distinct(self, poses: Poses, boxes: Boxes) -> list[int]:
        """Rows of people who are no repetitions of surer ones (OKS-NMS), in the boxes' order."""
        if (self.same >= 1 and not self.soft) or not len(poses):
            return list(range(len(poses)))
        extents = [
            geometry.box_crop((x, y, w, h), self.view, self.padding)[1] for x, y, w, h in boxes.xywh
        ]
        area = np.array([w * h for w, h in extents])
        shared = (poses.xy, poses.score, poses.person_score, area, self.skeleton.sigmas, self.same)
        if self.soft:
            return sorted(suppress_softly(*shared, most=_KEPT_SOFTLY))
        return sorted(suppress(*shared))
