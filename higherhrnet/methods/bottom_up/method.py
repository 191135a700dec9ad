"""The bottom-up method: config → objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from ...boxes import Boxes
from ...config import BottomUpConfig
from ...datasets.base import PoseDataset
from ...datasets.composition import Composition
from ...datasets.transforms import Transform
from ...errors import UserError
from ...inference.engines.base import Engine
from ...inference.predictor import Predictor
from ...inference.types import BoxesOf, Diagnostics
from ...models.higher_hrnet import HigherHRNet
from ...models.pose_model import PoseModel
from ...models.state_dict import Architecture
from ...outputs import Head, NetworkSpec
from ...plugins import load_object
from ...skeleton import Skeleton
from ...structures import NOT_COUNTED
from ..base import (
    Criterion,
    ExportGraph,
    LoadFinder,
    Method,
    build_custom_criterion,
    build_custom_head_model,
)
from .codec import BottomUpCodec
from .extra_heads import JointLoss
from .graph import build_graph
from .grouping import ASSIGNMENTS, Grouping
from .losses import BottomUpLoss
from .predictor import BottomUpPredictor, TestTimeAugmentation
from .transforms import CenteredView, RandomView

_MASK_THRESHOLD = 0.5
_PERSON = [{"id": 1, "name": "person"}]


class BottomUp(Method[BottomUpConfig]):
    """HigherHRNet with associative embedding."""

    name = "bottom-up"
    finds_people = True
    default_weights = "higherhrnet_w18_mini"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {"TEST.SCALE_FACTOR": [1.0], "TEST.FLIP_TEST": False},
        "balanced": {"TEST.SCALE_FACTOR": [1.0], "TEST.FLIP_TEST": True},
    }

    def build_model(self, config: BottomUpConfig, joints: int) -> PoseModel:
        """See :class:`Method`."""
        m = config.MODEL
        if m.HEAD:
            return build_custom_head_model(config, joints)
        return HigherHRNet(
            joints=joints,
            width=m.WIDTH,
            tag_heads=config.LOSS.WITH_AE_LOSS,
            tag_per_joint=m.TAG_PER_JOINT,
            cat_output=m.CAT_OUTPUT,
            num_basic_blocks=m.NUM_BASIC_BLOCKS,
            num_modules=m.NUM_MODULES,
            num_blocks=m.NUM_BLOCKS,
            upsample_mode=m.UPSAMPLE_MODE,
            activation_checkpointing=config.TRAIN.ACTIVATION_CHECKPOINTING,
            tag_dim=m.TAG_DIM,
            scale_adaptive=m.SCALE_ADAPTIVE,
            extra_heads=m.HEADS,
        )

    def build_codec(
        self, config: BottomUpConfig, heads: tuple[Head, ...], skeleton: Skeleton
    ) -> BottomUpCodec:
        """See :class:`Method`."""
        d, test = config.DATASET, config.TEST
        return BottomUpCodec(
            skeleton=skeleton,
            heads=heads,
            sigma=d.SIGMA,
            threshold=test.DETECTION_THRESHOLD,
            max_candidates=d.MAX_NUM_PEOPLE,
            grouping=Grouping(
                tag_threshold=test.TAG_THRESHOLD,
                max_compared=d.MAX_NUM_PEOPLE,
                assign=ASSIGNMENTS[test.ASSIGNMENT],
                distance_weight=test.GROUPING_DISTANCE,
            ),
            adjust=test.ADJUST,
            refine=test.REFINE,
            # An export has merged its outputs into one.
            with_heatmaps=test.WITH_HEATMAPS if len(heads) > 1 else (),
            blur_sigma=test.BLUR_SIGMA,
            max_detections=test.MAX_DETECTIONS,
            encoding=d.ENCODING,
            decoding=test.DECODING,
        )

    def build_criterion(self, config: BottomUpConfig, model: PoseModel) -> Criterion:
        """See :class:`Method`."""
        loss = config.LOSS
        if loss.KIND:
            return build_custom_criterion(config, model)
        keypoints = BottomUpLoss(
            model.heads,
            heatmap_factors=loss.HEATMAPS_LOSS_FACTOR,
            pull_factors=loss.PULL_LOSS_FACTOR,
            push_factors=loss.PUSH_LOSS_FACTOR,
            push_type=loss.AE_LOSS_TYPE,
            heatmap_type=loss.HEATMAPS_LOSS_TYPE,
            scale_factor=loss.SCALE_LOSS_FACTOR,
        )
        if not config.MODEL.HEADS:
            return keypoints
        return JointLoss(keypoints, loss.MASKS_LOSS_FACTOR, loss.BOXES_LOSS_FACTOR)

    def build_transform(self, config: BottomUpConfig, skeleton: Skeleton) -> Transform:
        """See :class:`Method`."""
        d = config.DATASET
        if not d.AUGMENT:
            return CenteredView(d.INPUT_SIZE)
        return RandomView(
            d.INPUT_SIZE,
            scale=(d.MIN_SCALE, d.MAX_SCALE),
            rotation=d.MAX_ROTATION,
            shift=d.MAX_TRANSLATE / 200,
            flip=d.FLIP,
            color=d.COLOR_JITTER,
            center=d.CROP_CENTER,
        )

    def build_composition(self, config: BottomUpConfig) -> Composition | None:
        """See :class:`Method`."""
        d = config.DATASET
        if not d.AUGMENT or not (d.MOSAIC or d.COPY_PASTE):
            return None
        if d.CACHE == "device":
            raise UserError(
                "config keys 'DATASET.MOSAIC' and 'DATASET.COPY_PASTE' combine images on the host: "
                "DATASET.CACHE ram instead of device"
            )
        return Composition(d.MOSAIC, d.COPY_PASTE)

    def training_items(self, dataset: PoseDataset) -> tuple[PoseDataset, npt.NDArray[np.int64]]:
        """Images."""
        return dataset, np.arange(len(dataset))

    def extra_heads(self, config: BottomUpConfig) -> tuple[str, ...]:
        """See :class:`Method`."""
        return config.MODEL.HEADS

    def evaluate_extra_heads(
        self, predictor: Predictor, dataset: PoseDataset, indices: Iterable[int]
    ) -> Any:
        """Pixel counts of the mask, and records of the boxes."""
        from ...evaluation.segmentation import count_pixels

        assert isinstance(predictor, BottomUpPredictor)
        counts = np.zeros((2, 2), np.int64)
        records: list[dict[str, Any]] | None = None
        for index in indices:
            sample = dataset.sample(index)
            mask, boxes = predictor.find_silhouettes(sample.image)
            if mask is not None and sample.silhouettes is not None:
                found = (mask > _MASK_THRESHOLD).astype(np.uint8)
                counts += count_pixels(sample.silhouettes.mask, found, 2, NOT_COUNTED)
            if boxes is not None:
                records = records or []
                records += [
                    {"image_id": sample.id, "category_id": 1, "bbox": box, "score": score}
                    for box, score in zip(boxes.xywh.tolist(), boxes.score.tolist(), strict=True)
                ]
        return counts, records

    def summarize_extra_heads(
        self, parts: Sequence[Any], annotations: Mapping[str, Any]
    ) -> dict[str, float]:
        """``mask/IoU`` of people, and the boxes' ``boxes/AP`` and ``boxes/AP50``."""
        from ...evaluation.box_ap import box_metrics
        from ...evaluation.segmentation import segmentation_metrics

        counts = np.sum([part for part, _ in parts], axis=0)
        measured = {}
        if counts.any():
            iou = segmentation_metrics(counts, ("background", "person"))["IoU person"]
            measured["mask/IoU"] = iou
        records = [record for _, found in parts for record in found or ()]
        if any(found is not None for _, found in parts):
            people = [
                {**record, "category_id": 1}
                for record in annotations["annotations"]
                if record.get("bbox")
            ]
            truth = {**annotations, "annotations": people, "categories": _PERSON}
            metrics = box_metrics(records, truth)
            measured |= {f"boxes/{name}": metrics[name] for name in ("AP", "AP50")}
        return measured

    def view_shape(self, config: BottomUpConfig) -> tuple[int, int]:
        """A square."""
        return config.DATASET.INPUT_SIZE, config.DATASET.INPUT_SIZE

    def with_mask(self, config: BottomUpConfig) -> bool:
        """See :class:`Method`."""
        return config.DATASET.WITH_MASK

    def padding_in_loss(self, config: BottomUpConfig) -> bool:
        """See :class:`Method`."""
        return config.DATASET.PADDING_IN_LOSS

    def build_predictor(
        self,
        config: BottomUpConfig,
        engine: Engine,
        network: NetworkSpec,
        skeleton: Skeleton,
        device: torch.device,
        load: LoadFinder,
    ) -> BottomUpPredictor:
        """See :class:`Method`."""
        test = config.TEST
        return BottomUpPredictor(
            engine=engine,
            skeleton=skeleton,
            batch_size=test.BATCH_SIZE,
            workers=test.WORKERS,
            codec=self.build_codec(config, network.heads, skeleton),
            augmentation=TestTimeAugmentation(
                input_size=config.DATASET.INPUT_SIZE,
                scales=test.SCALE_FACTOR,
                flip=test.FLIP_TEST and not network.flip,
                project=test.PROJECT2IMAGE,
                shape=network.size,
            ),
            mask_support=test.MASK_SUPPORT,
            zoom_sizes=test.ZOOM_SIZES,
        )

    def build_graph(
        self, model: PoseModel, predictor: Predictor, flip: bool, candidates: bool
    ) -> ExportGraph:
        """See :class:`Method`."""
        assert isinstance(predictor, BottomUpPredictor)
        return build_graph(model, predictor, flip, candidates)

    def build_boxes(self, config: BottomUpConfig, dataset: PoseDataset) -> BoxesOf:
        """None are needed."""
        return lambda sample: None

    def check_detector(self, config: BottomUpConfig, kind_of: Callable[[str], str | None]) -> None:
        """There is none."""

    def input_files(self, config: BottomUpConfig) -> list[Path]:
        """None."""
        return []

    def listed_boxes(self, config: BottomUpConfig) -> dict[int | str, Boxes] | None:
        """None."""
        return None

    def prediction_overrides(self, boxes: str | None, overrides: Sequence[str]) -> list[str]:
        """See :class:`Method`."""
        if boxes is not None:
            raise UserError("--boxes serves top-down weights, and these are bottom-up")
        return []

    def build_diagnostics(self, config: BottomUpConfig, skeleton: Skeleton) -> Diagnostics | None:
        """Embedding diagnostics, or what the config names."""
        path = config.TEST.DIAGNOSTICS
        if not path:
            return None
        found: Diagnostics = load_object(path, "TEST.DIAGNOSTICS")(skeleton)
        return found

    def describe_architecture(self, found: Architecture) -> dict[str, dict[str, Any]]:
        """See :class:`Method`."""
        return {
            "MODEL": {
                "HEADS": list(found.extra_heads),
                "TAG_PER_JOINT": found.tag_per_joint,
                "TAG_DIM": found.tag_dim,
                "SCALE_ADAPTIVE": found.scale_adaptive,
                "CAT_OUTPUT": found.cat_output,
                "NUM_BASIC_BLOCKS": found.num_basic_blocks,
            },
            "LOSS": {"WITH_AE_LOSS": list(found.tag_heads)},
        }

    def describe_protocol(self, config: BottomUpConfig) -> dict[str, object]:
        """See :class:`Method`."""
        test = config.TEST
        return {
            "size": config.DATASET.INPUT_SIZE,
            "flip": test.FLIP_TEST,
            "scales": list(test.SCALE_FACTOR),
            "project": test.PROJECT2IMAGE,
            "outputs": list(test.WITH_HEATMAPS),
            "blur": test.BLUR_SIGMA,
            "encoding": config.DATASET.ENCODING,
            "adjust": test.ADJUST,
            "decoding": test.DECODING,
            "refine": test.REFINE,
            "threshold": test.DETECTION_THRESHOLD,
            "tag threshold": test.TAG_THRESHOLD,
            "grouping distance": test.GROUPING_DISTANCE,
            **({"mask support": test.MASK_SUPPORT} if test.MASK_SUPPORT else {}),
            **({"zoom": list(test.ZOOM_SIZES)} if test.ZOOM_SIZES else {}),
            "candidates": config.DATASET.MAX_NUM_PEOPLE,
            "assignment": test.ASSIGNMENT,
            "precision": test.PRECISION,
            **({} if test.ENGINE == "torch" else {"engine": test.ENGINE}),
        }

    def describe_dropped(self, config: BottomUpConfig, dropped: Mapping[str, int]) -> list[str]:
        """See :class:`Method`."""
        most = config.DATASET.MAX_NUM_PEOPLE
        limits = [f"{dropped['candidates']} candidates beyond {most} of a joint"]
        if config.TEST.MAX_DETECTIONS:
            most = config.TEST.MAX_DETECTIONS
            limits.append(f"{dropped['people']} people beyond {most} an image")
        return limits


METHOD = BottomUp()
