"""OKS average precision and recall as COCO and CrowdPose compute them.

faster-coco-eval computes; it agrees with pycocotools to the last bit but for one rounding, which
is put right here.
"""

from __future__ import annotations

import contextlib
import gc
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster

from ..skeleton import Skeleton
from .matches import RECALLS, THRESHOLDS, match
from .oks import similarities
from .truth import in_order, truth_record

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


class _Evaluation(COCOeval_faster):  # type: ignore[misc]
    """With the similarities of a picture's people computed at once."""

    def computeOks(self, imgId: int, catId: int) -> Any:
        people, found = self.gt_dataset.get(imgId, catId), self.dt_dataset.get(imgId, catId)
        if not people or not found:
            return []
        order = np.argsort([-d["score"] for d in found], kind="mergesort")
        best = order[: self.params.maxDets[-1]]
        xy = np.array([found[row]["keypoints"] for row in best], float)
        return similarities(
            xy.reshape(len(best), -1, 3)[..., :2], people, self.params.kpt_oks_sigmas, self.use_area
        )


def _found(
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


def _firsts(
    people: Sequence[Record],
    found: Sequence[Record],
    skeleton: Skeleton,
    area: tuple[float, float],
    use_area: bool,
) -> npt.NDArray[np.bool_]:
    """(T, 2 or fewer) whether the two best detections that count are right."""
    best = sorted(found, key=lambda record: -record["score"])[:20]
    images = {record["image_id"] for record in best}
    table = match(
        [record for record in found if record["image_id"] in images],
        {
            "images": [{"id": image} for image in images],
            "annotations": [person for person in people if person["image_id"] in images],
        },
        skeleton,
        area,
        use_area,
    )
    order = np.argsort(-table.score, kind="mergesort")
    return np.array([
        np.resize(hit[order][~skip[order]][:2], 2)
        for hit, skip in zip(table.hit, table.skip, strict=True)
    ])  # fmt: skip


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection: a quarter of the time would go into looking at live records."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


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
        ids = in_order({image["id"] for image in annotations["images"]})
        number = {image: n for n, image in enumerate(ids, 1)}
        wanted = set(number if only is None else only)
        people = [
            truth_record(n, a, number[a["image_id"]])
            for n, a in enumerate(annotations["annotations"], 1)
            if a["image_id"] in wanted
        ]
        found = _found(records, number, wanted)
        self._arrays: Mapping[str, npt.NDArray[np.float64]] | None = None
        self._someone = {
            name: any(not p["ignore"] and low <= p["area"] <= high for p in people)
            for name, (low, high) in AREAS.items()
        }
        if not found or not people:
            return
        with contextlib.redirect_stdout(io.StringIO()), _uncollected():
            images = [{"id": number[image_id]} for image_id in wanted]
            truth, guesses = _index(images, people), _index(images, found)
            kind = "keypoints" if use_area else "keypoints_crowd"
            run = _Evaluation(
                truth, guesses, kind, kpt_oks_sigmas=np.array(skeleton.sigmas), use_area=use_area
            )
            run.evaluate()
            run.accumulate()
        self._arrays = {name: np.array(run.eval[name]) for name in ("precision", "recall")}
        self._mend(people, found, skeleton, use_area)

    def _mend(
        self,
        people: Sequence[Record],
        found: Sequence[Record],
        skeleton: Skeleton,
        use_area: bool,
    ) -> None:
        """Round precisions (T, R, 1, A, 1) as pycocotools does.

        It adds a spacing to every count, which only a count of 1 feels: where the first detection
        is right and the second is not, precision is a hair below 1 as far as the first reaches.
        """
        assert self._arrays is not None
        precision = self._arrays["precision"]
        for number, area in enumerate(list(AREAS.values())[: precision.shape[3]]):
            there = sum(
                not p["ignore"] and (not use_area or area[0] <= p["area"] <= area[1])
                for p in people
            )
            first: npt.NDArray[np.bool_] | None = None
            for row, values in enumerate(precision[:, :, 0, number, 0]):
                perfect = np.flatnonzero(values == 1)
                if not len(perfect) or RECALLS[perfect[-1]] > 1 / max(there, 1):
                    continue
                if there >= len(RECALLS):
                    # The steps of recall are too coarse to tell one right answer from a few.
                    if first is None:
                        first = _firsts(people, found, skeleton, area, use_area)
                    if first[row, :2].all():
                        continue
                values[perfect] = _LONE

    def precision(self, threshold: float | None = None, area: str = "") -> float:
        """Mean precision, -1 if there is nobody to find."""
        return self._mean("precision", threshold, area)

    def recall(self, threshold: float | None = None, area: str = "") -> float:
        """Mean highest recall, -1 if there is nobody to find."""
        return self._mean("recall", threshold, area)

    def _mean(self, what: str, threshold: float | None, area: str) -> float:
        if self._arrays is None:
            # Nothing found is 0 where somebody is there.
            return 0.0 if self._someone[area] else -1.0
        values = self._arrays[what][..., list(AREAS).index(area), 0]
        if threshold is not None:
            values = values[np.isclose(THRESHOLDS, threshold)]
        values = values[values > -1]
        return float(np.mean(values)) if values.size else -1.0
