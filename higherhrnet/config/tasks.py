"""Settings of networks that predict no poses: classifiers, segmentation, detectors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from ..errors import UserError
from .base import Config, ModelSection, TrainSection, check_test_scales, setting


@dataclass(frozen=True)
class ImageSet:
    """One of several training sets; what it leaves empty is the config's."""

    TRAIN: str = setting("", "split of training, or an annotation file below ROOT")
    ROOT: str = setting("", "folder of the data set", path="folder")
    IMAGE_DIR: str = setting("", "image folder or .zip below ROOT")


@dataclass(frozen=True)
class ImageDataset:
    """What data sets of boxes and of label maps have in common."""

    ROOT: str = setting(
        "data/coco", "folder of the data set; ${VARIABLES} are filled in", path="folder"
    )
    TRAIN: str | tuple[ImageSet, ...] = setting(
        "train2017",
        "split of training, or an annotation file below ROOT; or a list of these and of "
        "{TRAIN, ROOT, IMAGE_DIR}",
    )
    TEST: str = setting("val2017", "split of validation, or an annotation file below ROOT")
    IMAGE_DIR: str = setting("", "image folder or .zip below ROOT, where it is not the split's own")
    CLASSES: tuple[str, ...] = setting(
        (), "names of the classes; empty takes all that the data set names"
    )
    TRAIN_LIMIT: int = setting(0, "use only the first N images of each set; 0 uses all", low=0)
    TEST_LIMIT: int = setting(0, "use only the first N images; 0 uses all", low=0)
    AUGMENT: bool = setting(True, "False shows every image the same way every time")
    FLIP: float = setting(0.5, "probability of a horizontal flip", low=0, high=1)
    COLOR_JITTER: float = setting(
        0.0, "largest relative change of brightness, contrast, saturation", low=0, high=1
    )

    @property
    def train_sets(self) -> tuple[ImageSet, ...]:
        """The training sets, each with all that it has from the section."""
        listed = (ImageSet(self.TRAIN),) if isinstance(self.TRAIN, str) else self.TRAIN
        return tuple(
            replace(
                entry,
                ROOT=entry.ROOT or self.ROOT,
                IMAGE_DIR=entry.IMAGE_DIR or ("" if entry.ROOT else self.IMAGE_DIR),
            )
            for entry in listed
        )


@dataclass(frozen=True)
class TaskTest:
    """What testing has in common."""

    PRECISION: str = setting(
        "auto",
        "auto (bf16 where the hardware has it), fp32 (exact), bf16",
        choices=("auto", "fp32", "bf16"),
    )


# ImageNet classification


@dataclass(frozen=True)
class ClassifierDataset:
    ROOT: str = setting(
        "data/imagenet", "folder of the splits; ${VARIABLES} are filled in", path="folder"
    )
    TRAIN: str = setting("train", "folder of class folders below ROOT")
    TEST: str = setting("val", "folder of class folders below ROOT")
    INPUT_SIZE: int = setting(224, "side of a view", low=32, multiple=32)
    AUGMENT: bool = setting(True, "random crops and flips; False shows the middle of each image")


@dataclass(frozen=True)
class ClassifierConfig(Config):
    """HRNet with the ImageNet head, to pre-train backbones."""

    DATASET: ClassifierDataset

    method: ClassVar[str] = "classification"


# Semantic segmentation: HRNet-V2


@dataclass(frozen=True)
class SegmentationModel(ModelSection):
    WIDTH: int = setting(48, "channels of the highest resolution: 18, 48", low=1, high=1024)
    UPSAMPLE_MODE: str = setting(
        "bilinear",
        "upsampling in the exchange; published: bilinear",
        choices=("nearest", "bilinear"),
    )
    ALIGN_CORNERS: bool = setting(
        True, "how bilinear upsampling aligns maps; published: True, the first version's False"
    )


@dataclass(frozen=True)
class SegmentationDataset(ImageDataset):
    DATASET: str = setting(
        "coco",
        "coco (masks of annotation files), cityscapes, voc, folder (images and label PNGs), "
        "synthetic, synthetic_parts, or PACKAGE:NAME",
    )
    LABEL_DIR: str = setting(
        "labels", "folder: where the label PNGs lie below ROOT, one folder a split"
    )
    IGNORE_LABEL: int = setting(255, "label of pixels that do not count", low=0, high=255)
    CROP_SIZE: tuple[int, int] = setting(
        (1024, 512), "width and height of a training view, pixels", low=32, multiple=32
    )
    BASE_SIZE: int = setting(
        0, "long side that images are resized to before SCALE; 0 leaves them", low=0
    )
    MIN_SCALE: float = setting(0.5, "smallest random scale of an image", low=0, above=True)
    MAX_SCALE: float = setting(2.0, "largest random scale of an image", low=0, above=True)
    SYNTHETIC_IMAGES: int = setting(2000, "images of the synthetic training set", low=1)
    SYNTHETIC_SIZE: int = setting(192, "side of a synthetic image, pixels", low=32, high=8192)


@dataclass(frozen=True)
class SegmentationLoss:
    CLASS_WEIGHTS: tuple[float, ...] = setting(
        (), "a factor for each class; none weighs all alike", low=0
    )


@dataclass(frozen=True)
class SegmentationTrain(TrainSection):
    END_EPOCH: int = setting(484, "epochs of the whole training", low=1)
    BATCH_SIZE: int = setting(12, "images a step, over all processes and micro-batches", low=1)
    LR: float = setting(0.01, "learning rate", low=0)
    LR_SCHEDULER: str = setting(
        "poly",
        "poly (published: power 0.9), multistep, cosine",
        choices=("poly", "multistep", "cosine"),
    )
    OPTIMIZER: str = setting("sgd", "adam, or sgd", choices=("adam", "sgd"))
    NESTEROV: bool = setting(False, "of sgd; published: no")
    WEIGHT_DECAY: float = setting(0.0005, "L2 weight decay", low=0)


