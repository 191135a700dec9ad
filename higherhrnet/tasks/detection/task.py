"""HRNetV2p under torchvision's heads, as a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ...config import DetectorConfig
from ...datasets.boxes import BoxBatch, BoxViews, CocoBoxes, CollateBoxes
from ...datasets.crops import RandomCrop
from ...errors import UserError
from ...evaluation.box_ap import box_metrics
from ...models.detector import DetectionTargets, Detector, DetectorInputs
from ..base import (
    ExportGraph,
    Image,
    Predict,
    RunGraph,
    Task,
    TrainingItems,
    find_test_set,
    find_training_sets,
    refuse_scales,
)
from ..inputs import STRIDE, InputShape, send_images
from .graph import DetectionGraph
from .networks import BoxNetwork, ExportedDetector, TorchDetector
from .predictor import DetectionPredictor, FoundBoxes, draw_boxes


class DetectionTask(Task[DetectorConfig]):
    """See :class:`Task`."""

    name = "detection"
    metric = "AP"
    endings = ("_boxes.jpg",)

    def open_training(self, config: DetectorConfig) -> TrainingItems:
        d = config.DATASET
        sets: list[CocoBoxes] = []
        for file, images in find_training_sets(d):
            classes = sets[0].classes if sets else d.CLASSES
            sets.append(CocoBoxes(file, images, classes, d.TRAIN_LIMIT, True))
        width, height = d.CROP_SIZE
        crop = RandomCrop(
            shape=(height, width) if width else None,
            scale=(d.MIN_SCALE, d.MAX_SCALE),
            short_side=d.INPUT_SIZE,
            max_side=d.MAX_SIZE,
            flip=d.FLIP,
            color=d.COLOR_JITTER,
            augment=d.AUGMENT,
        )
        views = BoxViews(sets, crop, config.TRAIN.SEED)
        collate = CollateBoxes(last_stride(config))
        return TrainingItems(views, len(views), collate, sets[0].classes)

    def open_test(self, config: DetectorConfig, classes: Sequence[str] = ()) -> CocoBoxes:
        d = config.DATASET
        return CocoBoxes(*find_test_set(d), classes or d.CLASSES, d.TEST_LIMIT)

    def build_model(self, config: DetectorConfig, classes: int) -> Detector:
        m, t = config.MODEL, config.TEST
        model = Detector(
            classes,
            m.WIDTH,
            m.BOX_HEAD,
            m.PYRAMID_CHANNELS,
            m.PYRAMID_LEVELS,
            m.PYRAMID_STRIDE,
            m.HEAD_CONVS,
            num_modules=m.NUM_MODULES,
            num_blocks=m.NUM_BLOCKS,
            upsample_mode=m.UPSAMPLE_MODE,
            activation_checkpointing=config.TRAIN.ACTIVATION_CHECKPOINTING,
        )
        model.set_limits(t.SCORE_THRE, t.NMS_THRE, t.MAX_DETECTIONS)
        return model

    def build_criterion(self, config: DetectorConfig, training: TrainingItems) -> Any:
        return lambda losses, targets: losses  # torchvision's detectors give losses themselves

    def to_device(
        self, config: DetectorConfig, device: torch.device
    ) -> Callable[[BoxBatch], tuple[DetectorInputs, None]]:
        def send(batch: BoxBatch) -> tuple[DetectorInputs, None]:
            images = send_images(batch.images, batch.color, device)
            targets = DetectionTargets(batch.boxes.to(device), batch.labels.to(device))
            return DetectorInputs(images, targets), None

        return send

    def build_predictor(
        self, config: DetectorConfig, model: nn.Module, classes: Sequence[str], device: torch.device
    ) -> DetectionPredictor:
        assert isinstance(model, Detector)
        return _build_predictor(config, TorchDetector(model, device, config.TEST.PRECISION))

    def evaluate(
        self, predict: Predict, test: CocoBoxes, indices: Iterable[int]
    ) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = []
        for index in indices:
            sample = test.sample(index)
            found: FoundBoxes = predict(sample.image)
            for box, score, label in zip(found.xywh, found.score, found.labels, strict=True):
                records.append(
                    {
                        "image_id": sample.id,
                        "category_id": test.categories[label],
                        "bbox": [round(float(value), 3) for value in box],
                        "score": round(float(score), 6),
                    }
                )
        return records

    def records(self, test: CocoBoxes, parts: Sequence[Any]) -> list[dict[str, Any]]:
        order = {test.image_id(index): index for index in range(len(test))}
        found = [record for part in parts for record in part]
        return sorted(found, key=lambda record: order[record["image_id"]])

    def summarize(
        self, config: DetectorConfig, test: CocoBoxes, parts: Sequence[Any]
    ) -> dict[str, Any]:
        return dict(box_metrics(self.records(test, parts), test.annotations))

    def describe_protocol(self, config: DetectorConfig) -> dict[str, object]:
        d, t = config.DATASET, config.TEST
        return {
            "head": config.MODEL.BOX_HEAD,
            "short side": d.INPUT_SIZE,
            "longest side": d.MAX_SIZE,
            "scales": list(t.SCALE_FACTOR),
            "flip": t.FLIP_TEST,
            "lowest score": t.SCORE_THRE,
            "NMS": t.NMS_THRE,
            "boxes an image": t.MAX_DETECTIONS,
            "precision": t.PRECISION,
        }

    def draw(
        self, config: DetectorConfig, image: Image, found: FoundBoxes, classes: Sequence[str]
    ) -> dict[str, Image]:
        return {
            self.endings[0]: draw_boxes(image, found.at_least(config.TEST.DISPLAY_SCORE), classes)
        }

    def describe(
        self, config: DetectorConfig, found: FoundBoxes, classes: Sequence[str]
    ) -> dict[str, Any]:
        kept = found.at_least(config.TEST.DISPLAY_SCORE)
        return {
            "boxes": [
                {
                    "category_id": int(label) + 1,
                    "bbox": box.round(2).tolist(),
                    "score": round(score, 4),
                }
                for box, score, label in zip(
                    kept.xywh, kept.score.tolist(), kept.labels, strict=True
                )
            ]
        }

    def summarize_image(self, described: Mapping[str, Any]) -> str:
        number = len(described["boxes"])
        return f"{number} box{'' if number == 1 else 'es'}"

    def collect(self, images: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Any:
        """In COCO's format, so that ``predict --boxes`` and labeling tools read it."""
        boxes = [(n, box) for n, image in enumerate(images, 1) for box in image["boxes"]]
        return {
            "images": [
                {"id": n, **{key: value for key, value in image.items() if key != "boxes"}}
                for n, image in enumerate(images, 1)
            ],
            "annotations": [
                {
                    "id": number,
                    "image_id": image,
                    **box,
                    "area": round(box["bbox"][2] * box["bbox"][3], 2),
                    "iscrowd": 0,
                }
                for number, (image, box) in enumerate(boxes, 1)
            ],
            "categories": [{"id": n, "name": name} for n, name in enumerate(classes, 1)],
        }

    def build_graph(
        self, config: DetectorConfig, model: nn.Module, classes: Sequence[str]
    ) -> ExportGraph:
        assert isinstance(model, Detector)
        if config.MODEL.BOX_HEAD != "fcos":
            raise UserError(
                f"of detectors those with an fcos head are exported, not {config.MODEL.BOX_HEAD}"
            )
        return ExportGraph(DetectionGraph(model), ("boxes", "scores"), last_stride(config))

    def build_exported_predictor(
        self,
        config: DetectorConfig,
        run: RunGraph,
        shape: InputShape,
        classes: Sequence[str],
    ) -> DetectionPredictor:
        t = config.TEST
        refuse_scales(shape, t.SCALE_FACTOR)
        network = ExportedDetector(
            run, shape, strides(config), t.SCORE_THRE, t.NMS_THRE, t.MAX_DETECTIONS
        )
        return _build_predictor(config, network)


def _build_predictor(config: DetectorConfig, network: BoxNetwork) -> DetectionPredictor:
    d, t = config.DATASET, config.TEST
    return DetectionPredictor(
        network, d.INPUT_SIZE, d.MAX_SIZE, t.SCALE_FACTOR, t.FLIP_TEST, t.NMS_THRE, t.MAX_DETECTIONS
    )


def strides(config: DetectorConfig) -> tuple[int, ...]:
    """Of a pyramid's levels, input pixels."""
    m = config.MODEL
    return tuple(m.PYRAMID_STRIDE * 2**level for level in range(m.PYRAMID_LEVELS))


def last_stride(config: DetectorConfig) -> int:
    """What the sides of a network's input are multiples of."""
    return max(strides(config)[-1], STRIDE)


TASK = DetectionTask()
