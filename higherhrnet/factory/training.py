"""Config → training."""

from __future__ import annotations

import copy
import logging
import math
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import visualization
from ..boxes import Boxes
from ..config import Config, PoseConfig, override_config, read_config, to_yaml
from ..datasets.base import PoseDataset
from ..datasets.loader import lost_workers
from ..distributed import ProcessGroup, init_distributed, is_main_process
from ..errors import UserError
from ..evaluation.evaluator import format_metric, main_metric
from ..evaluation.operating_point import calibrate
from ..inference.engines.torch_engine import TorchEngine
from ..inference.predictor import Predictor
from ..inference.types import BoxesOf
from ..io.lock import lock_folder
from ..io.paths import expand_weights
from ..launch import GO_ON, is_restarted, launch_id
from ..methods.base import method_of
from ..models.normalization import normalize
from ..models.pose_model import PoseModel
from ..models.precision import disable_tf32
from ..models.weights import load_pretrained, metadata_of, write_native
from ..skeleton import Skeleton
from ..structures import Batch, Sample
from ..training import checkpoint, loop, optim
from ..training.budget import TimeBudget
from ..training.callbacks import (
    BestCheckpoint,
    Callback,
    Curves,
    EarlyStopping,
    LastWeights,
    Logging,
    PeriodicCheckpoint,
)
from ..training.device_batch import BatchToDevice
from ..training.logger import RunLog
from ..training.loggers import build_loggers
from ..training.signals import SignalHandler, StoppedError
from .checkpoints import open_checkpoint, skeleton_of
from .data import build_dataset, build_loader, find_skeleton, report_findings
from .device import choose_device
from .evaluation import run_validation
from .inference import build_torch_predictor

_log = logging.getLogger(__name__)
_BUDGET_EMA_DECAY = 0.998
_LAUNCH = ".launch"
"""Note of who started the run, by which a restart knows it again."""


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
    budget = TimeBudget(60 * config.TRAIN.MINUTES) if config.TRAIN.MINUTES else None
    with start_run(config, output, device_name, resume) as (group, device), ExitStack() as stack:
        method, skeleton = method_of(config), find_skeleton(config)
        if resume:
            model = method.build_model(config, len(skeleton))
        else:
            model = build_pretrained_model(config, skeleton, quiet=not group.main)
        model.to(device).to(memory_format=torch.channels_last)
        codec = method.build_codec(config, model.heads, skeleton)
        dataset = build_dataset(config, "test", skeleton)
        training = build_dataset(config, "train", skeleton)
        report_findings(config, train=training, test=dataset)
        batches, to_device = build_loader(config, training, codec, device, group)
        stack.callback(batches.close)
        # A second network validates, so that training goes on undisturbed.
        predictor = build_torch_predictor(config, copy.deepcopy(model), skeleton, device)
        boxes_of = method.build_boxes(config, dataset)
        metric = main_metric(
            dataset.annotations, dataset.skeleton, config.TEST.EVALUATION, method.finds_people
        )
        log = stack.enter_context(open_log(output, config)) if group.main else None
        signals = SignalHandler()
        operating_point: dict[str, float] = {}

        def validate(weights: Mapping[str, torch.Tensor], epoch: int) -> dict[str, float]:
            assert isinstance(predictor.engine, TorchEngine)
            predictor.engine.load_state_dict(weights)
            result = run_validation(
                config, predictor, dataset, boxes_of, group, lambda: bool(signals.signal)
            )
            if group.any(bool(signals.signal)):
                raise StoppedError(signals.signal or signal.SIGTERM)
            if log is not None:
                _log.info("epoch %d: %s %s", epoch, metric, format_metric(result.metrics[metric]))
                point = calibrate(
                    result.poses, dataset.annotations, dataset.skeleton,
                    config.TEST.DISPLAY_PRECISION,
                )  # fmt: skip
                operating_point.update(point.to_dict())
                sample = dataset.sample(epoch % len(dataset))
                log.images(epoch, _draw(predictor, sample, boxes_of(sample)))
            return result.metrics | result.diagnostics

        def save_best(weights: Mapping[str, torch.Tensor]) -> None:
            write_native(
                output / "best.safetensors", weights, to_yaml(config), skeleton,
                operating_point=operating_point or None,
            )  # fmt: skip

        called = build_callbacks(config, log, BestCheckpoint(save_best))
        if budget is not None:
            budget.reserve = group.max(estimate_validation(predictor, dataset, boxes_of, group))
            check_budget(budget)
            called.append(LastWeights(save_best))
        network = prepare_for_training(config, model, device)
        optimizer = build_optimizer(config, model)
        trainer = loop.Trainer(
            model=network,
            criterion=criterion or method.build_criterion(config, model),
            batches=batches,
            to_device=to_device,
            optimizer=optimizer,
            scheduler=build_scheduler(config, optimizer, batches.steps, budget),
            ema=build_ema(config, model),
            settings=build_settings(config, device, metric),
            validate=validate,
            callbacks=[*called, *callbacks],
            folder=output,
            metadata=metadata_of(to_yaml(config), skeleton),
            group=group,
            signals=signals,
            budget=budget,
        )
        return trainer.fit(resume)