@dataclass(frozen=True)
class SegmentationTest(TaskTest):
    SCALE_FACTOR: tuple[float, ...] = setting((1.0,), "test scales", low=0.05, high=64)
    FLIP_TEST: bool = setting(False, "average with the flipped image")
    SHORT_SIDE: int = setting(0, "images are resized to this short side; 0: as they are", low=0)


@dataclass(frozen=True)
class SegmentationConfig(Config):
    """HRNet-V2 for semantic segmentation."""

    MODEL: SegmentationModel
    DATASET: SegmentationDataset
    LOSS: SegmentationLoss
    TRAIN: SegmentationTrain
    TEST: SegmentationTest

    method: ClassVar[str] = "segmentation"

    def check(self) -> None:
        """See :class:`Config`."""
        super().check()
        _check_sets(self.DATASET)
        _check_scales(self.DATASET.MIN_SCALE, self.DATASET.MAX_SCALE)
        check_test_scales(self.TEST.SCALE_FACTOR)


# Detection: HRNet-V2p


@dataclass(frozen=True)
class DetectorModel(ModelSection):
    BOX_HEAD: str = setting(
        "faster_rcnn", "fcos, retinanet, faster_rcnn", choices=("fcos", "retinanet", "faster_rcnn")
    )
    PYRAMID_CHANNELS: int = setting(
        256, "channels of the pyramid; published: 256", low=32, multiple=32
    )
    PYRAMID_LEVELS: int = setting(5, "levels of the pyramid; published: 5", low=1, high=6)
    PYRAMID_STRIDE: int = setting(
        4, "of the first level: 4 (published for faster_rcnn) or 8 (for fcos)", low=4, high=8,
        multiple=4,
    )  # fmt: skip
    HEAD_CONVS: int = setting(4, "convolutions of an fcos head; published: 4", low=0, high=8)


@dataclass(frozen=True)
class DetectorDataset(ImageDataset):
    INPUT_SIZE: int = setting(800, "short side of an image", low=64)
    MAX_SIZE: int = setting(1333, "longest side of an image", low=64)
    CROP_SIZE: tuple[int, int] = setting(
        (0, 0), "width and height of a training view; 0 shows whole images", low=0, multiple=32
    )
    MIN_SCALE: float = setting(1.0, "smallest random scale", low=0, above=True)
    MAX_SCALE: float = setting(1.0, "largest random scale", low=0, above=True)


@dataclass(frozen=True)
class DetectorTrain(TrainSection):
    END_EPOCH: int = setting(12, "epochs of the whole training", low=1)
    BATCH_SIZE: int = setting(16, "images a step, over all processes and micro-batches", low=1)
    LR: float = setting(0.02, "learning rate", low=0)
    LR_STEP: tuple[int, ...] = setting((8, 11), "multistep: epochs that lower the rate", low=0)
    WARMUP_STEPS: int = setting(500, "steps of linear warm-up", low=0)
    OPTIMIZER: str = setting("sgd", "adam, or sgd", choices=("adam", "sgd"))
    NESTEROV: bool = setting(False, "of sgd; published: no")
    WEIGHT_DECAY: float = setting(0.0001, "L2 weight decay", low=0)
    VALIDATE_EVERY: int = setting(1, "epochs between validations", low=1)


@dataclass(frozen=True)
class DetectorTest(TaskTest):
    SCORE_THRE: float = setting(0.05, "lowest score of a box", low=0, high=1)
    NMS_THRE: float = setting(
        0.6, "boxes that overlap more (IoU) are one; published: 0.5", low=0, high=1
    )
    MAX_DETECTIONS: int = setting(100, "boxes an image, best first", low=1)
    SCALE_FACTOR: tuple[float, ...] = setting((1.0,), "test scales", low=0.05, high=64)
    FLIP_TEST: bool = setting(False, "also find boxes in the flipped image")
    DISPLAY_SCORE: float = setting(0.3, "lowest score of a box that predict draws", low=0, high=1)


@dataclass(frozen=True)
class DetectorConfig(Config):
    """HRNet-V2p for detection."""

    MODEL: DetectorModel
    DATASET: DetectorDataset
    TRAIN: DetectorTrain
    TEST: DetectorTest

    method: ClassVar[str] = "detection"

    def check(self) -> None:
        """See :class:`Config`."""
        super().check()
        _check_sets(self.DATASET)
        _check_scales(self.DATASET.MIN_SCALE, self.DATASET.MAX_SCALE)
        check_test_scales(self.TEST.SCALE_FACTOR)
        if (self.DATASET.CROP_SIZE[0] == 0) != (self.DATASET.CROP_SIZE[1] == 0):
            raise UserError("config key 'DATASET.CROP_SIZE' must be two sides, or 0 and 0")
        m = self.MODEL
        if m.BOX_HEAD != "fcos" and m.HEAD_CONVS != 4:
            raise UserError(
                f"config key 'MODEL.HEAD_CONVS' is for fcos heads, not for {m.BOX_HEAD}"
            )


def _check_sets(dataset: ImageDataset) -> None:
    if not dataset.train_sets or not all(entry.TRAIN for entry in dataset.train_sets):
        raise UserError("config key 'DATASET.TRAIN' must name the split of every set, as TRAIN")


def _check_scales(low: float, high: float) -> None:
    if low > high or math.isinf(high):
        raise UserError(f"config key 'DATASET.MIN_SCALE' {low} is above 'DATASET.MAX_SCALE' {high}")
