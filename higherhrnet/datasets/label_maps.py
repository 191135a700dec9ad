"""Images with a class for every pixel, and training views of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ..errors import UserError
from ..io.images import read_file
from ..io.store import Store
from ..structures import NOT_COUNTED
from .annotations import check_annotations, read_annotations
from .categories import annotated_size, find_categories
from .coco import paint_outlines
from .crops import Crop, CropViews
from .findings import log_findings, match_ids, missing_files, refuse_repeated_ids
from .image_folder import SUFFIXES

BACKGROUND = "background"
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabelSample:
    """One image.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8 class numbers, :data:`NOT_COUNTED` where none counts.
        id: the data set's name of the image.
    """

    image: npt.NDArray[np.uint8]
    labels: Labels
    id: int | str


class LabelMaps(Protocol):
    """Images with labels by number; write your own with these three members."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by number."""

    def __len__(self) -> int: ...

    def sample(self, index: int) -> LabelSample:
        """The whole image."""


class CocoMasks:
    """Label maps of the outlines in a COCO-format file: background, then its classes.

    Where outlines overlap, the smaller one lies in front. Crowds do not count, nor do boxes without
    an outline; images whose boxes all lack one are left out.

    Args:
        annotation_file: JSON with images, annotations and categories.
        image_folder: where the file names start; a folder or a zip archive.
        classes: their names, the background first; empty takes all that have outlines.
        limit: use only the first so many images; 0 uses all.

    Raises:
        UserError: a file or folder is missing, unreadable, or has no outlines of a class.
    """

    def __init__(
        self,
        annotation_file: Path,
        image_folder: Path,
        classes: Sequence[str] = (),
        limit: int = 0,
    ) -> None:
        loaded = read_annotations(annotation_file)
        check_annotations(loaded, annotation_file)
        self.annotation_file = annotation_file
        self.store = Store(image_folder)
        refuse_repeated_ids(loaded["images"], annotation_file)
        findings = match_ids(loaded)
        named = [name for name in classes if name != BACKGROUND]
        by_name = find_categories(loaded, annotation_file, named, "segmentation")
        self.classes = (BACKGROUND, *by_name)
        number = {category: n for n, category in enumerate(by_name.values(), 1)}
        records = loaded["annotations"]
        self._records: dict[int | str, list[tuple[dict[str, Any], int]]] = {}
        outlined: dict[int | str, bool] = {}
        for record in records:
            label = number.get(record["category_id"])
            if label is not None:
                image = record["image_id"]
                self._records.setdefault(image, []).append((record, label))
                has_outline = bool(record.get("segmentation"))
                outlined[image] = outlined.get(image, False) or has_outline
        images = [i for i in loaded["images"] if outlined.get(i["id"], True)]
        self._images = images[: limit or None]
        if not self._images or not any(outlined.values()):
            raise UserError(
                f"'{annotation_file}' has no outlines of {', '.join(by_name) or 'any class'} "
                "('segmentation')"
            )
        log_findings(annotation_file, findings + missing_files(self._images, self.store))

    def __len__(self) -> int:
        return len(self._images)

    def sample(self, index: int) -> LabelSample:
        """The whole image; ``UserError`` names a missing or broken file."""
        entry = self._images[index]
        image = self.store.image(str(entry["file_name"]), annotated_size(entry))
        try:
            labels = paint_outlines(self._records.get(entry["id"], []), image.shape[:2])
        except UserError as error:
            raise UserError(f"'{self.annotation_file}': image {entry['id']}: {error}") from error
        return LabelSample(image, labels, entry["id"])


