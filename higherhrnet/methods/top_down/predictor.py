"""The top-down predictor: a box around each person, and a crop of each box."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from ... import geometry
from ...boxes import Boxes
from ...errors import UserError
from ...evaluation.oks import oks_nms, soft_oks_nms
from ...inference.engines.base import Engine
from ...inference.predictor import Predictor, Preprocessed, Scene
from ...inference.stats import InferenceStats
from ...io.pixels import Image
from ...outputs import Outputs, View, to_host
from ...poses import Poses
from ...skeleton import Skeleton
from .codec import CropMaps, TopDownCodec

Detector = Callable[[Sequence[Image]], list[Boxes]]
"""Images → boxes of the people in each."""
_KEPT_BY_SOFT_NMS = 20
_SETTINGS = (
    "image_size", "padding", "flip", "crops_per_batch", "bbox_threshold", "oks_threshold",
    "soft_nms",
)  # fmt: skip


@dataclass
class Crops(Preprocessed):
    """An image cut into its people.

    Attributes:
        image: the image, until the detector has found its people; else None.
        boxes: of N people.
        inputs: (N, h, w, 3) uint8.
    """

    image: Image | None
    boxes: Boxes
    inputs: npt.NDArray[np.uint8]

    @property
    def pixels(self) -> int:
        """See :class:`Preprocessed`; what a detector gets of an image is not known, and the image
        stands for it."""
        return self.inputs.size // 3 if self.image is None else self.image.size // 3


@dataclass(kw_only=True, repr=False)
class TopDownPredictor(Predictor):
    """Finds the joints of one person at a time, in boxes that are given or detected.

    Attributes:
        codec: turns the network's outputs into people.
        image_size: (H, W) of a person's crop.
        padding: growth of boxes.
        flip: also look at flipped crops.
        crops_per_batch: most crops that go through the network together.
        detector: finds the boxes of images that come without; None asks for boxes.
        bbox_threshold: boxes scoring less are left out.
        oks_threshold: people more alike than this are one; 1 keeps all.
        soft_nms: keep the 20 best instead, ranked lower the more alike they are to better ones.
    """

    codec: TopDownCodec
    image_size: tuple[int, int] = (256, 192)
    padding: float = 1.25
    flip: bool = True
    crops_per_batch: int = 64
    detector: Detector | None = None
    bbox_threshold: float = 0.0
    oks_threshold: float = 0.9
    soft_nms: bool = False
    method: ClassVar[str] = "top-down"
    finds_people: ClassVar[bool] = False

    def to_dict(self) -> dict[str, Any]:
        """See :class:`Predictor`; without the detector."""
        return {"codec": self.codec.to_dict(), **{key: getattr(self, key) for key in _SETTINGS}}

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], engine: Engine, skeleton: Skeleton
    ) -> TopDownPredictor:
        """See :class:`Predictor`; it asks for boxes."""
        settings = {key: values[key] for key in _SETTINGS}
        height, width = settings.pop("image_size")
        codec = TopDownCodec.from_dict(values["codec"], skeleton)
        return cls(
            engine=engine, skeleton=skeleton, codec=codec, image_size=(height, width), **settings
        )

    def prepare(self, scene: Scene) -> Crops:
        """Crops of all people; none yet if the detector is to find them first."""
        shape = (scene.image.shape[0], scene.image.shape[1])
        if scene.boxes is not None:
            boxes = scene.boxes.usable(self.bbox_threshold).within(shape)
            return Crops(shape, None, boxes, self._crop(scene.image, boxes))
        if self.detector is None:
            raise UserError(
                "a top-down model needs boxes around people, and this image comes without: name a "
                "detector, a result file or bottom-up weights with TEST.BBOX_SOURCE"
            )
        return Crops(shape, scene.image, Boxes.of([]), np.zeros((0, *self.image_size, 3), np.uint8))

    def forward(self, prepared: Sequence[Preprocessed], stats: InferenceStats) -> list[list[View]]:
        """See :class:`Predictor`; all crops of all images go through the network together."""
        cut = [item for item in prepared if isinstance(item, Crops)]
        self._detect([item for item in cut if item.image is not None], stats)
        with stats.timed("forward"):
            inputs = np.concatenate([item.inputs for item in cut])
            plain = self._heatmaps(inputs)
            flipped = self._heatmaps(_flip(inputs)) if self.flip else plain
        found = []
        ends = np.cumsum([0, *(len(item.boxes) for item in cut)])
        for first, last in pairwise(ends):
            both = [plain[first:last], flipped[first:last]][: 1 + self.flip]
            found.append(
                [View(Outputs((h,), (h[:, :0],)), 1.0, flipped=n == 1) for n, h in enumerate(both)]
            )
        return found

    def decode(
        self, prepared: Preprocessed, views: Sequence[View], stats: InferenceStats
    ) -> tuple[Poses, CropMaps]:
        """See :class:`Predictor`."""
        assert isinstance(prepared, Crops)
        boxes = prepared.boxes
        with stats.timed("aggregate"):
            heatmaps = self.codec.aggregate(views)
        with stats.timed("decode"):
            shape = (heatmaps.shape[2], heatmaps.shape[3])
            to_image = [geometry.invert(affine) for affine in self.affines(boxes, shape)]
            poses = self.codec.decode(heatmaps, to_image, boxes)
            kept = self._without_duplicates(poses, boxes)
        dropped = len(poses) - len(kept)
        stats.count(**{"people" if self.soft_nms else "duplicates": dropped})
        return poses.select(kept), CropMaps(heatmaps, to_image, prepared.shape)

    def affines(self, boxes: Boxes, shape: tuple[int, int]) -> list[geometry.Affine]:
        """Image → canvas (H, W) for each box."""
        affines = []
        for x, y, w, h in boxes.xywh:
            center, (width, _) = geometry.box_crop((x, y, w, h), self.image_size, self.padding)
            affines.append(geometry.person_crop(center, width, shape))
        return affines

    def _crop(self, image: Image, boxes: Boxes) -> npt.NDArray[np.uint8]:
        """(N, h, w, 3) uint8 crops."""
        crops = np.zeros((len(boxes), *self.image_size, 3), np.uint8)
        for crop, affine in zip(crops, self.affines(boxes, self.image_size), strict=True):
            crop[:] = geometry.warp(image, affine, self.image_size)
        return crops

    def _detect(self, items: Sequence[Crops], stats: InferenceStats) -> None:
        """Fill in boxes and crops of images that came without boxes."""
        if not items:
            return
        assert self.detector is not None
        images = [item.image for item in items if item.image is not None]
        with stats.timed("detector"):
            found = self.detector(images)
        with stats.timed("preprocess"):
            for item, image, boxes in zip(items, images, found, strict=True):
                item.boxes = boxes.usable(max(self.bbox_threshold, self._least_shown))
                item.inputs, item.image = self._crop(image, item.boxes), None

    @property
    def _least_shown(self) -> float:
        """A person scores the box's score times a mean of joints' scores, which are hardly above 1:
        whoever cannot reach the operating point needs no crop."""
        return 0.0 if self.operating_point is None else 0.9 * self.operating_point.person

    def _heatmaps(self, inputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Heatmaps (N, K, h, w) of crops (N, H, W, 3), so many at once."""
        joints, most = len(self.skeleton), self.crops_per_batch
        stride = self.codec.heads[0].stride
        height, width = (side // stride for side in self.image_size)
        found = [np.zeros((0, joints, height, width), np.float32)]
        for first in range(0, len(inputs), most):
            part = inputs[first : first + most]
            missing = most - len(part) if self.engine.fixed_batch else 0
            if missing:
                part = np.pad(part, ((0, missing), (0, 0), (0, 0), (0, 0)))
            found.append(to_host(self.engine(part).heatmaps[0])[: len(part) - missing])
        return np.concatenate(found)

    def _without_duplicates(self, poses: Poses, boxes: Boxes) -> list[int]:
        """Rows of people who repeat no more confident one (OKS-NMS), in the boxes' order."""
        if (self.oks_threshold >= 1 and not self.soft_nms) or not len(poses):
            return list(range(len(poses)))
        extents = [
            geometry.box_crop((x, y, w, h), self.image_size, self.padding)[1]
            for x, y, w, h in boxes.xywh
        ]
        people = (poses.xy, poses.score, poses.person_score, np.array([w * h for w, h in extents]))
        if self.soft_nms:
            kept = soft_oks_nms(
                *people, self.skeleton.sigmas, self.oks_threshold, most=_KEPT_BY_SOFT_NMS
            )
        else:
            kept = oks_nms(*people, self.skeleton.sigmas, self.oks_threshold)
        return sorted(kept)


def _flip(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(N, h, w, 3) flipped left to right."""
    flipped = np.empty_like(images)
    for source, target in zip(images, flipped, strict=True):
        cv2.flip(source, 1, dst=target)
    return flipped
