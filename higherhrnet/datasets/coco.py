"""COCO-format keypoint data sets: any skeleton, any folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle

from .. import geometry
from ..boxes import annotated_box
from ..errors import UserError
from ..io.images import Store
from ..poses import Poses, is_labeled
from ..skeleton import Skeleton
from ..structures import Sample
from .annotations import check_annotations, read_annotations
from .packed import PackedRecords

Record = dict[str, Any]


class ImageSource(Protocol):
    """Where pixels come from: files, or memory."""

    def holds(self, name: str) -> bool: ...
    def image(self, name: str) -> npt.NDArray[np.uint8]: ...


class CocoKeypoints:
    """The images of one split in COCO's layout.

    ``names`` are the images' file names; ``orphans`` the ids of annotations whose images are
    not listed, which are left out.

    ``root/annotations/person_keypoints_{split}.json`` and ``root/images/{split}/``; where the
    official names differ, give the two paths.

    Args:
        annotation_file: JSON with images, annotations and categories; COCO's ``image_info`` of a
            test set; or MPII's JSON or .mat.
        image_folder: where the file names start; a folder, or a zip archive of it.
        skeleton: the K joints; each annotation must have 3 K keypoint numbers.
        people_only: leave out images without any annotation, as published training does.
        limit: use only the first so many images; 0 uses all.
        with_mask: leave crowds and people without keypoints out of the loss; see
            :func:`valid_mask`.

    Raises:
        UserError: a file or folder is missing, unreadable or does not fit the skeleton.
    """

    def __init__(
        self,
        annotation_file: Path,
        image_folder: Path,
        skeleton: Skeleton,
        people_only: bool = False,
        limit: int = 0,
        with_mask: bool = True,
    ) -> None:
        self.skeleton = skeleton
        self._with_mask = with_mask
        self.annotation_file = annotation_file
        loaded = read_annotations(annotation_file)
        self.files = Store(image_folder)
        self.store: ImageSource = self.files
        people: dict[int | str, list[Record]] = defaultdict(list)
        check_annotations(loaded, annotation_file)
        for record in loaded["annotations"]:
            if not record.get("keypoints"):  # a crowd, or a body without joints
                record["keypoints"] = [0] * 3 * len(skeleton)
            numbers = len(record["keypoints"])
            if numbers != 3 * len(skeleton):
                raise UserError(
                    f"'{annotation_file}': annotation {record.get('id')} has {numbers} keypoint "
                    f"numbers, but skeleton '{skeleton.name}' with {len(skeleton)} joints needs "
                    f"{3 * len(skeleton)}"
                )
            people[record["image_id"]].append(record)
        listed: set[int | str] = set()
        for image in loaded["images"]:
            if image["id"] in listed:
                raise UserError(f"'{annotation_file}' lists image id {image['id']} twice")
            listed.add(image["id"])
        self.orphans = [a.get("id") for a in loaded["annotations"] if a["image_id"] not in listed]
        images = [image for image in loaded["images"] if not people_only or image["id"] in people][
            : limit or None
        ]
        if not images:
            raise UserError(f"'{annotation_file}' lists no images to use")
        self.names = [str(image["file_name"]) for image in images]
        self._rest = {k: v for k, v in loaded.items() if k not in ("images", "annotations")}
        self._entries = PackedRecords((image, people.get(image["id"], [])) for image in images)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Memory that the annotations take."""
        return self._entries.nbytes

    @property
    def annotations(self) -> dict[str, Any]:
        """The whole set in COCO format, made anew: ask once."""
        entries = list(self._entries)
        return {
            **self._rest,
            "images": [image for image, _ in entries],
            "annotations": [record for _, records in entries for record in records],
        }

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """(H, W) of every image by file name, as annotated.

        Raises:
            UserError: an image is annotated without its size.
        """
        found = {}
        for image, _ in self._entries:
            height, width = image.get("height"), image.get("width")
            if not height or not width:
                raise UserError(
                    f"'{self.annotation_file}': image {image['id']} lacks 'height' or 'width'"
                )
            found[image["file_name"]] = int(height), int(width)
        return found

    def boxes(self, index: int) -> npt.NDArray[np.float64]:
        """(P, 4) x, y, w, h of the image's labeled people."""
        description, records = self._entries[index]
        return _boxes([record for record in records if is_labeled(record)], description)

    def sample(self, index: int) -> Sample:
        """The whole image; ``UserError`` names a missing or broken file."""
        return self.make_sample(index, self.store.image(self.names[index]))

    def make_sample(self, index: int, image: npt.NDArray[np.uint8]) -> Sample:
        """The image with what is annotated of it."""
        description, records = self._entries[index]
        try:
            return self._sample(image, description, records)
        except UserError as error:
            raise UserError(
                f"'{self.annotation_file}': the annotations of image {description['id']} cannot "
                f"be used: {error}"
            ) from error

    def _sample(
        self, image: npt.NDArray[np.uint8], description: Record, records: list[Record]
    ) -> Sample:
        labeled = [record for record in records if is_labeled(record)]
        return Sample(
            image=image,
            poses=Poses.from_annotations(
                np.array([r["keypoints"] for r in labeled], dtype=np.float64).reshape(
                    len(labeled), len(self.skeleton), 3
                )
            ),
            boxes=_boxes(labeled, description),
            valid=valid_mask(records if self._with_mask else [], image.shape[:2]),
            id=description["id"],
            affine=geometry.identity(),
        )


