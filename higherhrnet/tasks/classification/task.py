"""ImageNet classification, to pre-train backbones: ``MODEL.NAME cls_hrnet``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ...config import ClassifierConfig
from ...datasets.image_folder import ClassBatch, ClassFolder, collate_classes, middle_of
from ...errors import UserError
from ...io.images import read_image
from ...io.paths import expand_path
from ...models.classifier import Classifier
from ...models.normalization import normalize
from ..base import ExportGraph, Image, Predict, RunGraph, Task, TrainingItems
from ..inputs import STRIDE, InputShape
from .graph import ClassificationGraph


class ClassificationTask(Task[ClassifierConfig]):
    """See :class:`Task`. ``best.pth`` has the official names, so that ``MODEL.PRETRAINED`` of any
    config takes its backbone."""

    name = "classification"
    metric = "accuracy"
    best_file = "best.pth"

    def open_training(self, config: ClassifierConfig) -> TrainingItems:
        folder = self._open(config, config.DATASET.TRAIN, config.DATASET.AUGMENT)
        return TrainingItems(folder, len(folder), collate_classes, tuple(folder.names))

    def open_test(self, config: ClassifierConfig, classes: Sequence[str] = ()) -> ClassFolder:
        d = config.DATASET
        folder = self._open(config, d.TEST, augment=False)
        if classes and tuple(folder.names) != tuple(classes):
            odd = sorted(set(folder.names) ^ set(classes))
            root = expand_path(d.ROOT, "DATASET.ROOT")
            raise UserError(f"'{root}': classes of {d.TRAIN} and {d.TEST} differ, e.g. '{odd[0]}'")
        return folder

    def _open(self, config: ClassifierConfig, split: str, augment: bool) -> ClassFolder:
        d = config.DATASET
        root = expand_path(d.ROOT, "DATASET.ROOT")
        return ClassFolder(root / split, d.INPUT_SIZE, config.TRAIN.SEED, augment)

    def build_model(self, config: ClassifierConfig, classes: int) -> Classifier:
        m = config.MODEL
        return Classifier(
            m.WIDTH,
            classes,
            num_modules=m.NUM_MODULES,
            num_blocks=m.NUM_BLOCKS,
            upsample_mode=m.UPSAMPLE_MODE,
            activation_checkpointing=config.TRAIN.ACTIVATION_CHECKPOINTING,
        )

    def build_criterion(self, config: ClassifierConfig, training: TrainingItems) -> Any:
        return lambda logits, classes: {"classes": F.cross_entropy(logits.float(), classes)}

    def to_device(
        self, config: ClassifierConfig, device: torch.device
    ) -> Callable[[ClassBatch], tuple[torch.Tensor, torch.Tensor]]:
        def send(batch: ClassBatch) -> tuple[torch.Tensor, torch.Tensor]:
            images = batch.images.to(device, memory_format=torch.channels_last, non_blocking=True)
            return normalize(images), batch.classes.to(device, non_blocking=True)

        return send

    def build_predictor(
        self,
        config: ClassifierConfig,
        model: nn.Module,
        classes: Sequence[str],
        device: torch.device,
    ) -> Predict:
        @torch.inference_mode()
        def classify(views: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = model(normalize(views.to(device)))
            return logits

        return _build_predictor(config, classify)

    def evaluate(self, predict: Predict, test: ClassFolder, indices: Iterable[int]) -> int:
        files = (test.files[index] for index in indices)
        return sum(predict(read_image(path, upright=False)) == number for path, number in files)

    def summarize(
        self, config: ClassifierConfig, test: ClassFolder, parts: Sequence[Any]
    ) -> dict[str, Any]:
        return {"accuracy": sum(parts) / len(test)}

    def records(self, test: ClassFolder, parts: Sequence[Any]) -> list[dict[str, Any]]:
        return []

    def describe_protocol(self, config: ClassifierConfig) -> dict[str, object]:
        return {"input size": config.DATASET.INPUT_SIZE}

    def draw(
        self, config: ClassifierConfig, image: Image, found: int, classes: Sequence[str]
    ) -> dict[str, Image]:
        return {}

    def describe(
        self, config: ClassifierConfig, found: int, classes: Sequence[str]
    ) -> dict[str, Any]:
        return {"class": classes[found] if classes else found}

    def summarize_image(self, described: Mapping[str, Any]) -> str:
        return str(described["class"])

    def build_graph(
        self, config: ClassifierConfig, model: nn.Module, classes: Sequence[str]
    ) -> ExportGraph:
        side = config.DATASET.INPUT_SIZE
        return ExportGraph(ClassificationGraph(model), ("logits",), STRIDE, (side, side))

    def build_exported_predictor(
        self,
        config: ClassifierConfig,
        run: RunGraph,
        shape: InputShape,
        classes: Sequence[str],
    ) -> Predict:
        side = config.DATASET.INPUT_SIZE
        if shape.size not in (None, (side, side)):
            raise UserError(
                f"config key 'DATASET.INPUT_SIZE' is {side}, and the exported network reads images "
                f"of {shape.size[0]}x{shape.size[1]} alone"
            )

        def classify(views: torch.Tensor) -> torch.Tensor:
            (logits,) = run(views.permute(0, 2, 3, 1).numpy(), ["logits"])
            return torch.from_numpy(logits)

        return _build_predictor(config, classify)


def _build_predictor(
    config: ClassifierConfig, classify: Callable[[torch.Tensor], torch.Tensor]
) -> Predict:
    """What classifies images, of what gives (1, C) logits of (1, 3, H, W) uint8 views."""
    view = middle_of(config.DATASET.INPUT_SIZE)

    def predict(image: Image) -> int:
        return int(classify(view(torch.from_numpy(image).permute(2, 0, 1))[None]).argmax())

    return predict


TASK = ClassificationTask()
