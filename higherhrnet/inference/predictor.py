"""Predictor: a network, a codec and a protocol that together turn a picture into people."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..codecs.bottom_up import BottomUpCodec
from ..codecs.maps import Maps
from ..datasets.pictures import read_picture
from ..evaluation.operating_point import OperatingPoint
from ..fields import View
from ..poses import Poses
from ..skeleton import Skeleton
from .augmented import Protocol, look
from .network import Network, ready

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Prepared:
    """A picture fitted to the network.

    Attributes:
        shape: (H, W) of the picture.
        inputs: (views, 3, h, w) uint8 and scale, one entry a scale, largest first.
    """

    shape: tuple[int, int]
    inputs: list[tuple[torch.Tensor, float]]

    @property
    def bucket(self) -> tuple[tuple[int, ...], ...]:
        """Pictures of equal buckets may go through the network together."""
        return tuple(tuple(images.shape) for images, _ in self.inputs)


@dataclass
class Predictor:
    """Call it with a picture.

    Attributes:
        model: the network, in evaluation mode.
        codec: turns its answers into people.
        protocol: how it looks at a picture.
        device: where it runs.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``; see :func:`network.ready`.
        compiled, graphs: see :func:`network.ready`.
        batch: most pictures that go through the network together; see :func:`pipeline.run`.
        workers: threads that read many pictures, and as many that decode.
        point: which people are shown; None shows all, the way benchmarks want it.
        seconds: time spent so far in ``warp``, ``network``, ``merge`` and ``decode``.
        dropped: what limits have cost so far: ``candidates`` of a joint beyond the most that are
            kept, ``people`` beyond the most that are wanted.
    """

    model: nn.Module
    codec: BottomUpCodec
    protocol: Protocol
    device: torch.device
    precision: str = "auto"
    compiled: bool = False
    graphs: bool = False
    batch: int = 1
    workers: int = 2
    point: OperatingPoint | None = None
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("warp", "network", "merge", "decode"), 0.0)
    )
    dropped: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("candidates", "people"), 0)
    )
    _counting: threading.Lock = field(default_factory=threading.Lock)

    @property
    def skeleton(self) -> Skeleton:
        """The joints of the poses."""
        return self.codec.skeleton

    @cached_property
    def network(self) -> Network:
        """The model made ready; made anew by :meth:`load`."""
        return ready(self.model, self.device, self.precision, self.compiled, self.graphs)

    def load(self, state: Any) -> None:
        """Take other weights."""
        self.model.load_state_dict(state)
        self.__dict__.pop("network", None)

    def __call__(self, image: Image | str | Path) -> Poses:
        """People in a picture: (H, W, 3) uint8 RGB, or a file.

        Raises:
            ValueError: the file cannot be read, or the array is not such a picture.
        """
        return self.predict(image)[0]

    def predict(self, image: Image | str | Path) -> tuple[Poses, Maps]:
        """People, and the merged maps they were found on."""
        picture = (
            read_picture(Path(image), upright=True) if isinstance(image, str | Path) else image
        )
        prepared = self.prepare(picture)
        (views,) = self.answer([prepared])
        return self.finish(prepared, views)

    def prepare(self, picture: Image) -> Prepared:
        """Fit a picture to the network.

        Raises:
            ValueError: the array is not a picture.
        """
        if not _is_picture(picture):
            raise ValueError(
                "an image must be an (H, W, 3) uint8 RGB array with at least one pixel, not "
                f"{type(picture).__name__} {getattr(picture, 'shape', '')} "
                f"{getattr(picture, 'dtype', '')}"
            )
        with self._timed("warp"):
            shape = (picture.shape[0], picture.shape[1])
            return Prepared(shape, self.protocol.inputs(picture))

    @torch.inference_mode()
    def answer(self, pictures: Sequence[Prepared]) -> list[list[View]]:
        """The network's answers to pictures of one bucket; the views of each."""
        answers: list[list[View]] = [[] for _ in pictures]
        with self._timed("network"):
            for number, (images, scale) in enumerate(pictures[0].inputs):
                batch = torch.cat([picture.inputs[number][0] for picture in pictures])
                for answer, views in zip(
                    answers, look(self.network, batch, scale, len(images)), strict=True
                ):
                    answer += views
        return answers

    @torch.inference_mode()
    def finish(self, prepared: Prepared, views: Sequence[View]) -> tuple[Poses, Maps]:
        """People of a picture from the network's answers; may run in several threads."""
        with self._timed("merge"):
            maps = self.codec.merge(views, self.protocol.projected_shape(prepared.shape))
        with self._timed("decode"):
            to_picture = self.protocol.to_picture(prepared.shape, maps.shape)
            decoded = self.codec.decode(maps, to_picture)
        with self._counting:
            self.dropped["candidates"] += decoded.candidates_dropped
            self.dropped["people"] += decoded.people_dropped
        if self.point is None:
            return decoded.poses, maps
        return self.point.apply(decoded.poses, self.skeleton), maps

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        with self._counting:
            self.seconds[stage] += time.perf_counter() - start


def _is_picture(image: Any) -> bool:
    return (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and image.size > 0
    )
