"""Share of right joints: PCKh (MPII, Andriluka et al. 2014), and joint accuracy within a radius.

Both compare joint by joint; annotated people are paired with predicted ones first, see
:func:`matching.pair_people`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..poses import labeled_joints
from ..skeleton import Skeleton
from .matching import pair_people

Record = Mapping[str, Any]
Vector = npt.NDArray[np.float64]

_NOT_COUNTED = ("pelvis", "thorax")
"""MPII's mean leaves these out."""


def pckh_metrics(
    records: Sequence[Record], annotations: Mapping[str, Any], skeleton: Skeleton
) -> dict[str, float]:
    """Share of annotated joints found within a half, and a tenth, of the head's size; 0..1.

    The head's size is the annotation's ``head_size`` (0.6 of the head box's diagonal); where it
    is missing, the distance from the upper neck to the top of the head.

    Returns:
        ``PCKh`` and ``PCKh@0.1`` (weighted by how often a joint is annotated, without pelvis and
        thorax, as published), then ``PCKh JOINT`` for every joint; -1 where none is annotated.
    """
    reach = []
    for ground_truth, found in pair_people(records, annotations, skeleton):
        xy, labeled = _joints(ground_truth)
        size = _head_size(ground_truth, xy, labeled, skeleton)
        if size is None:
            continue
        far = np.full(len(skeleton), np.inf)
        if found is not None:
            far = np.linalg.norm(_joints(found)[0] - xy, axis=1) / size
        reach.append(np.where(labeled, far, np.nan))
    distances = np.array(reach).reshape(len(reach), len(skeleton))
    counted = ~np.isnan(distances)
    public = np.array([joint not in _NOT_COUNTED for joint in skeleton.joints])
    metrics = {}
    for name, limit in (("PCKh", 0.5), ("PCKh@0.1", 0.1)):
        right = counted & (np.nan_to_num(distances, nan=np.inf) <= limit)
        metrics[name] = _share(right[:, public], counted[:, public])
        if limit == 0.5:
            each = {
                f"PCKh {joint}": _share(right[:, j], counted[:, j])
                for j, joint in enumerate(skeleton.joints)
            }
    return metrics | each


def accuracy_metrics(
    records: Sequence[Record],
    annotations: Mapping[str, Any],
    skeleton: Skeleton,
    radius: float,
    score: float = 0.0,
) -> dict[str, float]:
    """Joints as a yes/no question: is it there, and was it found within ``radius`` pixels?

    Right within the radius is TP; found elsewhere, or where none is annotated, FP; not found
    though annotated FN; neither TN. Joints scoring at most ``score`` count as not found.

    Returns:
        counts ``TP``, ``FP``, ``TN``, ``FN``, and ``accuracy``, ``precision``, ``recall`` 0..1.
    """
    counts = dict.fromkeys(("TP", "FP", "TN", "FN"), 0)
    paired = pair_people(records, annotations, skeleton)
    for ground_truth, found in paired:
        xy, labeled = _joints(ground_truth)
        there = np.zeros(len(skeleton), bool)
        near = np.zeros(len(skeleton), bool)
        if found is not None:
            guess = np.array(found["keypoints"], float).reshape(-1, 3)
            there = guess[:, 2] > score
            near = there & labeled & (np.linalg.norm(guess[:, :2] - xy, axis=1) <= radius)
        counts["TP"] += int(near.sum())
        counts["FP"] += int((there & ~near).sum())
        counts["FN"] += int((labeled & ~there).sum())
        counts["TN"] += int((~labeled & ~there).sum())
    used = {id(found) for _, found in paired if found is not None}
    for record in records:
        if id(record) not in used:
            counts["FP"] += int((np.array(record["keypoints"][2::3]) > score).sum())
    tp, fp, tn, fn = counts.values()
    return {
        **counts,
        "accuracy": (tp + tn) / max(tp + fp + tn + fn, 1),
        "precision": tp / max(tp + fp, 1),
        "recall": tp / max(tp + fn, 1),
    }


def _joints(record: Record) -> tuple[Vector, npt.NDArray[np.bool_]]:
    values = np.array(record["keypoints"], float).reshape(-1, 3)
    return values[:, :2], labeled_joints(values)


def _head_size(
    ground_truth: Record, xy: Vector, labeled: npt.NDArray[np.bool_], skeleton: Skeleton
) -> float | None:
    if ground_truth.get("head_size"):
        return float(ground_truth["head_size"])
    if not {"upper_neck", "head_top"} <= set(skeleton.joints):
        return None
    neck, top = skeleton.index("upper_neck"), skeleton.index("head_top")
    if not labeled[[neck, top]].all():
        return None
    return max(float(np.linalg.norm(xy[neck] - xy[top])), 1.0)


def _share(right: npt.NDArray[np.bool_], counted: npt.NDArray[np.bool_]) -> float:
    return float(right.sum() / counted.sum()) if counted.any() else -1.0