def _boxes(records: Sequence[Record], image: Record) -> npt.NDArray[np.float64]:
    shape = (float(image.get("height") or np.inf), float(image.get("width") or np.inf))
    return np.array([annotated_box(record, shape) for record in records], float).reshape(-1, 4)


def valid_mask(records: list[dict[str, Any]], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(H, W) 1 where the loss counts: outside crowd regions and people without keypoints.

    The segmentation is used where there is one, else the box without the boxes of people with
    keypoints, who must not be lost with the crowd around them; else nothing is ignored.
    """
    valid = np.ones(shape, np.uint8)
    ignored = [r for r in records if r.get("iscrowd") or not is_labeled(r)]
    labeled = [r for r in records if is_labeled(r) and not r.get("iscrowd")]
    regions = [_region(record.get("segmentation"), shape) for record in ignored]
    boxes = [r for r, region in zip(ignored, regions, strict=True) if region is None]
    for inside, people in ((0, boxes), (1, labeled if boxes else [])):
        for person in people:
            if person.get("bbox"):
                x, y, w, h = person["bbox"]
                left, top = max(round(x), 0), max(round(y), 0)
                valid[top : max(round(y + h), 0), left : max(round(x + w), 0)] = inside
    for region in regions:
        if region is not None:
            valid[region] = 0
    return valid


def _region(
    segmentation: list[Any] | dict[str, Any] | None, shape: tuple[int, int]
) -> npt.NDArray[np.bool_] | None:
    """Pixels (H, W) of polygons or run lengths (plain or compressed); None if there are none.

    Raises:
        UserError: they cannot be decoded.
    """
    try:
        return _decoded_region(segmentation, shape)
    except (ValueError, TypeError, IndexError, OverflowError) as error:  # pycocotools' own
        raise UserError(f"a segmentation cannot be decoded: {error}") from error


def _decoded_region(
    segmentation: list[Any] | dict[str, Any] | None, shape: tuple[int, int]
) -> npt.NDArray[np.bool_] | None:
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != list(shape):
            return None
        plain = isinstance(segmentation["counts"], list)
        encoded = rle.frPyObjects(segmentation, *shape) if plain else segmentation
    else:
        rings = segmentation or []
        if rings and not isinstance(rings[0], list):  # one polygon, not in a list of its own
            rings = [rings]
        polygons = [polygon for polygon in rings if len(polygon) >= 6]
        if not polygons:
            return None
        encoded = rle.merge(rle.frPyObjects(polygons, *shape))
    return np.asarray(rle.decode(encoded) > 0)
