"""Config → training."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import visualization
from ..boxes import Boxes
from ..config import PoseConfig, override_config, read_config, to_yaml
from ..evaluation.evaluator import format_metric, main_metric
from ..evaluation.operating_point import calibrate
from ..inference.engines.torch_engine import TorchEngine
from ..inference.predictor import Predictor
from ..io.paths import expand_weights
from ..methods.base import method_of
from ..models.normalization import normalize
from ..models.pose_model import PoseModel
from ..models.weights import load_pretrained, metadata_of, write_native
from ..skeleton import Skeleton
from ..structures import Batch, Sample
from ..training import loop
from ..training.callbacks import (
    Callback,
)
from ..training.device_batch import BatchToDevice
from .checkpoints import open_checkpoint, skeleton_of
from .data import build_dataset, build_loader, find_skeleton, report_findings
from .evaluation import run_validation
from .inference import build_torch_predictor
from .optimization import (
    build_ema,
    build_optimizer,
    build_scheduler,
    build_settings,
    prepare_for_training,
)
from .run import can_go_on, start_run

_log = logging.getLogger(__name__)


def train(
    config: PoseConfig | str | Path,
    output: str | Path = "output/train",
    device_name: str = "auto",
    resume: bool = False,
    overrides: Sequence[Any] = (),
    callbacks: Sequence[Callback] = (),
    criterion: loop.Criterion | None = None,
) -> loop.Progress:
    """Train what a config says into a folder; returns how far it came, and the best metric.

    Args:
        config: a config, its file, or the name of a bundled one.
        output: the folder.
        device_name: ``auto``, ``cpu``, ``cuda``, ``mps``.
        resume: go on from the folder's last checkpoint.
        overrides: ``KEY, VALUE, …`` over a config that is named.
        callbacks: called after the built-in ones; see :class:`training.callbacks.Callback`.
        criterion: (outputs, targets) → named losses whose sum is minimized, in place of the
            config's.

    Writes ``last.pth`` (to resume), ``best.safetensors`` (by AP, MPII's top-down by PCKh),
    ``config.yaml``, ``log.jsonl``, ``curves.png`` and ``tensorboard/``. Under ``torchrun`` the
    processes share every batch and the first one writes. With ``TRAIN.MINUTES`` it ends in time,
    validated once, and ``best.safetensors`` is there even if a signal ends it.
    """
    config, output = _read_pose_config(config, overrides), Path(output)
    resume = resume or can_go_on(output)
    with start_run(config, output, device_name, resume) as run, ExitStack() as stack:
        method, skeleton = method_of(config), find_skeleton(config)
        if resume:
            model = method.build_model(config, len(skeleton))
        else:
            model = build_pretrained_model(config, skeleton, quiet=not run.group.main)
        model.to(run.device).to(memory_format=torch.channels_last)
        codec = method.build_codec(config, model.heads, skeleton)
        dataset = build_dataset(config, "test", skeleton)
        training = build_dataset(config, "train", skeleton)
        report_findings(config, train=training, test=dataset)
        batches, to_device = build_loader(config, training, codec, run.device, run.group)
        stack.callback(batches.close)
        # A second network validates, so that training goes on undisturbed.
        predictor = build_torch_predictor(config, copy.deepcopy(model), skeleton, run.device)
        boxes_of = method.build_boxes(config, dataset)
        metric = main_metric(
            dataset.annotations, dataset.skeleton, config.TEST.EVALUATION, method.finds_people
        )
        operating_point: dict[str, float] = {}

        def validate(weights: Mapping[str, torch.Tensor], epoch: int) -> dict[str, float]:
            assert isinstance(predictor.engine, TorchEngine)
            predictor.engine.load_state_dict(weights)
            result = run_validation(
                config, predictor, dataset, boxes_of, run.group, lambda: run.is_stopped
            )
            run.end_if_stopped()
            if run.log is not None:
                _log.info("epoch %d: %s %s", epoch, metric, format_metric(result.metrics[metric]))
                point = calibrate(
                    result.poses, dataset.annotations, dataset.skeleton,
                    config.TEST.DISPLAY_PRECISION,
                )  # fmt: skip
                operating_point.update(point.to_dict())
                sample = dataset.sample(epoch % len(dataset))
                run.log.images(epoch, _draw(predictor, sample, boxes_of(sample)))
            return result.metrics | result.diagnostics

        def save_best(weights: Mapping[str, torch.Tensor]) -> None:
            write_native(
                output / "best.safetensors", weights, to_yaml(config), skeleton,
                operating_point=operating_point or None,
            )  # fmt: skip

        def predict(index: int) -> None:
            sample = dataset.sample(index)
            predictor.predict(sample.image, boxes_of(sample))

        return run.fit(
            model=model,
            criterion=criterion or method.build_criterion(config, model),
            batches=batches,
            to_device=to_device,
            metric=metric,
            validate=validate,
            save_best=save_best,
            metadata=metadata_of(to_yaml(config), skeleton),
            predict=predict,
            test_images=len(dataset),
            callbacks=callbacks,
        )


def _read_pose_config(config: PoseConfig | str | Path, overrides: Sequence[Any]) -> PoseConfig:
    found = (
        read_config(config, overrides)
        if isinstance(config, str | Path)
        else override_config(config, overrides)
    )
    method_of(found)  # a classifier finds no people
    assert isinstance(found, PoseConfig)
    return found


def build_step_trainer(config: PoseConfig, device: torch.device) -> loop.Trainer:
    """A trainer for single steps on batches that the caller makes; it has no images."""
    method, skeleton = method_of(config), find_skeleton(config)
    model = method.build_model(config, len(skeleton))
    model.to(device).to(memory_format=torch.channels_last)
    codec = method.build_codec(config, model.heads, skeleton)
    network = prepare_for_training(config, model, device)
    optimizer = build_optimizer(config, model)
    return loop.Trainer(
        model=network,
        criterion=method.build_criterion(config, model),
        batches=_NoBatches(config.TRAIN.MICRO_BATCH_SIZE or config.TRAIN.BATCH_SIZE),
        to_device=BatchToDevice(device, codec.encode, normalize, method.view_shape(config)),
        optimizer=optimizer,
        scheduler=build_scheduler(config, optimizer, 1),
        ema=build_ema(config, model),
        settings=build_settings(config, device, "AP"),
        validate=lambda weights, epoch: {},
        folder=Path(),
    )


@dataclass(frozen=True)
class _NoBatches:
    """Batches of a trainer that is given its batches by hand."""

    batch_size: int
    micro_batches: int = 1
    steps: int = 0

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        return iter(())


def build_pretrained_model(
    config: PoseConfig, skeleton: Skeleton, quiet: bool = False
) -> PoseModel:
    """The network with the weights that the training starts from."""
    model = method_of(config).build_model(config, len(skeleton))
    if not config.MODEL.PRETRAINED:
        if not quiet:
            _log.info("MODEL.PRETRAINED is empty: training starts from random weights")
        return model
    file = open_checkpoint(expand_weights(config.MODEL.PRETRAINED, "MODEL.PRETRAINED"))
    old = skeleton_of(file)
    report = load_pretrained(model, file, old, skeleton)
    if not quiet:
        _log.info("%s: %s", file.path, report)
        new = [joint for joint in skeleton.joints if old and joint not in old.joints]
        if new:
            _log.info("joints that begin without weights: %s", ", ".join(new))
    return model


def _draw(predictor: Predictor, sample: Sample, boxes: Boxes | None) -> dict[str, Any]:
    """What TensorBoard shows of one image."""
    poses, maps = predictor.predict(sample.image, boxes)
    shape = (sample.image.shape[0], sample.image.shape[1])
    heatmaps, tags = predictor.overlay(maps, shape)
    drawn = {
        "predictions": poses.draw(sample.image, predictor.skeleton),
        "annotations": sample.poses.draw(sample.image, predictor.skeleton),
        "heatmaps": visualization.draw_heatmap(sample.image, heatmaps.max(axis=0)),
    }
    if tags is not None:
        drawn["tags"] = visualization.draw_heatmap(sample.image, np.median(tags, axis=0))
    return drawn
