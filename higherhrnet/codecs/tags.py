"""Tags: joint cells for the tag loss ↔ grouping candidates by tag, and filling missing joints.

Associative embedding (Newell et al. 2017, sec. 3.2): every joint's map of tags holds, at the
joint, a number that is alike for the joints of one person and differs between people.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from munkres import Munkres
from scipy.optimize import linear_sum_assignment

from .heatmaps import Peaks, cells_of, inside, quarter_shift

Assignment = Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], list[tuple[int, int]]]


def joint_cells(
    xy: npt.NDArray[np.floating], present: npt.NDArray[np.bool_], shape: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """(P, K, 2) map coordinates → (P, K) flat cells y * W + x; -1 where absent or off the map."""
    cells = cells_of(xy)
    flat = cells[..., 1] * shape[1] + cells[..., 0]
    return np.where(present & inside(cells, shape), flat, -1)


def solve_munkres(
    cost: npt.NDArray[np.float64], distance: npt.NDArray[np.float64]
) -> list[tuple[int, int]]:
    """The published solver. Its way of breaking ties is part of the published numbers."""
    return [(int(row), int(column)) for row, column in Munkres().compute(cost.tolist())]


def solve_nearest(
    cost: npt.NDArray[np.float64], distance: npt.NDArray[np.float64]
) -> list[tuple[int, int]]:
    """Optimal assignment whose ties go to the smaller unrounded tag distance; O(n³) in C."""
    tie_break = np.zeros_like(cost)
    tie_break[:, : distance.shape[1]] = 1e-3 * np.minimum(distance, 100.0)
    return list(
        zip(*(index.tolist() for index in linear_sum_assignment(cost + tie_break)), strict=True)
    )


ASSIGNMENTS: dict[str, Assignment] = {"munkres": solve_munkres, "nearest": solve_nearest}


@dataclass(frozen=True)
class Grouping:
    """How candidates become people (HigherHRNet's published test settings are the defaults).

    Attributes:
        tag_threshold: a candidate joins a person whose mean tag is nearer than this.
        most_compared: only the first so many people are compared with.
        only_compared: once there are ``most_compared`` people, drop what is left over instead
            of starting further people.
        use_score: prefer strong candidates at equal rounded tag distance.
        assign: the solver.
    """

    tag_threshold: float = 1.0
    most_compared: int = 30
    only_compared: bool = False
    use_score: bool = True
    assign: Assignment = solve_munkres


@dataclass
class People:
    """People being put together on the maps; what :func:`group` returns and later steps complete.

    Attributes:
        xy: (N, K, 2) float64 map coordinates.
        score: (N, K) float32 heat, 0 where missing.
        tags: (N, K, T) float32 tags read at the candidates.
    """

    xy: npt.NDArray[np.float64]
    score: npt.NDArray[np.float32]
    tags: npt.NDArray[np.float32]


def read_tags(
    tags: npt.NDArray[np.float32], joint: int, xy: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Tags (M, T) of a joint at cells (M, 2), from maps (K or 1, H, W, T)."""
    return tags[min(joint, len(tags) - 1), xy[:, 1], xy[:, 0]]


def match(
    candidate_tags: npt.NDArray[np.float32],
    candidate_scores: npt.NDArray[np.float32],
    group_tags: npt.NDArray[np.float32],
    grouping: Grouping,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[tuple[int, int]]]:
    """Assign one joint's candidates to people.

    Args:
        candidate_tags: (M, T).
        candidate_scores: (M,).
        group_tags: (G, T) mean tags of the people so far.

    Returns:
        distance (M, G), the padded cost that was solved, and (candidate, person) pairs; a pair
        with a person ≥ G means that the candidate is left over.
    """
    difference = candidate_tags[:, None].astype(np.float64) - group_tags[None]
    distance: npt.NDArray[np.float64] = np.linalg.norm(difference, axis=2)
    cost = distance
    if grouping.use_score:
        cost = np.round(distance) * 100 - candidate_scores[:, None].astype(np.float64)
    surplus = len(candidate_tags) - len(group_tags)
    if surplus > 0:
        cost = np.concatenate([cost, np.full((len(cost), surplus), 1e10)], axis=1)
    return distance, cost, grouping.assign(cost, distance)


def group(
    peaks: Sequence[Peaks],
    tags: npt.NDArray[np.float32],
    order: Sequence[int],
    grouping: Grouping,
) -> People:
    """Join candidates into people, one joint after another (HigherHRNet, sec. 3.1).

    Args:
        peaks: K lists of candidates.
        tags: (K or 1, H, W, T) maps.
        order: joints in the order in which they are visited.

    Returns:
        the people in the order in which they were found, each with at least one joint.
    """
    joints, depth = len(peaks), tags.shape[-1]
    members: list[dict[int, tuple[npt.NDArray[np.int64], np.float32, npt.NDArray[np.float32]]]] = []
    for joint in order:
        found = peaks[joint]
        if len(found.score) == 0:
            continue
        found_tags = read_tags(tags, joint, found.xy)
        joined = [-1] * len(found.score)
        compared = members[: grouping.most_compared]
        if compared:
            if grouping.only_compared and len(compared) == grouping.most_compared:
                continue
            means = np.stack([np.mean([tag for *_, tag in m.values()], axis=0) for m in compared])
            distance, _, pairs = match(found_tags, found.score, means, grouping)
            visits = []
            for candidate, person in pairs:
                near = person < len(compared) and (
                    distance[candidate, person] < grouping.tag_threshold
                )
                joined[candidate] = person if near else -1
                visits.append(candidate)
        else:
            visits = list(range(len(found.score)))
        for candidate in visits:
            entry = (found.xy[candidate], found.score[candidate], found_tags[candidate])
            if joined[candidate] < 0:
                members.append({joint: entry})
            else:
                members[joined[candidate]][joint] = entry
    people = People(
        xy=np.zeros((len(members), joints, 2)),
        score=np.zeros((len(members), joints), np.float32),
        tags=np.zeros((len(members), joints, depth), np.float32),
    )
    for person, member in enumerate(members):
        for joint, (xy, score, tag) in member.items():
            people.xy[person, joint] = xy
            people.score[person, joint] = score
            people.tags[person, joint] = tag
    return people


def fill_missing(
    people: People, heatmaps: npt.NDArray[np.float32], tags: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """Give missing joints the cell with the best heat - round(tag distance), where heat > 0.

    The tag distance is to the mean tag of the person's found joints. ``people.xy`` and
    ``people.score`` are completed in place.

    Returns:
        (N, K) which joints were filled.
    """
    missing = people.score == 0
    filled = np.zeros_like(missing)
    for person in np.flatnonzero(missing.any(axis=1)).tolist():
        found = np.flatnonzero(~missing[person]).tolist()
        at = cells_of(people.xy[person])
        mean = np.mean([read_tags(tags, j, at[j : j + 1])[0] for j in found], axis=0)
        for joint in np.flatnonzero(missing[person]).tolist():
            heat = heatmaps[joint]
            xy = _best_cell(heat, tags[min(joint, len(tags) - 1)], mean)
            score = heat[xy[1], xy[0]]
            if score > 0:
                people.xy[person, joint] = quarter_shift(heat, xy[None])[0] + 0.5
                people.score[person, joint] = score
                filled[person, joint] = True
    return filled


def _best_cell(
    heat: npt.NDArray[np.float32], tags: npt.NDArray[np.float32], mean: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """First cell (x, y) with the highest heat - round(|tag - mean|) on maps (H, W), (H, W, T).

    Exact without scanning every tag: no cell can beat its own heat, so only cells hotter than
    the best of a coarse sample need their distance.
    """

    def value(
        heat: npt.NDArray[np.float32], tags: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        distance = ((tags - mean) ** 2).sum(axis=-1) ** 0.5
        return heat - np.round(distance)

    bound = value(heat[::8, ::8], tags[::8, ::8]).max()
    ys, xs = np.nonzero(heat >= bound)
    best = np.argmax(value(heat[ys, xs], tags[ys, xs]))
    return np.array([xs[best], ys[best]])
