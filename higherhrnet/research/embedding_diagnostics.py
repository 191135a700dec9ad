"""Embedding diagnostics: how well tags tell people apart (Newell et al. 2017, sec. 3.2).

Tags and heatmaps are read at the annotated joints of the validation images.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .. import geometry
from ..distributed import ProcessGroup
from ..inference.predictor import Maps, Predictor
from ..methods.bottom_up.maps import AggregatedMaps
from ..methods.bottom_up.predictor import BottomUpPredictor
from ..poses import ABSENT
from ..skeleton import Skeleton
from ..structures import Sample


class EmbeddingDiagnostics:
    """Adds up images.

    Attributes:
        sums: name → (sum, count).
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self.joints = skeleton.joints
        self.sums: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))

    def update(self, predictor: Predictor, sample: Sample, maps: Maps) -> None:
        """Add what tags and heatmaps are at the sample's annotated joints.

        Args:
            predictor: a bottom-up one.
            sample: the annotated image.
            maps: of the image; see :meth:`Predictor.predict`.
        """
        assert isinstance(predictor, BottomUpPredictor)
        aggregated: AggregatedMaps = maps  # type: ignore[assignment]
        height, width = aggregated.shape
        shape = (sample.image.shape[0], sample.image.shape[1])
        to_map = geometry.invert(predictor.augmentation.to_image(shape, (height, width)))
        poses = sample.poses
        indices = np.rint(geometry.apply(to_map, poses.xy)).astype(np.int64)
        inside = ((indices >= 0) & (indices < (width, height))).all(axis=2)
        present: npt.NDArray[np.bool_] = (poses.visibility > ABSENT) & inside
        indices = np.where(present[..., None], indices, 0)
        people, joints = present.shape
        scores, tags = aggregated.read(np.tile(np.arange(joints), people), indices.reshape(-1, 2))
        self.add(
            tags=tags.reshape(people, joints, tags.shape[1]),
            scores=scores.reshape(people, joints),
            present=present,
            groups=predictor.codec.group_ground_truth(aggregated, indices, present),
        )

    def add(
        self,
        tags: npt.NDArray[np.floating],
        scores: npt.NDArray[np.floating],
        present: npt.NDArray[np.bool_],
        groups: npt.NDArray[np.int64],
    ) -> None:
        """Add the people of one image.

        Args:
            tags: (P, K, T) at annotated joints.
            scores: (P, K) of the heatmaps at annotated joints.
            present: (P, K) which joints are annotated.
            groups: (P, K) number of the person that grouping gives each joint to when the
                candidates are the annotated joints.
        """
        for joint, name in enumerate(self.joints):
            self._count(f"score/{name}", scores[present[:, joint], joint])
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
        self._count("tags/grouped_right", _correctly_grouped(groups, present))

    def gather(self, group: ProcessGroup) -> None:
        """Add the sums of other processes; all must call."""
        shares = group.gather(dict(self.sums))
        self.sums.clear()
        for share in shares:
            self.merge(share)

    def merge(self, sums: Mapping[str, tuple[float, float]]) -> None:
        """Add other sums."""
        for name, (total, count) in sums.items():
            own = self.sums[name]
            self.sums[name] = own[0] + total, own[1] + count

    def summarize(self) -> dict[str, float]:
        """Means of what was measured; names without any measurement are left out.

        ``tags/within`` and ``tags/between``: distance of a joint's tag to its person's mean tag,
        and of two people's mean tags; ``tags/separability``: how often (0..1, 0.5 is chance) a
        joint is nearer to its own person than to another; ``tags/grouped_right``: share of joints
        that grouping gives to the right person; ``score/JOINT``: of the heatmap at that joint.
        """
        return {name: total / count for name, (total, count) in self.sums.items() if count}

    def _count(self, name: str, values: npt.NDArray[np.floating]) -> None:
        total, count = self.sums[name]
        self.sums[name] = total + float(values.sum()), count + values.size


def _correctly_grouped(
    groups: npt.NDArray[np.int64], present: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """For each present joint 1 if it is in the group with most of its person's joints, else 0.

    Of people who share such a group only the one with most joints in it is right.
    """
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
    correct = [
        float(group == given.get(person))
        for person in range(len(groups))
        for group in groups[person, present[person]].tolist()
    ]
    return np.array(correct)
