"""How long the evaluation of a whole set takes, beside pycocotools on the same people."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pycocotools.coco import COCO as PycocoCOCO
from pycocotools.cocoeval import COCOeval

from ...datasets.coco import CocoKeypoints
from ...evaluation.coco import COCO_METRICS, coco_metrics
from ...skeleton import COCO, Skeleton
from .table import Row


def run(counts: Sequence[int], parsed: int) -> list[Row]:
    """Rows of images evaluated, then one of parsing a large annotation file.

    Args:
        counts: images of the synthetic sets.
        parsed: people in the file that is parsed; COCO's ``train2017`` has 262,465.
    """
    rows: list[Row] = []
    for count in counts:
        annotations, records = make_dataset(count, COCO)
        start = time.perf_counter()
        metrics = coco_metrics(records, annotations, COCO)
        fast = time.perf_counter() - start
        start = time.perf_counter()
        expected = pycocotools_metrics(records, annotations, COCO)
        slow = time.perf_counter() - start
        apart = max(abs(metrics[name] - expected[name]) for name in COCO_METRICS)
        rows.append({
            "images": count, "people": len(records), "pycocotools s": slow, "s": fast,
            "ratio": slow / fast, "largest difference": apart,
        })  # fmt: skip
    if parsed:
        rows.append(_parse(parsed))
    return rows


def _parse(people: int) -> Row:
    annotations, _ = make_dataset(people // 2, COCO, guesses=False)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "annotations.json"
        file.write_text(json.dumps(annotations))
        count, megabytes = len(annotations["annotations"]), file.stat().st_size / 1e6
        del annotations
        start = time.perf_counter()
        images = CocoKeypoints(file, Path(folder), COCO)
        taken = time.perf_counter() - start
        return {
            "images": len(images), "people": count, "s": taken, "file MB": megabytes,
            "kept MB": images.nbytes / 1e6,
        }  # fmt: skip


def pycocotools_metrics(
    records: Sequence[Mapping[str, Any]], annotations: Mapping[str, Any], skeleton: Skeleton
) -> dict[str, float]:
    """The ten metrics by pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = PycocoCOCO()
        ground_truth.dataset = {"info": {}, **copy.deepcopy(dict(annotations))}
        ground_truth.createIndex()
        run = COCOeval(ground_truth, ground_truth.loadRes([dict(r) for r in records]), "keypoints")
        run.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return dict(zip(COCO_METRICS, map(float, run.stats), strict=True))


def make_dataset(
    count: int, skeleton: Skeleton, guesses: bool = True
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations of images with 0 to 4 people, and detections near and far from them."""
    rng = np.random.default_rng(0)
    k = len(skeleton)
    images = [
        {"id": i, "file_name": f"{i:012d}.jpg", "width": 640, "height": 480} for i in range(count)
    ]
    people: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for image in range(count):
        for _ in range(rng.integers(0, 5)):
            size = rng.uniform(20, 300)
            xy = rng.uniform(0, 400, 2) + rng.uniform(0, size, (k, 2))
            seen = rng.integers(0, 3, k)
            keypoints = np.concatenate([np.where(seen[:, None] > 0, xy, 0), seen[:, None]], 1)
            low, high = xy.min(0), xy.max(0)
            people.append({
                "id": len(people) + 1, "image_id": image, "category_id": 1, "iscrowd": 0,
                "keypoints": keypoints.round(2).ravel().tolist(),
                "num_keypoints": int((seen > 0).sum()), "area": float(size**2 * 0.4),
                "bbox": [*low.round(2).tolist(), *(high - low).round(2).tolist()],
            })  # fmt: skip
            for _ in range(int(rng.integers(0, 4)) if guesses else 0):
                shaken = xy + rng.normal(0, 0.08 * size * rng.random(), (k, 2))
                values = np.concatenate([shaken, np.ones((k, 1))], 1).round(2)
                records.append({
                    "image_id": image, "category_id": 1, "keypoints": values.ravel().tolist(),
                    "score": float(rng.random()),
                })  # fmt: skip
    return {"images": images, "annotations": people, "categories": [{"id": 1}]}, records
