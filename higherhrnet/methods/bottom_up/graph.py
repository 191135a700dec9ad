"""The bottom-up network as a graph that other runtimes compute: from uint8 images to merged maps,
and on request to candidates for grouping.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ...errors import UserError
from ...inference.engines.torch_engine import fuse_conv_bn
from ...models.higher_hrnet import HigherHRNet
from ...models.pose_model import PoseModel
from ...outputs import Head, NetworkSpec
from ..base import ExportGraph
from ..graphs import OFFSETS, PoseNetwork, gather, patches, resize, split_index
from ..heatmaps import gaussian_blur_on_device
from .codec import BottomUpCodec
from .predictor import BottomUpPredictor


def build_graph(
    model: PoseModel, predictor: BottomUpPredictor, flip: bool, candidates: bool
) -> ExportGraph:
    """The graph of a predictor's codec; see :class:`BottomUpGraph`.

    Raises:
        UserError: the predictor tests in another way than the graph would.
    """
    augmentation, codec = predictor.augmentation, predictor.codec
    if predictor.mask_support:
        raise UserError("exported networks have no masks: TEST.MASK_SUPPORT 0")
    if flip and not augmentation.flip:
        raise UserError("--flip does the flip test inside, but TEST.FLIP_TEST is False")
    if candidates and augmentation.scales != (1.0,):
        raise UserError(
            "--decode looks at one scale, but TEST.SCALE_FACTOR is "
            f"{list(augmentation.scales)}; add --preset fast, or TEST.SCALE_FACTOR '[1.0]'"
        )
    if candidates and augmentation.flip and not flip:
        raise UserError(
            "--decode looks at all views, but TEST.FLIP_TEST is True: add --flip, --preset fast, "
            "or TEST.FLIP_TEST False"
        )
    graph = BottomUpGraph(model, codec, flip, augmentation.project if candidates else None)
    tags = sum(head.tags for head in codec.heads) * (1 + flip)
    head = Head(min(head.stride for head in codec.heads), tags, max(h.tag_dim for h in codec.heads))
    more = ("scores", "points", "candidate_tags") if candidates else ()
    return ExportGraph(graph, ("heatmaps", "tags", *more), NetworkSpec((head,), flip))


class BottomUpGraph(PoseNetwork):
    """(B, H, W, 3) uint8 RGB → heatmaps and tags, and candidates on request.

    Outputs:
        heatmaps: (B, K, H/2, W/2), the mean of the used outputs, and of the flipped image's.
        tags: (B, T K or T, H/4, W/4), one dimension's after the other's; the flipped image's last.
        scores: (B, K, M) of the M highest local maxima of each joint, best first; fewer maxima are
            followed by negative infinity.
        points: (B, K, M, 2) float32 x, y of them, pixels of the image that went in.
        candidate_tags: (B, K, M, T) tags there.

    Args:
        model: in evaluation mode.
        codec: says how outputs are merged and peaks are found.
        flip: average with the flipped image.
        project: candidates are sought on maps of the image's size, or as they are; None: nowhere.
    """

    def __init__(
        self, model: PoseModel, codec: BottomUpCodec, flip: bool, project: bool | None
    ) -> None:
        network = fuse_conv_bn(model)
        if isinstance(network, HigherHRNet):
            network.extra_heads.clear()  # keypoints alone are exported
        super().__init__(network)
        self._codec, self._flip, self._project = codec, flip, project
        self._flip_indices = codec.skeleton.flip_indices.tolist()
        count = len(codec.heads)
        self._used = [h for h in range(count) if not codec.with_heatmaps or codec.with_heatmaps[h]]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See the class."""
        found, batch = self.outputs(images, self._flip), images.shape[0]
        shape = (found.heatmaps[-1].shape[2], found.heatmaps[-1].shape[3])
        parts = [
            maps if maps.shape[2] == shape[0] else resize(maps, shape)
            for maps in (found.heatmaps[h] for h in self._used)
        ]
        heatmaps = parts[0]
        for part in parts[1:]:
            heatmaps = heatmaps + part
        heatmaps = heatmaps / len(parts)
        tagged = [maps for maps in found.tags if maps.shape[1]]
        largest = (tagged[-1].shape[2], tagged[-1].shape[3])
        tags = torch.cat(
            [maps if maps.shape[2] == largest[0] else resize(maps, largest) for maps in tagged],
            dim=1,
        )
        if self._flip:
            heatmaps = (heatmaps[:batch] + self._upright(heatmaps[batch:])) / 2
            tags = torch.cat([tags[:batch], self._upright(tags[batch:])], dim=1)
        if self._project is None:
            return heatmaps, tags
        maps = resize(heatmaps, (images.shape[1], images.shape[2])) if self._project else heatmaps
        # Tags are read from maps of the heatmaps' size, as aggregation makes them.
        return heatmaps, tags, *self._candidates(maps, resize(tags, shape), images.shape[2])

    def _upright(self, maps: torch.Tensor) -> torch.Tensor:
        joints = len(self._flip_indices)
        order = self._flip_indices
        if maps.shape[1] % joints == 0:
            order = [d + j for d in range(0, maps.shape[1], joints) for j in self._flip_indices]
            maps = maps[:, order]
        return maps.flip(3)

    def _candidates(
        self, maps: torch.Tensor, tags: torch.Tensor, width: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        codec = self._codec
        if codec.blur_sigma:
            maps = gaussian_blur_on_device(maps, codec.blur_sigma)
        highest = F.max_pool2d(maps, 5, stride=1, padding=2)
        kept = torch.where(maps == highest, maps, -torch.inf).flatten(2)
        scores, flat = kept.topk(codec.max_candidates, dim=2)
        x, y = split_index(flat, maps)
        points = torch.stack([x, y], dim=3).float()
        if codec.adjust:
            sub_pixel = codec.sub_pixel(1 if self._project else codec.finest_stride)
            field = gaussian_blur_on_device(maps, sub_pixel.sigma) if sub_pixel.blurs else maps
            points = points + OFFSETS[sub_pixel.decoding](patches(field, x, y)) + sub_pixel.center
        points = points * (width / maps.shape[3])
        joints = maps.shape[1]
        channels = joints if tags.shape[1] % joints == 0 else 1
        depth = [
            _interpolate(tags[:, at : at + channels].expand(-1, joints, -1, -1), maps, x, y)
            for at in range(0, tags.shape[1], channels)
        ]
        return scores, points, torch.stack(depth, dim=3)


def _interpolate(
    tags: torch.Tensor, maps: torch.Tensor, x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """(B, K, M) tags (B, K, h, w) at pixels of larger maps, as :class:`refinement.Axis` has it."""

    def between(at: torch.Tensor, size: int, source: int) -> tuple[torch.Tensor, ...]:
        place = ((at.float() + 0.5) * (source / size) - 0.5).clamp(min=0)
        low = place.long().clamp(max=source - 1)
        return low, (low + 1).clamp(max=source - 1), place - low

    y0, y1, wy = between(y, maps.shape[2], tags.shape[2])
    x0, x1, wx = between(x, maps.shape[3], tags.shape[3])
    above = gather(tags, x0, y0) * (1 - wx) + gather(tags, x1, y0) * wx
    below = gather(tags, x0, y1) * (1 - wx) + gather(tags, x1, y1) * wx
    return above * (1 - wy) + below * wy
