"""One door to every evaluation: records and annotations in, named figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..skeleton import Skeleton
from .coco import coco_figures, crowdpose_figures
from .pck import accuracy_figures, pckh_figures

KINDS = ("auto", "coco", "crowdpose", "pckh", "accuracy")


def evaluate(
    records: Sequence[Mapping[str, Any]],
    annotations: Mapping[str, Any],
    skeleton: Skeleton,
    kind: str = "auto",
    radius: float = 10.0,
) -> dict[str, float]:
    """Score keypoint results the way their data set is scored.

    Args:
        records: results of all pictures (``Poses.to_coco``); may be empty.
        annotations: the ground truth in COCO format.
        skeleton: gives the OKS sigmas.
        kind: ``coco``, ``crowdpose``, ``pckh`` (besides COCO's), ``accuracy`` of single joints
            (besides COCO's), or ``auto``: pictures with a ``crowdIndex`` are CrowdPose's, people
            with MPII's joints are scored by PCKh too, all else is COCO's.
        radius: pixels within which a joint is right for ``accuracy``.

    Returns:
        figures 0..1, among them :func:`chief`'s; -1 where there is nothing to find.
    """
    kind = kind_of(kind, annotations, skeleton)
    if kind == "crowdpose":
        return crowdpose_figures(records, annotations, skeleton)
    figures = coco_figures(records, annotations, skeleton)
    if kind == "pckh":
        figures |= pckh_figures(records, annotations, skeleton)
    if kind == "accuracy":
        figures |= accuracy_figures(records, annotations, skeleton, radius)
    return figures


def kind_of(kind: str, annotations: Mapping[str, Any], skeleton: Skeleton) -> str:
    """The kind itself, or what ``auto`` means for these pictures; see :func:`evaluate`."""
    if kind != "auto":
        return kind
    if any(image.get("crowdIndex") is not None for image in annotations["images"]):
        return "crowdpose"
    return "pckh" if {"head_top", "upper_neck"} <= set(skeleton.joints) else "coco"


def chief(
    annotations: Mapping[str, Any], skeleton: Skeleton, kind: str = "auto", alone: bool = False
) -> str:
    """The figure that says which of two networks is better: AP, or PCKh where that is the set's.

    Args:
        annotations, skeleton, kind: see :func:`evaluate`.
        alone: whether each person is looked at alone. PCKh does not notice people who are not
            there, so that a network which finds people by itself is judged by AP.
    """
    if not alone or kind_of(kind, annotations, skeleton) != "pckh":
        return "AP"
    measurable = pckh_figures([], annotations, skeleton)["PCKh"] >= 0  # somebody has a head
    return "PCKh" if measurable else "AP"


def table(metrics: Mapping[str, float]) -> str:
    """The figures on one line each."""
    width = max(map(len, metrics))
    return "\n".join(f"  {name:{width}s} {shown(value):>6s}" for name, value in metrics.items())


def shown(value: float) -> str:
    """A share times 100, a count as it is, a dash where there was nothing to find."""
    if isinstance(value, int):
        return str(value)
    return "-" if value < 0 else f"{100 * value:.2f}"
