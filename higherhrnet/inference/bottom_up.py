"""The bottom-up mode: the whole picture at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from .. import geometry
from ..codecs.bottom_up import BottomUpCodec
from ..codecs.maps import Maps
from ..errors import UserError
from ..fields import View
from ..poses import Poses
from .augmented import Protocol, look
from .predictor import BoxesLike, Drawable, Predictor, Prepared, Scene


@dataclass
class Whole(Prepared):
    """A whole picture.

    Attributes:
        inputs: (views, 3, h, w) uint8 and scale, one entry a scale, largest first.
    """

    inputs: list[tuple[torch.Tensor, float]]

    @property
    def bucket(self) -> object:
        """Pictures whose inputs have the same sizes."""
        return tuple(tuple(images.shape) for images, _ in self.inputs)


@dataclass(kw_only=True)
class BottomUp(Predictor):
    """Finds all people of a picture at once.

    Attributes:
        codec: turns the network's answers into people.
        protocol: how it looks at a picture.
    """

    codec: BottomUpCodec
    protocol: Protocol

    def boxes_of(self, given: BoxesLike | None) -> None:
        """See :class:`Predictor`."""
        if given is not None:
            raise UserError(
                "a bottom-up predictor finds people by itself: boxes serve a top-down one"
            )

    def fitted(self, scene: Scene) -> Whole:
        """The picture at every test scale."""
        shape = (scene.image.shape[0], scene.image.shape[1])
        return Whole(shape, self.protocol.inputs(scene.image))

    @torch.inference_mode()
    def answer(self, pictures: Sequence[Prepared]) -> list[list[View]]:
        """See :class:`Predictor`."""
        wholes = [picture for picture in pictures if isinstance(picture, Whole)]
        answers: list[list[View]] = [[] for _ in wholes]
        with self.timed("network"):
            for number, (images, scale) in enumerate(wholes[0].inputs):
                batch = torch.cat([whole.inputs[number][0] for whole in wholes])
                for answer, views in zip(
                    answers, look(self.network, batch, scale, len(images)), strict=True
                ):
                    answer += views
        return answers

    @torch.inference_mode()
    def decoded(self, prepared: Prepared, views: Sequence[View]) -> tuple[Poses, Maps]:
        """See :class:`Predictor`."""
        with self.timed("merge"):
            maps = self.codec.merge(views, self.protocol.projected_shape(prepared.shape))
        with self.timed("decode"):
            to_picture = self.protocol.to_picture(prepared.shape, maps.shape)
            decoded = self.codec.decode(maps, to_picture)
        self.count(candidates=decoded.candidates_dropped, people=decoded.people_dropped)
        return decoded.poses, maps

    def seen(
        self, maps: Drawable, picture: tuple[int, int]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """See :class:`Predictor`; without what the protocol has put around the picture."""
        heat, tags = maps.dense_heat(), maps.dense_tags()
        return self._bare(heat, picture), None if tags is None else self._bare(tags, picture)

    def _bare(
        self, maps: npt.NDArray[np.float32], picture: tuple[int, int]
    ) -> npt.NDArray[np.float32]:
        to_picture = self.protocol.to_picture(picture, (maps.shape[1], maps.shape[2]))
        cell = float(to_picture[0, 0])  # pixels
        width, height = (max(1, round(side / cell)) for side in picture[::-1])
        affine = (geometry.scaling(1 / cell) @ to_picture)[:2]
        return np.stack(
            [
                cv2.warpAffine(values, affine, (width, height), borderMode=cv2.BORDER_REPLICATE)
                for values in maps
            ]
        )
