"""Average precision and recall of boxes as COCO computes them, by faster-coco-eval."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from .ground_truth import sort_image_ids

BOX_METRICS = (
    "AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR100", "ARS", "ARM", "ARL",
)  # fmt: skip
"""The twelve COCO box metrics, in the official order."""


def box_metrics(
    records: Sequence[Mapping[str, Any]], annotations: Mapping[str, Any]
) -> dict[str, float]:
    """The metrics of :data:`BOX_METRICS`, 0..1; -1 where there is no box to find (of that size).

    Args:
        records: results: ``image_id``, ``category_id``, ``bbox`` (left, top, width, height),
            ``score``; those of other images or categories do not count.
        annotations: the ground truth in COCO format; crowds neither count nor are they false.
    """
    ids = sort_image_ids({image["id"] for image in annotations["images"]})
    number = {image: n for n, image in enumerate(ids, 1)}
    categories = [{"id": c["id"], "name": str(c["name"])} for c in annotations["categories"]]
    known = {category["id"] for category in categories}
    truth = [
        _numbered(n, record, number) | {"iscrowd": int(record.get("iscrowd") or 0)}
        for n, record in enumerate(annotations["annotations"], 1)
        if record["image_id"] in number and record.get("category_id", 1) in known
    ]
    found = [
        _numbered(n, record, number) | {"score": float(record["score"])}
        for n, record in enumerate(records, 1)
        if record["image_id"] in number and record["category_id"] in known
    ]
    if not found or not truth:
        nothing = 0.0 if any(not record["iscrowd"] for record in truth) else -1.0
        return dict.fromkeys(BOX_METRICS, nothing)
    with contextlib.redirect_stdout(io.StringIO()):
        run = COCOeval_faster(
            _index(number.values(), truth, categories),
            _index(number.values(), found, categories),
            "bbox",
        )
        run.evaluate()
        run.accumulate()
        run.summarize()
    return {name: float(v) for name, v in zip(BOX_METRICS, np.array(run.stats)[:12], strict=True)}


def _numbered(n: int, record: Mapping[str, Any], number: Mapping[Any, int]) -> dict[str, Any]:
    box = [float(value) for value in record["bbox"]]
    return {
        "id": n,
        "image_id": number[record["image_id"]],
        "category_id": record.get("category_id", 1),
        "bbox": box,
        "area": float(record.get("area") or box[2] * box[3]),
        "iscrowd": 0,
    }


def _index(images: Any, records: list[dict[str, Any]], categories: list[dict[str, Any]]) -> COCO:
    indexed = COCO()
    indexed.dataset = {
        "info": {},
        "images": [{"id": image} for image in images],
        "annotations": records,
        "categories": categories,
    }
    indexed.createIndex()
    return indexed
