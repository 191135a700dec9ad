"""Every setting with its type, default, range and meaning, in dataclasses for each method.

Keys have the names of the original ``lib/config/default.py`` where it has them. The defaults
are the published protocols on COCO: HigherHRNet-W32 512 bottom-up, HRNet-W32 256x192 top-down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from ..errors import UserError
from .base import Config, ModelSection, TrainSection, check_test_scales, rules_of, setting
from .tasks import ClassifierConfig, DetectorConfig, SegmentationConfig

_HEAD = "PACKAGE:NAME that makes a head of your own; empty for the published one"
_KIND = "PACKAGE:NAME that makes losses of your own; empty for the published ones"

# Sections that methods share


@dataclass(frozen=True)
class TrainSet:
    """One of several training sets; what it leaves empty is the config's."""

    TRAIN: str = setting("", "split of training, or an annotation file below ROOT")
    ROOT: str = setting("", "folder of the data set", path="folder")
    IMAGE_DIR: str = setting("", "image folder or .zip below ROOT")
    SKELETON: str = setting("", "the set's own; its joints are matched by name", path="file")
    CATEGORIES: tuple[str, ...] = setting((), "names of the categories that are people")
    SHARE: float = setting(
        0.0, "share of an epoch's views; 0 shows every image once", low=0, high=1
    )


@dataclass(frozen=True)
class DatasetSection:
    DATASET: str = setting("coco", "coco (any COCO-format keypoints), synthetic, or PACKAGE:NAME")
    ROOT: str = setting(
        "data/coco", "folder of the data set; ${VARIABLES} are filled in", path="folder"
    )
    TRAIN: str | tuple[TrainSet, ...] = setting(
        "train2017",
        "split of training, or an annotation file below ROOT; or a list of these and of "
        "{TRAIN, ROOT, IMAGE_DIR, SKELETON, CATEGORIES, SHARE}",
    )
    TEST: str = setting("val2017", "split of validation, or an annotation file below ROOT")
    IMAGE_DIR: str = setting("", "image folder or .zip below ROOT, where it is not the split's own")
    TRAIN_LIMIT: int = setting(0, "use only the first N images of each set; 0 uses all", low=0)
    TEST_LIMIT: int = setting(0, "use only the first N images; 0 uses all", low=0)
    SYNTHETIC_IMAGES: int = setting(0, "synthetic images mixed into every epoch", low=0)
    SKELETON: str = setting(
        "coco",
        "coco, crowdpose, mpii, a YAML file, or auto: what the annotation file describes",
        path="file",
    )
    CATEGORIES: tuple[str, ...] = setting(
        (), "names of the categories that are people; empty takes those with the skeleton's joints"
    )
    AUGMENT: bool = setting(True, "False shows every image (or box) the same way every time")
    FLIP: float = setting(0.5, "probability of a horizontal flip", low=0, high=1)
    COLOR_JITTER: float = setting(
        0.0, "largest relative change of brightness, contrast, saturation", low=0, high=1
    )
    CACHE: str = setting(
        "none",
        "where decoded images are kept: none, ram (shared by a process's workers), device",
        choices=("none", "ram", "device"),
    )
    WARP: str = setting(
        "host",
        "where views are cut: host, or device (gets whole images)",
        choices=("host", "device"),
    )

    @property
    def train_sets(self) -> tuple[TrainSet, ...]:
        """The training sets, each with all that it has from the section."""
        listed = (TrainSet(self.TRAIN),) if isinstance(self.TRAIN, str) else self.TRAIN
        return tuple(
            replace(
                entry,
                ROOT=entry.ROOT or self.ROOT,
                IMAGE_DIR=entry.IMAGE_DIR or ("" if entry.ROOT else self.IMAGE_DIR),
                SKELETON=entry.SKELETON or self.SKELETON,
                CATEGORIES=entry.CATEGORIES or (() if entry.SKELETON else self.CATEGORIES),
            )
            for entry in listed
        )


