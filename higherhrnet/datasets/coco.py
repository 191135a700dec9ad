"""COCO-format keypoint data sets: any skeleton, any folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle

from .. import geometry
from ..boxes import annotated_box
from ..errors import UserError
from ..io.images import fits_annotation
from ..io.store import Store
from ..poses import Poses, is_labeled, labeled_joints
from ..skeleton import Skeleton
from ..structures import NOT_COUNTED, Sample, Silhouettes
from .annotations import MOST, check_annotations, read_annotations
from .canonical import canonicalize
from .categories import annotated_size
from .findings import Finding, missing_files, refuse_repeated_ids
from .packed import PackedRecords

Record = dict[str, Any]


class ImageSource(Protocol):
    """Where pixels come from: files, or memory."""

    def holds(self, name: str) -> bool: ...
    def image(self, name: str, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]: ...


class CocoKeypoints:
    """The images of one split in COCO's layout.

    ``names`` are the images' file names; ``findings`` what was brought into order on reading, and
    what looks wrong (see :mod:`.canonical`).

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
        categories: names of the categories that are used; those with the skeleton's joints if
            empty.
        with_silhouettes: samples tell where all people are; see :class:`Silhouettes`.

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
        categories: Sequence[str] = (),
        with_silhouettes: bool = False,
    ) -> None:
        self.skeleton = skeleton
        self._with_silhouettes = with_silhouettes
        self._with_mask = with_mask
        self.annotation_file = annotation_file
        loaded = read_annotations(annotation_file)
        self.files = Store(image_folder)
        self.store: ImageSource = self.files
        people: dict[int | str, list[Record]] = defaultdict(list)
        check_annotations(loaded, annotation_file)
        listed_people = len(loaded["annotations"])
        self.findings = canonicalize(loaded, annotation_file, skeleton, categories)
        for record in loaded["annotations"]:
            people[record["image_id"]].append(record)
        refuse_repeated_ids(loaded["images"], annotation_file)
        images = [image for image in loaded["images"] if not people_only or image["id"] in people][
            : limit or None
        ]
        has_joints = any(map(is_labeled, loaded["annotations"]))
        if not images or (people_only and not has_joints):
            raise UserError(
                f"'{annotation_file}' lists no images to use: "
                + _why_empty(loaded, listed_people, self.findings)
            )
        if loaded["annotations"] and not has_joints:
            what = "annotations and not one with a labeled joint"
            unlabeled = [record.get("id") for record in loaded["annotations"]]
            self.findings.append(Finding(what, unlabeled, "AP has no value", is_problem=True))
        self.findings += _mend_sizes(images, people, self.files)
        self.names = [str(image["file_name"]) for image in images]
        self.findings += missing_files(images, self.files)
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

    @cached_property
    def label_counts(self) -> npt.NDArray[np.int64]:
        """(K,) how many people have each joint labeled."""
        counts = np.zeros(len(self.skeleton), np.int64)
        for _, records in self._entries:
            keypoints = np.array([r["keypoints"] for r in records], float)
            counts += labeled_joints(keypoints.reshape(-1, len(counts), 3)).sum(axis=0)
        return counts

    def boxes(self, index: int) -> npt.NDArray[np.float64]:
        """(P, 4) x, y, w, h of the image's labeled people."""
        description, records = self._entries[index]
        return _boxes([record for record in records if is_labeled(record)], description)

    def outlines(self, index: int) -> list[npt.NDArray[np.bool_] | None]:
        """(H, W) pixels of each labeled person, in the order of the poses; None where there is no
        segmentation."""
        description, records = self._entries[index]
        shape = annotated_size(description)
        labeled = [record for record in records if is_labeled(record)]
        if shape is None:
            return [None] * len(labeled)
        return [decode_region(record.get("segmentation"), shape) for record in labeled]

    def sample(self, index: int) -> Sample:
        """The whole image; ``UserError`` names a missing or broken file."""
        description, _ = self._entries[index]
        return self.make_sample(
            index, self.store.image(self.names[index], annotated_size(description))
        )

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
            silhouettes=(
                silhouettes_of(records, image.shape[:2]) if self._with_silhouettes else None
            ),
        )


