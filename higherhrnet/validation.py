"""Validation: predict a whole set of annotated pictures, as benchmarks do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
        found: image id → everything that was found there, in the order of the set.
        metrics: the evaluator's figures.
        health: tags and heat at true joints; see ``evaluation/tag_health.py``.
    """

    found: dict[int | str, Poses]
    metrics: dict[str, float]
    health: dict[str, float]

    @property
    def records(self) -> list[dict[str, Any]]:
        """COCO keypoint results."""
        return records_of(self.found)

    @property
    def beyond(self) -> int:
        """People beyond the 20 a picture that COCO's evaluation looks at."""
        return sum(max(len(poses) - COCO_MOST, 0) for poses in self.found.values())


def records_of(found: Mapping[int | str, Poses]) -> list[dict[str, Any]]:
    """COCO keypoint results of people by image id."""
    return [record for image_id, poses in found.items() for record in poses.to_coco(image_id)]


def predict_all(
    results: Iterable[tuple[Sample, Poses]],
    count: int,
    quiet: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[int | str, Poses]:
    """People of every picture, by image id.

    Args:
        results: annotated pictures with the people found in them.
        count: how many there will be.
        quiet: show no progress.
        stopped: asked after every picture whether to give up.
    """
    found: dict[int | str, Poses] = {}
    for sample, poses in tqdm(
        results, desc="valid", total=count, unit=" pictures", mininterval=2.0, disable=quiet
    ):
        found[sample.id] = poses
        if stopped():
            break
    return found
