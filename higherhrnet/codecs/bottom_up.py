"""The bottom-up codec: people ↔ heatmaps and tags of a whole picture (HigherHRNet, sec. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from .. import geometry
from ..fields import Head, Sample, Targets, View
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

    def encode(self, sample: Sample) -> Targets:
        """Targets of one training view; a joint that is absent or off the view has none."""
        height, width = sample.image.shape[:2]
        present = sample.poses.visibility > ABSENT
        heatmaps, weights, cells = [], [], []
        for head in self.heads:
            shape = (height // head.stride, width // head.stride)
            to_map = geometry.map_affine(head.stride, geometry.is_mirrored(sample.affine))
            xy = geometry.apply(to_map, sample.poses.xy)
            heatmaps.append(torch.from_numpy(heat.stamp(xy, present, shape, self.sigma)))
            valid = sample.valid[:: head.stride, :: head.stride].astype(np.float32)
            weights.append(torch.from_numpy(valid))
            flat = tagging.joint_cells(xy, present, shape)
            cells.append(torch.from_numpy(flat[: len(flat) if head.tags else 0]))
        return Targets(tuple(heatmaps), tuple(weights), tuple(cells))

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
