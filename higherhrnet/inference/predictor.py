"""Predictor: preprocess → forward → postprocess, the same for both methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol, overload

import numpy as np
import numpy.typing as npt

from ..boxes import Boxes
from ..errors import UserError
from ..evaluation.operating_point import OperatingPoint
from ..io.images import check_size
from ..io.pixels import Image, ImageLike, as_several, to_pixels
from ..outputs import View
from ..poses import Poses
from ..skeleton import Skeleton
from .engines.base import Engine
from .stats import InferenceStats

BoxesLike = Boxes | npt.NDArray[Any] | Sequence[Sequence[float]]


class Scene(NamedTuple):
    """An image to find people in.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: of the people, where they are known; bottom-up predictors need none.
    """

    image: Image
    boxes: Boxes | None = None


@dataclass
class Preprocessed:
    """An image prepared for the network.

    Attributes:
        shape: (H, W) of the image.
    """

    shape: tuple[int, int]

    @property
    def bucket(self) -> object:
        """Images of equal buckets can go through the network together."""
        return None

    @property
    def pixels(self) -> int:
        """Of all that the network gets of the image."""
        return 0


class Maps(Protocol):
    """What the network saw in an image, for drawings of it."""

    def dense_heatmaps(self) -> npt.NDArray[np.float32]:
        """(K, H, W) at any resolution."""

    def dense_tags(self) -> npt.NDArray[np.float32] | None:
        """(K or 1, h, w), if there are tags."""


@dataclass(kw_only=True, repr=False)
class Predictor(ABC):
    """Call it with an image to get the poses of the people in it.

    Attributes:
        engine: images → outputs.
        skeleton: the joints of the poses.
        batch_size: most images that go through the network together; see :func:`pipeline.run`.
        workers: threads that read images, and as many that decode.
        operating_point: which people are shown; None shows all, as benchmarks want.
        method: ``bottom-up`` or ``top-down``.
        finds_people: whether it needs no boxes.
    """

    engine: Engine
    skeleton: Skeleton
    batch_size: int = 1
    workers: int = 2
    operating_point: OperatingPoint | None = None
    method: ClassVar[str]
    finds_people: ClassVar[bool]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.skeleton)} joints of {self.skeleton.name}, "
            f"{type(self.engine).__name__} on {self.engine.device})"
        )

    @overload
    def __call__(
        self, image: list[Any] | tuple[Any, ...], boxes: Any = None, channel_order: str = "RGB"
    ) -> list[Poses]: ...

    @overload
    def __call__(
        self, image: ImageLike, boxes: BoxesLike | None = None, channel_order: str = "RGB"
    ) -> Poses: ...

    def __call__(self, image: Any, boxes: Any = None, channel_order: str = "RGB") -> Any:
        """Poses of the people in an image, or a list of those in each of several.

        Args:
            image: a file, bytes of one, a Pillow image, an (H, W, 3) array of uint8 or of floats
                0..1, a gray one, a torch tensor (3, H, W); or a list, a tuple or a batch (four
                dimensions) of these. See :mod:`higherhrnet.io.pixels`.
            boxes: top-down: where people are, if it is known: (N, 4) left, top, width, height; of
                several images a list of these. Bottom-up predictors find people themselves and
                take none.
            channel_order: ``RGB``, or ``BGR`` for arrays as OpenCV reads them.

        Raises:
            UserError: the file cannot be read, the array is not an image, the boxes are wrong or
                of no use, or there are neither boxes nor a detector.
        """
        several = as_several(image)
        if several is None:
            return self.predict(image, boxes, channel_order=channel_order)[0]
        from .pipeline import predict_many  # which imports this module

        return list(predict_many(self, several, boxes, channel_order=channel_order))

    def predict(
        self,
        image: ImageLike,
        boxes: BoxesLike | None = None,
        stats: InferenceStats | None = None,
        channel_order: str = "RGB",
    ) -> tuple[Poses, Maps]:
        """Poses, and the maps they were found on."""
        stats = stats or InferenceStats()
        pixels = to_pixels(image, channel_order)
        prepared = self.preprocess(Scene(pixels, self.check_boxes(boxes)), stats)
        (views,) = self.forward([prepared], stats)
        return self.postprocess(prepared, views, stats)

    def check_boxes(self, given: BoxesLike | None) -> Boxes | None:
        """Boxes that a caller gave.

        Raises:
            UserError: they are not boxes, or this predictor has no use for them.
        """
        if given is not None and self.finds_people:
            raise UserError(
                f"a {self.method} predictor finds people by itself: boxes serve a top-down one"
            )
        return given if given is None or isinstance(given, Boxes) else Boxes.of(given)

    def preprocess(self, scene: Scene, stats: InferenceStats) -> Preprocessed:
        """Prepare an image for the network; may run in several threads.

        Raises:
            UserError: it is no image, or too large.
        """
        image = to_pixels(scene.image)
        check_size(image.shape[:2], "an image")
        with stats.timed("preprocess"):
            # A flipped or channel-swapped view is an array that torch does not take.
            return self.prepare(scene._replace(image=np.ascontiguousarray(image)))

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The settings that decide predictions, for JSON: all but engine, skeleton and operating
        point."""

    @classmethod
    @abstractmethod
    def from_dict(cls, values: Mapping[str, Any], engine: Engine, skeleton: Skeleton) -> Predictor:
        """Inverse of :meth:`to_dict`."""

    @abstractmethod
    def prepare(self, scene: Scene) -> Preprocessed:
        """The network's inputs for an image."""

    @abstractmethod
    def forward(self, prepared: Sequence[Preprocessed], stats: InferenceStats) -> list[list[View]]:
        """The network's outputs for images of one bucket: the views of each."""

    def postprocess(
        self, prepared: Preprocessed, views: Sequence[View], stats: InferenceStats
    ) -> tuple[Poses, Maps]:
        """Poses of an image from the network's outputs; may run in several threads."""
        poses, maps = self.decode(prepared, views, stats)
        if self.operating_point is not None:  # the margin around an image is not part of it
            poses = self.operating_point.apply(poses.within(prepared.shape), self.skeleton)
        return replace(poses, skeleton=self.skeleton), maps

    @abstractmethod
    def decode(
        self, prepared: Preprocessed, views: Sequence[View], stats: InferenceStats
    ) -> tuple[Poses, Maps]:
        """All people that the outputs show, and the aggregated maps."""

    def overlay(
        self, maps: Maps, image: tuple[int, int]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Heatmaps (K, h, w), and tags (K or 1, h', w') if there are any, that cover exactly an
        image (H, W)."""
        return maps.dense_heatmaps(), maps.dense_tags()
