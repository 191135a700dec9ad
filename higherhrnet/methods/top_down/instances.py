"""Single people of an image set: what the top-down mode trains on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...datasets.base import PoseDataset
from ...errors import UserError
from ...skeleton import Skeleton
from ...structures import Sample


class PersonInstances:
    """Every labeled person of a data set as a sample of its own, in the order of the images.

    ``image_of_person`` (N,) is the index of each one's image. People whose box has no extent are
    left out, as published training does.

    Args:
        dataset: the images.

    Raises:
        UserError: there is no person.
    """

    def __init__(self, dataset: PoseDataset) -> None:
        self.dataset = dataset
        pairs = [
            (number, row)
            for number in range(len(dataset))
            for row, box in enumerate(dataset.boxes(number))
            if (box[2:] > 0).all()
        ]
        if not pairs:
            raise UserError("the images show no person with joints and a box to train on")
        self.image_of_person: npt.NDArray[np.int64]
        self.image_of_person, self._row = np.array(pairs).T

    @property
    def skeleton(self) -> Skeleton:
        """The joints of the people."""
        return self.dataset.skeleton

    @property
    def annotations(self) -> dict[str, Any]:
        """The whole set in COCO format."""
        return self.dataset.annotations

    def __len__(self) -> int:
        return len(self.image_of_person)

    def boxes(self, index: int) -> npt.NDArray[np.float64]:
        """(1, 4) the person's box."""
        return self.dataset.boxes(int(self.image_of_person[index]))[[self._row[index]]]

    def sample(self, index: int) -> Sample:
        """The whole image with this person alone."""
        whole = self.dataset.sample(int(self.image_of_person[index]))
        row = [int(self._row[index])]
        return replace(whole, poses=whole.poses.select(row), boxes=whole.boxes[row])
