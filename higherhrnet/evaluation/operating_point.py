"""Which of the people that a network proposes are shown.

Average precision wants everything, however doubtful: a wrong person at the end of the list costs
nothing. An image wants people who are there. The operating point is the cut between the two,
calibrated on annotated images for a chosen precision.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..poses import ABSENT, SEEN, Poses, labeled_joints
from ..skeleton import Skeleton
from .ground_truth import complete_annotation
from .matching import match_greedily
from .oks import closeness, oks_nms, similarities

Record = Mapping[str, Any]
_FORMER = {"filled": "refined", "pictures": "images"}
"""Limits whose names older checkpoints have."""
_RIGHT = 0.5
"""Similarity from which a person, or a joint, counts as right."""


@dataclass(frozen=True)
class OperatingPoint:
    """Limits for what is shown; the defaults are for checkpoints that were never calibrated.

    Attributes:
        person: lowest person score.
        joint: lowest score of a joint that was seen.
        refined: lowest score of a joint that refine filled in: a response somewhere in the image,
            which is often another person's.
        duplicate: people more alike than this (OKS) are one.
        precision: share of shown people who were right where it was calibrated; 0 if it never was.
        recall: share of the annotated people who were shown.
        images: how many it was calibrated on.
    """

    person: float = 0.2
    joint: float = 0.1
    refined: float = 0.1
    duplicate: float = 0.7
    precision: float = 0.0
    recall: float = 0.0
    images: int = 0

    def __str__(self) -> str:
        limits = (
            f"scores from person {self.person:.3f}, joint {self.joint:.3f}, refined joint "
            f"{self.refined:.3f}"
        )
        if not self.images:
            return f"{limits} (not calibrated with these settings)"
        return (
            f"{limits}; precision {self.precision:.2f}, recall {self.recall:.2f} on {self.images} "
            "annotated images"
        )

    def apply(self, poses: Poses, skeleton: Skeleton) -> Poses:
        """The people and joints that are shown."""
        people = without_duplicates(poses, skeleton, self.duplicate)
        shown = people.filter(self.person)
        least = np.where(shown.refined, self.refined, self.joint)
        shown = shown.drop_keypoints(shown.score < least)
        return shown.select(np.flatnonzero((shown.visibility > ABSENT).any(axis=1)))

    def to_dict(self) -> dict[str, float]:
        """For a checkpoint; inverse of :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> OperatingPoint:
        """From a checkpoint, also one of an older version.

        Raises:
            UserError: a limit is unknown.
        """
        named: dict[str, Any] = {_FORMER.get(name, name): v for name, v in values.items()}
        try:
            return cls(**named)
        except TypeError as error:
            raise UserError("it has an operating point with unknown limits") from error


def without_duplicates(poses: Poses, skeleton: Skeleton, threshold: float) -> Poses:
    """People without those too alike to a more confident one, otherwise in their order.

    Two poses are compared at the joints that the less confident one was seen with: what refine
    filled in says where the *other* person is. Who was seen with a few joints alone, and filled up
    with those of a more confident person, is a piece of somebody and is left out too.
    """
    if len(poses) < 2:
        return poses
    kept = oks_nms(
        poses.xy,
        (poses.visibility == SEEN).astype(float),
        poses.person_score,
        poses.areas,
        skeleton.sigmas,
        threshold,
        in_vis=0.5,
    )
    return _without_pieces(poses.select(sorted(kept)), skeleton)


_PIECE = 3
"""At most a third of the joints are seen of a piece of a person."""
_SAME_JOINT = 0.9
"""Closeness from which a joint is another person's."""


def _without_pieces(poses: Poses, skeleton: Skeleton) -> Poses:
    """People without those of whom few joints were seen and half are a more confident person's."""
    present, seen = poses.visibility > ABSENT, poses.visibility == SEEN
    pieces = np.zeros(len(poses), bool)
    for person in np.flatnonzero(_PIECE * seen.sum(axis=1) <= len(skeleton)):
        better = np.flatnonzero(poses.person_score > poses.person_score[person])
        if not len(better):
            continue
        area = np.full(len(better), poses.areas[person])
        near = closeness(poses.xy[person], poses.xy[better], area, skeleton.sigmas)
        shared = (near > _SAME_JOINT) & present[better] & present[person]
        pieces[person] = 2 * shared.sum(axis=1).max() >= present[person].sum()
    return poses.select(np.flatnonzero(~pieces))


