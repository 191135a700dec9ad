"""Two evaluations on the same images: the difference of their AP, part by part, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...datasets.stats import crowding
from ...evaluation.coco import AREAS
from ...evaluation.matching import Matches, match
from ...evaluation.report import FEWEST_IMAGES, areas_count, images_by_part
from ...skeleton import Skeleton

Record = Mapping[str, Any]
DRAWS = 300


class Part(NamedTuple):
    """One part of the set in both evaluations; APs 0..1.

    Attributes:
        by, part: which part.
        images, people: how many.
        first, second: AP of each evaluation.
        first_interval, second_interval: their 95 % bootstrap intervals.
        difference: first - second.
        low, high: the difference's interval: both evaluations see the same images in every draw.
    """

    by: str
    part: str
    images: int
    people: int
    first: float
    first_interval: tuple[float, float]
    second: float
    second_interval: tuple[float, float]
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Which evaluation is better, if the interval says so; few images have none."""
        if self.images < FEWEST_IMAGES:
            return "undecided"
        if self.low > 0:
            return "first"
        return "second" if self.high < 0 else "undecided"


def compare(
    first: Sequence[Record],
    second: Sequence[Record],
    annotations: Mapping[str, Any],
    skeleton: Skeleton,
    kind: str = "auto",
) -> list[Part]:
    """Overall, by person size, people an image, crowd index, hidden joints, CrowdPose level.

    Args:
        first, second: COCO keypoint results of both evaluations.
        annotations: of the images that both saw.
        kind: of evaluation; see :func:`results.evaluate`.
    """
    use_area = areas_count(kind, annotations, skeleton)
    pair = [match(r, annotations, skeleton, use_area=use_area) for r in (first, second)]
    parts = [_part("all", "all", pair[0], pair[1], pair[0].images)]
    for name, size in (("medium", "M"), ("large", "L")):
        sized = [match(r, annotations, skeleton, AREAS[size], use_area) for r in (first, second)]
        parts.append(_part("person size", name, sized[0], sized[1], sized[0].images))
    for (by, part), images in images_by_part(annotations, crowding(annotations)).items():
        parts.append(_part(by, part, pair[0], pair[1], images))
    return [part for part in parts if part.people]


def _part(by: str, part: str, one: Matches, other: Matches, images: Sequence[int | str]) -> Part:
    wanted = set(images)
    there = [image for image in one.images if image in wanted]
    people = sum(int(t) for i, t in zip(one.images, one.ground_truths, strict=True) if i in wanted)
    if not people:
        return Part(by, part, len(there), 0, -1, (-1, -1), -1, (-1, -1), 0, 0, 0)
    drawn = [table.bootstrap(DRAWS, images=there) for table in (one, other)]
    # Draws without people are left out, in both evaluations alike: they share the ground truth.
    apart = drawn[0] - drawn[1]
    first, second = one.only(there), other.only(there)
    low, high = np.percentile(apart, [2.5, 97.5])
    return Part(
        by, part, len(there), people, first, _interval(drawn[0]), second, _interval(drawn[1]),
        first - second, float(low), float(high),
    )  # fmt: skip


def _interval(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def most_different(
    first: Sequence[Record],
    second: Sequence[Record],
    annotations: Mapping[str, Any],
    skeleton: Skeleton,
    count: int = 8,
    kind: str = "auto",
) -> list[tuple[int | str, float]]:
    """Image ids where the evaluations differ most, with first's right people minus second's.

    A person is right at some of the ten thresholds; the mean over them is counted.
    """
    use_area = areas_count(kind, annotations, skeleton)
    scores = [_right(match(r, annotations, skeleton, use_area=use_area)) for r in (first, second)]
    apart = {image: scores[0][image] - scores[1][image] for image in scores[0]}
    ranked = sorted(apart.items(), key=lambda item: -abs(item[1]))
    return [item for item in ranked[:count] if item[1]]


def _right(table: Matches) -> dict[int | str, float]:
    """Mean number of people found by the 10 thresholds, in each image."""
    hits = (table.hit & ~table.skip).mean(axis=0)
    total = np.bincount(table.image, hits, minlength=len(table.images))
    return dict(zip(table.images, map(float, total), strict=True))
