"""OKS sigmas from images that two people labeled.

COCO's definition: sigma² is the mean of d²/s², with d the distance of an annotation from the truth
and s² the area of the person (https://cocodataset.org/#keypoints-eval). Of two annotators each is
off by as much, so that the square of their distance is 2 d² in the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from ...boxes import annotated_box
from .labels import Frame

FEWEST = 10
"""Pairs of labels of a joint from which its sigma is measured."""
_LOW, _HIGH = 0.005, 0.5
"""Limits of what is believed; COCO's are from 0.025 to 0.107."""


def measure_sigmas(
    frames: Sequence[Frame], count: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Sigma of each joint, and from how many pairs of labels; NaN with fewer than :data:`FEWEST`.

    Args:
        frames: those with a second annotator are used; people are matched by their distance.
        count: K joints.

    Returns:
        (K,) sigmas and (K,) numbers of pairs.
    """
    squares, pairs = np.zeros(count), np.zeros(count, np.int64)
    for frame in frames:
        for other in frame.others:
            for one, second, area in _match(frame.people, other, frame.size):
                both = (one[:, 2] > 0) & (second[:, 2] > 0)
                distances = ((one[:, :2] - second[:, :2]) ** 2).sum(axis=1)
                squares[both] += distances[both] / (2 * area)
                pairs[both] += 1
    enough = pairs >= FEWEST
    sigmas = np.full(count, np.nan)
    sigmas[enough] = np.clip(np.sqrt(squares[enough] / pairs[enough]), _LOW, _HIGH)
    return sigmas, pairs


def _match(
    people: Sequence[dict[str, Any]],
    others: Sequence[dict[str, Any]],
    size: tuple[int, int] | None,
) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]]:
    """Pairs of (K, 3) keypoints that mean the same person, and its area; those further apart than
    the person is large are of two."""
    ones = [np.reshape(person["keypoints"], (-1, 3)) for person in people]
    seconds = [np.reshape(person["keypoints"], (-1, 3)) for person in others]
    if not ones or not seconds:
        return []
    shape = (float("inf"), float("inf")) if size is None else (float(size[0]), float(size[1]))
    areas = [
        float(person.get("area") or 0) or float(np.prod(annotated_box(person, shape)[2:]))
        for person in people
    ]
    costs = np.full((len(ones), len(seconds)), 1e6)
    for i, one in enumerate(ones):
        for j, second in enumerate(seconds):
            both = (one[:, 2] > 0) & (second[:, 2] > 0)
            if both.any() and areas[i] > 0:
                squares = ((one[both, :2] - second[both, :2]) ** 2).sum(axis=1)
                costs[i, j] = np.sqrt(squares).mean() / np.sqrt(areas[i])
    rows, columns = linear_sum_assignment(costs)
    return [
        (ones[i], seconds[j], areas[i])
        for i, j in zip(rows, columns, strict=True)
        if costs[i, j] < 1
    ]