def can_go_on(output: Path) -> bool:
    """Whether torchrun or Slurm started this run anew, and it has a checkpoint to go on from."""
    goes_on = is_restarted() and (output / checkpoint.LAST).exists()
    if goes_on and os.environ.get(GO_ON, "0") == "0":
        # Of this launch: another run's folder was refused in the first attempt, and is again.
        note = output / _LAUNCH
        goes_on = note.is_file() and note.read_text() == launch_id()
    if goes_on and is_main_process():
        _log.info("started anew: going on from %s", output / checkpoint.LAST)
    return goes_on


def _read_pose_config(config: PoseConfig | str | Path, overrides: Sequence[Any]) -> PoseConfig:
    found = (
        read_config(config, overrides)
        if isinstance(config, str | Path)
        else override_config(config, overrides)
    )
    method_of(found)  # a classifier finds no people
    assert isinstance(found, PoseConfig)
    return found


def open_log(output: Path, config: Config) -> RunLog:
    """The log of a run, with the loggers that its config names."""
    settings = {
        f"{section}.{key}": value
        for section, values in asdict(config).items()
        for key, value in values.items()
    }
    return RunLog(
        output, to_yaml(config), lambda: build_loggers(config.TRAIN.LOGGERS, output, settings)
    )


def estimate_validation(
    predictor: Predictor, dataset: PoseDataset, boxes_of: BoxesOf, group: ProcessGroup
) -> float:
    """Seconds that validation and the last checkpoint will take, from three images of the set."""
    count = min(len(dataset), 3)
    chosen = np.linspace(0, len(dataset) - 1, count).astype(int).tolist()
    samples = [dataset.sample(index) for index in chosen]
    predictor.predict(samples[0].image, boxes_of(samples[0]))  # what the first costs besides
    begun = time.perf_counter()
    for sample in samples:
        predictor.predict(sample.image, boxes_of(sample))
    each = (time.perf_counter() - begun) / count
    return 1.2 * each * len(dataset) / group.size + 5


def check_budget(budget: TimeBudget) -> None:
    """See that there is time to train.

    Raises:
        UserError: validation alone takes most of it.
    """
    if budget.reserve > 0.8 * budget.seconds:
        raise UserError(
            f"config key 'TRAIN.MINUTES': of {budget.seconds / 60:g} minutes validation alone "
            f"would take about {budget.reserve / 60:.1f}; DATASET.TEST_LIMIT shortens it"
        )


def tell_unused_gpus(count: int) -> None:
    """Say so where a machine has more GPUs than are used."""
    if count > 1:
        _log.info("this machine has %d GPUs, and 1 is used: --gpus %d uses all", count, count)


@contextmanager
def start_run(
    config: Config, output: Path, device_name: str, resume: bool
) -> Iterator[tuple[ProcessGroup, torch.device]]:
    """The processes of a new training, and this one's device.

    Raises:
        UserError: the folder holds a run that is not to be resumed.
        WorkerLostError: a loading process was killed while the run went on.
    """
    if not resume and (output / checkpoint.LAST).exists():
        raise UserError(
            f"'{output}' already holds a run; go on with --resume or choose another --output"
        )
    checkpoint.seed_everything(config.TRAIN.SEED)
    device = choose_device(device_name)
    with (
        lost_workers(),
        init_distributed(device.type == "cuda") as group,
        lock_folder(output, "training") if group.main else nullcontext(),
    ):
        if device.type == "cuda" and group.size > 1:
            device = torch.device("cuda", group.local_rank)
        elif device.type == "cuda" and device.index is None:
            tell_unused_gpus(torch.cuda.device_count())
        if group.main and launch_id():
            (output / _LAUNCH).write_text(launch_id())
        yield group, device


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


