"""Matching of predictions to ground truth.

:func:`match` makes the table of hits at every threshold from which any average precision follows.
It is COCO's (pycocotools, ``evaluateImg``), so that the precision over all images is the official
metric; the table also gives that of any part of the images, and of images drawn with replacement,
from which confidence intervals come (Efron 1979). Calibration uses the same greedy matching;
:func:`pair_people` is for errors of single joints.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..poses import is_labeled, labeled_joints
from ..skeleton import Skeleton
from .ground_truth import complete_annotation, sort_image_ids
from .oks import similarities, similarity

Record = Mapping[str, Any]
Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
_MOST = 20


@dataclass(frozen=True)
class Matches:
    """The table.

    Attributes:
        images: I image ids.
        image: (D,) row of each detection's image.
        score: (D,).
        hit: (T, D) whether it was matched at each of ``THRESHOLDS`` (or of some: :meth:`at`).
        skip: (T, D) whether it counts neither way.
        ground_truths: (I,) people to be found in each image.
    """

    images: list[int | str]
    image: npt.NDArray[np.int64]
    score: Vector
    hit: Mask
    skip: Mask
    ground_truths: npt.NDArray[np.int64]

    def at(self, threshold: float) -> Matches:
        """The table of one of ``THRESHOLDS``, for AP50 and the like."""
        row = np.isclose(THRESHOLDS, threshold)
        return replace(self, hit=self.hit[row], skip=self.skip[row])

    def precision(self, weights: Vector | None = None) -> float:
        """Average precision over the table's thresholds, 0..1, or -1 without people to find.

        Args:
            weights: (I,) how often each image counts; once by default.
        """
        counted = np.ones(len(self.images)) if weights is None else weights
        there = float((self.ground_truths * counted).sum())
        if there == 0:
            return -1.0
        order = np.argsort(-self.score, kind="mergesort")
        weight = counted[self.image][order]
        right = self.hit[:, order] & ~self.skip[:, order]
        wrong = ~self.hit[:, order] & ~self.skip[:, order]
        found = np.cumsum(right * weight, axis=1)
        shown = found + np.cumsum(wrong * weight, axis=1)
        share = found / (shown + np.spacing(1))
        share = np.maximum.accumulate(share[:, ::-1], axis=1)[:, ::-1]
        values = np.zeros((len(self.hit), len(RECALLS)))
        for row, recall in enumerate(found / there):
            at = np.searchsorted(recall, RECALLS, side="left")
            inside = at < recall.size
            values[row, inside] = share[row, at[inside]]
        return float(np.mean(values))

    def only(self, images: Sequence[int | str]) -> float:
        """Average precision on some of the images."""
        wanted = set(images)
        return self.precision(np.array([float(image in wanted) for image in self.images]))

    def interval(
        self, draws: int = 300, seed: int = 0, images: Sequence[int | str] | None = None
    ) -> tuple[float, float]:
        """95 % bootstrap interval of the average precision, over images."""
        values = self.bootstrap(draws, seed, images)
        low, high = np.percentile(values, [2.5, 97.5])
        return float(low), float(high)

    def bootstrap(
        self, draws: int = 300, seed: int = 0, images: Sequence[int | str] | None = None
    ) -> Vector:
        """(draws,) average precisions of as many images drawn with replacement.

        The same seed draws the same images, so that two tables of the same images can be compared
        pair by pair.
        """
        rng = np.random.default_rng(seed)
        wanted = None if images is None else set(images)
        rows = np.array([n for n, i in enumerate(self.images) if wanted is None or i in wanted])
        values = np.zeros(draws)
        for draw in range(draws):
            chosen = rng.choice(rows, len(rows))
            weights = np.bincount(chosen, minlength=len(self.images))
            values[draw] = self.precision(weights.astype(np.float64))
        return values[values > -1] if (values > -1).any() else values


def match(
    records: Sequence[Record],
    annotations: Mapping[str, Any],
    skeleton: Skeleton,
    area: tuple[float, float] = (0.0, 1e10),
    use_area: bool = True,
) -> Matches:
    """Match detections to people as COCO does, at all of :data:`THRESHOLDS`.

    Args:
        records: COCO keypoint results.
        annotations: the ground truth in COCO format.
        skeleton: gives the sigmas.
        area: people of other areas (square pixels) are ignored.
        use_area: take a person's area as annotated, or as 0.53 of the box, as CrowdPose does.
    """
    found: dict[int | str, list[Record]] = defaultdict(list)
    for record in records:
        found[record["image_id"]].append(record)
    there: dict[int | str, list[dict[str, Any]]] = defaultdict(list)
    for number, record in enumerate(annotations["annotations"], 1):
        there[record["image_id"]].append(complete_annotation(number, record))
    images = sort_image_ids(image["id"] for image in annotations["images"])
    image_rows, scores = [np.zeros(0, int)], [np.zeros(0)]
    hits, skips = [np.zeros((len(THRESHOLDS), 0), bool)], [np.zeros((len(THRESHOLDS), 0), bool)]
    ground_truths = np.zeros(len(images), int)
    for row, image in enumerate(images):
        people = there[image]
        ignored = np.array([_is_ignored(p, area) for p in people], bool)
        ground_truths[row] = int((~ignored).sum())
        guesses = found[image]
        order = np.argsort([-g["score"] for g in guesses], kind="mergesort")[:_MOST]
        if not len(order):
            continue
        xy = np.array([guesses[g]["keypoints"] for g in order], float).reshape(len(order), -1, 3)
        extent = xy[..., :2].max(axis=1) - xy[..., :2].min(axis=1)
        outside = (extent.prod(axis=1) < area[0]) | (extent.prod(axis=1) > area[1])
        first = np.argsort(ignored, kind="mergesort")
        alike = similarities(xy[..., :2], [people[p] for p in first], skeleton.sigmas, use_area)
        crowd = np.array([bool(people[p]["iscrowd"]) for p in first])
        person = match_greedily(alike, THRESHOLDS, ignored[first], crowd)
        hit = person >= 0
        skip = hit & np.append(ignored[first], False)[person]
        hits.append(hit)
        skips.append(skip | (~hit & outside))
        scores.append(np.array([guesses[g]["score"] for g in order], float))
        image_rows.append(np.full(len(order), row))
    return Matches(
        images,
        np.concatenate(image_rows),
        np.concatenate(scores),
        np.concatenate(hits, axis=1),
        np.concatenate(skips, axis=1),
        ground_truths,
    )


def _is_ignored(person: Record, area: tuple[float, float]) -> bool:
    return bool(person["ignore"]) or not area[0] <= person["area"] <= area[1]


def match_greedily(
    similarity: Vector,
    thresholds: Sequence[float] | Vector,
    ignored: Mask | None = None,
    crowd: Mask | None = None,
) -> npt.NDArray[np.int64]:
    """Let detections choose people, the most confident first, at each of several thresholds.

    Args:
        similarity: (D, G), detections by falling confidence; people who count before the ignored.
        thresholds: T of them: the lowest similarity of a match.
        ignored: (G,) people who do not count; they are chosen only if no other fits.
        crowd: (G,) regions that several detections may choose.

    Returns:
        (T, D) the chosen person of each detection, or -1.
    """
    people = similarity.shape[1]
    ignored = np.zeros(people, bool) if ignored is None else ignored
    crowd = np.zeros(people, bool) if crowd is None else crowd
    chosen = np.full((len(thresholds), len(similarity)), -1)
    for t, threshold in enumerate(thresholds):
        taken = np.zeros(people, bool)
        for d, row in enumerate(similarity):
            best, match = min(threshold, 1 - 1e-10), -1
            for g, value in enumerate(row):
                if taken[g] and not crowd[g]:
                    continue
                if match >= 0 and not ignored[match] and ignored[g]:
                    break
                if value >= best:
                    best, match = value, g
            if match >= 0:
                chosen[t, d], taken[match] = match, True
    return chosen


def pair_people(
    records: Sequence[Record],
    annotations: Mapping[str, Any],
    skeleton: Skeleton,
    least: float = 0.0,
) -> list[tuple[Record, Record | None]]:
    """Pair annotated people with predicted ones by OKS, the most similar pair first.

    Args:
        least: OKS above which two may be the same person.

    Returns:
        every annotated person, crowds left out, with its prediction or None.
    """
    found: dict[int | str, list[Record]] = defaultdict(list)
    for record in records:
        found[record["image_id"]].append(record)
    ground_truths: dict[int | str, list[dict[str, Any]]] = defaultdict(list)
    for number, record in enumerate(annotations["annotations"], 1):
        if is_labeled(record) and not record.get("iscrowd"):
            complete = dict(record) | complete_annotation(number, record)
            complete["annotation"] = record.get("id", number)
            ground_truths[record["image_id"]].append(complete)
    matched: list[tuple[Record, Record | None]] = []
    for image_id, people in ground_truths.items():
        guesses = found[image_id]
        alike = np.zeros((len(people), len(guesses)))
        for row, ground_truth in enumerate(people):
            if not guesses:
                break
            xy, labeled = _keypoints(ground_truth)
            others = np.array([_keypoints(guess)[0] for guess in guesses])
            area = np.full(len(guesses), max(float(ground_truth["area"]), 1.0))
            counted = np.repeat(labeled[None], len(guesses), 0)
            alike[row] = similarity(xy, others, area, skeleton.sigmas, counted)
        partner: dict[int, int] = {}
        for flat in np.argsort(-alike, axis=None, kind="stable"):
            row, column = divmod(int(flat), max(len(guesses), 1))
            if row not in partner and column not in partner.values() and alike[row, column] > least:
                partner[row] = column
        matched += [
            (ground_truth, guesses[partner[row]] if row in partner else None)
            for row, ground_truth in enumerate(people)
        ]
    return matched


def _keypoints(record: Record) -> tuple[Vector, Mask]:
    values = np.array(record["keypoints"], float).reshape(-1, 3)
    return values[:, :2], labeled_joints(values)