def calibrate(
    found: Mapping[int | str, Poses],
    annotations: Mapping[str, Any],
    skeleton: Skeleton,
    precision: float,
    duplicate: float = OperatingPoint.duplicate,
) -> OperatingPoint:
    """The point that shows the most people while ``precision`` of the shown are right.

    A person is right at an OKS of 0.5 with an annotated one that no more confident one matched;
    others in a crowd region, or in the box of a person without joints, do not count.
    A joint is right when its own similarity is 0.5; a joint that is not annotated, as most that are
    out of sight, is wrong. Seen and refined joints have limits of their own. Where no limit reaches
    the precision, the limit is the one of the best F1, and :attr:`OperatingPoint.precision` says
    what was reached.

    Args:
        found: image id → everything that was found.
        annotations: COCO format; images that are not in ``found`` are left out.
        skeleton: gives the sigmas.
        precision: 0..1.
        duplicate: see :class:`OperatingPoint`.

    Raises:
        UserError: the precision is out of range.
    """
    if not 0 < precision < 1:
        raise UserError(f"a precision lies between 0 and 1, not at {precision}")
    by_image: dict[int | str, list[Record]] = defaultdict(list)
    for number, record in enumerate(annotations["annotations"], 1):
        by_image[record["image_id"]].append(complete_annotation(number, record))
    score, right = [np.zeros(0)], [np.zeros(0, bool)]
    joint_score, joint_right, of_person = [np.zeros(0)], [np.zeros(0, bool)], [np.zeros(0)]
    joint_refined = [np.zeros(0, bool)]
    there = 0
    for image_id, poses in found.items():
        people = without_duplicates(poses, skeleton, duplicate)
        people = people.select(np.argsort(-people.person_score, kind="stable"))
        ground_truths = [r for r in by_image[image_id] if not r["ignore"]]
        ignore = [r["bbox"] for r in by_image[image_id] if r["ignore"]]
        crowds = np.array(ignore, float).reshape(-1, 4)
        there += len(ground_truths)
        partner = match_greedily(similarities(people.xy, ground_truths, skeleton.sigmas), [_RIGHT])[
            0
        ]
        ignored = np.array([_inside(xy, seen, crowds) for xy, seen in _joints(people)], bool)
        counts = (partner >= 0) | ~ignored if len(people) else np.zeros(0, bool)
        score.append(people.person_score[counts])
        right.append(partner[counts] >= 0)
        for row in np.flatnonzero(partner >= 0):
            close, labeled = _joint_similarity(
                people.xy[row], ground_truths[partner[row]], skeleton
            )
            asked = people.visibility[row] > ABSENT
            joint_score.append(people.score[row, asked])
            joint_right.append((labeled & (close >= _RIGHT))[asked])
            joint_refined.append(people.refined[row, asked])
            of_person.append(np.full(int(asked.sum()), people.person_score[row]))
    all_scores, all_right = np.concatenate(score), np.concatenate(right)
    limit, reached, recall = _limit(all_scores, all_right, there, precision, OperatingPoint.person)
    shown = np.concatenate(of_person) >= limit
    scores, rights = np.concatenate(joint_score), np.concatenate(joint_right)
    refined = np.concatenate(joint_refined)
    seen_limit, refined_limit = (
        _limit(scores[kind], rights[kind], int(rights[kind].sum()), precision, default)
        for kind, default in (
            (shown & ~refined, OperatingPoint.joint),
            # Where no refined joint is ever right, none is shown.
            (shown & refined, 1.0 if refined.any() else OperatingPoint.refined),
        )
    )
    return OperatingPoint(
        limit, seen_limit[0], refined_limit[0], duplicate, reached, recall, len(found)
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


def _joint_similarity(
    xy: npt.NDArray[np.float64], ground_truth: Record, skeleton: Skeleton
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """(K,) similarity of each joint to the annotated one, and which are annotated."""
    true = np.array(ground_truth["keypoints"], float).reshape(-1, 3)
    area = np.array([float(ground_truth["area"]) or 1.0])
    (close,) = closeness(xy, true[None, :, :2], area, skeleton.sigmas)
    return close, labeled_joints(true)


def _inside(
    xy: npt.NDArray[np.float64], seen: npt.NDArray[np.bool_], crowds: npt.NDArray[np.float64]
) -> bool:
    """Whether half of the seen joints lie in the box of a person without joints or of a crowd."""
    points = xy[seen]
    if not len(points) or not len(crowds):
        return False
    low, high = crowds[:, None, :2], crowds[:, None, :2] + crowds[:, None, 2:]
    within = ((points >= low) & (points <= high)).all(axis=2)
    return bool((within.mean(axis=1) >= 0.5).any())