def prepare_for_training(config: Config, model: nn.Module, device: torch.device) -> nn.Module:
    """The network with frozen parameters, and the batch norms and arithmetic of the config."""
    t = config.TRAIN
    if device.type == "cuda" and t.PRECISION == "fp32":
        disable_tf32()
    try:
        optim.freeze(model, t.FREEZE)
    except UserError as error:
        raise UserError(f"config key 'TRAIN.FREEZE': {error}") from error
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError("config key 'TRAIN.FREEZE' leaves nothing to train")
    if t.BN_MODE == "sync":
        if device.type != "cuda":
            raise UserError(f"config key 'TRAIN.BN_MODE': sync needs GPUs, not '{device}'")
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted
    return model


def build_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """Adam as published for poses, or SGD with momentum as for all else."""
    t = config.TRAIN
    factors = {}
    for entry in t.LR_MULT:
        prefix, _, factor = entry.rpartition(" ")
        try:
            factors[prefix.strip()] = float(factor)
        except ValueError as error:
            raise UserError(
                f"config key 'TRAIN.LR_MULT' lists 'PREFIX FACTOR', not '{entry}'"
            ) from error
        if not 0 <= factors[prefix.strip()] < math.inf:
            raise UserError(f"config key 'TRAIN.LR_MULT': '{entry}' is no factor for a rate")
    try:
        parameters = optim.group_parameters(model, t.LR, factors)
    except UserError as error:
        raise UserError(f"config key 'TRAIN.LR_MULT': {error}") from error
    if t.OPTIMIZER == "adam":
        return torch.optim.Adam(parameters, lr=t.LR, weight_decay=t.WEIGHT_DECAY, fused=True)
    return torch.optim.SGD(
        parameters, lr=t.LR, momentum=t.MOMENTUM, nesterov=t.NESTEROV and t.MOMENTUM > 0,
        weight_decay=t.WEIGHT_DECAY, fused=True,
    )  # fmt: skip


def build_scheduler(
    config: Config,
    optimizer: torch.optim.Optimizer,
    steps_per_epoch: int,
    budget: TimeBudget | None = None,
) -> torch.optim.lr_scheduler.LambdaLR:
    """The config's learning rate schedule, over its epochs or its time."""
    t = config.TRAIN
    return optim.build_scheduler(
        optimizer, t.LR_SCHEDULER, steps_per_epoch, t.END_EPOCH, t.LR_STEP, t.LR_FACTOR,
        t.WARMUP_STEPS, None if budget is None else lambda: budget.fraction,
    )  # fmt: skip


def build_ema(config: Config, model: nn.Module) -> optim.ModelEma | None:
    """The config's average of the weights; a training by time has one, as it may end early."""
    t = config.TRAIN
    decay = t.EMA_DECAY or (_BUDGET_EMA_DECAY if t.MINUTES else 0.0)
    return optim.ModelEma(model, decay) if decay else None


def build_callbacks(config: Config, log: RunLog | None, best: BestCheckpoint) -> list[Callback]:
    """What happens beside the steps; ``log`` is the main process's."""
    written: list[Callback] = [] if log is None else [Logging(log)]
    drawn: list[Callback] = [] if log is None else [Curves(log)]
    t = config.TRAIN
    ended: list[Callback] = [EarlyStopping()] if t.EARLY_STOPPING else []
    return [best, *written, PeriodicCheckpoint(t.SAVE_EVERY, t.KEEP_CHECKPOINTS), *drawn, *ended]


def build_settings(config: Config, device: torch.device, metric: str) -> loop.Settings:
    """How the loop runs."""
    t = config.TRAIN
    if t.CUDA_GRAPHS and device.type != "cuda":
        raise UserError(f"config key 'TRAIN.CUDA_GRAPHS' needs a GPU, not '{device}'")
    return loop.Settings(
        epochs=t.END_EPOCH,
        device=device,
        precision=t.PRECISION,
        grad_clip_norm=t.GRAD_CLIP_NORM,
        validate_every=t.VALIDATE_EVERY,
        metric=metric,
        compile=t.COMPILE,
        cuda_graphs=t.CUDA_GRAPHS,
        freeze_bn=t.BN_MODE == "frozen",
        unfreeze_epoch=t.UNFREEZE_EPOCH,
        early_stopping=t.EARLY_STOPPING,
    )


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
