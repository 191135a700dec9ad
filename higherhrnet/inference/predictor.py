"""Predictor: what both modes of finding people in a picture have in common."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..boxes import Boxes
from ..datasets.pictures import read_picture
from ..errors import UserError
from ..evaluation.operating_point import OperatingPoint
from ..fields import View
from ..poses import Poses
from ..skeleton import Skeleton
from .network import Network, ready

Image = npt.NDArray[np.uint8]
BoxesLike = Boxes | npt.NDArray[Any] | Sequence[Sequence[float]]


class Scene(NamedTuple):
    """A picture to find people in: what :func:`pipeline.run` loads.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: of the people, where they are known; the bottom-up mode needs none.
    """

    image: Image
    boxes: Boxes | None = None


@dataclass
class Prepared:
    """A picture fitted to the network.

    Attributes:
        shape: (H, W) of the picture.
    """

    shape: tuple[int, int]

    @property
    def bucket(self) -> object:
        """Pictures of equal buckets may go through the network together."""
        return None


class Drawable(Protocol):
    """What the network saw in a picture, for pictures of it."""

    def dense_heat(self) -> npt.NDArray[np.float32]:
        """(K, H, W) heat, at any resolution, of all that the network was shown."""

    def dense_tags(self) -> npt.NDArray[np.float32] | None:
        """(K or 1, h, w) tags, if there are any."""


@dataclass(kw_only=True)
class Predictor(ABC):
    """Call it with a picture. One class for each mode: bottom-up and top-down.

    Attributes:
        model: the network, in evaluation mode.
        skeleton: the joints of the poses.
        device: where it runs.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``; see :func:`network.ready`.
        compiled, graphs: see :func:`network.ready`.
        batch: most pictures that go through the network together; see :func:`pipeline.run`.
        workers: threads that read many pictures, and as many that decode.
        point: which people are shown; None shows all, the way benchmarks want it.
        waits: whether a GPU is waited for at the end of every stage, so that the stages' times are
            their own; slower.
        seconds: time spent so far by stage.
        dropped: what limits have cost so far: ``candidates`` of a joint beyond the most that are
            kept, ``people`` beyond the most that are wanted, ``alike``: people too like others.
    """

    model: nn.Module
    skeleton: Skeleton
    device: torch.device
    precision: str = "auto"
    compiled: bool = False
    graphs: bool = False
    batch: int = 1
    workers: int = 2
    point: OperatingPoint | None = None
    waits: bool = False
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    dropped: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("candidates", "people", "alike"), 0)
    )
    _counting: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def network(self) -> Network:
        """The model made ready; made anew by :meth:`load`."""
        return ready(self.model, self.device, self.precision, self.compiled, self.graphs)

    def load(self, state: Any) -> None:
        """Take other weights."""
        self.model.load_state_dict(state)
        self.__dict__.pop("network", None)

    def __call__(self, image: Image | str | Path, boxes: BoxesLike | None = None) -> Poses:
        """People in a picture: (H, W, 3) uint8 RGB, or a file.

        Args:
            image: the picture.
            boxes: top-down: where people are, if it is known: (N, 4) left, top, width, height.
                The bottom-up mode finds people by itself and takes none.

        Raises:
            UserError: the file cannot be read, the array is not such a picture, the boxes are no
                boxes or of no use, or there are neither boxes nor a detector that would find them.
        """
        return self.predict(image, boxes)[0]

    def predict(
        self, image: Image | str | Path, boxes: BoxesLike | None = None
    ) -> tuple[Poses, Drawable]:
        """People, and the maps they were found on."""
        picture = read_picture(image) if isinstance(image, str | Path) else image
        prepared = self.prepare(Scene(picture, self.boxes_of(boxes)))
        (views,) = self.answer([prepared])
        return self.finish(prepared, views)

    def boxes_of(self, given: BoxesLike | None) -> Boxes | None:
        """What a caller gave, as boxes.

        Raises:
            UserError: they are no boxes, or this mode has no use for them.
        """
        return given if given is None or isinstance(given, Boxes) else Boxes.of(given)

    def prepare(self, scene: Scene) -> Prepared:
        """Fit a picture to the network; may run in several threads.

        Raises:
            UserError: the array is not a picture.
        """
        picture = scene.image
        if not _is_picture(picture):
            raise UserError(
                "an image must be an (H, W, 3) uint8 RGB array with at least one pixel, not "
                f"{type(picture).__name__} {getattr(picture, 'shape', '')} "
                f"{getattr(picture, 'dtype', '')}"
            )
        with self.timed("warp"):
            # A mirrored or channel-swapped view is an array that torch does not take.
            return self.fitted(scene._replace(image=np.ascontiguousarray(picture)))

    @abstractmethod
    def fitted(self, scene: Scene) -> Prepared:
        """What this mode shows the network of a picture."""

    @abstractmethod
    def answer(self, pictures: Sequence[Prepared]) -> list[list[View]]:
        """The network's answers to pictures of one bucket; the views of each."""

    def finish(self, prepared: Prepared, views: Sequence[View]) -> tuple[Poses, Drawable]:
        """People of a picture from the network's answers; may run in several threads."""
        poses, maps = self.decoded(prepared, views)
        if self.point is not None:  # what the network sees in the margin around a picture is nobody
            poses = self.point.apply(poses.within(prepared.shape), self.skeleton)
        return poses, maps

    @abstractmethod
    def decoded(self, prepared: Prepared, views: Sequence[View]) -> tuple[Poses, Drawable]:
        """Everybody whom the answers show, and the merged maps."""

    def seen(
        self, maps: Drawable, picture: tuple[int, int]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Heat (K, h, w) and tags (K or 1, h', w'), if there are any, to be laid over a picture
        (H, W): they show as much of the world as it does."""
        return maps.dense_heat(), maps.dense_tags()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage. A GPU works on after it was told to: its
        time is that of the stage that first needs the answer, unless ``waits`` is set."""
        start = time.perf_counter()
        yield
        if self.waits and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        with self._counting:
            self.seconds[stage] += time.perf_counter() - start

    def count(self, **dropped: int) -> None:
        """Add what limits have cost."""
        with self._counting:
            for what, number in dropped.items():
                self.dropped[what] += number


def _is_picture(image: Any) -> bool:
    return (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and image.size > 0
    )
