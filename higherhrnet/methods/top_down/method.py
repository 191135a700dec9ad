"""The top-down method: config → objects."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from ...boxes import Boxes, find_boxes, read_detections
from ...config import TopDownConfig
from ...datasets.base import PoseDataset
from ...datasets.composition import Composition
from ...datasets.transforms import Transform
from ...errors import UserError
from ...evaluation.operating_point import OperatingPoint
from ...inference.engines.base import Engine
from ...inference.predictor import Predictor
from ...inference.types import BoxesOf, Diagnostics
from ...io.paths import expand_path
from ...models.model_zoo import MODEL_ZOO, find_weights
from ...models.pose_hrnet import PoseHRNet
from ...models.pose_model import PoseModel
from ...models.state_dict import Architecture
from ...outputs import Head, NetworkSpec
from ...skeleton import Skeleton
from ...structures import Sample
from ..base import (
    Criterion,
    ExportGraph,
    LoadFinder,
    Method,
    build_custom_criterion,
    build_custom_head_model,
)
from .codec import TopDownCodec
from .detectors import DETECTORS, BottomUpDetector, PersonDetector, build_torchvision_detector
from .graph import build_graph
from .instances import PersonInstances
from .losses import TopDownLoss
from .predictor import Detector, TopDownPredictor
from .transforms import BoxView, PersonView

_SOURCE_KEYS = ("TEST.BBOX_SOURCE", "TEST.BOXES")
"""The key of the box source, and what version 0.1 called it."""
DEFAULT_DETECTOR = "fcos_w18_person"
"""Finds the people in images that are not annotated, if nothing else is named."""


class TopDown(Method[TopDownConfig]):
    """HRNet on the box of one person."""

    name = "top-down"
    finds_people = False
    default_weights = "hrnet_w18_mini"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"fast": {"TEST.FLIP_TEST": False}}

    def build_model(self, config: TopDownConfig, joints: int) -> PoseModel:
        """See :class:`Method`."""
        m = config.MODEL
        if m.HEAD:
            return build_custom_head_model(config, joints)
        return PoseHRNet(
            joints=joints,
            width=m.WIDTH,
            num_modules=m.NUM_MODULES,
            num_blocks=m.NUM_BLOCKS,
            upsample_mode=m.UPSAMPLE_MODE,
            activation_checkpointing=config.TRAIN.ACTIVATION_CHECKPOINTING,
        )

    def build_codec(
        self, config: TopDownConfig, heads: tuple[Head, ...], skeleton: Skeleton
    ) -> TopDownCodec:
        """See :class:`Method`."""
        test = config.TEST
        return TopDownCodec(
            skeleton=skeleton,
            heads=heads,
            sigma=config.MODEL.SIGMA,
            decoding=test.DECODING,
            shift_heatmap=test.SHIFT_HEATMAP,
            in_vis_threshold=test.IN_VIS_THRE,
        )

    def build_criterion(self, config: TopDownConfig, model: PoseModel) -> Criterion:
        """See :class:`Method`."""
        if config.LOSS.KIND:
            return build_custom_criterion(config, model)
        weights = config.LOSS.JOINT_WEIGHTS
        if len(weights) not in (0, model.joints):
            raise UserError(
                f"config key 'LOSS.JOINT_WEIGHTS' has {len(weights)} factors, but the skeleton has "
                f"{model.joints} joints"
            )
        return TopDownLoss(model.heads, weights, config.LOSS.OHKM_TOPK)

    def build_transform(self, config: TopDownConfig, skeleton: Skeleton) -> Transform:
        """See :class:`Method`."""
        d, shape = config.DATASET, self.view_shape(config)
        if not d.AUGMENT:
            return BoxView(shape, d.BBOX_PADDING)
        return PersonView(
            shape,
            skeleton.upper,
            scale=(1 - d.SCALE_FACTOR, 1 + d.SCALE_FACTOR),
            rotation=d.ROT_FACTOR,
            rotation_probability=d.ROT_PROB,
            half_body=d.PROB_HALF_BODY,
            flip=d.FLIP,
            color=d.COLOR_JITTER,
            padding=d.BBOX_PADDING,
        )

    def build_composition(self, config: TopDownConfig) -> Composition | None:
        """None: a crop shows one person."""
        return None

    def training_items(self, dataset: PoseDataset) -> tuple[PoseDataset, npt.NDArray[np.int64]]:
        """People."""
        people = PersonInstances(dataset)
        return people, people.image_of_person

    def view_shape(self, config: TopDownConfig) -> tuple[int, int]:
        """A person's crop."""
        width, height = config.MODEL.IMAGE_SIZE
        return height, width

    def with_mask(self, config: TopDownConfig) -> bool:
        """The published loss ignores no region; drawings show the mask."""
        return True

    def padding_in_loss(self, config: TopDownConfig) -> bool:
        """The published loss ignores no region."""
        return False

    def build_predictor(
        self,
        config: TopDownConfig,
        engine: Engine,
        network: NetworkSpec,
        skeleton: Skeleton,
        device: torch.device,
        load: LoadFinder,
    ) -> TopDownPredictor:
        """See :class:`Method`."""
        test = config.TEST
        return TopDownPredictor(
            engine=engine,
            skeleton=skeleton,
            batch_size=test.BATCH_SIZE,
            workers=test.WORKERS,
            codec=self.build_codec(config, network.heads, skeleton),
            image_size=self.view_shape(config),
            padding=config.DATASET.BBOX_PADDING,
            flip=test.FLIP_TEST and not network.flip,
            crops_per_batch=test.CROPS_PER_BATCH,
            detector=self._build_detector(config, device, load),
            bbox_threshold=test.BBOX_THRE,
            oks_threshold=test.OKS_THRE,
            soft_nms=test.SOFT_NMS,
        )

    def _build_detector(
        self, config: TopDownConfig, device: torch.device, load: LoadFinder
    ) -> Detector | None:
        """What finds boxes; None where they come with the images."""
        name = config.TEST.BBOX_SOURCE
        if self._finder_weights(config) is None:
            return build_torchvision_detector(name, device) if name in DETECTORS else None
        found = load(name, device, ["TEST.PRECISION", config.TEST.PRECISION])
        if not isinstance(found, Predictor):
            return PersonDetector(found)
        people = found
        if not people.finds_people:
            raise UserError(
                f"config key 'TEST.BBOX_SOURCE': '{name}' is top-down and needs boxes itself"
            )
        people.operating_point = OperatingPoint(person=0.1, joint=0.0, refined=0.0, duplicate=1.0)
        return BottomUpDetector(people)

    def _finder_weights(self, config: TopDownConfig) -> Path | None:
        """The weights file that the config wants to find boxes with, if it is that."""
        name = config.TEST.BBOX_SOURCE
        if name == "ground_truth" or name.endswith(".json") or name in DETECTORS:
            return None
        try:
            file = find_weights(name)
            if not file.is_file():
                raise UserError(f"weights file '{file}' does not exist")
            return file
        except UserError as error:
            if name in MODEL_ZOO:
                raise
            raise UserError(
                "config key 'TEST.BBOX_SOURCE' must be ground_truth, FILE.json, weights of a "
                "detector or of a bottom-up network, or one of "
                f"{', '.join(DETECTORS)}, not '{name}'"
            ) from error

    def build_graph(
        self, model: PoseModel, predictor: Predictor, flip: bool, candidates: bool
    ) -> ExportGraph:
        """See :class:`Method`."""
        assert isinstance(predictor, TopDownPredictor)
        return build_graph(model, predictor, flip, candidates)

    def build_boxes(self, config: TopDownConfig, dataset: PoseDataset) -> BoxesOf:
        """See :class:`Method`."""
        name, jitter = config.TEST.BBOX_SOURCE, config.TEST.BBOX_JITTER
        self._finder_weights(config)  # a name that means nothing is found now
        if name == "ground_truth":
            return _ground_truth_boxes(dataset, jitter)
        if jitter:
            raise UserError(
                f"config key 'TEST.BBOX_JITTER' moves ground-truth boxes, not those of '{name}'"
            )
        listed = self.listed_boxes(config)
        if listed is None:
            return lambda sample: None
        found = {
            image["id"]: find_boxes(listed, image["id"], str(image["file_name"]))
            for image in dataset.annotations["images"]
        }
        if all(boxes is None for boxes in found.values()):
            raise UserError(f"box file '{name}' lists none of the test images by their image ids")
        return lambda sample: found.get(sample.id) or Boxes.of([])

    def check_detector(self, config: TopDownConfig, kind_of: Callable[[str], str | None]) -> None:
        """See :class:`Method`."""
        file = self._finder_weights(config)
        kind = None if file is None else kind_of(str(file))
        if kind == "pose_hrnet":
            raise UserError(f"TEST.BBOX_SOURCE '{file}' needs boxes itself")
        if kind in ("seg_hrnet", "cls_hrnet"):
            raise UserError(f"TEST.BBOX_SOURCE '{file}' finds no boxes")

    def input_files(self, config: TopDownConfig) -> list[Path]:
        """The box file, or the weights that find boxes."""
        name, weights = config.TEST.BBOX_SOURCE, self._finder_weights(config)
        if name.endswith(".json"):
            return [expand_path(name, "TEST.BBOX_SOURCE")]
        return [] if weights is None else [weights]

    def listed_boxes(self, config: TopDownConfig) -> dict[int | str, Boxes] | None:
        """See :class:`Method`."""
        name = config.TEST.BBOX_SOURCE
        if not name.endswith(".json"):
            return None
        return read_detections(expand_path(name, "TEST.BBOX_SOURCE"))

    def prediction_overrides(self, boxes: str | None, overrides: Sequence[str]) -> list[str]:
        """See :class:`Method`."""
        pairs = zip(overrides[::2], overrides[1::2], strict=True)
        named = [value for key, value in pairs if key in _SOURCE_KEYS]
        if boxes is None and named:
            if named[-1] in ("ground_truth", "truth"):
                raise UserError(
                    "config key 'TEST.BBOX_SOURCE' is ground_truth, but these images are not "
                    "annotated"
                )
            return []
        # As JSON: a file's name need not be YAML for itself.
        return ["TEST.BBOX_SOURCE", json.dumps(boxes or DEFAULT_DETECTOR)]

    def build_diagnostics(self, config: TopDownConfig, skeleton: Skeleton) -> Diagnostics | None:
        """None."""
        return None

    def describe_architecture(self, found: Architecture) -> dict[str, dict[str, Any]]:
        """See :class:`Method`."""
        return {}

    def describe_protocol(self, config: TopDownConfig) -> dict[str, object]:
        """See :class:`Method`."""
        test = config.TEST
        return {
            "size": "x".join(map(str, config.MODEL.IMAGE_SIZE)),
            "boxes": test.BBOX_SOURCE,
            "box jitter": test.BBOX_JITTER,
            "flip": test.FLIP_TEST,
            "decoding": test.DECODING,
            "box padding": config.DATASET.BBOX_PADDING,
            "box threshold": test.BBOX_THRE,
            "in_vis threshold": test.IN_VIS_THRE,
            "OKS threshold": test.OKS_THRE,
            "soft NMS": test.SOFT_NMS,
            "shift heatmap": test.SHIFT_HEATMAP,
            "evaluation": test.EVALUATION,
            "precision": test.PRECISION,
            **({} if test.ENGINE == "torch" else {"engine": test.ENGINE}),
        }

    def describe_dropped(self, config: TopDownConfig, dropped: Mapping[str, int]) -> list[str]:
        """See :class:`Method`."""
        limit = config.TEST.OKS_THRE
        return [f"{dropped['duplicates']} people too like others (TEST.OKS_THRE {limit:g})"]


def _ground_truth_boxes(dataset: PoseDataset, jitter: float) -> BoxesOf:
    if not any(len(dataset.boxes(number)) for number in range(len(dataset))):
        raise UserError(
            "config key 'TEST.BBOX_SOURCE' is ground_truth, but no person is annotated in these "
            "images; name a box file or a detector"
        )

    def boxes_of(sample: Sample) -> Boxes:
        # Each image has its own random numbers: the same in whatever process gets it.
        rng = np.random.default_rng(zlib.crc32(str(sample.id).encode()))
        return Boxes.of(sample.boxes).usable().jitter(jitter, rng)

    return boxes_of


METHOD = TopDown()
