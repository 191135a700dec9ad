"""What training, validation and prediction ask of a task that finds no poses.

Everything in which classification, segmentation and detection differ is in their folders behind
:class:`Task`. To add one, write one more folder with a ``task.py``, name it in :data:`TASKS`, and
give it a schema in ``config/tasks.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import Dataset

from ..config import Config, ImageDataset
from ..datasets.paths import find_split
from ..errors import UserError
from ..io.paths import expand_path
from .inputs import InputShape

C = TypeVar("C", bound=Config)
Image = npt.NDArray[np.uint8]
Predict = Callable[[Image], Any]
"""(H, W, 3) uint8 RGB → what the task finds there."""
RunGraph = Callable[[Image, Sequence[str]], list[npt.NDArray[np.float32]]]
"""(B, H, W, 3) uint8 RGB → the named outputs of an exported graph."""


class TestSet(Protocol):
    """Annotated images by number."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class TrainingItems:
    """What training loads.

    Attributes:
        views: indexed by (epoch, image).
        count: images.
        collate: views → batch, which has ``ids``.
        classes: names by number.
    """

    views: Dataset[Any]
    count: int
    collate: Callable[[list[Any]], Any]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class ExportGraph:
    """A network that is ready to be exported.

    Attributes:
        module: (B, H, W, 3) uint8 RGB → a tuple of float32 outputs.
        outputs: their names.
        multiple: H and W are multiples of it.
        size: (H, W) if it reads but one.
    """

    module: nn.Module
    outputs: tuple[str, ...]
    multiple: int
    size: tuple[int, int] | None = None


class Task(ABC, Generic[C]):
    """One use of an HRNet. Config objects stop here: what it builds knows none.

    Attributes:
        name: as ``Config.method``.
        metric: decides which weights are best.
        best_file: where they go.
        endings: of the names of the images that ``predict`` writes: drawings are JPEG, data is PNG.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    best_file: ClassVar[str] = "best.safetensors"
    endings: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def open_training(self, config: C) -> TrainingItems:
        """The training images and their views."""

    @abstractmethod
    def open_test(self, config: C, classes: Sequence[str] = ()) -> Any:
        """The annotated test images.

        Args:
            classes: of a network, in the order of its outputs; empty for the config's.

        Raises:
            UserError: the images have other classes.
        """

    @abstractmethod
    def build_model(self, config: C, classes: int) -> nn.Module:
        """The network, freshly initialized."""

    @abstractmethod
    def build_criterion(self, config: C, training: TrainingItems) -> Any:
        """(outputs, targets) → named losses."""

    @abstractmethod
    def to_device(self, config: C, device: torch.device) -> Callable[[Any], tuple[Any, Any]]:
        """What makes the network's inputs and targets of a batch."""

    @abstractmethod
    def build_predictor(
        self, config: C, model: nn.Module, classes: Sequence[str], device: torch.device
    ) -> Predict:
        """What predicts whole images with the config's test protocol."""

    @abstractmethod
    def evaluate(self, predict: Predict, test: Any, indices: Iterable[int]) -> Any:
        """What is known after some of the images, to be gathered from all processes."""

    @abstractmethod
    def summarize(self, config: C, test: Any, parts: Sequence[Any]) -> dict[str, Any]:
        """Metrics 0..1 of everything that was evaluated, :attr:`metric` among them."""

    @abstractmethod
    def records(self, test: Any, parts: Sequence[Any]) -> list[dict[str, Any]]:
        """What ``valid`` writes as ``results.json``; empty where there is no such format."""

    @abstractmethod
    def describe_protocol(self, config: C) -> dict[str, object]:
        """The settings that produced a metric."""

    @abstractmethod
    def draw(self, config: C, image: Image, found: Any, classes: Sequence[str]) -> dict[str, Image]:
        """What ``predict`` writes of an image: one of :attr:`endings` → RGB or gray pixels."""

    @abstractmethod
    def describe(self, config: C, found: Any, classes: Sequence[str]) -> dict[str, Any]:
        """What ``predict`` writes of an image into ``predictions.json``."""

    @abstractmethod
    def summarize_image(self, described: Mapping[str, Any]) -> str:
        """What :meth:`describe` gave of an image, in a few words."""

    def collect(self, images: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Any:
        """The content of ``predictions.json``.

        Args:
            images: ``file_name``, ``height``, ``width`` and what :meth:`describe` gave of each.
        """
        return {"classes": list(classes), "images": list(images)}

    @abstractmethod
    def build_graph(self, config: C, model: nn.Module, classes: Sequence[str]) -> ExportGraph:
        """What is exported of a network: everything from uint8 images on.

        Raises:
            UserError: a network of this config is not exported.
        """

    @abstractmethod
    def build_exported_predictor(
        self, config: C, run: RunGraph, shape: InputShape, classes: Sequence[str]
    ) -> Predict:
        """What predicts whole images with an exported graph of :meth:`build_graph`.

        Args:
            config: with the wanted test protocol.
            run: what runs it.
            shape: which images it reads.
            classes: names by number.

        Raises:
            UserError: the protocol wants images that the network does not read.
        """


TASKS = ("classification", "segmentation", "detection")
"""``Config.method`` of configs that are not a pose method's, and the folder of each."""


def get_task(name: str) -> Task[Any]:
    """A task by its name in :data:`TASKS`."""
    task: Task[Any] = import_module(f".{name}.task", __package__).TASK
    return task


def refuse_scales(shape: InputShape, scales: Sequence[float]) -> None:
    """That a network reads images of all the wanted scales.

    Raises:
        UserError: it reads one size.
    """
    if shape.size is not None and tuple(scales) != (1.0,):
        raise UserError(
            f"config key 'TEST.SCALE_FACTOR' is {list(scales)}, and the exported network reads "
            f"images of {shape.size[0]}x{shape.size[1]} alone; export it without --size"
        )


def find_training_sets(dataset: ImageDataset) -> list[tuple[Path, Path]]:
    """Annotation file and image folder of each training set."""
    return [
        find_split(
            expand_path(entry.ROOT, "DATASET.ROOT"), entry.TRAIN, entry.IMAGE_DIR, "instances"
        )
        for entry in dataset.train_sets
    ]


def find_test_set(dataset: ImageDataset) -> tuple[Path, Path]:
    """Annotation file and image folder of the test set."""
    root = expand_path(dataset.ROOT, "DATASET.ROOT")
    return find_split(root, dataset.TEST, dataset.IMAGE_DIR, "instances")
