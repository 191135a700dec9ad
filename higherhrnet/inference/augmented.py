"""Test-time views: the scales and mirrorings at which the network looks at one picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from .. import geometry
from ..errors import UserError
from ..fields import Outputs, View

Network = Callable[[torch.Tensor], Outputs]


_MOST_PIXELS = 1 << 24
"""Of an input: 4096 x 4096."""


@dataclass(frozen=True)
class Protocol:
    """How a picture is shown to the network; the defaults are the published ones.

    Attributes:
        input_size: short side of the input at scale 1, pixels.
        scales: test scales.
        flip: look at the mirrored picture as well.
        project: bring all maps to the scale-1 input size before peaks are sought.
    """

    input_size: int
    scales: tuple[float, ...] = (1.0,)
    flip: bool = True
    project: bool = True

    def __post_init__(self) -> None:
        if not self.scales or any(scale <= 0 for scale in self.scales):
            raise UserError(f"TEST.SCALES must be numbers above 0, not {list(self.scales)}")
        if self.input_size % 64:
            raise UserError(f"INPUT_SIZE must be a multiple of 64, not {self.input_size}")

    def projected_shape(self, picture: tuple[int, int]) -> tuple[int, int] | None:
        """(H, W) of the maps for a picture (H, W), or None to leave them as they come."""
        if not self.project:
            return None
        return geometry.fit_view(picture, self.input_size, 1.0, min(self.scales))[0]

    def to_picture(self, picture: tuple[int, int], maps: tuple[int, int]) -> geometry.Affine:
        """Cells of the merged maps (H, W) → pixels of the picture (H, W)."""
        smallest = min(self.scales)
        view, _ = geometry.fit_view(picture, self.input_size, smallest, smallest)
        return geometry.invert(geometry.fit_map(picture, view, maps))

    def inputs(self, image: npt.NDArray[np.uint8]) -> list[tuple[torch.Tensor, float]]:
        """(1 or 2, 3, h, w) uint8 network inputs with their scales, largest first.

        With ``flip`` the second of each pair is mirrored.

        Raises:
            UserError: the scales give a size that the network cannot halve five times, or the
                picture is so long and narrow that its input would not fit into any memory.
        """
        views = []
        for scale in sorted(self.scales, reverse=True):
            shape, affine = geometry.fit_view(
                image.shape[:2], self.input_size, scale, min(self.scales)
            )
            if shape[0] % 32 or shape[1] % 32:
                raise UserError(
                    f"TEST.SCALES {list(self.scales)} with INPUT_SIZE {self.input_size} makes an "
                    f"input of {shape[1]}x{shape[0]} pixels; both must be multiples of 32"
                )
            if shape[0] * shape[1] > _MOST_PIXELS:
                height, width = image.shape[:2]
                raise UserError(
                    f"a picture of {width}x{height} pixels would be looked at in "
                    f"{shape[1]}x{shape[0]}, which is too much; cut it, or set "
                    "DATASET.INPUT_SIZE or TEST.SCALES lower"
                )
            view = torch.from_numpy(geometry.warp(image, affine, shape)).permute(2, 0, 1)
            views.append((torch.stack([view, view.flip(2)] if self.flip else [view]), scale))
        return views


def look(network: Network, images: torch.Tensor, scale: float, views: int) -> list[list[View]]:
    """The network's answers to several pictures at one scale.

    Args:
        network: what answers.
        images: (P * views, 3, h, w), each picture's plain view first.
        scale: test scale of all of them.
        views: 1, or 2 with the mirrored view.

    Returns:
        each picture's views.
    """
    outputs = network(images)
    answers = [
        View(
            Outputs(
                tuple(heatmap[i : i + 1] for heatmap in outputs.heatmaps),
                tuple(tag[i : i + 1] for tag in outputs.tags),
            ),
            scale,
            mirrored=i % views == 1,
        )
        for i in range(len(images))
    ]
    return [answers[i : i + views] for i in range(0, len(answers), views)]
