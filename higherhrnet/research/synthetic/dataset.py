"""The synthetic data set: shaded articulated figures over textured backgrounds, without limit.

Every image is made from (seed, number) alone, with exact joints and visibility. Figures may
stand in front of each other and behind objects, so that crowds from sparse to packed can be
made to order; a network of the tiny width learns them in minutes on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ... import geometry
from ...config import PoseConfig
from ...datasets.coco import valid_mask
from ...datasets.paths import find_split
from ...errors import UserError
from ...io.atomic import atomic_write, write_json
from ...poses import ABSENT, Poses
from ...skeleton import COCO, Skeleton, load_skeleton
from ...structures import Sample, Silhouettes
from .figures import Vector, draw_background, draw_figure, draw_object, stand, with_visibility

_LEAST_SEEN = 0.3
"""A figure of which less is to be seen is annotated without keypoints, as COCO does."""


@dataclass(frozen=True)
class SyntheticImage:
    """A finished image.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        keypoints: (N, 17, 3) x, y, visibility, in COCO's order.
        areas: (N,) pixels of each figure that are to be seen.
        boxes: (N, 4) x, y, w, h around these pixels.
        owner: (H, W) int32 whose pixel it is, numbered from 1; 0 nobody's.
        parts: (H, W) uint8 which of ``figures.PARTS`` it is, numbered from 1; 0 none.
    """

    image: npt.NDArray[np.uint8]
    keypoints: Vector
    areas: Vector
    boxes: Vector
    owner: npt.NDArray[np.int32]
    parts: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SyntheticPeople:
    """Synthetic images by number; see the module.

    Attributes:
        count: how many images.
        seed: of all random numbers; another seed gives other images.
        size: side of the square images, pixels.
        people: fewest and most figures tried in an image.
        height: smallest and largest figure, fraction of the image.
        overlap: largest part of a figure's box that another may cover, 0..1.
        occlusion: probability that an object stands before a figure.
        with_mask: leave out of the loss those of whom too little is to be seen.
        with_silhouettes: samples tell where all people are.
    """

    count: int
    seed: int = 0
    size: int = 256
    people: tuple[int, int] = (1, 4)
    height: tuple[float, float] = (0.35, 0.8)
    overlap: float = 0.3
    occlusion: float = 0.2
    with_mask: bool = True
    with_silhouettes: bool = False
    skeleton: Skeleton = field(default=COCO, init=False)

    def __len__(self) -> int:
        return self.count

    def draw(self, index: int) -> SyntheticImage:
        """Image ``index``; always the same."""
        rng = np.random.default_rng((self.seed, index))
        image = draw_background(rng, self.size)
        owner = np.zeros((self.size, self.size), np.int32)
        parts = np.zeros((self.size, self.size), np.uint8)
        figures = [stand(rng, h, place) for h, place in self._places(rng)]
        figures.sort(key=lambda joints: joints[:, 1].max())  # who stands lower stands nearer
        for number, joints in enumerate(figures, start=1):
            draw_figure(image, owner, parts, joints, number, rng)
            if rng.random() < self.occlusion:
                draw_object(image, owner, parts, joints, rng)
        keypoints = np.zeros((len(figures), len(COCO), 3))
        areas, boxes = np.zeros(len(figures)), np.zeros((len(figures), 4))
        for i, joints in enumerate(figures):
            mine = owner == i + 1
            areas[i] = mine.sum()
            if areas[i]:
                boxes[i] = cv2.boundingRect(mine.astype(np.uint8))
            whole = 0.12 * np.ptp(joints[:, 1]) ** 2
            if areas[i] >= _LEAST_SEEN * whole:
                keypoints[i] = with_visibility(joints, mine)
        noisy = image + rng.normal(0, 4, image.shape)
        pixels = np.clip(noisy, 0, 255).astype(np.uint8)
        return SyntheticImage(pixels, keypoints, areas, boxes, owner, parts)

    def boxes(self, index: int) -> npt.NDArray[np.float64]:
        """(P, 4) of the image's labeled people."""
        return self.sample(index).boxes

    def sample(self, index: int) -> Sample:
        """The image as training and validation take it."""
        drawing = self.draw(index)
        labeled = (drawing.keypoints[..., 2] > ABSENT).any(axis=1)
        left_out = self._records(index, drawing) if self.with_mask else []
        return Sample(
            image=drawing.image,
            poses=Poses.from_annotations(drawing.keypoints[labeled]),
            boxes=drawing.boxes[labeled],
            valid=valid_mask(left_out, drawing.image.shape[:2]),
            id=index,
            affine=geometry.identity(),
            silhouettes=_silhouettes(drawing) if self.with_silhouettes else None,
        )

    @cached_property
    def annotations(self) -> dict[str, Any]:
        """The whole set in COCO format."""
        images = [
            {
                "id": index,
                "file_name": f"{index:06d}.png",
                "width": self.size,
                "height": self.size,
            }
            for index in range(self.count)
        ]
        records = [r for index in range(self.count) for r in self._records(index, self.draw(index))]
        category = {
            "id": 1,
            "name": "person",
            "keypoints": list(COCO.joints),
            "skeleton": [[a + 1, b + 1] for a, b in COCO.limbs],
        }
        return {"images": images, "annotations": records, "categories": [category]}

    def _records(self, index: int, drawing: SyntheticImage) -> list[dict[str, Any]]:
        return [
            {
                "id": index * 1000 + person + 1,
                "image_id": index,
                "category_id": 1,
                "iscrowd": 0,
                "num_keypoints": int((drawing.keypoints[person, :, 2] > ABSENT).sum()),
                "keypoints": drawing.keypoints[person].round(2).ravel().tolist(),
                "bbox": drawing.boxes[person].tolist(),
                "area": float(drawing.areas[person]),
                "segmentation": [],
            }
            for person in range(len(drawing.keypoints))
        ]

    def _places(self, rng: np.random.Generator) -> list[tuple[float, tuple[float, float]]]:
        """Height in pixels and middle of each figure, overlapping no more than is allowed."""
        places: list[tuple[float, tuple[float, float]]] = []
        for _ in range(rng.integers(self.people[0], self.people[1] + 1)):
            for _ in range(20):
                height = rng.uniform(*self.height) * self.size
                x = rng.uniform(0.05, 0.95) * self.size
                y = rng.uniform(0.3, 0.7) * self.size
                if all(_overlap((height, (x, y)), place) <= self.overlap for place in places):
                    places.append((height, (x, y)))
                    break
        return places


