"""One door to every evaluation: records and annotations in, named figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..skeleton import Skeleton
from .coco import coco_figures, crowdpose_figures
from .pck import pckh_figures


def evaluate(
    records: Sequence[Mapping[str, Any]], annotations: Mapping[str, Any], skeleton: Skeleton
) -> dict[str, float]:
    """Score keypoint results the way their data set is scored.

    Pictures with a ``crowdIndex`` are CrowdPose's; people with MPII's joints are scored by PCKh
    besides; all else is COCO's.

    Args:
        records: results of all pictures (``Poses.to_coco``); may be empty.
        annotations: the ground truth in COCO format.
        skeleton: gives the OKS sigmas.

    Returns:
        figures 0..1, the first one the most important; -1 where there is nothing to find.
    """
    if any("crowdIndex" in image for image in annotations["images"]):
        return crowdpose_figures(records, annotations, skeleton)
    figures = coco_figures(records, annotations, skeleton)
    if {"head_top", "upper_neck", "thorax"} <= set(skeleton.joints):
        figures |= pckh_figures(records, annotations, skeleton)
    return figures


def table(metrics: Mapping[str, float]) -> str:
    """The figures on one line each, times 100."""
    width = max(map(len, metrics))
    return "\n".join(f"  {name:{width}s} {100 * value:6.2f}" for name, value in metrics.items())
