"""Several data sets as one: joints matched by name, images mixed in given shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..poses import ABSENT, Poses
from ..skeleton import Skeleton
from ..structures import Sample
from .base import PoseDataset
from .coco import CocoKeypoints
from .findings import Finding


class MappedDataset:
    """A data set seen with another skeleton: joints are matched by name.

    Joints that the set does not have, or has and never labels, are not annotated: a heatmap
    without them would teach that there are none. ``sample(...).annotated`` says which they are,
    and training leaves them out of the loss.

    ``findings`` names both kinds, and the set's joints that the skeleton lacks.

    Args:
        dataset: the set.
        skeleton: the K joints that are wanted.

    Raises:
        UserError: the two have no joint in common.
    """

    def __init__(self, dataset: CocoKeypoints, skeleton: Skeleton) -> None:
        self.dataset = dataset
        self.skeleton = skeleton
        own = dataset.skeleton
        self._rows = np.array(skeleton.match(own.joints))
        known = self._rows >= 0
        if not known.any():
            raise UserError(
                f"'{dataset.annotation_file}': skeleton '{own.name}' has no joint of skeleton "
                f"'{skeleton.name}'; joints are matched by name ({', '.join(own.joints[:4])}, …)"
            )
        self.annotated: npt.NDArray[np.bool_] = known & (dataset.label_counts[self._rows] > 0)
        left_out = [skeleton.joints[joint] for joint in np.flatnonzero(~self.annotated)]
        unused = [j for row, j in enumerate(own.joints) if row not in self._rows]
        what = "joints are not annotated in this set", "joints of this set are not trained"
        self.findings = [
            Finding(text, joints, remedy)
            for text, joints, remedy in (
                (what[0], left_out, "they are left out of its loss"),
                (what[1], unused, f"skeleton '{skeleton.name}' lacks them"),
            )
            if joints
        ]

    @property
    def annotations(self) -> dict[str, Any]:
        """The set's own, with its own joints."""
        return self.dataset.annotations

    def __len__(self) -> int:
        return len(self.dataset)

    def boxes(self, index: int) -> npt.NDArray[np.float64]:
        """See :class:`PoseDataset`."""
        return self.dataset.boxes(index)

    def outlines(self, index: int) -> list[npt.NDArray[np.bool_] | None]:
        """See :meth:`CocoKeypoints.outlines`."""
        return self.dataset.outlines(index)

    def sample(self, index: int) -> Sample:
        """See :class:`PoseDataset`; joints that the set does not annotate are absent."""
        sample = self.dataset.sample(index)
        own, known = sample.poses, self._rows >= 0
        poses = Poses(
            xy=np.where(known[:, None], own.xy[:, self._rows], 0.0),
            score=np.where(known, own.score[:, self._rows], 0.0),
            person_score=own.person_score,
            visibility=np.where(known, own.visibility[:, self._rows], ABSENT).astype(np.int8),
            tag=own.tag,
            track=own.track,
        )
        return replace(sample, poses=poses, annotated=self.annotated)


class ConcatDataset:
    """Several data sets of one skeleton as one; its annotations cannot be evaluated.

    Args:
        parts: the sets; images are numbered through in their order.
        shares: of each set in an epoch's views; 0 shows every image once. Empty: all once.
    """

    def __init__(self, parts: Sequence[PoseDataset], shares: Sequence[float] = ()) -> None:
        self.parts = parts
        self.shares = tuple(shares) or (0.0,) * len(parts)
        self.skeleton = parts[0].skeleton
        for part in parts:
            if part.skeleton != self.skeleton:
                raise UserError(
                    f"sets of skeletons '{self.skeleton.name}' and '{part.skeleton.name}' "
                    "cannot be concatenated"
                )

    @property
    def annotations(self) -> dict[str, Any]:
        raise UserError("concatenated sets have no common annotations to evaluate against")

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def boxes(self, index: int) -> npt.NDArray[np.float64]:
        """(P, 4) of the labeled people of whichever set's image has the number."""
        part, number = self._at(index)
        return part.boxes(number)

    def outlines(self, index: int) -> list[npt.NDArray[np.bool_] | None]:
        """Those of whichever set's image has the number; none of a set that does not know any."""
        part, number = self._at(index)
        known = getattr(part, "outlines", None)
        return [] if known is None else list(known(number))

    def sample(self, index: int) -> Sample:
        """The whole image of whichever set has the number."""
        part, number = self._at(index)
        return part.sample(number)

    def _at(self, index: int) -> tuple[PoseDataset, int]:
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError(index)


class Quota(NamedTuple):
    """How many views of one set an epoch has.

    Attributes:
        items: the set's images or people, which follow each other.
        views: how many of them are seen, each equally often but for a remainder by chance.
    """

    items: int
    views: int


def parts_of(dataset: PoseDataset) -> Sequence[PoseDataset]:
    """The sets that a set consists of; itself if it is no combination."""
    return dataset.parts if isinstance(dataset, ConcatDataset) else [dataset]


def files_of(dataset: PoseDataset) -> Iterator[CocoKeypoints]:
    """Those of its parts that are annotation files with images."""
    for part in parts_of(dataset):
        stored = part.dataset if isinstance(part, MappedDataset) else part
        if isinstance(stored, CocoKeypoints):
            yield stored


def compute_quotas(dataset: PoseDataset, image_of_item: npt.NDArray[np.int64]) -> list[Quota]:
    """How many views an epoch has of every part; empty where each item is seen once.

    Parts without a share are seen once; the others are added in their shares. Where all have one,
    an epoch has as many views as there are items.

    Args:
        dataset: the whole set.
        image_of_item: (items,) the image of each item (image or person), not descending.
    """
    if not isinstance(dataset, ConcatDataset) or not any(dataset.shares):
        return []
    ends = np.searchsorted(image_of_item, np.cumsum([len(part) for part in dataset.parts]))
    counts = np.diff(ends, prepend=0).tolist()
    pairs = list(zip(counts, dataset.shares, strict=True))
    once = sum(count for count, share in pairs if not share)
    total = once / (1 - sum(dataset.shares)) if once else sum(counts)
    return [
        Quota(count, max(round(share * total), 1) if share else count) for count, share in pairs
    ]
