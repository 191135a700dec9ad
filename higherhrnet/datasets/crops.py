"""Training views of whole images, for label maps and boxes: scaled, cropped, mirrored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from .. import geometry
from ..errors import UserError
from ..geometry import Affine
from ..io.images import MAX_INPUT_PIXELS
from .transforms import draw_color_factors

MEAN_COLOR = (124, 116, 104)
"""RGB of what surrounds an image: 0 once it is normalized, as published."""


@dataclass(frozen=True)
class Crop:
    """One way of looking at an image.

    Attributes:
        affine: image → view, in coordinates whose (0, 0) is the upper left *edge* of the upper left
            pixel, as those of COCO's boxes.
        shape: (H, W) of the view.
        color: factors of brightness, contrast and saturation.
    """

    affine: Affine
    shape: tuple[int, int]
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def of_centers(self) -> Affine:
        """The affine between centers of pixels, as :mod:`geometry` has it."""
        return geometry.translation(-0.5, -0.5) @ self.affine @ geometry.translation(0.5, 0.5)

    def warp(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The view of an image (H, W, 3)."""
        return geometry.warp(image, self.of_centers, self.shape, border=MEAN_COLOR)

    def warp_labels(self, labels: npt.NDArray[np.uint8], ignored: int) -> npt.NDArray[np.uint8]:
        """The view of a label map (H, W); ``ignored`` where there is no image."""
        return geometry.warp(labels, self.of_centers, self.shape, nearest=True, border=ignored)


@dataclass(frozen=True)
class RandomCrop:
    """Chooses views.

    Attributes:
        shape: (H, W) of the views; None shows whole images.
        scale: lowest and highest random scale.
        short_side: images are resized to it before they are scaled at random; 0 leaves them.
        max_side: but no side longer than it; 0 for no limit.
        flip: probability of a horizontal flip.
        color: largest relative change of brightness, contrast and saturation.
        augment: False shows the same view every time: the middle of the image, at scale 1.
    """

    shape: tuple[int, int] | None
    scale: tuple[float, float] = (1.0, 1.0)
    short_side: int = 0
    max_side: int = 0
    flip: float = 0.5
    color: float = 0.0
    augment: bool = True

    def __call__(self, size: tuple[int, int], rng: np.random.Generator) -> Crop:
        """A view of an image of (H, W) pixels; all chance comes from ``rng``."""
        factor = fit_factor(size, self.short_side, self.max_side)
        factor *= float(rng.uniform(*self.scale)) if self.augment else 1.0
        scaled = tuple(max(round(side * factor), 1) for side in size)
        affine = geometry.scaling(scaled[1] / size[1], scaled[0] / size[0])
        shape = self.shape or (scaled[0], scaled[1])
        spare = np.array([shape[1] - scaled[1], shape[0] - scaled[0]])
        share = rng.uniform(size=2) if self.augment else np.array([0.5, 0.5])
        dx, dy = np.rint(spare * share).tolist()
        affine = geometry.translation(dx, dy) @ affine
        if not self.augment:
            return Crop(affine, shape)
        if rng.random() < self.flip:
            # horizontal_flip is between centers of pixels; edges lie half a pixel further.
            affine = geometry.translation(1, 0) @ geometry.horizontal_flip(shape[1]) @ affine
        return Crop(affine, shape, draw_color_factors(self.color, rng))


def resize(image: npt.NDArray[np.uint8], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The image (H, W, 3) brought to a shape (H, W), bilinearly, edges aligned.

    Raises:
        UserError: that is more than goes through a network.
    """
    if shape[0] * shape[1] > MAX_INPUT_PIXELS:
        raise UserError(
            f"an image of {image.shape[1]}x{image.shape[0]} pixels would become an input of "
            f"{shape[1]}x{shape[0]}, which is too much; cut it, or make inputs smaller (TEST, "
            "DATASET.INPUT_SIZE)"
        )
    resized = cv2.resize(image, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def pad_to_multiple(image: npt.NDArray[np.uint8], multiple: int) -> npt.NDArray[np.uint8]:
    """The image (H, W, 3) with the mean color on its right and below it, up to sides that are
    multiples."""
    height, width = image.shape[:2]
    return pad_to(image, (-(-height // multiple) * multiple, -(-width // multiple) * multiple))


def pad_to(image: npt.NDArray[np.uint8], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The image (h, w, 3) with the mean color on its right and below it, up to a shape (H, W)."""
    height, width = image.shape[:2]
    canvas = np.empty((*shape, 3), np.uint8)
    canvas[:] = MEAN_COLOR
    canvas[:height, :width] = image
    return canvas


def fit_factor(size: tuple[int, int], short_side: int, max_side: int = 0) -> float:
    """What brings the short side of (H, W) to ``short_side``, if no side gets longer than
    ``max_side``; 0 for either sets no such limit."""
    factor = short_side / min(size) if short_side else 1.0
    return min(factor, max_side / max(size)) if max_side else factor


Item = TypeVar("Item")


@dataclass(frozen=True)
class CropViews(Dataset[Item], ABC):
    """Training views of several sets, one after another, indexed by (epoch, image).

    Attributes:
        sets: with the same classes; each has ``len()`` and ``sample(index)`` with an ``image``.
        crop: chooses the views.
        seed: of all random numbers.
    """

    sets: Sequence[Any]
    crop: RandomCrop
    seed: int

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    def __getitem__(self, key: tuple[int, ...]) -> Item:
        rng = np.random.default_rng((self.seed, *key))
        index = key[1]
        for dataset in self.sets:
            if index < len(dataset):
                break
            index -= len(dataset)
        sample = dataset.sample(index)
        return self.make_item(sample, self.crop(sample.image.shape[:2], rng))

    @abstractmethod
    def make_item(self, sample: Any, view: Crop) -> Item:
        """What a view shows of a sample."""
