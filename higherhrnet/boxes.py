"""Boxes around people: where the top-down mode looks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import UserError
from .ids import plain_id
from .poses import Poses

_UPRIGHT_SHIFT, _MPII_UNIT = 15.0, 200.0


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of N people in one image.

    Attributes:
        xywh: (N, 4) float64 left, top, width, height, pixels.
        score: (N,) float64 confidence of the detector; 1 where annotated.
        annotated: (H, W) of the image that they are drawn on, where a file tells.
    """

    xywh: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    annotated: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        assert self.xywh.shape == (len(self.score), 4), self.xywh.shape

    def __len__(self) -> int:
        return len(self.xywh)

    @classmethod
    def of(cls, xywh: Any, score: Any = None) -> Boxes:
        """From anything that numpy reads; without scores they are as sure as annotations.

        Raises:
            UserError: they are not N rows of four numbers, or not N scores.
        """
        array, sure = np.asarray(xywh, float), np.asarray([] if score is None else score, float)
        array = array.reshape(0, 4) if not array.size else array
        if array.ndim != 2 or array.shape[1] != 4:
            raise UserError(
                f"boxes must be (N, 4) left, top, width, height, not {list(array.shape)}"
            )
        if score is not None and sure.shape != (len(array),):
            raise UserError(f"{len(array)} boxes came with {list(sure.shape)} scores")
        if not (np.isfinite(array).all() and np.isfinite(sure).all()):
            raise UserError("boxes and their scores must be finite numbers")
        return cls(array, np.ones(len(array)) if score is None else sure)

    @classmethod
    def around(cls, poses: Poses, margin: float = 0.1) -> Boxes:
        """Around people's joints, wider by ``margin`` of the longer side on every edge.

        Joints end inside the body: an annotated box is on average a tenth larger on every side.
        """
        boxes = poses.boxes.copy()
        grow = margin * boxes[:, 2:].max(axis=1, initial=0.0)
        boxes[:, :2] -= grow[:, None]
        boxes[:, 2:] += 2 * grow[:, None]
        return cls(boxes, poses.person_score)

    def select(self, rows: npt.NDArray[Any]) -> Boxes:
        """Some of them, by rows or by a mask."""
        return Boxes(self.xywh[rows], self.score[rows])

    def usable(self, least: float = 0.0) -> Boxes:
        """Those with an extent that score at least ``least``."""
        return self.select((self.xywh[:, 2:] > 0).all(axis=1) & (self.score >= least))

    def within(self, shape: tuple[int, int]) -> Boxes:
        """Those that cover some of an image (H, W)."""
        low, high = self.xywh[:, :2], self.xywh[:, :2] + self.xywh[:, 2:]
        return self.select(np.asarray(((low < shape[::-1]) & (high > 0)).all(axis=1)))

    def jitter(self, amount: float, rng: np.random.Generator) -> Boxes:
        """Every edge moved by a normal share of the box's side, ``amount`` in standard deviation.

        Edges move by no more than two deviations, so that no box turns inside out.
        """
        if not amount:
            return self
        low, high = self.xywh[:, :2], self.xywh[:, :2] + self.xywh[:, 2:]
        moves = np.clip(rng.normal(0, amount, (2, len(self), 2)), -2 * amount, 2 * amount)
        low = low + moves[0] * self.xywh[:, 2:]
        high = high + moves[1] * self.xywh[:, 2:]
        return Boxes(np.concatenate([low, np.maximum(high - low, 1.0)], axis=1), self.score)


def annotated_box(record: Mapping[str, Any], shape: tuple[float, float]) -> list[float]:
    """The box of an annotated person as the published top-down code has it: x, y, w, h.

    COCO's are cut at the image's edges, from the first to the last pixel that they cover. MPII
    gives a center and a scale of 200 px instead, whose square lies 15 px (times the scale) lower
    in published training; without either it is the box around the joints. Crowds get a box without
    extent, and so do people whose annotated area is 0, unless MPII's center says where they are
    (a single joint has no area): they are not looked at alone.

    Args:
        record: the annotation.
        shape: (H, W) of the image, infinite where it is not known.
    """
    if record.get("iscrowd"):
        return [0.0, 0.0, 0.0, 0.0]
    if record.get("center") is not None and record.get("scale") is not None:
        (x, y), scale = record["center"], float(record["scale"])
        side = _MPII_UNIT * scale
        return [x - side / 2, y + _UPRIGHT_SHIFT * scale - side / 2, side, side]
    area = record.get("area")
    if area is not None and area <= 0:
        return [0.0, 0.0, 0.0, 0.0]
    if record.get("bbox"):
        x, y, w, h = (float(value) for value in record["bbox"])
        left, top = max(x, 0.0), max(y, 0.0)
        right = min(shape[1] - 1, left + max(w - 1, 0.0))
        bottom = min(shape[0] - 1, top + max(h - 1, 0.0))
        return [left, top, max(right - left, 0.0), max(bottom - top, 0.0)]
    return [float(v) for v in Boxes.around(_pose(record)).xywh[0]]


