"""Images sorted into one folder a class, for ImageNet pre-training (Wang et al. 2020, app. B)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms import v2

from ..errors import UserError
from ..io.images import read_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class ClassBatch(NamedTuple):
    """What the loader yields: (B, 3, S, S) uint8 RGB, (B,) int64 class numbers, file names."""

    images: torch.Tensor
    classes: torch.Tensor
    ids: tuple[str, ...]


class ClassItem(NamedTuple):
    """One image on its way into a batch."""

    image: torch.Tensor
    number: int
    id: str


class ClassFolder(Dataset[ClassItem]):
    """``root/CLASS/image.jpg``; classes are numbered in the order of their names.

    Args:
        root: folder of class folders.
        size: side of the views, pixels.
        seed: of all random numbers.
        augment: random crops (8 to 100 % of the area) and flips, as published for training;
            otherwise the middle of the image, its short side being 8/7 of the view.

    Raises:
        UserError: no such folder, or no class or no image in it.
    """

    def __init__(self, root: Path, size: int, seed: int, augment: bool) -> None:
        if not root.is_dir():
            raise UserError(f"folder of classes '{root}' does not exist")
        self.names = sorted(path.name for path in root.iterdir() if path.is_dir())
        self.files = [
            (path, number)
            for number, name in enumerate(self.names)
            for path in sorted((root / name).iterdir())
            if path.suffix.lower() in SUFFIXES
        ]
        if not self.files:
            raise UserError(f"'{root}' holds no folders with images, one a class")
        self.seed = seed
        self.classes = tuple(self.names)
        self.transform: v2.Transform = (
            v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()])
            if augment
            else middle_of(size)
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: tuple[int, int]) -> ClassItem:
        epoch, index = key
        path, number = self.files[index]
        image = torch.from_numpy(read_image(path, upright=False)).permute(2, 0, 1)
        # torchvision draws from torch's global generator: give it the view's own for a moment.
        chance = np.random.SeedSequence((self.seed, epoch, index)).generate_state(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(chance[0]))
            view: torch.Tensor = self.transform(image)
        return ClassItem(view, number, str(path))


def middle_of(size: int) -> v2.Transform:
    """The middle of an image (3, H, W), its short side being 8/7 of the view."""
    return v2.Compose([v2.Resize(size * 8 // 7, antialias=True), v2.CenterCrop(size)])


def collate_classes(items: list[ClassItem]) -> ClassBatch:
    """Stack views of one size."""
    images, numbers, ids = zip(*items, strict=True)
    return ClassBatch(torch.stack(images), torch.tensor(numbers), ids)
