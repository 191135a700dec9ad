"""COCO keypoint evaluation: OKS average precision and recall.

Computed by faster-coco-eval (C++), which agrees with pycocotools to the last bit; tests hold the
two side by side.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO
from faster_coco_eval import COCOeval_faster as COCOeval

from ..skeleton import Skeleton

NAMES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
"""The ten COCO keypoint figures, in the official order."""


def evaluate(
    records: Sequence[Mapping[str, Any]], annotations: Mapping[str, Any], skeleton: Skeleton
) -> dict[str, float]:
    """Score COCO keypoint results.

    Args:
        records: results of all pictures (``Poses.to_coco``); may be empty.
        annotations: the ground truth in COCO format.
        skeleton: gives the OKS sigmas.

    Returns:
        the ten figures of ``NAMES``, 0..1. Where there is nobody to find (of that size), -1.
    """
    truth_people = [a for a in annotations["annotations"] if not a.get("iscrowd")]
    if not records:
        # pycocotools cannot load an empty list. Nothing found is AP 0 where somebody is there.
        return dict.fromkeys(NAMES, 0.0 if any(map(_labelled, truth_people)) else -1.0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"info": {}, "categories": [{"id": 1, "name": "person"}], **annotations}
        truth.createIndex()
        found = truth.loadRes([dict(record) for record in records])
        run = COCOeval(truth, found, "keypoints", print_function=lambda *_: None)
        run.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
        run.params.imgIds = sorted((image["id"] for image in annotations["images"]), key=str)
        run.evaluate()
        run.accumulate()
    return _summary(run.eval, run.params.iouThrs)


def _summary(tables: Mapping[str, Any], thresholds: npt.NDArray[np.float64]) -> dict[str, float]:
    """The ten figures from the precision (T, R, 1, A, 1) and recall (T, 1, A, 1) tables.

    T OKS thresholds, R recall levels, A areas (all, medium, large). Taken as means in the order
    in which pycocotools takes them; another order differs in the last bit.
    """
    figures = {}
    for name in NAMES:
        table = tables["precision" if name.startswith("AP") else "recall"]
        area = {"M": 1, "L": 2}.get(name[2:], 0)
        rows = table[..., area, 0]
        if name[2:].isdigit():
            rows = rows[np.isclose(thresholds, int(name[2:]) / 100)]
        there = rows[rows > -1]
        figures[name] = float(np.mean(there)) if len(there) else -1.0
    return figures


def _labelled(record: Mapping[str, Any]) -> bool:
    return any(v > 0 for v in record["keypoints"][2::3])


def table(metrics: Mapping[str, float]) -> str:
    """The figures on one line each, times 100."""
    return "\n".join(f"  {name:5s} {100 * metrics[name]:6.2f}" for name in NAMES)
