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
from pycocotools.coco import COCO as Oracle
from pycocotools.cocoeval import COCOeval

from ..datasets.keypoints import CocoKeypoints
from ..evaluation.coco import COCO_FIGURES, coco_figures
from ..skeleton import COCO, Skeleton
from .table import Row


def run(counts: Sequence[int], parsed: int) -> list[Row]:
    """Rows of pictures evaluated, then one of parsing a large annotation file.

    Args:
        counts: pictures of the made-up sets.
        parsed: people in the file that is parsed; COCO's ``train2017`` has 262,465.
    """
    rows: list[Row] = []
    for count in counts:
        annotations, records = made_up(count, COCO)
        start = time.perf_counter()
        figures = coco_figures(records, annotations, COCO)
        fast = time.perf_counter() - start
        start = time.perf_counter()
        expected = oracle(records, annotations, COCO)
        slow = time.perf_counter() - start
        apart = max(abs(figures[name] - expected[name]) for name in COCO_FIGURES)
        rows.append({
            "pictures": count, "people": len(records), "pycocotools s": slow, "s": fast,
            "ratio": slow / fast, "figures apart": apart,
        })  # fmt: skip
    if parsed:
        rows.append(_parse(parsed))
    return rows


def _parse(people: int) -> Row:
    annotations, _ = made_up(people // 2, COCO, guesses=False)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "annotations.json"
        file.write_text(json.dumps(annotations))
        count, megabytes = len(annotations["annotations"]), file.stat().st_size / 1e6
        del annotations
        start = time.perf_counter()
        pictures = CocoKeypoints(file, Path(folder), COCO)
        taken = time.perf_counter() - start
        return {
            "pictures": len(pictures), "people": count, "s": taken, "file MB": megabytes,
            "kept MB": pictures.nbytes / 1e6,
        }  # fmt: skip


def oracle(
    records: Sequence[Mapping[str, Any]], annotations: Mapping[str, Any], skeleton: Skeleton
) -> dict[str, float]:
    """The ten figures by pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = Oracle()
        truth.dataset = {"info": {}, **copy.deepcopy(dict(annotations))}
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes([dict(r) for r in records]), "keypoints")
        run.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return dict(zip(COCO_FIGURES, map(float, run.stats), strict=True))


def made_up(
    count: int, skeleton: Skeleton, guesses: bool = True
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations of pictures with 0 to 4 people, and detections near and far from them."""
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
