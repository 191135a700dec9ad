"""Tag meters: do the tags read at true joints tell people apart? (Newell et al. 2017, sec. 3.2)"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt


class TagMeter:
    """Adds up pictures.

    Attributes:
        sums: name → (sum, count); what :meth:`merge` adds to that of other processes.
    """

    def __init__(self, joints: Sequence[str]) -> None:
        self.joints = joints
        self.sums: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))

    def add(
        self,
        tags: npt.NDArray[np.floating],
        heat: npt.NDArray[np.floating],
        present: npt.NDArray[np.bool_],
        groups: npt.NDArray[np.int64],
    ) -> None:
        """One picture's people.

        Args:
            tags: (P, K, T) read at true joints.
            heat: (P, K) read at true joints.
            present: (P, K) which joints are annotated.
            groups: (P, K) number of the person that grouping puts each joint into when the
                candidates are the true joints.
        """
        for joint, name in enumerate(self.joints):
            self._count(f"heat/{name}", heat[present[:, joint], joint])
        people = np.flatnonzero(present.any(axis=1))
        means = np.array([tags[p, present[p]].mean(axis=0) for p in people]).reshape(
            len(people), tags.shape[-1]
        )
        for row, person in enumerate(people.tolist()):
            distance = np.linalg.norm(tags[person, present[person]][:, None] - means, axis=-1)
            own, others = distance[:, row], np.delete(distance, row, axis=1)
            self._count("tags/within", own)
            self._count(
                "tags/between", np.linalg.norm(np.delete(means, row, 0) - means[row], axis=1)
            )
            nearer = (own[:, None] < others) + 0.5 * (own[:, None] == others)
            self._count("tags/separability", nearer)
        self._count("tags/grouped_right", _right(groups, present))

    def merge(self, sums: Mapping[str, tuple[float, float]]) -> None:
        """Add the sums of another meter."""
        for name, (total, count) in sums.items():
            mine = self.sums[name]
            self.sums[name] = mine[0] + total, mine[1] + count

    def means(self) -> dict[str, float]:
        """What was measured:

        ``tags/within`` and ``tags/between``, the mean distance of a joint's tag to its person's
        mean tag, and of two people's mean tags; ``tags/separability``, how often (0..1, 0.5 is
        chance) a joint is nearer to its own person than to another; ``tags/grouped_right``, the
        share of joints that grouping gives to the right person; ``heat/JOINT``, the mean heat at
        that joint. Figures without anything to measure are left out.
        """
        return {name: total / count for name, (total, count) in self.sums.items() if count}

    def _count(self, name: str, values: npt.NDArray[np.floating]) -> None:
        total, count = self.sums[name]
        self.sums[name] = total + float(values.sum()), count + values.size


def _right(
    groups: npt.NDArray[np.int64], present: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """For each present joint 1 if it lies in the group that holds most of its person's joints,
    0 if not; of people who share such a group only the one with most joints in it is right."""
    votes = Counter(
        (person, group)
        for person in range(len(groups))
        for group in groups[person, present[person]].tolist()
    )
    given: dict[int, int] = {}
    taken: set[int] = set()
    for (person, group), _ in votes.most_common():
        if person not in given and group not in taken:
            given[person] = group
            taken.add(group)
    right = [
        float(group == given.get(person))
        for person in range(len(groups))
        for group in groups[person, present[person]].tolist()
    ]
    return np.array(right)
