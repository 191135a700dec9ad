"""Predictor: a network, a codec and a protocol that together turn a picture into people."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..codecs.bottom_up import BottomUpCodec
from ..codecs.maps import Maps
from ..datasets.pictures import read_picture
from ..fields import Outputs
from ..models.pixels import normalise
from ..poses import Poses
from ..skeleton import Skeleton
from .augmented import Protocol, look


@dataclass
class Predictor:
    """Call it with a picture.

    Attributes:
        model: the network, in evaluation mode.
        codec: turns its answers into people.
        protocol: how it looks at a picture.
        device: where it runs.
        precision: ``fp32``, ``bf16`` or ``fp16`` autocast.
        seconds: time spent so far in ``warp``, ``network``, ``merge`` and ``decode``.
        dropped: what limits have cost so far: ``candidates`` of a joint beyond the most that are
            kept, ``people`` beyond the most that are wanted.
    """

    model: nn.Module
    codec: BottomUpCodec
    protocol: Protocol
    device: torch.device
    precision: str = "fp32"
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("warp", "network", "merge", "decode"), 0.0)
    )
    dropped: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("candidates", "people"), 0)
    )

    @property
    def skeleton(self) -> Skeleton:
        """The joints of the poses."""
        return self.codec.skeleton

    def __call__(self, image: npt.NDArray[np.uint8] | str | Path) -> Poses:
        """People in a picture: (H, W, 3) uint8 RGB, or a file.

        Raises:
            ValueError: the file cannot be read, or the array is not such a picture.
        """
        return self.predict(image)[0]

    @torch.inference_mode()
    def predict(self, image: npt.NDArray[np.uint8] | str | Path) -> tuple[Poses, Maps]:
        """People, and the merged maps they were found on."""
        picture = (
            read_picture(Path(image), upright=True) if isinstance(image, str | Path) else image
        )
        if not _is_picture(picture):
            raise ValueError(
                "an image must be an (H, W, 3) uint8 RGB array with at least one pixel, not "
                f"{type(picture).__name__} {getattr(picture, 'shape', '')} "
                f"{getattr(picture, 'dtype', '')}"
            )
        shape = (picture.shape[0], picture.shape[1])
        times = [time.perf_counter()]
        inputs = self.protocol.inputs(picture)
        times.append(time.perf_counter())
        views = [view for images, scale in inputs for view in look(self._network, images, scale)]
        times.append(time.perf_counter())
        maps = self.codec.merge(views, self.protocol.projected_shape(shape))
        times.append(time.perf_counter())
        decoded = self.codec.decode(maps, self.protocol.to_picture(shape, maps.shape))
        times.append(time.perf_counter())
        for stage, seconds in zip(self.seconds, np.diff(times), strict=True):
            self.seconds[stage] += float(seconds)
        self.dropped["candidates"] += decoded.candidates_dropped
        self.dropped["people"] += decoded.people_dropped
        return decoded.poses, maps

    def _network(self, images: torch.Tensor) -> Outputs:
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)
        images = images.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            outputs: Outputs = self.model(normalise(images))
        return Outputs(
            tuple(heatmap.float() for heatmap in outputs.heatmaps),
            tuple(tag.float() for tag in outputs.tags),
        )


def _is_picture(image: Any) -> bool:
    return (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and image.size > 0
    )
