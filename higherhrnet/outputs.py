"""What a network predicts: the contract between models, engines, codecs and losses.

Images → (model or engine) → ``Outputs``, one a view → (codec) → ``Poses``. Nothing here needs
PyTorch: an engine may be another runtime's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Head:
    """One output of a network.

    Attributes:
        stride: input pixels per pixel of its maps.
        tags: number of tag maps beside the K heatmaps: 0, or ``tag_dim`` times 1 (shared by all
            joints) or K, all maps of one dimension together.
        tag_dim: dimension of a tag.
    """

    stride: int
    tags: int = 0
    tag_dim: int = 1


@dataclass(frozen=True)
class NetworkSpec:
    """What a network gives, and what of the test protocol it does by itself.

    Attributes:
        heads: its outputs.
        flip: whether it averages with the flipped image.
        size: (H, W) of the images if it takes but one.
    """

    heads: tuple[Head, ...]
    flip: bool = False
    size: tuple[int, int] | None = None


class Outputs(NamedTuple):
    """What a network predicts, one entry a head.

    A model gives tensors; an engine float32 NumPy arrays, or tensors that stay on an accelerator.

    Attributes:
        heatmaps: per head (B, K, H/s, W/s).
        tags: per head (B, ``Head.tags``, H/s, W/s), with no channels where the head has no tags.
        scales: per head (B, K, H/s, W/s), by how much the Gaussians of training are narrower than
            sigma, less 1; none where they all have the same.
        masks: none, or one (B, 1, H/4, W/4) logits of people's silhouettes.
        boxes: none, or an FCOS head's logits (B, N, 1), sides (B, N, 4) and centerness (B, N, 1) of
            the N places of its pyramid.
    """

    heatmaps: tuple[Any, ...]
    tags: tuple[Any, ...]
    scales: tuple[Any, ...] = ()
    masks: tuple[Any, ...] = ()
    boxes: tuple[Any, ...] = ()


@dataclass(frozen=True)
class View:
    """A network's outputs for one view of an image.

    Attributes:
        outputs: the network's, B = 1 image or B crops of it, as the network gave it (a flipped
            view is still flipped).
        scale: test scale relative to INPUT_SIZE; 1 for crops.
        flipped: whether the network saw image or crops flipped.
    """

    outputs: Outputs
    scale: float
    flipped: bool


def is_on_host(maps: Any) -> bool:
    """Whether an engine's maps are in common memory: an array, or a tensor of the CPU."""
    return isinstance(maps, np.ndarray) or maps.device.type == "cpu"


def to_host(maps: Any) -> npt.NDArray[np.float32]:
    """An engine's maps as an array; a copy where they are on an accelerator."""
    array: npt.NDArray[np.float32]
    array = maps if isinstance(maps, np.ndarray) else maps.float().cpu().numpy()
    return array


def map_outputs(outputs: Outputs, function: Callable[[Any], Any]) -> Outputs:
    """The outputs with the function applied to each of their maps."""
    return Outputs(*(tuple(map(function, maps)) for maps in outputs))
