"""HRNetV2 semantic segmentation, as a task: ``MODEL.NAME seg_hrnet``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ...config import ImageSet, SegmentationConfig
from ...datasets.crops import RandomCrop
from ...datasets.label_maps import (
    BACKGROUND,
    CocoMasks,
    LabelBatch,
    LabelFolder,
    LabelMaps,
    Labels,
    LabelViews,
    collate_labels,
    open_cityscapes,
    open_voc,
)
from ...datasets.paths import find_split
from ...errors import UserError
from ...evaluation.segmentation import Counts, count_pixels, segmentation_metrics
from ...io.paths import expand_path
from ...models.segmentation import SegmentationHRNet
from ...plugins import load_object
from ...structures import NOT_COUNTED
from ..base import ExportGraph, Image, Predict, RunGraph, Task, TrainingItems, refuse_scales
from ..inputs import STRIDE, InputShape, send_images
from .graph import SegmentationGraph
from .networks import ExportedNetwork, LogitNetwork, TorchNetwork
from .predictor import SegmentationPredictor, draw_labels, upsample

_SYNTHETIC = "higherhrnet.research.synthetic.label_maps:build_dataset"


class SegmentationTask(Task[SegmentationConfig]):
    """See :class:`Task`."""

    name = "segmentation"
    metric = "mIoU"
    endings = ("_overlay.jpg", "_labels.png")

    def open_training(self, config: SegmentationConfig) -> TrainingItems:
        d = config.DATASET
        sets: list[LabelMaps] = []
        for entry in d.train_sets:
            classes = sets[0].classes if sets else d.CLASSES
            sets.append(_open_set(config, entry, classes, d.TRAIN_LIMIT, "train"))
        crop = RandomCrop(
            shape=(d.CROP_SIZE[1], d.CROP_SIZE[0]),
            scale=(d.MIN_SCALE, d.MAX_SCALE),
            max_side=d.BASE_SIZE,
            short_side=d.BASE_SIZE,
            flip=d.FLIP,
            color=d.COLOR_JITTER,
            augment=d.AUGMENT,
        )
        views = LabelViews(sets, crop, config.TRAIN.SEED)
        return TrainingItems(views, len(views), collate_labels, sets[0].classes)

    def open_test(self, config: SegmentationConfig, classes: Sequence[str] = ()) -> LabelMaps:
        d = config.DATASET
        entry = ImageSet(d.TEST, d.ROOT, d.IMAGE_DIR)
        return _open_set(config, entry, classes or d.CLASSES, d.TEST_LIMIT, "test")

    def build_model(self, config: SegmentationConfig, classes: int) -> SegmentationHRNet:
        m = config.MODEL
        return SegmentationHRNet(
            classes,
            m.WIDTH,
            num_modules=m.NUM_MODULES,
            num_blocks=m.NUM_BLOCKS,
            upsample_mode=m.UPSAMPLE_MODE,
            activation_checkpointing=config.TRAIN.ACTIVATION_CHECKPOINTING,
            align_corners=m.ALIGN_CORNERS,
        )

    def build_criterion(self, config: SegmentationConfig, training: TrainingItems) -> Any:
        weights = config.LOSS.CLASS_WEIGHTS
        if weights and not any(weights):
            raise UserError("config key 'LOSS.CLASS_WEIGHTS' must not be all 0")
        if weights and len(weights) != len(training.classes):
            raise UserError(
                f"config key 'LOSS.CLASS_WEIGHTS' has {len(weights)} entries for "
                f"{len(training.classes)} classes"
            )
        factors = torch.tensor(weights) if weights else None
        align_corners = config.MODEL.ALIGN_CORNERS

        def criterion(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            whole = upsample(logits.float(), labels.shape[-2:], align_corners)
            factor = None if factors is None else factors.to(whole.device)
            return {"classes": mean_cross_entropy(whole, labels, factor)}

        return criterion

    def to_device(
        self, config: SegmentationConfig, device: torch.device
    ) -> Callable[[LabelBatch], tuple[torch.Tensor, torch.Tensor]]:
        def send(batch: LabelBatch) -> tuple[torch.Tensor, torch.Tensor]:
            images = send_images(batch.images, batch.color, device)
            return images, batch.labels.to(device, non_blocking=True).long()

        return send

    def build_predictor(
        self,
        config: SegmentationConfig,
        model: nn.Module,
        classes: Sequence[str],
        device: torch.device,
    ) -> SegmentationPredictor:
        return _build_predictor(config, TorchNetwork(model, device, config.TEST.PRECISION))

    def evaluate(self, predict: Predict, test: LabelMaps, indices: Iterable[int]) -> list[Counts]:
        counts = np.zeros((len(test.classes), len(test.classes)), np.int64)
        for index in indices:
            sample = test.sample(index)
            found = predict(sample.image)
            counts += count_pixels(sample.labels, found, len(counts), NOT_COUNTED)
        return [counts]

    def summarize(
        self, config: SegmentationConfig, test: LabelMaps, parts: Sequence[Any]
    ) -> dict[str, Any]:
        counts = np.sum([count for part in parts for count in part], axis=0)
        return dict(segmentation_metrics(counts, test.classes))

    def records(self, test: LabelMaps, parts: Sequence[Any]) -> list[dict[str, Any]]:
        return []

    def describe_protocol(self, config: SegmentationConfig) -> dict[str, object]:
        t = config.TEST
        return {
            "scales": list(t.SCALE_FACTOR),
            "flip": t.FLIP_TEST,
            "short side": t.SHORT_SIDE or "as it is",
            "precision": t.PRECISION,
        }

    def draw(
        self, config: SegmentationConfig, image: Image, found: Labels, classes: Sequence[str]
    ) -> dict[str, Image]:
        overlay, labels = self.endings
        drawn = draw_labels(image, found, has_background=classes[0] == BACKGROUND)
        return {overlay: drawn, labels: found}

    def describe(
        self, config: SegmentationConfig, found: Labels, classes: Sequence[str]
    ) -> dict[str, Any]:
        shares = np.bincount(found.ravel(), minlength=len(classes)) / found.size
        return {
            "shares": {
                name: round(float(share), 6)
                for name, share in zip(classes, shares, strict=True)
                if share
            }
        }

    def summarize_image(self, described: Mapping[str, Any]) -> str:
        shares = sorted(described["shares"].items(), key=lambda pair: -pair[1])
        more = ", …" if len(shares) > 4 else ""
        return ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares[:4]) + more

    def build_graph(
        self, config: SegmentationConfig, model: nn.Module, classes: Sequence[str]
    ) -> ExportGraph:
        module = SegmentationGraph(model, config.MODEL.ALIGN_CORNERS)
        return ExportGraph(module, ("labels", "logits"), STRIDE)

    def build_exported_predictor(
        self,
        config: SegmentationConfig,
        run: RunGraph,
        shape: InputShape,
        classes: Sequence[str],
    ) -> SegmentationPredictor:
        refuse_scales(shape, config.TEST.SCALE_FACTOR)
        return _build_predictor(config, ExportedNetwork(run, shape))


def _build_predictor(config: SegmentationConfig, network: LogitNetwork) -> SegmentationPredictor:
    t = config.TEST
    return SegmentationPredictor(
        network, t.SCALE_FACTOR, t.FLIP_TEST, t.SHORT_SIDE, config.MODEL.ALIGN_CORNERS
    )


def mean_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, factors: torch.Tensor | None
) -> torch.Tensor:
    """Cross-entropy of (B, C, H, W) logits over the pixels that count; 0 if none does."""
    total = F.cross_entropy(logits, labels, factors, ignore_index=NOT_COUNTED, reduction="sum")
    counted = labels != NOT_COUNTED
    weights = counted if factors is None else factors[labels.clamp(max=len(factors) - 1)] * counted
    return total / weights.sum().clamp(min=1e-6)


def _open_set(
    config: SegmentationConfig, entry: ImageSet, classes: Sequence[str], limit: int, role: str
) -> LabelMaps:
    dataset = _read_set(config, entry, classes, limit, role)
    if len(dataset.classes) > NOT_COUNTED:
        raise UserError(
            f"{len(dataset.classes)} classes are too many: label maps tell {NOT_COUNTED} apart; "
            "name fewer with DATASET.CLASSES"
        )
    wanted = tuple(classes)
    if wanted and dataset.classes[0] == BACKGROUND and BACKGROUND not in wanted:
        wanted = (BACKGROUND, *wanted)
    if wanted and wanted != dataset.classes:
        shown = ", ".join(dataset.classes[:5]) + (", …" if len(dataset.classes) > 5 else "")
        raise UserError(
            f"the data set's {len(dataset.classes)} classes are {shown}, not the {len(wanted)} "
            f"that are wanted: {', '.join(wanted[:5])}{', …' if len(wanted) > 5 else ''}"
        )
    return dataset


def _read_set(
    config: SegmentationConfig, entry: ImageSet, classes: Sequence[str], limit: int, role: str
) -> LabelMaps:
    d = config.DATASET
    root = expand_path(entry.ROOT, "DATASET.ROOT")
    if entry.IMAGE_DIR and d.DATASET in ("cityscapes", "voc"):
        raise UserError(f"config key 'DATASET.IMAGE_DIR' means nothing for {d.DATASET}")
    if d.DATASET == "coco":
        files = find_split(root, entry.TRAIN, entry.IMAGE_DIR, "instances")
        return CocoMasks(*files, classes, limit)
    if d.DATASET == "cityscapes":
        return open_cityscapes(root, entry.TRAIN, limit)
    if d.DATASET == "voc":
        return open_voc(root, entry.TRAIN, limit)
    if d.DATASET == "folder":
        images = root / (entry.IMAGE_DIR or "images") / entry.TRAIN
        labels = root / d.LABEL_DIR / entry.TRAIN
        return LabelFolder(images, labels, classes, d.IGNORE_LABEL, limit)
    path = _SYNTHETIC if d.DATASET in ("synthetic", "synthetic_parts") else d.DATASET
    made: LabelMaps = load_object(path, "DATASET.DATASET")(config, role)
    return made


TASK = SegmentationTask()
