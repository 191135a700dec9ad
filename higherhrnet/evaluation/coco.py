"""OKS average precision and recall as COCO and CrowdPose compute them.

faster-coco-eval computes; it agrees with pycocotools to the last digits.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster

from ..skeleton import Skeleton
from .ground_truth import complete_annotation, sort_image_ids
from .matching import THRESHOLDS

Record = Mapping[str, Any]

COCO_METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
"""The ten COCO keypoint metrics, in the official order."""
CROWDPOSE_METRICS = (
    "AP", "AP50", "AP75", "AR", "AR50", "AR75", "AP easy", "AP medium", "AP hard",
)  # fmt: skip
"""The nine CrowdPose metrics, in the official order."""
CROWDING = (0.2, 0.8)
"""Crowd index from which an image is medium, and hard: those of CrowdPose's code, with which all
published metrics were computed (its paper says 0.1 and 0.8)."""

AREAS = {"": (0.0, 1e10), "M": (32.0**2, 96.0**2), "L": (96.0**2, 1e10)}
"""Square pixels of all, medium and large people."""


def coco_metrics(
    records: Sequence[Record], annotations: Mapping[str, Any], skeleton: Skeleton
) -> dict[str, float]:
    """The metrics of ``COCO_METRICS``, 0..1; -1 where there is no person to find (of that size)."""
    run = _Run(records, annotations, skeleton, use_area=True)
    metrics: dict[str, float] = {}
    for what, mean in (("AP", run.precision), ("AR", run.recall)):
        metrics |= {f"{what}": mean(), f"{what}50": mean(0.5), f"{what}75": mean(0.75)}
        metrics |= {f"{what}{size}": mean(area=size) for size in ("M", "L")}
    return metrics


def crowdpose_metrics(
    records: Sequence[Record], annotations: Mapping[str, Any], skeleton: Skeleton
) -> dict[str, float]:
    """The metrics of ``CROWDPOSE_METRICS``, 0..1; -1 where there is no person to find.

    A person's area is taken as 0.53 of the box. Images are easy, medium or hard by their
    ``crowdIndex``; those without one count among all only.
    """
    run = _Run(records, annotations, skeleton, use_area=False)
    metrics: dict[str, float] = {}
    for what, mean in (("AP", run.precision), ("AR", run.recall)):
        metrics |= {f"{what}": mean(), f"{what}50": mean(0.5), f"{what}75": mean(0.75)}
    for name, ids in by_crowding(annotations["images"]).items():
        part = _Run(records, annotations, skeleton, use_area=False, only=ids)
        metrics[f"AP {name}"] = part.precision()
    return metrics


def by_crowding(images: Sequence[Record]) -> dict[str, list[int | str]]:
    """Image ids that are easy, medium and hard."""
    parts: dict[str, list[int | str]] = {"easy": [], "medium": [], "hard": []}
    for image in images:
        index = image.get("crowdIndex")
        if index is not None:
            level = sum(float(index) >= cut for cut in CROWDING)
            parts[list(parts)[level]].append(image["id"])
    return parts


def _detections(
    records: Sequence[Record],
    number: Mapping[int | str, int],
    wanted: Collection[int | str],
) -> list[dict[str, Any]]:
    """Detections with every field that the evaluator asks for."""
    used = [record for record in records if record["image_id"] in wanted]
    if not used:
        return []
    xy = np.array([record["keypoints"] for record in used], float).reshape(len(used), -1, 3)
    low, high = xy[..., :2].min(axis=1), xy[..., :2].max(axis=1)
    boxes = np.concatenate([low, high - low], axis=1)
    areas = (boxes[:, 2] * boxes[:, 3]).tolist()
    return [
        {
            "id": row + 1,
            "image_id": number[record["image_id"]],
            "category_id": 1,
            "iscrowd": 0,
            "keypoints": record["keypoints"],
            "score": float(record["score"]),
            "bbox": box,
            "area": area,
        }
        for row, (record, box, area) in enumerate(zip(used, boxes.tolist(), areas, strict=True))
    ]


def _index(images: list[dict[str, Any]], records: list[dict[str, Any]]) -> COCO:
    indexed = COCO()
    indexed.dataset = {
        "info": {},
        "images": images,
        "annotations": records,
        "categories": [{"id": 1, "name": "person"}],
    }
    indexed.createIndex()
    return indexed


class _Run:
    """One evaluation; metrics are read off its arrays as often as wanted."""

    def __init__(
        self,
        records: Sequence[Record],
        annotations: Mapping[str, Any],
        skeleton: Skeleton,
        use_area: bool,
        only: Collection[int | str] | None = None,
    ) -> None:
        # The evaluator wants whole numbers as ids; data sets also use strings.
        ids = sort_image_ids({image["id"] for image in annotations["images"]})
        number = {image: n for n, image in enumerate(ids, 1)}
        wanted = set(number if only is None else only)
        people = [
            complete_annotation(n, a, number[a["image_id"]])
            for n, a in enumerate(annotations["annotations"], 1)
            if a["image_id"] in wanted
        ]
        found = _detections(records, number, wanted)
        self._arrays: Mapping[str, npt.NDArray[np.float64]] | None = None
        self._someone = {
            name: any(not p["ignore"] and low <= p["area"] <= high for p in people)
            for name, (low, high) in AREAS.items()
        }
        if not found or not people:
            return
        with contextlib.redirect_stdout(io.StringIO()):
            images = [{"id": number[image_id]} for image_id in wanted]
            ground_truth, guesses = _index(images, people), _index(images, found)
            kind = "keypoints" if use_area else "keypoints_crowd"
            run = COCOeval_faster(
                ground_truth,
                guesses,
                kind,
                kpt_oks_sigmas=np.array(skeleton.sigmas),
                use_area=use_area,
            )
            run.evaluate()
            run.accumulate()
        self._arrays = {name: np.array(run.eval[name]) for name in ("precision", "recall")}

    def precision(self, threshold: float | None = None, area: str = "") -> float:
        """Mean precision, -1 if there is no person to find."""
        return self._mean("precision", threshold, area)

    def recall(self, threshold: float | None = None, area: str = "") -> float:
        """Mean highest recall, -1 if there is no person to find."""
        return self._mean("recall", threshold, area)

    def _mean(self, what: str, threshold: float | None, area: str) -> float:
        if self._arrays is None:
            # Without predictions it is 0 where there are people.
            return 0.0 if self._someone[area] else -1.0
        values = self._arrays[what][..., list(AREAS).index(area), 0]
        if threshold is not None:
            values = values[np.isclose(THRESHOLDS, threshold)]
        values = values[values > -1]
        return float(np.mean(values)) if values.size else -1.0
