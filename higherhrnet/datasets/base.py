"""What training and validation ask of a data set; write your own with these five members."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

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
