"""Tags: joint pixels for the tag loss ↔ grouping candidates by tag, and filling missing joints.

Associative embedding (Newell et al. 2017, sec. 3.2): every joint's map of tags holds, at the
joint, a number that is alike for the joints of one person and differs between people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...assignment import linear_sum_assignment
from ...errors import UserError
from ..heatmaps import Indices, Locations, Peaks, Scores, inside, truncate_to_indices
from .maps import AggregatedMaps

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Which of M candidates for a joint belongs to which of G people?

    Attributes:
        cost: (M, max(M, G)), what the sum over all pairs is to be least of; rounded tag distances
            make ties the normal case.
        distance: (M, G) tag distance, not rounded.
        score: (M,) score of the candidates.
        strength: (G,) scores of the people's joints so far, summed.
    """

    cost: Matrix
    distance: Matrix
    score: Matrix
    strength: Matrix


Assignment = Callable[[Problem], list[tuple[int, int]]]


def keypoint_indices(
    xy: npt.NDArray[np.floating], present: npt.NDArray[np.bool_], shape: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """(P, K, 2) map coordinates → (P, K) flat indices y * W + x; -1 where absent or off the map."""
    indices = truncate_to_indices(xy)
    flat = indices[..., 1] * shape[1] + indices[..., 0]
    return np.where(present & inside(indices, shape), flat, -1)


def solve_munkres(problem: Problem) -> list[tuple[int, int]]:
    """The published solver. Its way of breaking ties is part of the published numbers."""
    try:
        from munkres import Munkres
    except ImportError as error:
        raise UserError(
            "TEST.ASSIGNMENT munkres needs the package munkres: pip install 'munkres<2'; or take "
            "hungarian_score_tiebreak"
        ) from error

    return [(int(row), int(column)) for row, column in Munkres().compute(problem.cost.tolist())]


def solve_with_distance_tiebreak(problem: Problem) -> list[tuple[int, int]]:
    """Optimal assignment whose ties go to the smaller unrounded tag distance; O(n³) in C.

    With one tag (no flip test) sums of distances often tie, too, and the last digits decide.
    Squared distances do not tie, but cost 0.3 AP there (26.63 to 26.31 on ``val_mini``).
    """
    return _optimal(problem.cost, 1e-3 * np.minimum(problem.distance, 100.0))


def solve_with_score_tiebreak(problem: Problem) -> list[tuple[int, int]]:
    """Optimal assignment whose ties put strong candidates to strong people, then go by distance.

    Within half a unit all people are equally good, and fragments of one or two weak joints would
    take some from the person they belong to by chance. Of all optimal assignments this takes the
    one with the largest sum of candidate's score times person's.
    """
    support = np.outer(problem.score, problem.strength) / max(problem.strength.max(initial=0), 1)
    return _optimal(problem.cost, -1e-3 * support + 1e-6 * np.minimum(problem.distance, 100.0))


def _optimal(cost: Matrix, tie_break: Matrix) -> list[tuple[int, int]]:
    # The padding of 1e10 would swallow the tie-break's digits; any large number serves.
    total = np.minimum(cost, 1e6)
    total[:, : tie_break.shape[1]] += tie_break
    rows, columns = linear_sum_assignment(total)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


ASSIGNMENTS: dict[str, Assignment] = {
    "munkres": solve_munkres,
    "hungarian_score_tiebreak": solve_with_score_tiebreak,
    "hungarian_distance_tiebreak": solve_with_distance_tiebreak,
}


@dataclass(frozen=True)
class Grouping:
    """How candidates become people (HigherHRNet's published test settings are the defaults).

    Attributes:
        tag_threshold: a candidate joins a person whose mean tag is nearer than this.
        max_compared: only the first so many people are compared with.
        only_compared: once there are ``max_compared`` people, pass over all further joints (as
            the original code does), instead of starting further people.
        use_score: prefer strong candidates at equal rounded tag distance.
        assign: the solver.
        distance_weight: what it costs, in tag distance, that a candidate lies one person's extent
            further from that person than :data:`REACH`; 0 looks at tags alone, as published.
    """

    tag_threshold: float = 1.0
    max_compared: int = 30
    only_compared: bool = False
    use_score: bool = True
    assign: Assignment = solve_munkres
    distance_weight: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values; the solver by its name."""
        names = {assign: name for name, assign in ASSIGNMENTS.items()}
        return vars(self) | {"assign": names[self.assign]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Grouping:
        """Inverse of :meth:`to_dict`."""
        return cls(**dict(values) | {"assign": ASSIGNMENTS[values["assign"]]})


REACH = 1.5
"""Extents of a person at which the next joint may lie from the nearest one."""
_SMALLEST = 0.05
"""Of an extent, fraction of the maps' diagonal: of a person with one joint nothing is known."""


@dataclass
class People:
    """People being put together on the maps; what :func:`group` returns and later steps complete.

    Attributes:
        xy: (N, K, 2) int64 pixels, (0, 0) where missing.
        location: (N, K, 2) float64 the same more exactly, sub-pixel.
        score: (N, K) float32 score, 0 where missing.
        tags: (N, K, T) float32 tags read at the candidates.
    """

    xy: Indices
    location: Locations
    score: Scores
    tags: npt.NDArray[np.float32]

    def select(self, rows: npt.NDArray[np.int64]) -> People:
        """The people of these rows, in that order."""
        return People(self.xy[rows], self.location[rows], self.score[rows], self.tags[rows])


def match(
    candidate_tags: npt.NDArray[np.float32],
    candidate_scores: npt.NDArray[np.float32],
    group_tags: npt.NDArray[np.float32],
    grouping: Grouping,
    strength: Matrix | None = None,
    penalty: Matrix | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[tuple[int, int]]]:
    """Assign one joint's candidates to people.

    Args:
        candidate_tags: (M, T).
        candidate_scores: (M,).
        group_tags: (G, T) mean tags of the people so far.
        strength: (G,) their scores so far; for solvers that ask.
        penalty: (M, G) added to the tag distances, unrounded.

    Returns:
        distance (M, G) with the penalty, the padded cost that was solved, and (candidate, person)
        pairs; a pair with a person ≥ G means that the candidate is left over.
    """
    difference = candidate_tags[:, None].astype(np.float64) - group_tags[None]
    distance: npt.NDArray[np.float64] = np.linalg.norm(difference, axis=2)
    cost = distance
    if grouping.use_score:
        cost = np.round(distance) * 100 - candidate_scores[:, None].astype(np.float64)
    if penalty is not None:
        distance, cost = distance + penalty, cost + (100 if grouping.use_score else 1) * penalty
    surplus = len(candidate_tags) - len(group_tags)
    if surplus > 0:
        cost = np.concatenate([cost, np.full((len(cost), surplus), 1e10)], axis=1)
    if strength is None:
        strength = np.ones(len(group_tags))
    score = candidate_scores.astype(np.float64)
    return distance, cost, grouping.assign(Problem(cost, distance, score, strength))


Member = dict[int, int]
"""A person as joint → which of its candidates."""


def measure_excess(
    candidates: Locations, people: Sequence[Locations], diagonal: float
) -> npt.NDArray[np.float64]:
    """How far candidates lie from people beyond their reach, in these people's extents.

    Args:
        candidates: (M, 2).
        people: of each person the joints so far, (J, 2).
        diagonal: of the maps, pixels.

    Returns:
        (M, G) max(0, distance to the nearest joint / extent - REACH); the extent is the diagonal of
        the box around the joints, at least 5 % of the maps' own.
    """
    excess = np.zeros((len(candidates), len(people)))
    for person, xy in enumerate(people):
        nearest = np.linalg.norm(candidates[:, None] - xy[None], axis=2).min(axis=1)
        extent = max(float(np.linalg.norm(np.ptp(xy, axis=0))), _SMALLEST * diagonal, 1.0)
        excess[:, person] = np.maximum(nearest / extent - REACH, 0)
    return excess


def group(
    peaks: Sequence[Peaks],
    order: Sequence[int],
    grouping: Grouping,
    shape: tuple[int, int] = (0, 0),
) -> list[Member]:
    """Join candidates into people, one joint after another (HigherHRNet, sec. 3.1).

    Args:
        peaks: K lists of candidates.
        order: joints in the order in which they are visited.
        grouping: how.
        shape: (H, W) of the maps; only ``distance_weight`` needs it.

    Returns:
        the people in the order in which they were found, each with at least one joint.
    """
    members: list[Member] = []
    for joint in order:
        found = peaks[joint]
        if len(found.score) == 0:
            continue
        assigned = [-1] * len(found.score)
        count = min(len(members), grouping.max_compared)
        visits = list(range(len(found.score)))
        if count:
            if grouping.only_compared and count == grouping.max_compared:
                continue
            means = np.stack(
                [
                    np.mean([peaks[j].tags[c] for j, c in member.items()], axis=0)
                    for member in members[:count]
                ]
            )
            strength = np.array(
                [sum(float(peaks[j].score[c]) for j, c in m.items()) for m in members[:count]]
            )
            penalty = None
            if grouping.distance_weight:
                joined = [
                    np.stack([peaks[j].location[c] for j, c in member.items()])
                    for member in members[:count]
                ]
                excess = measure_excess(found.location, joined, float(np.hypot(*shape)))
                penalty = grouping.distance_weight * excess
            distance, _, pairs = match(found.tags, found.score, means, grouping, strength, penalty)
            visits = []
            for candidate, person in pairs:
                near = person < count and distance[candidate, person] < grouping.tag_threshold
                assigned[candidate] = person if near else -1
                visits.append(candidate)
        for candidate in visits:
            if assigned[candidate] < 0:
                members.append({joint: candidate})
            else:
                members[assigned[candidate]][joint] = candidate
    return members


def assemble_people(peaks: Sequence[Peaks], members: Sequence[Member]) -> People:
    """People with what their candidates have."""
    joints, depth = len(peaks), peaks[0].tags.shape[1]
    people = People(
        xy=np.zeros((len(members), joints, 2), np.int64),
        location=np.zeros((len(members), joints, 2)),
        score=np.zeros((len(members), joints), np.float32),
        tags=np.zeros((len(members), joints, depth), np.float32),
    )
    for person, member in enumerate(members):
        for joint, candidate in member.items():
            people.xy[person, joint] = peaks[joint].xy[candidate]
            people.location[person, joint] = peaks[joint].location[candidate]
            people.score[person, joint] = peaks[joint].score[candidate]
            people.tags[person, joint] = peaks[joint].tags[candidate]
    return people


def fill_missing_joints(people: People, maps: AggregatedMaps) -> npt.NDArray[np.bool_]:
    """Give missing joints the pixel with the best score - round(tag distance), where score > 0.

    The tag distance is to the mean tag of the person's found joints. ``people`` is completed in
    place.

    Returns:
        (N, K) which joints were refined.
    """
    missing = people.score == 0
    persons, joints = np.nonzero(missing)
    if len(persons) == 0:
        return missing
    means = np.stack(
        [tags[~gone].mean(axis=0) for tags, gone in zip(people.tags, missing, strict=True)]
    )
    indices, score, locations = maps.best(joints, means[persons])
    good = score > 0
    persons, joints = persons[good], joints[good]
    people.xy[persons, joints] = indices[good]
    people.location[persons, joints] = locations[good]
    people.score[persons, joints] = score[good]
    refined = np.zeros_like(missing)
    refined[persons, joints] = True
    return refined
