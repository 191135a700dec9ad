"""What training and validation ask of a data set; write your own with these five members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..skeleton import Skeleton
from ..structures import Sample


class PoseDataset(Protocol):
    """Annotated images by number; what data sets offer to training and validation."""

    @property
    def skeleton(self) -> Skeleton:
        """The joints of its people."""

    @property
    def annotations(self) -> dict[str, Any]:
        """The whole set in COCO format (images, annotations, categories)."""

    def __len__(self) -> int: ...

    def boxes(self, index: int) -> npt.NDArray[np.float64]:
        """(P, 4) x, y, w, h of the image's labeled people, without reading its pixels."""

    def sample(self, index: int) -> Sample:
        """The whole image, untransformed."""


class ConcatDataset:
    """Several data sets of one skeleton as one; its annotations cannot be evaluated.

    Args:
        parts: the sets; images are numbered through in their order.
    """

    def __init__(self, parts: Sequence[PoseDataset]) -> None:
        self.parts = parts
        self.skeleton = parts[0].skeleton
        for part in parts:
            if part.skeleton != self.skeleton:
                raise UserError(
                    f"sets of skeletons '{self.skeleton.name}' and '{part.skeleton.name}' "
                    "cannot be concatenated"
                )

    @property
    def annotations(self) -> dict[str, Any]:
        raise UserError("concatenated sets have no common annotations to evaluate against")

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def boxes(self, index: int) -> npt.NDArray[np.float64]:
        """(P, 4) of the labeled people of whichever set's image has the number."""
        part, number = self._at(index)
        return part.boxes(number)

    def sample(self, index: int) -> Sample:
        """The whole image of whichever set has the number."""
        part, number = self._at(index)
        return part.sample(number)

    def _at(self, index: int) -> tuple[PoseDataset, int]:
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError(index)
