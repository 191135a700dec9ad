"""Which of the people that a network proposes are shown.

Average precision wants everything, however doubtful: a wrong person at the end of the list costs
nothing. A picture wants people who are there. The operating point is the cut between the two,
calibrated on annotated pictures for a chosen precision.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..poses import ABSENT, SEEN, Poses
from ..skeleton import Skeleton
from .oks import closeness, suppress
from .truth import truth_record

Record = Mapping[str, Any]
_RIGHT = 0.5
"""Similarity from which a person, or a joint, counts as right."""


@dataclass(frozen=True)
class OperatingPoint:
    """Limits for what is shown; the defaults are for checkpoints that were never calibrated.

    Attributes:
        person: lowest person score.
        joint: lowest score of a joint that was seen.
        filled: lowest score of a joint that refine filled in: heat somewhere in the picture, which
            is often another's, or nobody's where the body is cut off.
        duplicate: people more alike than this (OKS) are one.
        precision: share of shown people who were right where it was calibrated; 0 if it never was.
        recall: share of the annotated people who were shown.
        pictures: how many it was calibrated on.
    """

    person: float = 0.2
    joint: float = 0.1
    filled: float = 0.1
    duplicate: float = 0.7
    precision: float = 0.0
    recall: float = 0.0
    pictures: int = 0

    def __str__(self) -> str:
        limits = (
            f"people from {self.person:.2f}, joints from {self.joint:.2f}, filled ones from "
            f"{self.filled:.2f}"
        )
        if not self.pictures:
            return f"{limits} (not calibrated)"
        return (
            f"{limits} (on {self.pictures} annotated pictures {100 * self.precision:.0f} % of "
            f"the shown were right, and {100 * self.recall:.0f} % of all people shown)"
        )

    def apply(self, poses: Poses, skeleton: Skeleton) -> Poses:
        """Who and what is shown."""
        people = without_duplicates(poses, skeleton, self.duplicate)
        shown = people.filter(self.person)
        least = np.where(shown.filled, self.filled, self.joint)
        shown = shown.without(shown.score < least)
        return shown.select(np.flatnonzero((shown.visibility > ABSENT).any(axis=1)))

    def to_dict(self) -> dict[str, float]:
        """For a checkpoint; inverse of ``OperatingPoint(**values)``."""
        return asdict(self)


def without_duplicates(poses: Poses, skeleton: Skeleton, threshold: float) -> Poses:
    """People without those too alike to a more confident one, otherwise in their order.

    Two poses are compared at the joints that the less confident one was seen with: what refine
    filled in says where the *other* person is.
    """
    if len(poses) < 2:
        return poses
    kept = suppress(
        poses.xy,
        (poses.visibility == SEEN).astype(float),
        poses.person_score,
        poses.areas,
        skeleton.sigmas,
        threshold,
        in_vis=0.5,
    )
    return poses.select(sorted(kept))


def calibrate(
    found: Mapping[int | str, Poses],
    annotations: Mapping[str, Any],
    skeleton: Skeleton,
    precision: float,
    duplicate: float = OperatingPoint.duplicate,
) -> OperatingPoint:
    """The point that shows most people while ``precision`` of the shown are right.

    A person is right at an OKS of 0.5 with an annotated one that nobody more confident took; who
    is not, but stands in a crowd region or in the box of somebody without joints, does not count.
    A joint is right when its own similarity is 0.5; a joint that is not annotated, as most that are
    out of sight, is wrong. Seen and filled joints have limits of their own. Where no limit reaches
    the precision, the limit is the one of the best F1, and :attr:`OperatingPoint.precision` says
    what came of it.

    Args:
        found: image id → everything that was found.
        annotations: COCO format; pictures that are not in ``found`` are left out.
        skeleton: gives the sigmas.
        precision: 0..1.
        duplicate: see :class:`OperatingPoint`.

    Raises:
        UserError: the precision is out of range.
    """
    if not 0 < precision < 1:
        raise UserError(f"a precision lies between 0 and 1, not at {precision}")
    by_picture: dict[int | str, list[Record]] = defaultdict(list)
    for number, record in enumerate(annotations["annotations"], 1):
        by_picture[record["image_id"]].append(truth_record(number, record))
    score, right = [np.zeros(0)], [np.zeros(0, bool)]
    joint_score, joint_right, of_person = [np.zeros(0)], [np.zeros(0, bool)], [np.zeros(0)]
    joint_filled = [np.zeros(0, bool)]
    there = 0
    for image_id, poses in found.items():
        people = without_duplicates(poses, skeleton, duplicate)
        people = people.select(np.argsort(-people.person_score, kind="stable"))
        truths = [r for r in by_picture[image_id] if not r["ignore"]]
        crowds = [r for r in by_picture[image_id] if r["ignore"]]
        there += len(truths)
        partner = _partners(people, truths, skeleton)
        ignored = np.array([_inside(xy, seen, crowds) for xy, seen in _joints(people)], bool)
        counts = (partner >= 0) | ~ignored if len(people) else np.zeros(0, bool)
        score.append(people.person_score[counts])
        right.append(partner[counts] >= 0)
        for row in np.flatnonzero(partner >= 0):
            close, labelled = _joint_similarity(people.xy[row], truths[partner[row]], skeleton)
            asked = people.visibility[row] > ABSENT
            joint_score.append(people.score[row, asked])
            joint_right.append((labelled & (close >= _RIGHT))[asked])
            joint_filled.append(people.filled[row, asked])
            of_person.append(np.full(int(asked.sum()), people.person_score[row]))
    all_scores, all_right = np.concatenate(score), np.concatenate(right)
    limit, reached, recall = _limit(all_scores, all_right, there, precision, OperatingPoint.person)
    shown = np.concatenate(of_person) >= limit
    scores, rights = np.concatenate(joint_score), np.concatenate(joint_right)
    filled = np.concatenate(joint_filled)
    seen_limit, filled_limit = (
        _limit(scores[kind], rights[kind], int(rights[kind].sum()), precision, default)
        for kind, default in (
            (shown & ~filled, OperatingPoint.joint),
            # Where no filled joint is ever right, none is shown.
            (shown & filled, 1.0 if filled.any() else OperatingPoint.filled),
        )
    )
    return OperatingPoint(
        limit, seen_limit[0], filled_limit[0], duplicate, reached, recall, len(found)
    )


def _limit(
    score: npt.NDArray[np.float64],
    right: npt.NDArray[np.bool_],
    there: int,
    precision: float,
    default: float,
) -> tuple[float, float, float]:
    """Lowest score from which the precision holds, and the precision and recall there."""
    if not len(score) or not there:
        return default, 0.0, 0.0
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(right[order])
    shares = hits / np.arange(1, len(order) + 1)
    recalls = hits / there
    # A limit takes in all equal scores.
    ends = np.flatnonzero(np.diff(score[order], append=-np.inf) < 0)
    enough = ends[shares[ends] >= precision]
    if len(enough) and recalls[enough[-1]] > 0:
        end = enough[-1]
    else:
        f1 = 2 * shares[ends] * recalls[ends] / np.maximum(shares[ends] + recalls[ends], 1e-9)
        end = ends[np.argmax(f1)]
    # Rounded down, so that what is written and read again still takes the last one in.
    return float(np.floor(score[order][end] * 1e4) / 1e4), float(shares[end]), float(recalls[end])


def _joints(people: Poses) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]]:
    return list(zip(people.xy, people.visibility == SEEN, strict=True))


def _partners(people: Poses, truths: Sequence[Record], skeleton: Skeleton) -> npt.NDArray[np.int64]:
    """(N,) which annotated person each found one is, the most confident choosing first; or -1."""
    partner = np.full(len(people), -1)
    free = set(range(len(truths)))
    for row in range(len(people)):
        best, best_similarity = -1, _RIGHT
        for number in free:
            close, labelled = _joint_similarity(people.xy[row], truths[number], skeleton)
            alike = float(close[labelled].mean()) if labelled.any() else 0.0
            if alike >= best_similarity:
                best, best_similarity = number, alike
        partner[row] = best
        free.discard(best)
    return partner


def _joint_similarity(
    xy: npt.NDArray[np.float64], truth: Record, skeleton: Skeleton
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """(K,) similarity of each joint to the annotated one, and which are annotated."""
    true = np.array(truth["keypoints"], float).reshape(-1, 3)
    area = np.array([float(truth["area"]) or 1.0])
    (close,) = closeness(xy, true[None, :, :2], area, skeleton.sigmas)
    return close, true[:, 2] > 0


def _inside(
    xy: npt.NDArray[np.float64], seen: npt.NDArray[np.bool_], crowds: Sequence[Record]
) -> bool:
    """Whether half of the seen joints lie in the box of a person without joints or of a crowd."""
    points = xy[seen]
    for crowd in crowds:
        x, y, w, h = crowd["bbox"]
        within = (points[:, 0] >= x) & (points[:, 0] <= x + w)
        within &= (points[:, 1] >= y) & (points[:, 1] <= y + h)
        if len(points) and within.mean() >= 0.5:
            return True
    return False
