"""The bottom-up codec: people ↔ heatmaps and tags of a whole picture (HigherHRNet, sec. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from .. import geometry
from ..fields import Head, Marks, Targets, View
from ..geometry import Affine
from ..poses import ABSENT, INFERRED, SEEN, Poses
from ..skeleton import Skeleton
from . import heatmaps as heat
from . import tags as tagging


@dataclass(frozen=True)
class Fields:
    """Merged maps of one picture.

    Attributes:
        heatmaps: (K, H, W) float32.
        tags: (K or 1, H, W, T) float32, T tags a joint (two with flip test).
    """

    heatmaps: npt.NDArray[np.float32]
    tags: npt.NDArray[np.float32]


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
            weight = marks.valid[:, ::step, ::step].float()
            heatmaps.append(heat.stamp(cells, (weight.shape[1], weight.shape[2]), self.sigma))
            weights.append(weight)
        return Targets(tuple(heatmaps), tuple(weights), marks.cells)

    def merge(self, views: Sequence[View], shape: tuple[int, int] | None = None) -> Fields:
        """Average and stack the network's answers to all views of one picture.

        Heads are brought to the finest one's resolution and averaged; mirrored views are
        mirrored back and their joints exchanged; heatmaps are averaged over views, tags are
        stacked, and only those of the scale nearest to 1 are used.

        Args:
            views: answers, largest scale first.
            shape: (H, W) to which all maps are projected; None keeps the size of the first view.
        """
        tag_scale = min((view.scale for view in views), key=lambda scale: abs(np.log(scale)))
        scales = list(dict.fromkeys(view.scale for view in views))
        total: torch.Tensor | None = None
        tags: list[torch.Tensor] = []
        for scale in scales:
            upright = [self._upright(view, shape) for view in views if view.scale == scale]
            heatmaps = sum(heatmap for heatmap, _ in upright[1:]) + upright[0][0]
            heatmaps = heatmaps / len(upright)
            total = heatmaps if total is None else total + _resize(heatmaps, total.shape[-2:])
            if scale == tag_scale:
                tags += [_resize(tag, total.shape[-2:]) for _, view in upright for tag in view]
        assert total is not None
        return Fields(
            heatmaps=(total / len(scales))[0].float().cpu().numpy(),
            tags=torch.stack(tags, dim=-1)[0].float().cpu().numpy(),
        )

    def _upright(
        self, view: View, shape: tuple[int, int] | None
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """One view's averaged heatmaps and its tags, mirrored back, on one resolution."""
        outputs = view.outputs
        finest = outputs.heatmaps[-1].shape[-2:]
        heatmaps = [_resize(heatmap, finest) for heatmap in outputs.heatmaps]
        tags = [_resize(tag, finest) for tag in outputs.tags if tag.shape[1]]
        if view.mirrored:
            flip = torch.from_numpy(self.skeleton.flip).to(heatmaps[0].device)
            heatmaps = [heatmap.flip(3)[:, flip] for heatmap in heatmaps]
            tags = [tag.flip(3) for tag in tags]
            tags = [tag if tag.shape[1] == 1 else tag[:, flip] for tag in tags]
        if self.aggregate:
            merged = torch.stack(heatmaps).sum(dim=0) / len(heatmaps)
        else:
            merged = heatmaps[-1]
        if shape is None:
            return merged, tags
        return _resize(merged, shape), [_resize(tag, shape) for tag in tags]

    def decode(self, fields: Fields, to_picture: Affine) -> Poses:
        """People of one picture, in its pixels, in the order in which grouping found them.

        Args:
            fields: merged maps.
            to_picture: map cells → picture pixels.
        """
        people = self.group(fields)
        found = people.score > 0
        if self.adjust:
            self.adjust_peaks(people, fields.heatmaps)
        # The published person score counts missing joints as 0 and is taken before refine.
        person_score = people.score.mean(axis=1) if len(people.score) else np.zeros(0)
        filled = (
            tagging.fill_missing(people, fields.heatmaps, fields.tags)
            if self.refine
            else np.zeros_like(found)
        )
        visibility = np.select([found, filled], [SEEN, INFERRED], ABSENT).astype(np.int8)
        poses = Poses(
            xy=people.xy,
            score=people.score.astype(np.float64),
            person_score=person_score.astype(np.float64),
            visibility=visibility,
        )
        return poses.warp(to_picture)

    def group(self, fields: Fields) -> tagging.People:
        """Peaks joined into people, on whole cells."""
        peaks = heat.find_peaks(fields.heatmaps, self.threshold, self.most_candidates)
        return tagging.group(peaks, fields.tags, self.skeleton.order, self.grouping)

    def group_true(
        self, fields: Fields, cells: npt.NDArray[np.int64], present: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        """(P, K) into which person grouping puts each joint when the peaks are the true joints.

        Args:
            fields: merged maps.
            cells: (P, K, 2) the true joints on them.
            present: (P, K) which joints there are; the others get -1.
        """
        groups = np.full(present.shape, -1)
        peaks = []
        for joint in range(present.shape[1]):
            xy = cells[present[:, joint], joint]
            heat_there = fields.heatmaps[joint, xy[:, 1], xy[:, 0]]
            # A missing joint is one without heat, so that a true one needs some.
            peaks.append(heat.Peaks(xy, np.maximum(heat_there, np.float32(1e-3))))
        people = tagging.group(peaks, fields.tags, self.skeleton.order, self.grouping)
        for person, joint in np.argwhere(present):
            there = (people.xy[:, joint] == cells[person, joint]).all(axis=1)
            groups[person, joint] = np.argmax(there & (people.score[:, joint] > 0))
        return groups

    @staticmethod
    def adjust_peaks(people: tagging.People, heatmaps: npt.NDArray[np.float32]) -> None:
        """Move every found joint to its sub-pixel place, in place."""
        for joint, heatmap in enumerate(heatmaps):
            rows = np.flatnonzero(people.score[:, joint] > 0)
            cells = heat.cells_of(people.xy[rows, joint])
            people.xy[rows, joint] = heat.quarter_shift(heatmap, cells) + 0.5


def _resize(maps: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Bilinear resize of (B, C, h, w) to (H, W), pixel edges aligned."""
    if tuple(maps.shape[-2:]) == tuple(shape):
        return maps
    return F.interpolate(maps, size=tuple(shape), mode="bilinear", align_corners=False)