def build_dataset(config: PoseConfig, split: str, count: int = 0) -> SyntheticPeople:
    """The synthetic ``train`` or ``test`` images of a config; each split has its own seed.

    Args:
        count: how many instead of the config's.

    Raises:
        UserError: the config's skeleton is not COCO's.
    """
    d, s = config.DATASET, config.SYNTHETIC
    is_train = split == "train"
    limit = d.TRAIN_LIMIT if is_train else d.TEST_LIMIT
    configured = s.TRAIN_IMAGES if is_train else s.TEST_IMAGES
    if load_skeleton(d.SKELETON) != COCO:
        raise UserError(
            f"config key 'DATASET.SKELETON' must be 'coco' for synthetic people, not '{d.SKELETON}'"
        )
    return SyntheticPeople(
        count=count or (min(configured, limit) if limit else configured),
        seed=config.TRAIN.SEED + (0 if is_train else 1_000_003),
        size=s.SIZE,
        people=s.PEOPLE,
        height=s.HEIGHT,
        overlap=s.OVERLAP,
        occlusion=s.OCCLUSION,
        with_mask=getattr(d, "WITH_MASK", True),
        with_silhouettes=bool(getattr(config.MODEL, "HEADS", ())),
    )


def _silhouettes(drawing: SyntheticImage) -> Silhouettes:
    boxes = drawing.boxes[drawing.areas > 0].copy()
    boxes[:, 2:] += boxes[:, :2]
    return Silhouettes((drawing.owner > 0).astype(np.uint8), boxes)


def _overlap(a: tuple[float, tuple[float, float]], b: tuple[float, tuple[float, float]]) -> float:
    """Shared part of two upright boxes 0.45 heights wide, as a fraction of the smaller one."""
    (ha, (xa, ya)), (hb, (xb, yb)) = a, b
    w = min(xa + 0.22 * ha, xb + 0.22 * hb) - max(xa - 0.22 * ha, xb - 0.22 * hb)
    h = min(ya + ha / 2, yb + hb / 2) - max(ya - ha / 2, yb - hb / 2)
    return max(w, 0) * max(h, 0) / (0.44 * min(ha, hb) ** 2)


def write_coco(folder: Path, people: SyntheticPeople, split: str = "synthetic") -> Path:
    """Write synthetic images in COCO's layout; returns the annotation file.

    Images go to ``folder/images/{split}``, annotations are written last.
    """
    for index, image in enumerate(people.annotations["images"]):
        _, png = cv2.imencode(".png", people.draw(index).image[..., ::-1])
        with atomic_write(folder / "images" / split / image["file_name"]) as partial:
            partial.write_bytes(png.tobytes())
    annotation_file, _ = find_split(folder, split)
    write_json(annotation_file, people.annotations)
    return annotation_file