def silhouettes_of(records: list[Record], shape: tuple[int, int]) -> Silhouettes:
    """All people of an image (H, W): crowds do not count, nor boxes without an outline."""
    people = [r for r in records if not r.get("iscrowd") and r.get("bbox")]
    boxes = np.array([r["bbox"] for r in people], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Silhouettes(paint_outlines([(record, 1) for record in records], shape), boxes)


def paint_outlines(
    records: Sequence[tuple[Record, int]], shape: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """(H, W) the label that each annotation comes with, inside its outline; 0 elsewhere.

    Crowds, and boxes without an outline, are :data:`NOT_COUNTED` and lie behind; of other outlines
    the smaller one lies in front.

    Raises:
        UserError: an outline cannot be decoded.
    """
    labels = np.zeros(shape, np.uint8)
    shown = []
    for record, label in records:
        region = decode_region(record.get("segmentation"), shape)
        if region is None:
            labels[box_slices(record)] = NOT_COUNTED
        elif record.get("iscrowd"):
            labels[region] = NOT_COUNTED
        else:
            shown.append((region, label))
    for region, label in sorted(shown, key=lambda pair: -int(pair[0].sum())):
        labels[region] = label
    return labels


_LOOKED_AT = 64
"""Images whose headers are read on loading; if one's sides are exchanged, all are read."""


def _mend_sizes(
    images: list[Record], people: Mapping[Any, list[Record]], store: Store
) -> list[Finding]:
    """Set annotated widths and heights right that are exchanged (as in CrowdPose's first release),
    before boxes are cut at the image's edges.

    Headers are read of images spread over the set, and of those whose boxes pass the edges.
    """

    unclear = []

    def fit(image: Record) -> str:
        size, header = annotated_size(image), store.header(str(image["file_name"]))
        if header is None:
            return "unknown"
        found = "unknown" if size is None else fits_annotation(header, size)
        if header.orientation != 1 and found in ("same", "unknown"):
            unclear.append(image["file_name"])
        return found

    step = max(len(images) // _LOOKED_AT, 1)
    suspects = {id(image) for image in images[::step]}
    suspects |= {id(image) for image in images if _passes_edge(image, people.get(image["id"], ()))}
    fits = {id(image): fit(image) for image in images if id(image) in suspects}
    if "exchanged" in fits.values():
        fits |= {id(image): fit(image) for image in images if id(image) not in fits}
    by_fit = defaultdict(list)
    for image in images:
        by_fit[fits.get(id(image), "unknown")].append(image)
    for image in by_fit["exchanged"]:
        image["width"], image["height"] = image["height"], image["width"]
    turned = Finding(AS_STORED, unclear, "they are not turned, as COCO's are not")
    return [*size_findings(by_fit), *([turned] if unclear else [])]


EXCHANGED = "images with width and height exchanged in the annotations"
AS_STORED = "images with an EXIF orientation that are annotated as stored"


def size_findings(by_fit: Mapping[str, list[Record]]) -> list[Finding]:
    """Sentences on images by how they meet their annotated size; see :func:`fits_annotation`."""
    found = (
        Finding(EXCHANGED, [i["file_name"] for i in by_fit.get("exchanged", ())],
                "the image's own are used"),
        Finding("images that are annotated as EXIF turns them",
                [i["file_name"] for i in by_fit.get("upright", ())], "they are turned"),
        Finding("images of another size than annotated, but of the same ratio",
                [i["file_name"] for i in by_fit.get("resized", ())],
                "they are resized to the annotated size"),
        Finding("images of another size and ratio than annotated",
                [i["file_name"] for i in by_fit.get("other", ())],
                "they cannot be used", True),
    )  # fmt: skip
    return [finding for finding in found if finding.examples]


def _passes_edge(image: Record, people: Sequence[Record]) -> bool:
    size = annotated_size(image)
    return size is not None and any(
        box[0] + box[2] > size[1] + 2 or box[1] + box[3] > size[0] + 2
        for person in people
        if (box := person.get("bbox"))
    )


def _why_empty(loaded: Mapping[str, Any], listed: int, findings: Sequence[Finding]) -> str:
    images = len(loaded["images"])
    if not images or not listed:
        return f"it has {images} images and {listed} annotations"
    if findings:
        return f"of {listed} annotations none is left; " + "; ".join(map(str, findings))
    return f"none of its {listed} annotations has a labeled joint (v above 0)"


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
    regions = [decode_region(record.get("segmentation"), shape) for record in ignored]
    boxes = [r for r, region in zip(ignored, regions, strict=True) if region is None]
    for inside, people in ((0, boxes), (1, labeled if boxes else [])):
        for person in people:
            valid[box_slices(person)] = inside
    for region in regions:
        if region is not None:
            valid[region] = 0
    return valid


def box_slices(record: Mapping[str, Any]) -> tuple[slice, slice]:
    """Rows and columns of an annotation's box; none without one."""
    x, y, w, h = record.get("bbox") or (0, 0, 0, 0)
    left, top = max(round(x), 0), max(round(y), 0)
    return slice(top, max(round(y + h), 0)), slice(left, max(round(x + w), 0))


def decode_region(
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
        for polygon in polygons:  # pycocotools crashes on what is no place
            if not (np.abs(np.asarray(polygon, float)) < MOST).all():
                raise ValueError("a polygon has a corner that is no place in an image")
        if not polygons:
            return None
        encoded = rle.merge(rle.frPyObjects(polygons, *shape))
    return np.asarray(rle.decode(encoded) > 0)
