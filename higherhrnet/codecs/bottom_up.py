"""The bottom-up codec: people ↔ heatmaps and tags of a whole picture (HigherHRNet, sec. 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from .. import geometry
from ..fields import Head, Marks, Targets, View
from ..geometry import Affine
from ..poses import ABSENT, INFERRED, SEEN, Poses
from ..skeleton import Skeleton
from . import heatmaps as heat
from . import tags as tagging
from .maps import Maps
from .merging import merged


class Decoded(NamedTuple):
    """People of one picture, and what limits cost.

    Attributes:
        poses: the people.
        candidates_dropped: peaks beyond the most that are kept of a joint.
        people_dropped: people beyond the most that are wanted.
    """

    poses: Poses
    candidates_dropped: int
    people_dropped: int


@dataclass(frozen=True)
class BottomUpCodec:
    """Published encoding and decoding; the defaults are the published test settings.

    Attributes:
        skeleton: the K joints.
        heads: the network's outputs, coarse to fine; at least one has tags.
        sigma: of the stamped Gaussians, cells of each map.
        threshold: heat above which a peak is a candidate.
        most_candidates: peaks kept for each joint.
        grouping: how candidates become people.
        adjust: move peaks by a quarter cell towards the higher neighbour, then by +0.5.
        refine: fill the joints that a person lacks.
        aggregate: average the heatmaps of all heads; otherwise the finest head's are used alone.
        smooth: sigma of a Gaussian over the merged heatmaps, in their cells; 0 leaves them as they
            are, as published. Noisy maps of a network that was trained little gain by it.
        most_people: keep only so many, the best; 0 keeps all, as published.
    """

    skeleton: Skeleton
    heads: tuple[Head, ...]
    sigma: float = 2.0
    threshold: float = 0.1
    most_candidates: int = 30
    grouping: tagging.Grouping = field(default_factory=tagging.Grouping)
    adjust: bool = True
    refine: bool = True
    aggregate: bool = True
    smooth: float = 0.0
    most_people: int = 0

    def mark(self, poses: Poses, valid: npt.NDArray[np.uint8], mirrored: bool) -> Marks:
        """Where the joints of one training view fall on every head's maps.

        Args:
            poses: people in the view's pixels.
            valid: (S, S) 1 where the loss counts.
            mirrored: whether the view is mirrored; see :func:`geometry.map_affine`.
        """
        height, width = valid.shape
        present = poses.visibility > ABSENT
        cells = []
        for head in self.heads:
            xy = geometry.apply(geometry.map_affine(head.stride, mirrored), poses.xy)
            shape = (height // head.stride, width // head.stride)
            cells.append(torch.from_numpy(tagging.joint_cells(xy, present, shape)))
        finest = min(head.stride for head in self.heads)
        return Marks(tuple(cells), torch.from_numpy(valid[::finest, ::finest].copy()))

    def encode(self, marks: Marks) -> Targets:
        """Targets of a batch of marked views, on the marks' device."""
        finest = min(head.stride for head in self.heads)
        heatmaps, weights = [], []
        for head, cells in zip(self.heads, marks.cells, strict=True):
            step = head.stride // finest
            weight = marks.valid[:, None, ::step, ::step].float()
            heatmaps.append(heat.stamp(cells, (weight.shape[2], weight.shape[3]), self.sigma))
            weights.append(weight)
        return Targets(tuple(heatmaps), tuple(weights), marks.cells)

    def merge(self, views: Sequence[View], shape: tuple[int, int] | None = None) -> Maps:
        """All views of one picture as one; see :func:`merging.merged`."""
        return merged(views, self.skeleton, shape, self.aggregate, self.smooth)

    def decode(
        self,
        maps: Maps,
        to_picture: Affine,
        grouped: Callable[[Sequence[heat.Peaks]], list[tagging.Member]] | None = None,
    ) -> Decoded:
        """People of one picture, in its pixels, in the order in which grouping found them.

        Args:
            maps: merged maps.
            to_picture: map cells → picture pixels.
            grouped: makes people of candidates; by tags unless something else is given.
        """
        peaks = maps.peaks(self.threshold, self.most_candidates)
        people = tagging.assembled(peaks, (grouped or self.group)(peaks))
        # The published person score counts missing joints as 0 and is taken before refine.
        person_score = people.score.mean(axis=1) if len(people.score) else np.zeros(0)
        dropped = 0
        if 0 < self.most_people < len(person_score):
            dropped = len(person_score) - self.most_people
            best = np.sort(np.argsort(-person_score, kind="stable")[: self.most_people])
            people, person_score = people.select(best), person_score[best]
        found = people.score > 0
        filled = tagging.fill_missing(people, maps) if self.refine else np.zeros_like(found)
        visibility = np.select([found, filled], [SEEN, INFERRED], ABSENT).astype(np.int8)
        poses = Poses(
            # A filled joint is always adjusted, as published.
            xy=np.where((found & (not self.adjust))[..., None], people.xy, people.place),
            score=people.score.astype(np.float64),
            person_score=person_score.astype(np.float64),
            visibility=visibility,
            tag=_mean_tag(people.tags, found),
            track=np.full(len(found), -1),
        )
        candidates_dropped = sum(found.dropped for found in peaks)
        return Decoded(poses.warp(to_picture), candidates_dropped, dropped)

    def group(self, peaks: Sequence[heat.Peaks]) -> list[tagging.Member]:
        """People of candidates, by their tags."""
        return tagging.group(peaks, self.skeleton.order, self.grouping)

    def group_true(
        self, maps: Maps, cells: npt.NDArray[np.int64], present: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        """(P, K) into which person grouping puts each joint when the peaks are the true joints.

        Args:
            maps: merged maps.
            cells: (P, K, 2) the true joints on them.
            present: (P, K) which joints there are; the others get -1.
        """
        groups = np.full(present.shape, -1)
        joints, persons = np.nonzero(present.T)
        there = cells[persons, joints]
        heat_there, tags = maps.read(joints, there)
        # A missing joint is one without heat, so that a true one needs some.
        score = np.maximum(heat_there, np.float32(1e-3))
        peaks = [
            heat.Peaks(there[rows], score[rows], there[rows].astype(float), tags[rows])
            for rows in (joints == joint for joint in range(present.shape[1]))
        ]
        people = tagging.assembled(peaks, self.group(peaks))
        for person, joint in np.argwhere(present):
            there = (people.xy[:, joint] == cells[person, joint]).all(axis=1)
            groups[person, joint] = np.argmax(there & (people.score[:, joint] > 0))
        return groups


def _mean_tag(
    tags: npt.NDArray[np.float32], found: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """(N, T) mean over the found joints (N, K) of tags (N, K, T)."""
    total = np.where(found[..., None], tags, 0).sum(axis=1, dtype=np.float64)
    return total / np.maximum(found.sum(axis=1), 1)[:, None]
