"""Validation: predict a whole set of annotated pictures, as benchmarks do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

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
    results: Iterable[tuple[Sample, Poses]],
    count: int,
    quiet: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[list[dict[str, Any]], int]:
    """COCO result records of every picture, and how many people beyond the 20th a picture had.

    Args:
        results: annotated pictures with the people found in them.
        count: how many there will be.
        quiet: show no progress.
        stopped: asked after every picture whether to give up.
    """
    records: list[dict[str, Any]] = []
    beyond = 0
    for sample, poses in tqdm(
        results, desc="valid", total=count, unit=" pictures", mininterval=2.0, disable=quiet
    ):
        beyond += max(len(poses) - COCO_MOST, 0)
        records += poses.to_coco(sample.id)
        if stopped():
            break
    return records, beyond