class LabelFolder:
    """Images, and label maps of the same names as PNG files of one channel.

    PASCAL-Context, ADE20K and own data come so. Palette files are read as their numbers.

    Args:
        images: folder of images.
        labels: folder of their label maps.
        classes: names by number.
        ignored: the label of pixels that do not count, in these files.
        limit: use only the first so many images; 0 uses all.

    Raises:
        UserError: a folder is missing, or an image has no label map.
    """

    def __init__(
        self, images: Path, labels: Path, classes: Sequence[str], ignored: int, limit: int = 0
    ) -> None:
        if not classes:
            raise UserError("config key 'DATASET.CLASSES' must name the classes of label files")
        for folder in (images, labels):
            if not folder.is_dir():
                raise UserError(f"folder '{folder}' does not exist")
        self.classes, self.ignored = tuple(classes), ignored
        self.store = Store(images)
        self.labels = labels
        self.names = sorted(
            path.name for path in images.iterdir() if path.suffix.lower() in SUFFIXES
        )[: limit or None]
        if not self.names:
            raise UserError(f"'{images}' holds no images")
        missing = [name for name in self.names if not self._file(name).is_file()]
        if missing:
            raise UserError(
                f"image '{images / missing[0]}' has no label map '{self._file(missing[0])}'"
                + (f", nor have {len(missing) - 1} others" if len(missing) > 1 else "")
            )

    def _file(self, name: str) -> Path:
        return self.labels / f"{Path(name).stem}.png"

    def __len__(self) -> int:
        return len(self.names)

    def sample(self, index: int) -> LabelSample:
        """The whole image; ``UserError`` names a missing or broken file."""
        name = self.names[index]
        image = self.store.image(name)
        labels = read_label_map(self._file(name))
        check_labels(labels, self.classes, self.ignored, image.shape[:2], str(self._file(name)))
        return LabelSample(image, np.where(labels == self.ignored, NOT_COUNTED, labels), name)


def read_label_map(path: Path) -> Labels:
    """(H, W) class numbers of a PNG file with gray values or a palette.

    Raises:
        UserError: it is missing, broken, or a picture in colors.
    """
    from PIL import Image  # OpenCV turns a palette into colors

    read_file(path)  # says why it cannot be read
    try:
        with Image.open(path) as opened:
            if opened.mode not in ("L", "P", "1", "I;16", "I"):
                raise UserError(f"label map '{path}' is in colors, not one number a pixel")
            found = np.asarray(opened)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"label map '{path}' cannot be read: {error}") from error
    if found.max(initial=0) > 255:
        raise UserError(f"label map '{path}' holds numbers above 255")
    return found.astype(np.uint8)


def check_labels(
    labels: Labels, classes: Sequence[str], ignored: int, shape: tuple[int, ...], name: str
) -> None:
    """That a label map fits its image and the classes.

    Raises:
        UserError: it does not.
    """
    if labels.shape != tuple(shape):
        raise UserError(
            f"label map '{name}' is {labels.shape[1]}x{labels.shape[0]}, and its image "
            f"{shape[1]}x{shape[0]}"
        )
    wrong = labels[(labels >= len(classes)) & (labels != ignored)]
    if wrong.size:
        raise UserError(
            f"label map '{name}' holds class {wrong[0]}, but there are {len(classes)} classes "
            f"(DATASET.CLASSES), and {ignored} does not count (DATASET.IGNORE_LABEL)"
        )


class TorchvisionLabels:
    """Label maps that torchvision reads: Cityscapes and PASCAL VOC.

    Args:
        dataset: gives (PIL image, PIL label map).
        classes: names by number.
        numbers: (256,) the file's label → class number or :data:`NOT_COUNTED`.
        name: of data set and split, for messages.
        limit: use only the first so many images; 0 uses all.
    """

    def __init__(
        self, dataset: Any, classes: Sequence[str], numbers: Labels, name: str, limit: int = 0
    ) -> None:
        self.dataset, self.classes, self.numbers = dataset, tuple(classes), numbers
        self.name = name
        self._count = min(len(dataset), limit) if limit else len(dataset)

    def __len__(self) -> int:
        return self._count

    def sample(self, index: int) -> LabelSample:
        """The whole image; ``UserError`` names a missing or broken file."""
        try:
            image, labels = self.dataset[index]
            pixels = np.array(image.convert("RGB"), dtype=np.uint8)
            numbers = self.numbers[np.asarray(labels, dtype=np.uint8)]
        except (OSError, ValueError, SyntaxError) as error:  # Pillow's
            raise UserError(f"image {index} of {self.name} cannot be read: {error}") from error
        what = f"number {index} of {self.name}"
        check_labels(numbers, self.classes, NOT_COUNTED, pixels.shape[:2], what)
        return LabelSample(pixels, numbers, index)


