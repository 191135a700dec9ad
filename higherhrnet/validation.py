"""Validation: predict a whole set of annotated pictures, as benchmarks do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from .datasets.keypoints import Pictures
from .fields import Sample
from .poses import Poses

COCO_MOST = 20
"""COCO's evaluation looks at the 20 best detections of a picture."""


@dataclass(frozen=True)
class Validation:
    """What a validation found.

    Attributes:
        records: COCO keypoint results.
        metrics: the evaluator's figures.
        health: tags and heat at true joints; see ``evaluation/tag_health.py``.
        beyond: people beyond the 20 a picture that COCO's evaluation looks at.
    """

    records: list[dict[str, Any]]
    metrics: dict[str, float]
    health: dict[str, float]
    beyond: int


def predict_all(
    predict: Callable[[Sample], Poses],
    pictures: Pictures,
    process: int = 0,
    processes: int = 1,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[list[dict[str, Any]], int]:
    """COCO result records of every picture, and how many people beyond the 20th a picture had.

    Args:
        predict: sample → people in the sample's pixels.
        pictures: the set.
        process, processes: look at every ``processes``-th picture only, from ``process`` on.
        stopped: asked after every picture whether to give up.
    """
    records: list[dict[str, Any]] = []
    beyond = 0
    for index in tqdm(
        range(process, len(pictures), processes),
        desc="valid", unit=" pictures", mininterval=2.0, disable=process > 0,
    ):  # fmt: skip
        sample = pictures.sample(index)
        poses = predict(sample)
        beyond += max(len(poses) - COCO_MOST, 0)
        records += poses.to_coco(sample.id)
        if stopped():
            break
    return records, beyond
