"""Single people of a picture set: what the top-down mode trains on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..fields import Sample
from ..skeleton import Skeleton
from .keypoints import Pictures


class Persons:
    """Every labelled person of a set as a sample of its own, in the order of the pictures.

    ``picture`` (N,) says which picture each is in. People whose box has no extent are left out,
    as published training does.

    Args:
        pictures: the set.

    Raises:
        UserError: there is nobody.
    """

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        pairs = [
            (number, row)
            for number in range(len(pictures))
            for row, box in enumerate(pictures.boxes(number))
            if (box[2:] > 0).all()
        ]
        if not pairs:
            raise UserError("the pictures show no person with joints and a box to train on")
        self.picture: npt.NDArray[np.int64]
        self.picture, self._row = np.array(pairs).T

    @property
    def skeleton(self) -> Skeleton:
        """The joints of the people."""
        return self.pictures.skeleton

    @property
    def annotations(self) -> dict[str, Any]:
        """The whole set in COCO format."""
        return self.pictures.annotations

    def __len__(self) -> int:
        return len(self.picture)

    def boxes(self, index: int) -> npt.NDArray[np.float64]:
        """(1, 4) the person's box."""
        return self.pictures.boxes(int(self.picture[index]))[[self._row[index]]]

    def sample(self, index: int) -> Sample:
        """The whole picture with this person alone."""
        whole = self.pictures.sample(int(self.picture[index]))
        row = [int(self._row[index])]
        return replace(whole, poses=whole.poses.select(row), boxes=whole.boxes[row])
