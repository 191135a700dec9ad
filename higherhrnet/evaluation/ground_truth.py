"""Annotations of any writer, completed for evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..poses import labeled_joints

Record = Mapping[str, Any]
_SLIMNESS, _SHORTEST = 0.1, 10.0


def sort_image_ids(ids: Iterable[int | str]) -> list[int | str]:
    """Image ids as official evaluators walk them: rising, which decides between equal scores of
    people in several images; numbers before words."""
    return sorted(ids, key=lambda value: (isinstance(value, str), value))


def complete_annotation(number: int, record: Record, image: int | None = None) -> dict[str, Any]:
    """One annotation with every field that evaluators ask for.

    They take an id of 0 for "no person", and compare only equal categories, of which there is one.
    """
    keypoints = np.array(record["keypoints"], dtype=float).reshape(-1, 3)
    labeled = keypoints[labeled_joints(keypoints), :2]
    box = record.get("bbox")
    if not box:
        box = box_of_joints(labeled) if len(labeled) else [0.0] * 4
    area = record.get("area")
    crowd = int(record.get("iscrowd") or 0)
    # Official evaluators believe this number, whatever the keypoints say; so do published figures.
    counted = record.get("num_keypoints")
    count = len(labeled) if counted is None else counted
    return {
        "id": number,
        "image_id": record["image_id"] if image is None else image,
        "category_id": 1,
        "keypoints": list(record["keypoints"]),
        "num_keypoints": count,
        "iscrowd": crowd,
        "ignore": int(crowd or count == 0),
        "bbox": list(box),
        "area": box[2] * box[3] if area is None else area,
    }


def box_of_joints(xy: npt.NDArray[np.float64]) -> list[float]:
    """Left, top, width, height around joints (N, 2), at least as large as a slim body's: a tenth of
    the length squared, and 10 px a side, so that OKS has an area to measure by where joints lie in
    a line or are one alone (see ``Poses.areas``)."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    sides = high - low
    length = max(float(sides.max()), _SHORTEST)
    least = max(_SLIMNESS * length, _SHORTEST)
    if sides.prod() < length * least:
        grown = np.maximum(sides, least)
        low, sides = low - (grown - sides) / 2, grown
    return [*low.tolist(), *sides.tolist()]
