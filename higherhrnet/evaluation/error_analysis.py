"""What went wrong, joint by joint and image by image (Ronchi and Perona 2017)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..poses import is_labeled, labeled_joints
from ..skeleton import Skeleton
from .ground_truth import complete_annotation
from .matching import pair_people
from .oks import closeness

Record = Mapping[str, Any]

KINDS = ("good", "jitter", "inversion", "swap", "miss", "absent")
"""What a predicted joint can be: right; a bit off; where another joint of the same person is; where
another person's is; nowhere; not proposed, or its whole person not found."""

_GOOD, _NEAR, _SAME_PERSON = 0.85, 0.5, 0.1


@dataclass(frozen=True)
class JointError:
    """One annotated joint and what was found of it.

    Attributes:
        image: image id.
        person: annotation id.
        joint: name.
        ground_truth: (x, y) pixels.
        found: (x, y) pixels, or None.
        distance: pixels; infinite if not found.
        sigmas: the distance in OKS sigmas (2 sigma √area); infinite if not found.
        kind: one of ``KINDS``.
    """

    image: int | str
    person: int | str
    joint: str
    ground_truth: tuple[float, float]
    found: tuple[float, float] | None
    distance: float
    sigmas: float
    kind: str


def joint_errors(
    records: Sequence[Record], annotations: Mapping[str, Any], skeleton: Skeleton
) -> list[JointError]:
    """Every annotated joint; people are paired with found ones from an OKS of 0.1 on."""
    neighbors: dict[int | str, list[dict[str, Any]]] = defaultdict(list)
    for number, record in enumerate(annotations["annotations"], 1):
        if is_labeled(record) and not record.get("iscrowd"):
            neighbors[record["image_id"]].append({**complete_annotation(number, record)})
    errors = []
    for ground_truth, found in pair_people(records, annotations, skeleton, least=_SAME_PERSON):
        keypoints = np.array(ground_truth["keypoints"], float).reshape(-1, 3)
        others = [
            np.array(o["keypoints"], float).reshape(-1, 3)
            for o in neighbors[ground_truth["image_id"]]
            if o["id"] != ground_truth["id"]
        ]
        guess = None if found is None else np.array(found["keypoints"], float).reshape(-1, 3)
        area = float(max(ground_truth["area"], 1.0))
        for joint in np.flatnonzero(labeled_joints(keypoints)):
            errors.append(
                _judge(ground_truth, keypoints, guess, others, int(joint), area, skeleton)
            )
    return errors


def _judge(
    ground_truth: Record,
    keypoints: Any,
    guess: Any,
    others: Sequence[Any],
    joint: int,
    area: float,
    skeleton: Skeleton,
) -> JointError:
    location = keypoints[joint, :2]
    name, sigma = skeleton.joints[joint], skeleton.sigmas[joint]
    where = (float(location[0]), float(location[1]))
    if guess is None or guess[joint, 2] <= 0:
        nothing = float("inf")
        return JointError(
            ground_truth["image_id"],
            ground_truth["annotation"],
            name,
            where,
            None,
            nothing,
            nothing,
            "absent",
        )
    xy = guess[joint, :2]

    def near(candidates: Any) -> bool:
        """Whether the joint lies on any of these joints (M, 3) that are annotated."""
        there = candidates[candidates[:, 2] > 0, :2]
        if not len(there):
            return False
        close = closeness(
            np.repeat(xy[None], len(there), 0), there[None], np.array([area]), [sigma] * len(there)
        )
        return bool((close >= _NEAR).any())

    sides = [joint, skeleton.flip_indices[joint]]
    distance = float(np.linalg.norm(xy - location))
    close = float(np.exp(-(distance**2) / (2 * area * (2 * sigma) ** 2)))
    if close >= _GOOD:
        kind = "good"
    elif close >= _NEAR:
        kind = "jitter"
    elif near(np.delete(keypoints, joint, axis=0)):
        kind = "inversion"
    elif others and near(np.concatenate([other[sides] for other in others])):
        kind = "swap"
    else:
        kind = "miss"
    found = (float(xy[0]), float(xy[1]))
    deviations = distance / (2 * sigma * area**0.5)
    return JointError(
        ground_truth["image_id"],
        ground_truth["annotation"],
        name,
        where,
        found,
        distance,
        deviations,
        kind,
    )


def summarize_by_joint(errors: Sequence[JointError], skeleton: Skeleton) -> list[dict[str, Any]]:
    """One row a joint: how many, share of each kind, median distance of the found."""
    rows = []
    for joint in (*skeleton.joints, "all"):
        mine = [error for error in errors if joint in ("all", error.joint)]
        if not mine:
            continue
        kinds = Counter(error.kind for error in mine)
        found = [error for error in mine if error.found is not None]
        right = (kinds["good"] + kinds["jitter"]) / len(mine)
        rows.append({
            "joint": joint,
            "annotated": len(mine),
            "right": right,
            **{kind: kinds[kind] / len(mine) for kind in KINDS},
            "median px": float(np.median([e.distance for e in found])) if found else -1.0,
            "median sigmas": float(np.median([e.sigmas for e in found])) if found else -1.0,
        })  # fmt: skip
    return rows


def find_worst(
    records: Sequence[Record], errors: Sequence[JointError], most: int
) -> list[tuple[int | str, float]]:
    """Images with the most wrong joints: (image id, wrong joints), the worst first.

    A wrong joint is one that is neither good nor a bit off; every confidently shown person (score
    above 0.3) beyond the number of people there counts as five.
    """
    wrong: dict[int | str, float] = defaultdict(float)
    people: dict[int | str, set[int | str]] = defaultdict(set)
    for error in errors:
        wrong[error.image] += error.kind not in ("good", "jitter")
        people[error.image].add(error.person)
    shown = Counter(record["image_id"] for record in records if record["score"] > 0.3)
    for image, count in shown.items():
        wrong[image] += 5.0 * max(count - len(people[image]), 0)
    return sorted(wrong.items(), key=lambda pair: -pair[1])[:most]
