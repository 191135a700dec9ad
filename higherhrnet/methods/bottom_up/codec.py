"""The bottom-up codec: people ↔ heatmaps and tags of a whole image (HigherHRNet, sec. 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ... import geometry
from ...geometry import Affine
from ...outputs import Head, View
from ...poses import ABSENT, REFINED, SEEN, Poses
from ...skeleton import Skeleton
from ..heatmaps import Peaks, SubPixel, draw_gaussians
from . import grouping as tagging
from .aggregation import aggregate_views
from .maps import AggregatedMaps

if TYPE_CHECKING:  # decoding needs no PyTorch; encoding imports it
    from ...structures import KeypointIndices, Targets


class Decoded(NamedTuple):
    """People of one image, and what limits cost.

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
        sigma: of the Gaussians, pixels of each map.
        threshold: score above which a peak is a candidate.
        max_candidates: peaks kept for each joint.
        grouping: how candidates become people.
        adjust: move peaks by a quarter pixel towards the higher neighbor, then by +0.5.
        refine: fill the joints that a person lacks.
        with_heatmaps: for each head, whether its heatmaps are averaged; all if empty.
        blur_sigma: of a Gaussian over the aggregated heatmaps, heatmap pixels; 0 leaves them as
            they are, as published. Noisy maps of a briefly trained network gain by it.
        max_detections: keep only so many people, the best; 0 keeps all, as published.
        encoding: where Gaussians are drawn: on the pixel of the ``truncated`` location (published),
            or around the ``exact`` one, so that encoding and decoding are inverse to each other
            (Huang et al. 2020, UDP, sec. 3.2 and 3.3, without its offset maps).
        decoding: ``quarter``, ``parabola`` or ``dark``; see :class:`SubPixel`.
    """

    skeleton: Skeleton
    heads: tuple[Head, ...]
    sigma: float = 2.0
    threshold: float = 0.1
    max_candidates: int = 30
    grouping: tagging.Grouping = field(default_factory=tagging.Grouping)
    adjust: bool = True
    refine: bool = True
    with_heatmaps: tuple[bool, ...] = ()
    blur_sigma: float = 0.0
    max_detections: int = 0
    encoding: str = "truncated"
    decoding: str = "quarter"

    def to_dict(self) -> dict[str, Any]:
        """Plain values of all but the skeleton."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "skeleton"}
        heads = [vars(head) for head in self.heads]
        return values | {"heads": heads, "grouping": self.grouping.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], skeleton: Skeleton) -> BottomUpCodec:
        """Inverse of :meth:`to_dict`."""
        return cls(
            **dict(values)
            | {
                "skeleton": skeleton,
                "heads": tuple(Head(**head) for head in values["heads"]),
                "grouping": tagging.Grouping.from_dict(values["grouping"]),
                "with_heatmaps": tuple(values["with_heatmaps"]),
            }
        )

    def index_keypoints(
        self, poses: Poses, valid: npt.NDArray[np.uint8], flipped: bool
    ) -> KeypointIndices:
        """Where the joints of one training view fall on every head's maps.

        Args:
            poses: people in the view's pixels.
            valid: (S, S) 1 where the loss counts.
            flipped: whether the view is flipped; see :func:`geometry.map_affine`.
        """
        import torch

        from ...structures import KeypointIndices

        height, width = valid.shape
        present = poses.visibility > ABSENT
        indices, offsets = [], []
        for head in self.heads:
            shape = (height // head.stride, width // head.stride)
            if self.encoding == "exact":
                xy = geometry.apply(geometry.exact_map_affine(head.stride), poses.xy)
                pixel = np.floor(xy + 0.5)
                offsets.append(torch.from_numpy((xy - pixel).astype(np.float32)))
                xy = pixel
            else:
                xy = geometry.apply(geometry.map_affine(head.stride, flipped), poses.xy)
            indices.append(torch.from_numpy(tagging.keypoint_indices(xy, present, shape)))
        mask = torch.from_numpy(valid[:: self.finest_stride, :: self.finest_stride].copy())
        return KeypointIndices(tuple(indices), mask, offsets=tuple(offsets))

    def encode(self, keypoints: KeypointIndices) -> Targets:
        """Targets of a batch of indexed views, on the device of the indices."""
        from ...structures import Targets

        finest = self.finest_stride
        heatmaps, weights = [], []
        offsets = keypoints.offsets or (None,) * len(self.heads)
        for head, indices, offset in zip(self.heads, keypoints.indices, offsets, strict=True):
            step = head.stride // finest
            weight = keypoints.valid[:, None, ::step, ::step].float()
            shape = (weight.shape[2], weight.shape[3])
            heatmaps.append(draw_gaussians(indices, shape, self.sigma, offset))
            weights.append(weight)
        return Targets(
            tuple(heatmaps),
            tuple(weights),
            keypoints.indices,
            keypoints.annotated,
            keypoints.masks,
            keypoints.boxes,
        )

    def aggregate(
        self, views: Sequence[View], shape: tuple[int, int] | None = None
    ) -> AggregatedMaps:
        """All views of one image as one; see :func:`aggregation.aggregate_views`."""
        sub_pixel = self.sub_pixel(1 if shape else self.finest_stride)
        return aggregate_views(
            views, self.skeleton, shape, self.with_heatmaps, self.blur_sigma, sub_pixel
        )

    @property
    def finest_stride(self) -> int:
        """Of the finest head."""
        return min(head.stride for head in self.heads)

    def sub_pixel(self, stride: int) -> SubPixel:
        """How points are read from maps of a stride."""
        # In pixels of the maps: their centers lie half a pixel from the input's first one.
        center = 0.5 if self.encoding == "truncated" else 0.5 - 0.5 / stride
        return SubPixel(self.decoding, center, self.sigma)

    def decode(
        self,
        maps: AggregatedMaps,
        to_image: Affine,
        grouped: Callable[[Sequence[Peaks]], list[tagging.Member]] | None = None,
    ) -> Decoded:
        """People of one image, in its pixels, in the order in which grouping found them.

        Args:
            maps: aggregated maps.
            to_image: heatmap pixels → image pixels.
            grouped: makes people of candidates; by tags unless something else is given.
        """
        peaks = maps.peaks(self.threshold, self.max_candidates)
        members = self.group(peaks, maps.shape) if grouped is None else grouped(peaks)
        people = tagging.assemble_people(peaks, members)
        # The published person score counts missing joints as 0 and is taken before refine.
        person_score = people.score.mean(axis=1) if len(people.score) else np.zeros(0)
        dropped = 0
        if 0 < self.max_detections < len(person_score):
            dropped = len(person_score) - self.max_detections
            best = np.sort(np.argsort(-person_score, kind="stable")[: self.max_detections])
            people, person_score = people.select(best), person_score[best]
        found = people.score > 0
        refined = tagging.fill_missing_joints(people, maps) if self.refine else np.zeros_like(found)
        visibility = np.select([found, refined], [SEEN, REFINED], ABSENT).astype(np.int8)
        poses = Poses(
            # A refined joint is always adjusted, as published.
            xy=np.where((found & (not self.adjust))[..., None], people.xy, people.location),
            score=people.score.astype(np.float64),
            person_score=person_score.astype(np.float64),
            visibility=visibility,
            tag=_mean_tag(people.tags, found),
            track=np.full(len(found), -1),
        )
        candidates_dropped = sum(found.dropped for found in peaks)
        return Decoded(poses.warp(to_image), candidates_dropped, dropped)

    def group(
        self, peaks: Sequence[Peaks], shape: tuple[int, int] = (0, 0)
    ) -> list[tagging.Member]:
        """People of candidates on maps (H, W), by their tags."""
        return tagging.group(peaks, self.skeleton.order, self.grouping, shape)

    def group_ground_truth(
        self, maps: AggregatedMaps, indices: npt.NDArray[np.int64], present: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        """(P, K) the person that grouping gives each joint to, with the annotated joints as peaks.

        Args:
            maps: aggregated maps.
            indices: (P, K, 2) the annotated joints on them.
            present: (P, K) which joints there are; the others get -1.
        """
        groups = np.full(present.shape, -1)
        joints, persons = np.nonzero(present.T)
        there = indices[persons, joints]
        score_there, tags = maps.read(joints, there)
        # A missing joint is one with score 0, so that an annotated one needs some.
        score = np.maximum(score_there, np.float32(1e-3))
        peaks = [
            Peaks(there[rows], score[rows], there[rows].astype(float), tags[rows])
            for rows in (joints == joint for joint in range(present.shape[1]))
        ]
        people = tagging.assemble_people(peaks, self.group(peaks, maps.shape))
        for person, joint in np.argwhere(present):
            there = (people.xy[:, joint] == indices[person, joint]).all(axis=1)
            groups[person, joint] = np.argmax(there & (people.score[:, joint] > 0))
        return groups


def _mean_tag(
    tags: npt.NDArray[np.float32], found: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """(N, T) mean over the found joints (N, K) of tags (N, K, T)."""
    total = np.where(found[..., None], tags, 0).sum(axis=1, dtype=np.float64)
    return total / np.maximum(found.sum(axis=1), 1)[:, None]
