"""What training, inference and evaluation ask of a method of pose estimation.

Everything in which bottom-up and top-down differ is in ``methods/bottom_up`` and
``methods/top_down`` behind :class:`Method`. To add a method, write one more folder with a
``method.py``, name it in :data:`METHODS`, and give it a schema in ``config/schema.py``.
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

from ..boxes import Boxes
from ..config import Config, PoseConfig
from ..datasets.base import PoseDataset
from ..datasets.composition import Composition
from ..datasets.transforms import Transform
from ..errors import UserError
from ..inference.engines.base import Engine
from ..inference.predictor import Predictor
from ..inference.types import BoxesOf, Diagnostics
from ..io.pixels import Image
from ..models.custom_head import CustomHeadModel
from ..models.pose_model import PoseModel
from ..models.state_dict import Architecture
from ..outputs import Head, NetworkSpec
from ..plugins import load_object
from ..poses import Poses
from ..skeleton import Skeleton
from ..structures import KeypointIndices, Targets
from .graphs import PoseNetwork


@dataclass(frozen=True)
class ExportGraph:
    """A network that is ready to be exported.

    Attributes:
        module: (B, H, W, 3) uint8 RGB → a tuple of float32 outputs; its ``network`` may be cast.
        outputs: their names.
        network: what the first of them, ``heatmaps`` and ``tags``, are.
    """

    module: PoseNetwork
    outputs: tuple[str, ...]
    network: NetworkSpec


Criterion = Callable[[Any, Any], dict[str, torch.Tensor]]
"""(outputs, targets) → named losses; their sum is minimized."""
FindBoxes = Callable[[Image], Boxes]
"""(H, W, 3) uint8 RGB → boxes of people, best first."""
LoadFinder = Callable[[str, torch.device, Sequence[Any]], Predictor | FindBoxes]
"""(weights, device, overrides) → a predictor that returns all people, or a detector."""
C = TypeVar("C", bound=PoseConfig)


class Codec(Protocol):
    """People ↔ maps: the half of it that training uses."""

    @property
    def heads(self) -> tuple[Head, ...]:
        """The outputs that targets are made for."""

    def index_keypoints(
        self, poses: Poses, valid: npt.NDArray[np.uint8], flipped: bool
    ) -> KeypointIndices:
        """Heatmap indices of one view's keypoints."""

    def encode(self, keypoints: KeypointIndices) -> Targets:
        """Targets of a batch of views, on the device of the indices."""


