"""How well people keep their numbers through a video (Bernardin, Stiefelhagen 2008)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..evaluation.oks import similarity
from ..poses import ABSENT, Poses
from ..skeleton import Skeleton


@dataclass(frozen=True)
class Identities:
    """Counts over all frames.

    Attributes:
        people: true people, summed over frames.
        found: how many of them were found.
        wrong: how many were found who are not there.
        switches: how often a true person's number changed.
    """

    people: int
    found: int
    wrong: int
    switches: int

    @property
    def mota(self) -> float:
        """1 - (missed + wrong + switches) / people; 1 at best, may fall below 0."""
        lost = self.people - self.found + self.wrong + self.switches
        return 1 - lost / max(self.people, 1)

    def __str__(self) -> str:
        return (
            f"MOTA {100 * self.mota:.1f}: of {self.people} true people {self.found} found, "
            f"{self.wrong} wrong, {self.switches} id switches"
        )


def count_identities(frames: Iterable[tuple[Poses, Poses]], skeleton: Skeleton) -> Identities:
    """Compare the numbers (``Poses.track``) of found and true people, frame by frame.

    Args:
        frames: (found, true) people of each frame.
        skeleton: gives the sigmas; two poses are the same person from an OKS of 0.5.
    """
    people = found = wrong = switches = 0
    last: dict[int, int] = {}
    for guess, ground_truth in frames:
        people += len(ground_truth)
        alike = np.zeros((len(ground_truth), len(guess)))
        areas = np.maximum(ground_truth.boxes[:, 2:].prod(axis=1), 1.0)
        for row, (xy, area) in enumerate(zip(ground_truth.xy, areas, strict=True)):
            labeled = np.repeat(ground_truth.visibility[row : row + 1] > ABSENT, len(guess), axis=0)
            alike[row] = similarity(
                xy, guess.xy, np.full(len(guess), area), skeleton.sigmas, labeled
            )
        # Who was this person's number before keeps it where both would do.
        for row, identity in enumerate(ground_truth.track):
            same = guess.track == last.get(int(identity), -1)
            alike[row] += np.where(same & (alike[row] >= 0.5), 1.0, 0.0)
        rows, columns = linear_sum_assignment(-alike)
        pairs = [(r, c) for r, c in zip(rows, columns, strict=True) if alike[r, c] >= 0.5]
        found += len(pairs)
        wrong += len(guess) - len(pairs)
        for row, column in pairs:
            identity, number = int(ground_truth.track[row]), int(guess.track[column])
            switches += last.get(identity, number) != number
            last[identity] = number
    return Identities(people, found, wrong, switches)
