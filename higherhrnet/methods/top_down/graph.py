"""The top-down network as a graph that other runtimes compute: from uint8 crops to heatmaps, and on
request to points."""

from __future__ import annotations

import torch

from ...errors import UserError
from ...inference.engines.torch_engine import fuse_conv_bn
from ...models.pose_model import PoseModel
from ...outputs import NetworkSpec
from ..base import ExportGraph
from ..graphs import PoseNetwork, parabola_offset, patches, split_index
from .codec import TopDownCodec
from .predictor import TopDownPredictor


def build_graph(
    model: PoseModel, predictor: TopDownPredictor, flip: bool, candidates: bool
) -> ExportGraph:
    """The graph of a predictor's codec; see :class:`TopDownGraph`.

    Raises:
        UserError: the predictor tests in another way than the graph would.
    """
    if flip and not predictor.flip:
        raise UserError("--flip does the flip test inside, but TEST.FLIP_TEST is False")
    if candidates and predictor.flip and not flip:
        raise UserError(
            "--decode looks at all views, but TEST.FLIP_TEST is True: add --flip, or "
            "TEST.FLIP_TEST False"
        )
    if candidates and predictor.codec.decoding == "dark":
        raise UserError("--decode knows no TEST.DECODING dark for crops: take parabola or quarter")
    graph = TopDownGraph(model, predictor.codec, flip, candidates)
    names = ("heatmaps", "scores", "points") if candidates else ("heatmaps",)
    return ExportGraph(graph, names, NetworkSpec(predictor.codec.heads, flip, predictor.image_size))


class TopDownGraph(PoseNetwork):
    """(N, H, W, 3) uint8 RGB crops → heatmaps, and points on request.

    Outputs:
        heatmaps: (N, K, H/4, W/4), averaged with those of the flipped crops if ``flip``.
        scores: (N, K) the highest of each.
        points: (N, K, 2) float32 x, y of them, sub-pixel, pixels of the crop.
    """

    def __init__(self, model: PoseModel, codec: TopDownCodec, flip: bool, points: bool) -> None:
        super().__init__(fuse_conv_bn(model))
        self._codec, self._flip, self._points = codec, flip, points
        self._flip_indices = codec.skeleton.flip_indices.tolist()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See the class."""
        batch = images.shape[0]
        heatmaps = self.outputs(images, self._flip).heatmaps[0]
        if self._flip:
            flipped = heatmaps[batch:, self._flip_indices].flip(3)
            if self._codec.shift_heatmap:
                flipped = torch.cat([flipped[..., :1], flipped[..., :-1]], dim=3)
            heatmaps = (heatmaps[:batch] + flipped) / 2
        if not self._points:
            return (heatmaps,)
        height, width = heatmaps.shape[2:]
        scores, flat = heatmaps.flatten(2).max(dim=2)
        flat = torch.where(scores > 0, flat, 0)[..., None]
        x, y = split_index(flat, heatmaps)
        values = patches(heatmaps, x, y)
        if self._codec.decoding == "parabola":
            offset = parabola_offset(values)
        else:
            slope = [values[1][2] - values[1][0], values[2][1] - values[0][1]]
            offset = torch.stack([side.sign() * 0.25 for side in slope], dim=-1)
        inner = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
        points = torch.stack([x, y], dim=-1) + torch.where(inner[..., None], offset, 0.0)
        return heatmaps, scores, points[:, :, 0] * self._codec.heads[0].stride