class Method(ABC, Generic[C]):
    """One way of finding people. Config objects stop here: what it builds knows none.

    Attributes:
        name: ``bottom-up`` or ``top-down``.
        finds_people: whether its predictors need no boxes.
        default_weights: its bundled checkpoint.
        presets: settings of presets by name, for checkpoints that have none of their own.
    """

    name: ClassVar[str]
    finds_people: ClassVar[bool]
    default_weights: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @abstractmethod
    def build_model(self, config: C, joints: int) -> PoseModel:
        """The network, freshly initialized."""

    @abstractmethod
    def build_codec(self, config: C, heads: tuple[Head, ...], skeleton: Skeleton) -> Codec:
        """The codec of a network's heads with the test settings."""

    @abstractmethod
    def build_criterion(self, config: C, model: PoseModel) -> Criterion:
        """The losses of the network's heads."""

    @abstractmethod
    def build_transform(self, config: C, skeleton: Skeleton) -> Transform:
        """What chooses training views."""

    @abstractmethod
    def build_composition(self, config: C) -> Composition | None:
        """What combines images before views are chosen, if anything."""

    @abstractmethod
    def training_items(self, dataset: PoseDataset) -> tuple[PoseDataset, npt.NDArray[np.int64]]:
        """What an epoch consists of: images or people; and the image of each item."""

    @abstractmethod
    def view_shape(self, config: C) -> tuple[int, int]:
        """(H, W) of what the network sees in training."""

    @abstractmethod
    def with_mask(self, config: C) -> bool:
        """Whether crowds and people without keypoints are left out of the loss."""

    @abstractmethod
    def padding_in_loss(self, config: C) -> bool:
        """Whether the loss counts beyond an image's edges."""

    def extra_heads(self, config: C) -> tuple[str, ...]:
        """What the network predicts beside keypoints; training samples need silhouettes then."""
        return ()

    def evaluate_extra_heads(
        self, predictor: Predictor, dataset: PoseDataset, indices: Iterable[int]
    ) -> Any:
        """What is known of the heads beside the keypoints' after some images, to be gathered from
        all processes."""

    def summarize_extra_heads(
        self, parts: Sequence[Any], annotations: Mapping[str, Any]
    ) -> dict[str, float]:
        """Metrics 0..1 of all that :meth:`evaluate_extra_heads` gave."""
        return {}

    @abstractmethod
    def build_predictor(
        self,
        config: C,
        engine: Engine,
        network: NetworkSpec,
        skeleton: Skeleton,
        device: torch.device,
        load: LoadFinder,
    ) -> Predictor:
        """A predictor with the config's test protocol.

        Args:
            engine: computes the network.
            network: what it gives.
            load: makes what finds boxes, where the config names its weights.
        """

    @abstractmethod
    def build_graph(
        self, model: PoseModel, predictor: Predictor, flip: bool, candidates: bool
    ) -> ExportGraph:
        """What is exported of a network: everything from uint8 images on that needs no data.

        Args:
            model: in evaluation mode.
            predictor: its codec and test-time augmentation are what the graph computes.
            flip: do the flip test inside.
            candidates: decode peaks inside.

        Raises:
            UserError: the predictor's settings cannot be part of a graph.
        """

    @abstractmethod
    def build_boxes(self, config: C, dataset: PoseDataset) -> BoxesOf:
        """Where the boxes of a data set's people come from.

        Raises:
            UserError: the config's box source does not fit the data set.
        """

    @abstractmethod
    def check_detector(self, config: C, kind_of: Callable[[str], str | None]) -> None:
        """Find out whether the config's detector finds people, without building it.

        Args:
            config: with the detector.
            kind_of: weights file → its ``MODEL.NAME``, if it is known.

        Raises:
            UserError: it does not.
        """

    @abstractmethod
    def input_files(self, config: C) -> list[Path]:
        """Files beside weights and images that decide the predictions."""

    @abstractmethod
    def listed_boxes(self, config: C) -> dict[int | str, Boxes] | None:
        """Boxes by image that the config's box file lists; None if it names no file."""

    @abstractmethod
    def prediction_overrides(self, boxes: str | None, overrides: Sequence[str]) -> list[str]:
        """Settings for images that are not annotated.

        Args:
            boxes: what the user wants to find boxes with, if anything.
            overrides: the user's own settings.

        Raises:
            UserError: this method has no use for boxes.
        """

    @abstractmethod
    def build_diagnostics(self, config: C, skeleton: Skeleton) -> Diagnostics | None:
        """What is measured during validation beside the metrics."""

    @abstractmethod
    def describe_architecture(self, found: Architecture) -> dict[str, dict[str, Any]]:
        """The config sections that fit a checkpoint's tensors."""

    @abstractmethod
    def describe_protocol(self, config: C) -> dict[str, object]:
        """The settings that produced a metric."""

    @abstractmethod
    def describe_dropped(self, config: C, dropped: Mapping[str, int]) -> list[str]:
        """What the limits dropped, in words."""


def build_custom_head_model(config: Any, joints: int) -> PoseModel:
    """The backbone with the head that ``MODEL.HEAD`` names; see :class:`CustomHeadModel`."""
    m = config.MODEL
    return CustomHeadModel(
        joints,
        load_object(m.HEAD, "MODEL.HEAD"),
        m.WIDTH,
        num_modules=m.NUM_MODULES,
        num_blocks=m.NUM_BLOCKS,
        upsample_mode=m.UPSAMPLE_MODE,
        activation_checkpointing=config.TRAIN.ACTIVATION_CHECKPOINTING,
    )


def build_custom_criterion(config: Any, model: PoseModel) -> Criterion:
    """What ``LOSS.KIND`` names, called as ``name(config, model)``: (outputs, targets) → named
    losses."""
    made: Criterion = load_object(config.LOSS.KIND, "LOSS.KIND")(config, model)
    return made


METHODS = {"bottom-up": "bottom_up", "top-down": "top_down"}
"""``Config.method`` → folder of the method."""


def method_of(config: Config) -> Method[Any]:
    """The method that a config describes.

    Raises:
        UserError: the config is one of a classifier.
    """
    if config.method not in METHODS:
        raise UserError(f"config key 'MODEL.NAME' is '{config.MODEL.NAME}', which finds no people")
    return get_method(config.method)


def get_method(name: str) -> Method[Any]:
    """A method by its name in :data:`METHODS`."""
    method: Method[Any] = import_module(f".{METHODS[name]}.method", __package__).METHOD
    return method