def _pose(record: Mapping[str, Any]) -> Poses:
    return Poses.from_annotations(np.array(record["keypoints"], float).reshape(1, -1, 3))


def read_detections(path: Path) -> dict[int | str, Boxes]:
    """Boxes of people by image, from a COCO detection result file or from annotations.

    A list of results is read by image id. Of several categories people are 0 where ids begin at 0,
    else 1. An object with images and annotations (annotation files, ``predictions.json``) is read
    by file name, as its ids are its own; of several categories that called person is read.

    Raises:
        UserError: the file is missing or neither of these, or no category is that of people.
    """
    if not path.is_file():
        raise UserError(f"box file '{path}' does not exist")
    try:
        loaded = json.loads(path.read_bytes())
        if isinstance(loaded, dict):
            records, wanted, sizes = _annotations_of(loaded)
        else:
            records, sizes = loaded, {}
            wanted = _person_of_list({plain_id(r.get("category_id", 1)) for r in records})
        people: dict[int | str, list[Mapping[str, Any]]] = {}
        for record in records:
            if plain_id(record.get("category_id", 1)) in wanted and not record.get("iscrowd"):
                people.setdefault(record["image_id"], []).append(record)
        found: dict[Any, Boxes] = {
            image: replace(_boxes_of_records(own), annotated=sizes.get(image))
            for image, own in people.items()
        }
        by_plain: dict[Any, Boxes] = {plain_id(image): boxes for image, boxes in found.items()}
        return by_plain | found
    except (
        UserError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise UserError(
            f"box file '{path}' is neither a COCO detection result (a list of image_id, bbox, "
            f"score) nor COCO annotations: {error}"
        ) from error


def find_boxes(
    listed: Mapping[int | str, Boxes], image_id: int | str, file_name: str
) -> Boxes | None:
    """An image's boxes in a list by id, where text and numbers are the same, or by file name; None
    if it is not there."""
    name = Path(file_name)
    keys: list[Any] = [image_id, plain_id(image_id), str(image_id), file_name]
    keys += [name.name, name.stem]
    return next((listed[key] for key in keys if key in listed), None)


_PEOPLE = frozenset({"person", "people", "pedestrian", "human"})


def _annotations_of(
    loaded: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], set[object], dict[Any, tuple[int, int]]]:
    """Records with boxes, by file name; whose categories are people; and the annotated sizes."""
    if not {"images", "annotations"} <= loaded.keys():
        raise UserError("it is an object without 'images' or 'annotations'")
    images = {plain_id(image["id"]): image for image in loaded["images"]}
    files = {number: str(image["file_name"]) for number, image in images.items()}
    often = Counter(Path(file).name for file in files.values())
    key = {n: Path(f).name if often[Path(f).name] == 1 else f for n, f in files.items()}
    sizes: dict[Any, tuple[int, int]] = {
        key[number]: (int(image["height"]), int(image["width"]))
        for number, image in images.items()
        if image.get("height") and image.get("width")
    }
    categories = [c for c in loaded.get("categories") or () if isinstance(c, dict)]
    wanted = {plain_id(c["id"]) for c in categories if str(c.get("name")).lower() in _PEOPLE}
    wanted = wanted or {plain_id(c["id"]) for c in categories if c.get("keypoints")}
    there = {plain_id(record.get("category_id", 1)) for record in loaded["annotations"]}
    if not wanted:
        wanted = _only(there)
    records = []
    for record in loaded["annotations"]:
        box = record.get("bbox")
        if not box and record.get("keypoints"):
            box = Boxes.around(_pose(record)).xywh[0].tolist()
        if box and min(box[2:]) > 0 and plain_id(record["image_id"]) in key:
            own = {"score": 1.0, **record, "bbox": box}
            records.append({**own, "image_id": key[plain_id(record["image_id"])]})
    return records, wanted, sizes


def _person_of_list(ids: Collection[Any]) -> set[object]:
    """Whose boxes are people's: 0 where ids begin at 0 (and 1 is another class), or 1 as COCO's."""
    known = [number for number in (0, 1) if number in ids and len(ids) > 1]
    return {known[0]} if known else _only(ids)


def _only(ids: Collection[Any]) -> set[object]:
    """The one category that there is."""
    if len(ids) > 1:
        raise UserError(f"of its categories {sorted(map(str, ids))} none is known to be people's")
    return set(ids)


def _boxes_of_records(records: Sequence[Mapping[str, Any]]) -> Boxes:
    return Boxes.of([r["bbox"] for r in records], [float(r["score"]) for r in records])