def open_cityscapes(root: Path, split: str, limit: int = 0) -> TorchvisionLabels:
    """Cityscapes' ``fine`` annotations: the 19 classes that are evaluated.

    Raises:
        UserError: the data set is not there.
    """
    from torchvision.datasets import Cityscapes

    try:
        dataset = Cityscapes(str(root), split, mode="fine", target_type="semantic")
    except (RuntimeError, ValueError) as error:
        raise UserError(f"Cityscapes cannot be read from '{root}': {error}") from error
    used = sorted(
        (c for c in Cityscapes.classes if not c.ignore_in_eval and c.id >= 0),
        key=lambda c: c.train_id,
    )
    numbers = np.full(256, NOT_COUNTED, np.uint8)
    for number, each in enumerate(used):
        numbers[each.id] = number
    names = [each.name for each in used]
    return TorchvisionLabels(dataset, names, numbers, f"Cityscapes {split} in '{root}'", limit)


VOC_CLASSES = (
    BACKGROUND, "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip


def open_voc(root: Path, split: str, limit: int = 0) -> TorchvisionLabels:
    """PASCAL VOC 2012's segmentations, or of another year as ``2007/train``.

    Raises:
        UserError: the data set is not there.
    """
    from torchvision.datasets import VOCSegmentation

    year, _, image_set = split.rpartition("/")
    try:
        dataset = VOCSegmentation(str(root), year or "2012", image_set)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"PASCAL VOC cannot be read from '{root}': {error}") from error
    numbers = np.full(256, NOT_COUNTED, np.uint8)
    numbers[: len(VOC_CLASSES)] = np.arange(len(VOC_CLASSES))
    return TorchvisionLabels(dataset, VOC_CLASSES, numbers, f"VOC {split} in '{root}'", limit)


class LabelItem(NamedTuple):
    """One view on its way into a batch; see :class:`LabelBatch`."""

    image: torch.Tensor
    labels: torch.Tensor
    color: torch.Tensor
    id: int | str


class LabelBatch(NamedTuple):
    """What the loader yields.

    Attributes:
        images: (B, 3, H, W) uint8 RGB.
        labels: (B, H, W) uint8.
        color: (B, 3) factors of brightness, contrast and saturation.
        ids: the data set's names of the images.
    """

    images: torch.Tensor
    labels: torch.Tensor
    color: torch.Tensor
    ids: tuple[int | str, ...]


class LabelViews(CropViews[LabelItem]):
    """Views of :class:`LabelMaps`."""

    def make_item(self, sample: LabelSample, view: Crop) -> LabelItem:
        """The labels; beyond the image's edges none counts."""
        return LabelItem(
            image=torch.from_numpy(view.warp(sample.image)).permute(2, 0, 1),
            labels=torch.from_numpy(view.warp_labels(sample.labels, NOT_COUNTED)),
            color=torch.tensor(view.color),
            id=sample.id,
        )


def collate_labels(items: list[LabelItem]) -> LabelBatch:
    """Stack views of one size."""
    images, labels, color, ids = zip(*items, strict=True)
    return LabelBatch(torch.stack(images), torch.stack(labels), torch.stack(color), ids)


def colorize(labels: Labels) -> npt.NDArray[np.uint8]:
    """(H, W, 3) a color for each class, the background black."""
    hue = (np.arange(256) * 137.508 / 2 + 30) % 180
    hsv = np.stack([hue, np.full(256, 200), np.full(256, 255)], axis=1).astype(np.uint8)
    colors = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]
    colors[0] = 0
    return np.asarray(colors[labels], dtype=np.uint8)
