"""OKS average precision and recall as COCO and CrowdPose compute them.

faster-coco-eval computes; it agrees with pycocotools to the last bit but for one rounding, which
is put right here.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster

from ..poses import is_labelled
from ..skeleton import Skeleton

Record = Mapping[str, Any]

COCO_FIGURES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
"""The ten COCO keypoint figures, in the official order."""
CROWDPOSE_FIGURES = (
    "AP", "AP50", "AP75", "AR", "AR50", "AR75", "AP easy", "AP medium", "AP hard",
)  # fmt: skip
"""The nine CrowdPose figures, in the official order."""
CROWDING = (0.2, 0.8)
"""Crowd index from which a picture is medium, and hard: those of CrowdPose's code, with which all
published figures were computed (its paper says 0.1 and 0.8)."""

AREAS = {"": (0.0, 1e10), "M": (32.0**2, 96.0**2), "L": (96.0**2, 1e10)}
"""Square pixels of all, medium and large people."""
_LONE = 1 / (1 + np.spacing(1))
"""The precision of a single right answer in pycocotools, which adds a spacing to every count."""


def coco_figures(
    records: Sequence[Record], annotations: Mapping[str, Any], skeleton: Skeleton
) -> dict[str, float]:
    """The figures of ``COCO_FIGURES``, 0..1; -1 where there is nobody to find (of that size)."""
    run = _Run(records, annotations, skeleton, use_area=True)
    figures: dict[str, float] = {}
    for what, mean in (("AP", run.precision), ("AR", run.recall)):
        figures |= {f"{what}": mean(), f"{what}50": mean(0.5), f"{what}75": mean(0.75)}
        figures |= {f"{what}{size}": mean(area=size) for size in ("M", "L")}
    return figures


def crowdpose_figures(
    records: Sequence[Record], annotations: Mapping[str, Any], skeleton: Skeleton
) -> dict[str, float]:
    """The figures of ``CROWDPOSE_FIGURES``, 0..1; -1 where there is nobody to find.

    A person's area is taken as 0.53 of the box. Pictures are easy, medium or hard by their
    ``crowdIndex``; those without one count among all only.
    """
    run = _Run(records, annotations, skeleton, use_area=False)
    figures: dict[str, float] = {}
    for what, mean in (("AP", run.precision), ("AR", run.recall)):
        figures |= {f"{what}": mean(), f"{what}50": mean(0.5), f"{what}75": mean(0.75)}
    for name, ids in by_crowding(annotations["images"]).items():
        part = _Run(records, annotations, skeleton, use_area=False, only=ids)
        figures[f"AP {name}"] = part.precision()
    return figures


def by_crowding(images: Sequence[Record]) -> dict[str, list[int | str]]:
    """Image ids that are easy, medium and hard."""
    parts: dict[str, list[int | str]] = {"easy": [], "medium": [], "hard": []}
    for image in images:
        index = image.get("crowdIndex")
        if index is not None:
            level = sum(float(index) >= cut for cut in CROWDING)
            parts[list(parts)[level]].append(image["id"])
    return parts


class _Run:
    """One evaluation; figures are read off its arrays as often as wanted."""

    def __init__(
        self,
        records: Sequence[Record],
        annotations: Mapping[str, Any],
        skeleton: Skeleton,
        use_area: bool,
        only: Collection[int | str] | None = None,
    ) -> None:
        # The evaluator wants whole numbers as ids; data sets also use strings.
        number = {image["id"]: n for n, image in enumerate(annotations["images"], 1)}
        wanted = set(number if only is None else only)
        people = [
            truth_record(n, a, number[a["image_id"]])
            for n, a in enumerate(annotations["annotations"], 1)
            if a["image_id"] in wanted
        ]
        found = [
            {
                "image_id": number[record["image_id"]],
                "category_id": 1,
                "keypoints": list(record["keypoints"]),
                "score": float(record["score"]),
            }
            for record in records
            if record["image_id"] in wanted
        ]
        self._arrays: Mapping[str, npt.NDArray[np.float64]] | None = None
        self._thresholds = np.linspace(0.5, 0.95, 10)
        self._recalls = np.linspace(0, 1, 101)
        self._someone = any(not person["ignore"] for person in people)
        if not found or not people:
            return
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO({
                "info": {},
                "images": [{"id": number[image_id]} for image_id in wanted],
                "annotations": people,
                "categories": [{"id": 1, "name": "person"}],
            })  # fmt: skip
            kind = "keypoints" if use_area else "keypoints_crowd"
            run = COCOeval_faster(
                truth,
                truth.loadRes(found),
                kind,
                kpt_oks_sigmas=np.array(skeleton.sigmas),
                use_area=use_area,
            )
            run.evaluate()
            run.accumulate()
        self._arrays = {name: np.array(run.eval[name]) for name in ("precision", "recall")}
        self._arrays["precision"][...] = self._mended(people, use_area)

    def _mended(self, people: Sequence[Record], use_area: bool) -> npt.NDArray[np.float64]:
        """Precisions (T, R, 1, A, 1) as pycocotools rounds them."""
        assert self._arrays is not None
        precision = self._arrays["precision"].copy()
        for number, (low, high) in enumerate(AREAS.values()):
            if number >= precision.shape[3]:
                break
            there = sum(
                not p["ignore"] and (not use_area or low <= p["area"] <= high) for p in people
            )
            if there == 0:
                continue
            for values in precision[:, :, 0, number, 0]:
                perfect = np.flatnonzero(values == 1)
                # Where precision is 1 no further than the first right answer reaches.
                if len(perfect) and self._recalls[perfect[-1]] <= 1 / there:
                    values[perfect] = _LONE
        return precision

    def precision(self, threshold: float | None = None, area: str = "") -> float:
        """Mean precision, -1 if there is nobody to find."""
        return self._mean("precision", threshold, area)

    def recall(self, threshold: float | None = None, area: str = "") -> float:
        """Mean highest recall, -1 if there is nobody to find."""
        return self._mean("recall", threshold, area)

    def _mean(self, what: str, threshold: float | None, area: str) -> float:
        if self._arrays is None:
            # Nothing found is 0 where somebody is there.
            return 0.0 if self._someone else -1.0
        values = self._arrays[what][..., list(AREAS).index(area), 0]
        if threshold is not None:
            values = values[np.isclose(self._thresholds, threshold)]
        values = values[values > -1]
        return float(np.mean(values)) if values.size else -1.0


def truth_record(number: int, record: Record, image: int | None = None) -> dict[str, Any]:
    """One annotation with every field that evaluators ask for.

    They take an id of 0 for "nobody", and compare only equal categories, of which there is one.
    """
    keypoints = np.array(record["keypoints"], dtype=float).reshape(-1, 3)
    labelled = keypoints[keypoints[:, 2] > 0, :2]
    box = record.get("bbox")
    if box is None:
        low, high = (labelled.min(0), labelled.max(0)) if len(labelled) else np.zeros((2, 2))
        box = [*low.tolist(), *(high - low).tolist()]
    area = record.get("area")
    crowd = int(record.get("iscrowd") or 0)
    return {
        "id": number,
        "image_id": record["image_id"] if image is None else image,
        "category_id": 1,
        "keypoints": list(record["keypoints"]),
        "num_keypoints": record.get("num_keypoints", len(labelled)),
        "iscrowd": crowd,
        "ignore": int(crowd or not is_labelled(record)),
        "bbox": list(box),
        "area": box[2] * box[3] if area is None else area,
    }
