"""Validation: predict a whole set of annotated pictures, as benchmarks do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from .datasets.keypoints import Pictures
from .fields import Sample
from .poses import Poses

COCO_MOST = 20
"""COCO's evaluation looks at the 20 best detections of a picture."""


def predict_all(
    predict: Callable[[Sample], Poses], pictures: Pictures
) -> tuple[list[dict[str, Any]], int]:
    """COCO result records of every picture, and how many people beyond the 20th a picture had.

    Args:
        predict: sample → people in the sample's pixels.
    """
    records: list[dict[str, Any]] = []
    beyond = 0
    for index in tqdm(range(len(pictures)), desc="valid", unit=" pictures", mininterval=2.0):
        sample = pictures.sample(index)
        poses = predict(sample)
        beyond += max(len(poses) - COCO_MOST, 0)
        records += poses.to_coco(sample.id)
    return records, beyond
