"""The bottom-up predictor: the whole image at once, at every test scale, plain and flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from ... import geometry
from ...boxes import Boxes
from ...errors import UserError
from ...inference.engines.base import Engine
from ...inference.predictor import Maps, Predictor, Preprocessed, Scene
from ...inference.stats import InferenceStats
from ...io.images import MAX_INPUT_PIXELS
from ...outputs import View, map_outputs
from ...poses import Poses
from ...skeleton import Skeleton
from .codec import BottomUpCodec
from .extra_heads import boxes_to_image, mask_probability, mask_support, mask_to_image
from .maps import AggregatedMaps
from .zoom import Look, Zoomed, choose_people, combine, crop_of

Images = npt.NDArray[np.uint8]
_CROPS_PER_BATCH = 16


@dataclass(frozen=True)
class TestTimeAugmentation:
    """The views of an image in testing; the defaults are the published ones.

    Attributes:
        input_size: short side of the input at scale 1, pixels; a multiple of 64.
        scales: test scales.
        flip: also look at the flipped image.
        project: resize all maps to the scale-1 input size before peaks are found.
        shape: (H, W) of every input, into which the whole image is fitted, for networks that take
            but one size; None lets the image's aspect ratio decide, as published.
    """

    input_size: int
    scales: tuple[float, ...] = (1.0,)
    flip: bool = True
    project: bool = True
    shape: tuple[int, int] | None = None

    def projected_shape(self, image: tuple[int, int]) -> tuple[int, int] | None:
        """(H, W) of the maps for an image (H, W), or None to leave them as they come."""
        if not self.project:
            return None
        return self._fit(image, 1.0)[0]

    def to_image(self, image: tuple[int, int], maps: tuple[int, int]) -> geometry.Affine:
        """Pixels of the aggregated maps (H, W) → pixels of the image (H, W)."""
        view, _ = self._fit(image, min(self.scales))
        fit = geometry.fit_inside if self.shape else geometry.fit_map
        return geometry.invert(fit(image, view, maps))

    def to_input(self, image: tuple[int, int]) -> geometry.Affine:
        """Pixels of an image (H, W) → pixels of the input at the largest scale."""
        return self._fit(image, max(self.scales))[1]

    def _fit(self, image: tuple[int, int], scale: float) -> tuple[tuple[int, int], geometry.Affine]:
        """(H, W) of the input at a scale, and image → input."""
        if self.shape is not None:
            return self.shape, geometry.fit_inside(image, self.shape, self.shape)
        return geometry.fit_view(image, self.input_size, scale, min(self.scales))

    def inputs(self, image: Images) -> list[tuple[Images, float]]:
        """(1 or 2, h, w, 3) uint8 network inputs with their scales, largest first.

        With ``flip`` the second of each pair is flipped.

        Raises:
            UserError: the scales give a size that the network cannot halve five times, or the image
                is so long and narrow that its input would not fit into any memory.
        """
        views = []
        for scale in sorted(self.scales, reverse=True):
            shape, affine = self._fit((image.shape[0], image.shape[1]), scale)
            if shape[0] % 32 or shape[1] % 32:
                raise UserError(
                    f"TEST.SCALE_FACTOR {list(self.scales)} with INPUT_SIZE {self.input_size} "
                    f"makes an input of {shape[1]}x{shape[0]} pixels; both must be multiples of 32"
                )
            if shape[0] * shape[1] > MAX_INPUT_PIXELS:
                height, width = image.shape[:2]
                raise UserError(
                    f"an image of {width}x{height} pixels would become an input of "
                    f"{shape[1]}x{shape[0]}, which is too much; cut it, or set "
                    "DATASET.INPUT_SIZE or TEST.SCALE_FACTOR lower"
                )
            view = geometry.warp(image, affine, shape)
            pair = [view, cv2.flip(view, 1)] if self.flip else [view]
            views.append((np.stack(pair).astype(np.uint8, copy=False), scale))
        return views


@dataclass
class PreprocessedImage(Preprocessed):
    """A whole image.

    Attributes:
        inputs: (views, h, w, 3) uint8 and scale, one entry a scale, largest first.
        image: what people are cut out of, if they are to be looked at again.
        zoomed: what was seen of them then.
    """

    inputs: list[tuple[Images, float]]
    image: Images | None = None
    zoomed: Zoomed | None = None

    @property
    def bucket(self) -> object:
        """Images whose inputs have the same sizes."""
        return tuple(tuple(images.shape) for images, _ in self.inputs)

    @property
    def pixels(self) -> int:
        """See :class:`Preprocessed`."""
        return sum(images.size // 3 for images, _ in self.inputs)


@dataclass(kw_only=True, repr=False)
class BottomUpPredictor(Predictor):
    """Finds all people of an image at once.

    Attributes:
        codec: turns the network's outputs into people.
        augmentation: the views that the network gets.
        mask_support: people are dropped whose joints lie on the network's mask with a smaller mean
            probability; 0 drops nobody.
        zoom_sizes: sides of the inputs in which each person is looked at again, alone; see
            :mod:`.zoom`.
    """

    codec: BottomUpCodec
    augmentation: TestTimeAugmentation
    mask_support: float = 0.0
    zoom_sizes: tuple[int, ...] = ()
    method: ClassVar[str] = "bottom-up"
    finds_people: ClassVar[bool] = True

    def to_dict(self) -> dict[str, Any]:
        """See :class:`Predictor`."""
        return {
            "codec": self.codec.to_dict(),
            "augmentation": vars(self.augmentation),
            "mask_support": self.mask_support,
            "zoom_sizes": list(self.zoom_sizes),
        }

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], engine: Engine, skeleton: Skeleton
    ) -> BottomUpPredictor:
        """See :class:`Predictor`."""
        augmentation = dict(values["augmentation"])
        shape = augmentation.pop("shape")
        return cls(
            engine=engine,
            skeleton=skeleton,
            codec=BottomUpCodec.from_dict(values["codec"], skeleton),
            augmentation=TestTimeAugmentation(
                **augmentation | {"scales": tuple(augmentation["scales"])},
                shape=None if shape is None else (shape[0], shape[1]),
            ),
            mask_support=float(values.get("mask_support", 0.0)),
            zoom_sizes=tuple(values.get("zoom_sizes", ())),
        )

    def prepare(self, scene: Scene) -> PreprocessedImage:
        """The image at every test scale."""
        shape = (scene.image.shape[0], scene.image.shape[1])
        image = scene.image if self.zoom_sizes else None
        return PreprocessedImage(shape, self.augmentation.inputs(scene.image), image)

    def forward(self, prepared: Sequence[Preprocessed], stats: InferenceStats) -> list[list[View]]:
        """See :class:`Predictor`; one batch for each scale, then one for the people of each image
        at each size of ``zoom_sizes``."""
        images = [item for item in prepared if isinstance(item, PreprocessedImage)]
        views: list[list[View]] = [[] for _ in images]
        with stats.timed("forward"):
            for number, (first, scale) in enumerate(images[0].inputs):
                outputs = self.engine(np.concatenate([image.inputs[number][0] for image in images]))
                for row in range(len(images) * len(first)):
                    image, view = divmod(row, len(first))
                    own = map_outputs(outputs, itemgetter(slice(row, row + 1)))
                    views[image].append(View(own, scale, flipped=view == 1))
        for item, own_views in zip(images, views, strict=True):
            if item.image is not None:
                item.zoomed = self._zoom(item.image, item, own_views, stats)
                item.image = None
        return views

    def decode(
        self, prepared: Preprocessed, views: Sequence[View], stats: InferenceStats
    ) -> tuple[Poses, AggregatedMaps]:
        """See :class:`Predictor`."""
        zoomed = prepared.zoomed if isinstance(prepared, PreprocessedImage) else None
        if zoomed is None:
            return self._decode_image(prepared.shape, views, stats)
        found: list[list[Poses]] = []
        for look in zoomed.looks:
            found.append([])
            for crop, seen in zip(look.crops, look.views, strict=True):
                with stats.timed("aggregate"):
                    maps = self.codec.aggregate(
                        seen, look.shape if self.augmentation.project else None
                    )
                with stats.timed("decode"):
                    to_image = geometry.invert(crop.to_canvas(maps.shape))
                    found[-1].append(self.codec.decode(maps, to_image).poses)
        poses = combine(zoomed.poses, zoomed.rows, found, self.skeleton.sigmas)
        return poses, zoomed.maps

    def _decode_image(
        self, shape: tuple[int, int], views: Sequence[View], stats: InferenceStats
    ) -> tuple[Poses, AggregatedMaps]:
        """People of an image (H, W), from the views of all of it."""
        augmentation = self.augmentation
        with stats.timed("aggregate"):
            maps = self.codec.aggregate(views, augmentation.projected_shape(shape))
        with stats.timed("decode"):
            decoded = self.codec.decode(maps, augmentation.to_image(shape, maps.shape))
        stats.count(candidates=decoded.candidates_dropped, people=decoded.people_dropped)
        poses = decoded.poses
        if self.mask_support and len(poses):
            support = mask_support(poses, mask_probability(views), augmentation.to_input(shape))
            poses = poses.select(support >= self.mask_support)
        return poses, maps

    def _zoom(
        self, image: Images, prepared: Preprocessed, views: Sequence[View], stats: InferenceStats
    ) -> Zoomed:
        """The people of an image, and what the network sees of each of them alone. They are decoded
        in the network's thread, for its next inputs depend on them."""
        poses, maps = self._decode_image(prepared.shape, views, stats)
        rows, looks = choose_people(poses), []
        shapes = [self.augmentation.shape or (size, size) for size in self.zoom_sizes]
        for shape in dict.fromkeys(shapes):
            crops = [crop_of(poses, row, shape) for row in rows.tolist()]
            with stats.timed("preprocess"):
                inputs = np.zeros((len(crops), *shape, 3), np.uint8)
                for canvas, crop in zip(inputs, crops, strict=True):
                    canvas[:] = geometry.warp(image, crop.to_canvas(shape), shape)
            with stats.timed("forward"):
                looks.append(Look(shape, crops, self._look(inputs) if crops else []))
        return Zoomed(poses, maps, rows, looks)

    def _look(self, crops: Images) -> list[list[View]]:
        """Views of each of M crops (M, h, w, 3): as it is, and flipped."""
        inputs = crops
        if self.augmentation.flip:
            inputs = np.concatenate([crops, np.ascontiguousarray(crops[:, :, ::-1])])
        count = len(inputs)
        if self.engine.fixed_batch and count % _CROPS_PER_BATCH:
            blank = np.zeros((-count % _CROPS_PER_BATCH, *inputs.shape[1:]), np.uint8)
            inputs = np.concatenate([inputs, blank])
        parts = [
            self.engine(inputs[first : first + _CROPS_PER_BATCH])
            for first in range(0, len(inputs), _CROPS_PER_BATCH)
        ]
        rows = [
            map_outputs(part, itemgetter(slice(row, row + 1)))
            for part in parts
            for row in range(len(part.heatmaps[0]))
        ]
        views = [View(own, 1.0, flipped=n >= len(crops)) for n, own in enumerate(rows[:count])]
        return [views[number :: len(crops)] for number in range(len(crops))]

    def find_silhouettes(
        self, image: Images
    ) -> tuple[npt.NDArray[np.float32] | None, Boxes | None]:
        """What the heads of ``MODEL.HEADS`` say of an image (H, W, 3), at the largest scale.

        Returns:
            (H, W) probability that a pixel is a person's, and boxes of people, best first; None of
            a head that the network lacks.
        """
        size = image.shape[0], image.shape[1]
        inputs, scale = self.augmentation.inputs(image)[0]
        outputs = self.engine(inputs[:1])
        to_input = self.augmentation.to_input(size)
        mask = boxes = None
        if outputs.masks:
            small = mask_probability([View(outputs, scale, flipped=False)])
            mask = mask_to_image(small, to_input, size)
        if outputs.boxes:
            boxes = boxes_to_image(outputs, inputs.shape[1:3], to_input, size)
        return mask, boxes

    def overlay(
        self, maps: Maps, image: tuple[int, int]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """See :class:`Predictor`; without the margin that the input had around the image."""
        heatmaps, tags = maps.dense_heatmaps(), maps.dense_tags()
        return self._crop(heatmaps, image), None if tags is None else self._crop(tags, image)

    def _crop(
        self, maps: npt.NDArray[np.float32], image: tuple[int, int]
    ) -> npt.NDArray[np.float32]:
        to_image = self.augmentation.to_image(image, (maps.shape[1], maps.shape[2]))
        side = float(to_image[0, 0])  # image pixels in a heatmap pixel
        width, height = (max(1, round(length / side)) for length in image[::-1])
        affine = (geometry.scaling(1 / side) @ to_image)[:2]
        return np.stack(
            [
                cv2.warpAffine(values, affine, (width, height), borderMode=cv2.BORDER_REPLICATE)
                for values in maps
            ]
        )
