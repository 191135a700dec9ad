"""COCO keypoint evaluation: OKS average precision and recall.

pycocotools computes. faster-coco-eval is several times faster, but its precision of a first,
lone true positive is 1 where pycocotools has 1 - 2e-16, so that published figures could differ
in their last bit; tests hold the two side by side.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..poses import is_labelled
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
    if not records:
        # pycocotools cannot load an empty list. Nothing found is AP 0 where somebody is there.
        someone = any(
            not person.get("iscrowd") and is_labelled(person)
            for person in annotations["annotations"]
        )
        return dict.fromkeys(NAMES, 0.0 if someone else -1.0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": list(annotations["images"]),
            "annotations": [
                _person(number, record)
                for number, record in enumerate(annotations["annotations"], 1)
            ],
            "categories": [{"id": 1}],
        }
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes([dict(record) for record in records]), "keypoints")
        run.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return {name: float(value) for name, value in zip(NAMES, run.stats, strict=True)}


def _person(number: int, record: Mapping[str, Any]) -> dict[str, Any]:
    """One annotation with every field that pycocotools asks for.

    It takes an id of 0 for "nobody", and compares only equal categories, of which there is one.
    """
    keypoints = np.array(record["keypoints"], dtype=float).reshape(-1, 3)
    labelled = keypoints[keypoints[:, 2] > 0, :2]
    box = record.get("bbox")
    if box is None:
        low, high = (labelled.min(0), labelled.max(0)) if len(labelled) else np.zeros((2, 2))
        box = [*low.tolist(), *(high - low).tolist()]
    area = record.get("area")
    return {
        "id": number,
        "image_id": record["image_id"],
        "category_id": 1,
        "keypoints": record["keypoints"],
        "num_keypoints": record.get("num_keypoints", len(labelled)),
        "iscrowd": int(record.get("iscrowd") or 0),
        "bbox": box,
        "area": box[2] * box[3] if area is None else area,
    }


def table(metrics: Mapping[str, float]) -> str:
    """The figures on one line each, times 100."""
    return "\n".join(f"  {name:5s} {100 * metrics[name]:6.2f}" for name in NAMES)
