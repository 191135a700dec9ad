"""Boxes of any classes in COCO's format, and training views of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from .. import geometry
from ..errors import UserError
from ..geometry import Affine
from ..io.store import Store
from .annotations import check_annotations, read_annotations
from .categories import annotated_size, find_categories
from .crops import MEAN_COLOR, Crop, CropViews
from .findings import (
    Finding,
    log_findings,
    match_ids,
    missing_files,
    only_found,
    refuse_repeated_ids,
)
from .transforms import clip_boxes


@dataclass(frozen=True)
class BoxSample:
    """One image with its boxes.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (P, 4) float64 left, top, right, bottom, pixels from the image's upper left edge.
        labels: (P,) int64 class numbers from 0.
        id: the data set's name of the image.
    """

    image: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    id: int | str


class CocoBoxes:
    """The images of one split with the boxes of its classes; crowds are left out of samples.

    Args:
        annotation_file: JSON with images, annotations and categories.
        image_folder: where the file names start; a folder or a zip archive.
        classes: their names in the order of their numbers; empty takes all that have boxes.
        limit: use only the first so many images; 0 uses all.
        annotated_only: leave out images without boxes, as published training does.

    Attributes:
        classes: names by number.
        categories: ids by number, as the file has them.

    Raises:
        UserError: a file or folder is missing, unreadable, or has no boxes of a class.
    """

    def __init__(
        self,
        annotation_file: Path,
        image_folder: Path,
        classes: Sequence[str] = (),
        limit: int = 0,
        annotated_only: bool = False,
    ) -> None:
        self.annotation_file = annotation_file
        loaded = read_annotations(annotation_file)
        check_annotations(loaded, annotation_file)
        self.store = Store(image_folder)
        refuse_repeated_ids(loaded["images"], annotation_file)
        findings = match_ids(loaded)
        by_name = find_categories(loaded, annotation_file, classes, "bbox")
        self.classes, self.categories = tuple(by_name), list(by_name.values())
        number = {category: n for n, category in enumerate(self.categories)}
        self._boxes: dict[int | str, list[tuple[list[float], int]]] = {}
        self._records = []
        for record in loaded["annotations"]:
            label = number.get(record["category_id"])
            if label is None or not record.get("bbox"):
                continue
            x, y, w, h = (float(value) for value in record["bbox"])
            self._records.append(
                {
                    "image_id": record["image_id"],
                    "category_id": record["category_id"],
                    "bbox": [x, y, w, h],
                    "area": float(record.get("area") or w * h),
                    "iscrowd": int(record.get("iscrowd") or 0),
                }
            )
            if not record.get("iscrowd") and w > 0 and h > 0:
                found = self._boxes.setdefault(record["image_id"], [])
                found.append(([x, y, x + w, y + h], label))
        images = [i for i in loaded["images"] if not annotated_only or i["id"] in self._boxes]
        self._images = images[: limit or None]
        others = {record["category_id"] for record in loaded["annotations"]} - number.keys()
        unlisted = sorted(map(str, others - {c["id"] for c in loaded.get("categories") or ()}))
        if not self._images:
            besides = f"; boxes of unlisted categories: {', '.join(unlisted)}" if unlisted else ""
            raise UserError(
                f"'{annotation_file}' lists no images to use: {len(loaded['images'])} images, and "
                f"{len(self._records)} boxes of {', '.join(self.classes) or 'no class'}{besides}"
            )
        findings += only_found(
            Finding("categories of annotations are not listed", unlisted, "they are left out", True)
        )
        log_findings(annotation_file, findings + missing_files(self._images, self.store))

    def __len__(self) -> int:
        return len(self._images)

    @property
    def annotations(self) -> dict[str, Any]:
        """The set in COCO format: what boxes are evaluated against."""
        listed = {image["id"] for image in self._images}
        return {
            "images": self._images,
            "annotations": [r for r in self._records if r["image_id"] in listed],
            "categories": [
                {"id": number, "name": name}
                for number, name in zip(self.categories, self.classes, strict=True)
            ],
        }

    def image_id(self, index: int) -> int | str:
        """The data set's name of an image."""
        found: int | str = self._images[index]["id"]
        return found

    def sample(self, index: int) -> BoxSample:
        """The whole image; ``UserError`` names a missing or broken file."""
        entry = self._images[index]
        found = self._boxes.get(entry["id"], [])
        return BoxSample(
            image=self.store.image(str(entry["file_name"]), annotated_size(entry)),
            boxes=np.array([box for box, _ in found], float).reshape(-1, 4),
            labels=np.array([label for _, label in found], np.int64),
            id=entry["id"],
        )


def move_boxes(boxes: npt.NDArray[np.float64], affine: Affine) -> npt.NDArray[np.float64]:
    """(P, 4) left, top, right, bottom through an affine without rotation."""
    corners = geometry.apply(affine, boxes.reshape(-1, 2, 2))
    low, high = corners.min(axis=1), corners.max(axis=1)
    return np.concatenate([low, high], axis=1)


class BoxItem(NamedTuple):
    """One view on its way into a batch; see :class:`BoxBatch`."""

    image: torch.Tensor
    boxes: torch.Tensor
    labels: torch.Tensor
    color: torch.Tensor
    id: int | str


class BoxBatch(NamedTuple):
    """What the loader yields.

    Attributes:
        images: (B, 3, H, W) uint8 RGB; smaller views are surrounded by the mean color.
        boxes: (B, P, 4) float32 left, top, right, bottom, pixels.
        labels: (B, P) int64; -1 pads.
        color: (B, 3) factors of brightness, contrast and saturation.
        ids: the data set's names of the images.
    """

    images: torch.Tensor
    boxes: torch.Tensor
    labels: torch.Tensor
    color: torch.Tensor
    ids: tuple[int | str, ...]


class BoxViews(CropViews[BoxItem]):
    """Views of :class:`CocoBoxes`."""

    def make_item(self, sample: BoxSample, view: Crop) -> BoxItem:
        """The boxes that are still to be searched for, cut at the view's edges."""
        boxes, seen = clip_boxes(move_boxes(sample.boxes, view.affine), view.shape)
        return BoxItem(
            image=torch.from_numpy(view.warp(sample.image)).permute(2, 0, 1),
            boxes=torch.from_numpy(boxes[seen]).float(),
            labels=torch.from_numpy(sample.labels[seen]),
            color=torch.tensor(view.color),
            id=sample.id,
        )


@dataclass(frozen=True)
class CollateBoxes:
    """Stacks views, enlarged to the largest of them and to a multiple of ``multiple`` pixels."""

    multiple: int

    def __call__(self, items: list[BoxItem]) -> BoxBatch:
        shapes = np.array([item.image.shape[1:] for item in items])
        height, width = (-(-shapes.max(axis=0) // self.multiple) * self.multiple).tolist()
        images = torch.empty((len(items), 3, height, width), dtype=torch.uint8)
        images[:] = torch.tensor(MEAN_COLOR, dtype=torch.uint8)[:, None, None]
        for canvas, item in zip(images, items, strict=True):
            canvas[:, : item.image.shape[1], : item.image.shape[2]] = item.image
        pad = torch.nn.utils.rnn.pad_sequence
        return BoxBatch(
            images,
            pad([item.boxes for item in items], batch_first=True),
            pad([item.labels for item in items], batch_first=True, padding_value=-1),
            torch.stack([item.color for item in items]),
            tuple(item.id for item in items),
        )
