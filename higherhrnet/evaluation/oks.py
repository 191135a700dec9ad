"""Object keypoint similarity (COCO): how alike two poses are, 0..1, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..poses import labeled_joints

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def closeness(xy: Vector, others: Vector, area: Vector, sigmas: Sequence[float]) -> Vector:
    """(M, K) exp(-d² / (2 area (2 sigma)²)) of each joint of one pose (K, 2) to those of several
    (M, K, 2); ``area`` (M,) pixels, for each pair."""
    variance = (2 * np.asarray(sigmas, float)) ** 2
    distance = ((others - xy) ** 2).sum(axis=2)
    return np.asarray(np.exp(-distance / variance / (area[:, None] + np.spacing(1)) / 2))


def similarity(
    xy: Vector, others: Vector, area: Vector, sigmas: Sequence[float], counted: Mask
) -> Vector:
    """Similarity of one pose to several: mean :func:`closeness` of the joints that count.

    Args:
        xy: (K, 2) pixels.
        others: (M, K, 2).
        area: (M,) pixels, for each pair.
        sigmas: K of them.
        counted: (M, K) the joints that count; a pair without any has similarity 0.

    Returns:
        (M,) 0..1.
    """
    total = np.where(counted, closeness(xy, others, area, sigmas), 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(counted.sum(axis=1), 1))


_PAIRS = 20_000


def similarities(
    xy: Vector, people: Sequence[Mapping[str, Any]], sigmas: Sequence[float], use_area: bool = True
) -> Vector:
    """(D, G) similarity of detections (D, K, 2) with annotated people, as pycocotools has it.

    Someone without joints is compared by how far the detection leaves the doubled box.

    Args:
        people: records with ``keypoints``, ``bbox`` and ``area``.
        use_area: take a person's area as annotated, or as 0.53 of the box, as CrowdPose does.
    """
    if not len(people):
        return np.zeros((len(xy), 0))
    if len(xy) * len(people) > _PAIRS:  # a part at a time stays in the processor's cache
        step = max(_PAIRS // len(people), 1)
        parts = [xy[start : start + step] for start in range(0, len(xy), step)]
        return np.concatenate([similarities(part, people, sigmas, use_area) for part in parts])
    ground_truth = np.array([person["keypoints"] for person in people], float)
    ground_truth = ground_truth.reshape(len(people), -1, 3)
    boxes = np.array([person["bbox"] for person in people], float)
    area = 0.53 * boxes[:, 3] * boxes[:, 2]
    if use_area:
        area = np.array([person["area"] for person in people], float)
    labeled = labeled_joints(ground_truth)
    apart = xy[:, None] - ground_truth[None, ..., :2]
    bare: Mask = np.asarray(~labeled.any(axis=1))
    if bare.any():
        low, high = boxes[bare, :2] - boxes[bare, 2:], boxes[bare, :2] + 2 * boxes[bare, 2:]
        some = xy[:, None]
        apart[:, bare] = np.maximum(0, low[:, None] - some) + np.maximum(0, some - high[:, None])
        labeled = labeled | bare[:, None]
    variance = (2 * np.asarray(sigmas, float)) ** 2
    distance = (apart**2).sum(axis=3)
    close = np.exp(-distance / variance / (area[:, None] + np.spacing(1)) / 2)
    return np.asarray(np.where(labeled, close, 0.0).sum(axis=2) / labeled.sum(axis=1))


def oks_nms(
    xy: Vector,
    joint_score: Vector,
    score: Vector,
    area: Vector,
    sigmas: Sequence[float],
    threshold: float,
    in_vis: float | None = None,
) -> list[int]:
    """OKS-NMS (Papandreou et al. 2017): drop people too similar to more confident ones.

    Args:
        xy: (N, K, 2) pixels.
        joint_score: (N, K).
        score: (N,) confidence of each person.
        area: (N,) pixels.
        sigmas: K of them.
        threshold: people more alike than this are the same.
        in_vis: count only joints that score more than this in the less confident person.

    Returns:
        rows that are kept, the most confident first.
    """
    order = np.argsort(score)[::-1]
    kept: list[int] = []
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(int(first))
        alike = _alike(first, rest, xy, joint_score, area, sigmas, in_vis)
        order = rest[alike <= threshold]
    return kept


def soft_oks_nms(
    xy: Vector,
    joint_score: Vector,
    score: Vector,
    area: Vector,
    sigmas: Sequence[float],
    threshold: float,
    in_vis: float | None = None,
    most: int = 20,
) -> list[int]:
    """Like :func:`oks_nms`, but similarity lowers the other's confidence by exp(-oks²/threshold)
    instead of dropping it; the ``most`` best are kept."""
    order = np.argsort(score)[::-1]
    scores = score[order]
    kept: list[int] = []
    while len(order) and len(kept) < most:
        first, order = order[0], order[1:]
        kept.append(int(first))
        alike = _alike(first, order, xy, joint_score, area, sigmas, in_vis)
        scores = scores[1:] * np.exp(-(alike**2) / threshold)
        again = scores.argsort()[::-1]
        order, scores = order[again], scores[again]
    return kept


def _alike(
    first: int,
    rest: npt.NDArray[np.int64],
    xy: Vector,
    joint_score: Vector,
    area: Vector,
    sigmas: Sequence[float],
    in_vis: float | None,
) -> Vector:
    counted = np.ones(joint_score[rest].shape, bool)
    if in_vis is not None:
        counted = joint_score[rest] > in_vis
    return similarity(xy[first], xy[rest], (area[first] + area[rest]) / 2, sigmas, counted)