@dataclass(frozen=True)
class SyntheticSection:
    TRAIN_IMAGES: int = setting(2000, "images of the synthetic training set", low=1)
    TEST_IMAGES: int = setting(100, "images of the synthetic test set", low=1)
    SIZE: int = setting(256, "side of an image, pixels", low=16, high=8192)
    PEOPLE: tuple[int, int] = setting((1, 4), "fewest and most people in an image", low=1)
    HEIGHT: tuple[float, float] = setting(
        (0.35, 0.8), "smallest and largest person, fraction of the image", low=0, high=1, above=True
    )
    OVERLAP: float = setting(0.3, "0 keeps people apart, 1 lets them stand anywhere", low=0, high=1)
    OCCLUSION: float = setting(0.2, "probability of an object in front of a person", low=0, high=1)


@dataclass(frozen=True)
class TestSection:
    FLIP_TEST: bool = setting(True, "average with the flipped image")
    EVALUATION: str = setting(
        "auto",
        "auto (by the data set), coco, crowdpose, pckh, accuracy",
        choices=("auto", "coco", "crowdpose", "pckh", "accuracy"),
    )
    ACCURACY_RADIUS: float = setting(10.0, "pixels within which a joint counts for accuracy", low=0)
    DISPLAY_PRECISION: float = setting(
        0.8,
        "share of the people drawn by predict that shall be right",
        low=0,
        above=True,
        high=0.9999,
    )
    PRECISION: str = setting(
        "auto",
        "auto (on a CPU the fastest, as measured; else bf16 where the hardware has it), "
        "fp32 (exact), bf16, fp16",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    ENGINE: str = setting(
        "torch",
        "torch, or a runtime that the network is exported for once, and cached: onnxruntime, "
        "openvino",
        choices=("torch", "onnxruntime", "openvino"),
    )
    COMPILE: bool = setting(False, "torch.compile with frozen weights: minutes for each input size")
    CUDA_GRAPHS: bool = setting(False, "replay recorded GPU work, one recording an input size")
    BATCH_SIZE: int = setting(4, "images of one size that go through the network together", low=1)
    WORKERS: int = setting(2, "threads that read, and threads that decode", low=1)


# Bottom-up: HigherHRNet


@dataclass(frozen=True)
class BottomUpModel(ModelSection):
    HEAD: str = setting("", _HEAD)
    HEADS: tuple[str, ...] = setting(
        (), "heads beside the keypoints': masks, boxes, or both (of people)",
        choices=("masks", "boxes"),
    )  # fmt: skip
    TAG_PER_JOINT: bool = setting(True, "one tag map for each joint; False: one for all")
    TAG_DIM: int = setting(1, "dimension of a tag; published: 1", low=1, high=16)
    SCALE_ADAPTIVE: bool = setting(
        False, "the network learns the widths of its Gaussians (SWAHR); published: no"
    )
    CAT_OUTPUT: bool = setting(True, "feed each output to the next deconvolution")
    NUM_BASIC_BLOCKS: int = setting(4, "residual blocks after each deconvolution", low=0, high=64)


@dataclass(frozen=True)
class BottomUpDataset(DatasetSection):
    INPUT_SIZE: int = setting(
        512, "side of a training crop; short side of a test image", low=64, multiple=64
    )
    SIGMA: int = setting(2, "of the Gaussians, heatmap pixels of every output", low=1)
    ENCODING: str = setting(
        "truncated",
        "center of the Gaussians: truncated to a pixel (published), or exact (unbiased)",
        choices=("truncated", "exact"),
    )
    MIN_SCALE: float = setting(
        0.75, "smallest crop side, times the image's short side", low=0, above=True
    )
    MAX_SCALE: float = setting(
        1.5, "largest crop side, times the image's short side", low=0, above=True
    )
    MAX_ROTATION: float = setting(30.0, "degrees either way", low=0, high=180)
    MAX_TRANSLATE: float = setting(
        40.0, "shift of the crop's center either way, 1/200 of its side", low=0, high=200
    )
    CROP_CENTER: str = setting(
        "image", "of crops: image (published), or person: anyone in it", choices=("image", "person")
    )
    MOSAIC: float = setting(0.0, "probability of four images as one", low=0, high=1)
    COPY_PASTE: float = setting(
        0.0, "probability of people pasted from another image, by their outlines", low=0, high=1
    )
    WITH_MASK: bool = setting(True, "crowds and people without keypoints are left out of the loss")
    PADDING_IN_LOSS: bool = setting(
        False, "the loss counts beyond the image's edges too; published: no"
    )
    MAX_NUM_PEOPLE: int = setting(30, "candidates for each joint in testing", low=1)


@dataclass(frozen=True)
class BottomUpLossSection:
    KIND: str = setting("", _KIND)
    WITH_AE_LOSS: tuple[bool, ...] = setting(
        (True, False), "one entry for each output, 1/4 first: does it predict tags?"
    )
    HEATMAPS_LOSS_FACTOR: tuple[float, ...] = setting(
        (1.0,), "factor of each output's heatmap loss", low=0, per_output=True
    )
    PULL_LOSS_FACTOR: tuple[float, ...] = setting(
        (0.001,), "factor of each output's pull loss", low=0, per_output=True
    )
    PUSH_LOSS_FACTOR: tuple[float, ...] = setting(
        (0.001,), "factor of each output's push loss", low=0, per_output=True
    )
    HEATMAPS_LOSS_TYPE: str = setting(
        "mse",
        "weights of the heatmaps' squared errors: mse (published, none), foreground, "
        "weight_adaptive, focal",
        choices=("mse", "foreground", "weight_adaptive", "focal"),
    )
    SCALE_LOSS_FACTOR: float = setting(
        1.0, "MODEL.SCALE_ADAPTIVE: factor of what other widths than SIGMA cost", low=0
    )
    MASKS_LOSS_FACTOR: float = setting(
        0.005, "factor of the mask head's cross-entropy (MODEL.HEADS)", low=0
    )
    BOXES_LOSS_FACTOR: float = setting(
        0.001, "factor of the box head's losses (MODEL.HEADS)", low=0
    )
    AE_LOSS_TYPE: str = setting("exp", "exp (published) or max", choices=("exp", "max"))


@dataclass(frozen=True)
class BottomUpTest(TestSection):
    SCALE_FACTOR: tuple[float, ...] = setting((1.0,), "test scales", low=0.05, high=64)
    PROJECT2IMAGE: bool = setting(True, "resize maps to the input size before peaks are found")
    WITH_HEATMAPS: tuple[bool, ...] = setting(
        (True,), "which outputs' heatmaps are averaged", per_output=True
    )
    BLUR_SIGMA: float = setting(
        0.0, "Gaussian blur of the heatmaps, pixels; published: none", low=0, high=4
    )
    DETECTION_THRESHOLD: float = setting(0.1, "lowest score of a candidate", low=0, high=1)
    TAG_THRESHOLD: float = setting(
        1.0, "largest tag distance at which a candidate joins a person", low=0
    )
    GROUPING_DISTANCE: float = setting(
        0.0,
        "tag distance for each person's extent that a joint lies too far away; 0: tags alone",
        low=0,
    )
    ADJUST: bool = setting(True, "sub-pixel shift of peaks, as DECODING has it")
    DECODING: str = setting(
        "quarter", "quarter (published), parabola, dark", choices=("quarter", "parabola", "dark")
    )
    REFINE: bool = setting(True, "fill missing joints")
    ASSIGNMENT: str = setting(
        "munkres",
        "munkres (published, slow), or a fast one with a named tie-break",
        choices=("munkres", "hungarian_score_tiebreak", "hungarian_distance_tiebreak"),
    )
    MAX_DETECTIONS: int = setting(
        0, "keep at most this many people, best first; 0 keeps all", low=0
    )
    MASK_SUPPORT: float = setting(
        0.0,
        "people are dropped whose joints lie on the mask with less than this mean probability; 0: "
        "nobody (MODEL.HEADS [masks])",
        low=0,
        high=1,
    )
    ZOOM_SIZES: tuple[int, ...] = setting(
        (),
        "each person is cut out and looked at again in inputs of these sides; published: none",
        low=64,
        high=1024,
        multiple=32,
    )
    DIAGNOSTICS: str = setting(
        "higherhrnet.research.embedding_diagnostics:EmbeddingDiagnostics",
        "MODULE:CLASS that measures the tags during validation; empty for none",
    )


# Top-down: HRNet


@dataclass(frozen=True)
class TopDownModel(ModelSection):
    HEAD: str = setting("", _HEAD)
    IMAGE_SIZE: tuple[int, int] = setting(
        (192, 256), "width and height of a person's crop", low=32, multiple=32
    )
    SIGMA: int = setting(2, "of the Gaussians, heatmap pixels", low=1)


@dataclass(frozen=True)
class TopDownDataset(DatasetSection):
    BBOX_PADDING: float = setting(1.25, "growth of a person's box", low=0, above=True)
    SCALE_FACTOR: float = setting(
        0.35, "standard deviation of the box's growth about 1; also its limit", low=0, high=0.99
    )
    ROT_FACTOR: float = setting(
        45.0, "standard deviation of the rotation, degrees", low=0, high=180
    )
    ROT_PROB: float = setting(0.6, "probability of rotating", low=0, high=1)
    PROB_HALF_BODY: float = setting(0.3, "probability of showing half of a body", low=0, high=1)


@dataclass(frozen=True)
class TopDownLossSection:
    KIND: str = setting("", _KIND)
    OHKM_TOPK: int = setting(0, "only a person's so many worst joints count; 0 counts all", low=0)
    JOINT_WEIGHTS: tuple[float, ...] = setting(
        (), "a factor for each joint; none weighs all alike", low=0
    )


@dataclass(frozen=True)
class TopDownTrain(TrainSection):
    END_EPOCH: int = setting(210, "epochs of the whole training", low=1)
    BATCH_SIZE: int = setting(128, "people a step, over all processes and micro-batches", low=1)
    LR_STEP: tuple[int, ...] = setting((170, 200), "multistep: epochs that lower the rate", low=0)


@dataclass(frozen=True)
class TopDownTest(TestSection):
    BBOX_SOURCE: str = setting(
        "ground_truth",
        "ground_truth, a COCO result file, weights of a detector (fcos_w18_person) or of a "
        "bottom-up network, or a detector of torchvision",
        path="file",
    )
    BBOX_THRE: float = setting(0.0, "lowest score of a box", low=0, high=1)
    BBOX_JITTER: float = setting(
        0.0, "random shift of a box's edges, fraction of its sides", low=0, high=0.25
    )
    CROPS_PER_BATCH: int = setting(64, "crops that go through the network together", low=1)
    DECODING: str = setting(
        "quarter", "quarter (published), parabola, dark", choices=("quarter", "parabola", "dark")
    )
    SHIFT_HEATMAP: bool = setting(True, "shift the flipped view's heatmaps by one pixel")
    IN_VIS_THRE: float = setting(0.2, "joints above this count for a person's score")
    OKS_THRE: float = setting(
        0.9, "people more alike (OKS) than this are one; 1 keeps all", low=0, above=True
    )
    SOFT_NMS: bool = setting(False, "keep the 20 best, ranked lower the more alike they are")


# Whole configs


@dataclass(frozen=True)
class PoseConfig(Config):
    """Base of the configs that find people."""

    DATASET: DatasetSection
    TEST: TestSection
    SYNTHETIC: SyntheticSection

    def check(self) -> None:
        """See :class:`Config`."""
        super().check()
        for key in ("PEOPLE", "HEIGHT"):
            low, high = getattr(self.SYNTHETIC, key)
            if low > high:
                raise UserError(
                    f"config key 'SYNTHETIC.{key}' must be [lowest, highest], not [{low}, {high}]"
                )
        self._check_train_sets()

    def _check_train_sets(self) -> None:
        d = self.DATASET
        if isinstance(d.TRAIN, str):
            return
        if not d.TRAIN or not all(entry.TRAIN for entry in d.TRAIN):
            raise UserError("config key 'DATASET.TRAIN' must name the split of every set, as TRAIN")
        if d.DATASET != "coco":
            raise UserError(
                f"config key 'DATASET.TRAIN': DATASET.DATASET {d.DATASET} takes no list"
            )
        shares = [entry.SHARE for entry in d.TRAIN]
        total = math.fsum(shares)
        if all(shares) and abs(total - 1) > 1e-6:
            raise UserError(f"config key 'DATASET.TRAIN': the shares sum up to {total:g}, not to 1")
        if not all(shares) and total >= 1:
            raise UserError(
                f"config key 'DATASET.TRAIN': shares of {total:g} leave nothing for the sets "
                "without one"
            )


@dataclass(frozen=True)
class BottomUpConfig(PoseConfig):
    """HigherHRNet."""

    MODEL: BottomUpModel
    DATASET: BottomUpDataset
    LOSS: BottomUpLossSection
    TEST: BottomUpTest

    method: ClassVar[str] = "bottom-up"

    def check(self) -> None:
        """See :class:`Config`."""
        super().check()
        outputs = len(self.LOSS.WITH_AE_LOSS)
        if outputs > 3 or not any(self.LOSS.WITH_AE_LOSS):
            raise UserError(
                "config key 'LOSS.WITH_AE_LOSS' has one entry for each of at most three outputs, "
                f"one of them true, not {list(self.LOSS.WITH_AE_LOSS)}"
            )
        for section, key, rule in rules_of(type(self)):
            values = getattr(getattr(self, section), key)
            if rule.per_output and len(values) != outputs:
                raise UserError(
                    f"config key '{section}.{key}' has {len(values)} entries, but "
                    f"'LOSS.WITH_AE_LOSS' has {outputs} outputs"
                )
        for key, values in (
            ("LOSS.HEATMAPS_LOSS_FACTOR", self.LOSS.HEATMAPS_LOSS_FACTOR),
            ("TEST.WITH_HEATMAPS", self.TEST.WITH_HEATMAPS),
        ):
            if not any(values):
                raise UserError(f"config key '{key}' leaves no output: {list(values)}")
        if self.TEST.MASK_SUPPORT and "masks" not in self.MODEL.HEADS:
            raise UserError("config key 'TEST.MASK_SUPPORT' needs a network with MODEL.HEADS masks")
        for custom, value in (("MODEL.HEAD", self.MODEL.HEAD), ("LOSS.KIND", self.LOSS.KIND)):
            if self.MODEL.HEADS and value:
                raise UserError(f"config keys '{custom}' and 'MODEL.HEADS' are exclusive")
        if self.MODEL.HEADS and (self.DATASET.MOSAIC or self.DATASET.COPY_PASTE):
            raise UserError(
                "config keys 'DATASET.MOSAIC' and 'DATASET.COPY_PASTE' know no masks and boxes "
                "(MODEL.HEADS)"
            )
        if self.DATASET.MIN_SCALE > self.DATASET.MAX_SCALE:
            raise UserError(
                f"config key 'DATASET.MIN_SCALE' {self.DATASET.MIN_SCALE} is above "
                f"'DATASET.MAX_SCALE' {self.DATASET.MAX_SCALE}"
            )
        check_test_scales(self.TEST.SCALE_FACTOR)


@dataclass(frozen=True)
class TopDownConfig(PoseConfig):
    """HRNet on the box of one person."""

    MODEL: TopDownModel
    DATASET: TopDownDataset
    LOSS: TopDownLossSection
    TRAIN: TopDownTrain
    TEST: TopDownTest

    method: ClassVar[str] = "top-down"

    def check(self) -> None:
        """See :class:`Config`."""
        super().check()
        weights = self.LOSS.JOINT_WEIGHTS
        if weights and not any(weights):
            raise UserError(f"config key 'LOSS.JOINT_WEIGHTS' must not be all 0: {list(weights)}")


SCHEMAS: dict[str, type[Config]] = {
    "pose_higher_hrnet": BottomUpConfig,
    "pose_hrnet": TopDownConfig,
    "cls_hrnet": ClassifierConfig,
    "seg_hrnet": SegmentationConfig,
    "det_hrnet": DetectorConfig,
}
"""``MODEL.NAME`` → its config."""
