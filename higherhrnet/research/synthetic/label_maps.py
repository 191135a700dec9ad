"""Synthetic people with exact masks of people or of their body parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...config import SegmentationConfig
from ...datasets.label_maps import BACKGROUND, LabelSample
from .dataset import SyntheticPeople
from .figures import PARTS


@dataclass(frozen=True)
class SyntheticLabels:
    """Synthetic images with labels by number.

    Attributes:
        people: the images.
        with_parts: tell body parts apart, not people from the background alone.
    """

    people: SyntheticPeople
    with_parts: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by number."""
        return (BACKGROUND, *PARTS) if self.with_parts else (BACKGROUND, "person")

    def __len__(self) -> int:
        return len(self.people)

    def sample(self, index: int) -> LabelSample:
        """Image ``index``; always the same."""
        drawing = self.people.draw(index)
        labels = drawing.parts if self.with_parts else (drawing.parts > 0).astype(np.uint8)
        return LabelSample(drawing.image, labels, index)


def build_dataset(config: SegmentationConfig, role: str) -> SyntheticLabels:
    """The synthetic ``train`` or ``test`` images of a config; each has its own seed."""
    d = config.DATASET
    is_train = role == "train"
    count = d.SYNTHETIC_IMAGES if is_train else max(d.SYNTHETIC_IMAGES // 20, 20)
    limit = d.TRAIN_LIMIT if is_train else d.TEST_LIMIT
    people = SyntheticPeople(
        count=min(count, limit) if limit else count,
        seed=config.TRAIN.SEED + (0 if is_train else 1_000_003),
        size=d.SYNTHETIC_SIZE,
    )
    return SyntheticLabels(people, d.DATASET == "synthetic_parts")
