"""From config to a training."""

from __future__ import annotations

import copy
import math
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import show
from ..boxes import Boxes
from ..config import Config, to_yaml
from ..datasets.loader import lost_workers
from ..errors import UserError
from ..evaluation import results
from ..fields import Batch, Sample
from ..inference.bottom_up import BottomUp
from ..inference.top_down import TopDown
from ..losses import BottomUpLoss, TopDownLoss
from ..models import weights
from ..models.higher_hrnet import HigherHRNet
from ..models.pixels import normalise
from ..models.pose_hrnet import PoseHRNet
from ..models.precision import forbid_rounded_floats
from ..skeleton import Skeleton
from ..training import checkpoint, loop, optim
from ..training.distributed import Group, joined
from ..training.feed import Feed
from ..training.log import Log
from ..training.stop import Stop, StoppedError
from .checkpoints import open_weights, skeleton_of
from .inference import (
    boxes,
    display_point,
    evaluation,
    predictor,
    validate,
)
from .input import input_path
from .parts import (
    codec,
    device,
    expand_path,
    is_top_down,
    model,
    pictures,
    skeleton,
    view_shape,
)


def train(
    config: Config, output: Path, device_name: str = "auto", resume: bool = False
) -> loop.Progress:
    """Train what the config says into ``output``; returns how far it came, and the best score.

    Writes ``last.pth`` (to resume), ``best.safetensors`` (by AP, MPII's top-down by PCKh),
    ``config.yaml``, ``log.jsonl``, ``curves.png`` and ``tensorboard/``. Under ``torchrun`` the
    processes share every batch and the first one writes.
    """
    with started(config, output, device_name, resume) as (group, on), ExitStack() as closing:
        joints = skeleton(config)
        network = model(config, len(joints)) if resume else start(config, joints, talk=group.main)
        network.to(on).to(memory_format=torch.channels_last)
        coder = codec(config, network, joints)
        truth = pictures(config, "test")
        score = results.chief(
            truth.annotations, truth.skeleton, config.TEST.EVALUATION, is_top_down(config)
        )
        batches, feed = input_path(config, pictures(config, "train"), coder, on, group)
        closing.callback(batches.close)
        # A second network validates averaged weights, so that training goes on undisturbed.
        examiner = predictor(config, copy.deepcopy(network), joints, on)
        looked_at = boxes(config, truth)
        trained = prepared(config, network, on)
        steps = optimizer(config, network)
        log = closing.enter_context(Log(output, to_yaml(config))) if group.main else None
        stop = Stop()
        points: list[dict[str, float]] = []

        def examine(state: Mapping[str, torch.Tensor], epoch: int) -> dict[str, float]:
            examiner.load(state)
            found = validate(
                examiner, truth, group, lambda: bool(stop.signal), evaluation(config), looked_at
            )
            if group.any(bool(stop.signal)):
                raise StoppedError(stop.signal or signal.SIGTERM)
            if log is not None:
                print(f"epoch {epoch}: {score} {results.shown(found.metrics[score])}")
                point = display_point(found, truth, config.TEST.DISPLAY)
                points.append(point.to_dict())
                sample = truth.sample(epoch % len(truth))
                log.pictures(epoch, _pictures(examiner, sample, looked_at(sample)))
            return found.metrics | found.health

        trainer = loop.Trainer(
            model=trained,
            criterion=criterion(config, network),
            batches=batches,
            feed=feed,
            optimizer=steps,
            schedule=schedule(config),
            average=optim.Average(network, config.TRAIN.EMA) if config.TRAIN.EMA else None,
            settings=settings(config, on, score),
            examine=examine,
            keep_best=lambda state: weights.write(
                output / "best.safetensors",
                state,
                to_yaml(config),
                joints,
                display=points[-1] if points else None,
            ),
            folder=output,
            log=log,
            about=weights.about(to_yaml(config), joints),
            group=group,
            stop=stop,
        )
        return trainer.fit(resume)


@contextmanager
def started(
    config: Config, output: Path, device_name: str, resume: bool
) -> Iterator[tuple[Group, torch.device]]:
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
    on = device(device_name)
    with lost_workers(), joined(on.type == "cuda") as group:
        if on.type == "cuda" and group.size > 1:
            on = torch.device("cuda", group.local_rank)
        yield group, on


def bare_trainer(config: Config, on: torch.device) -> loop.Trainer:
    """A trainer for single steps on batches that the caller makes; it has no pictures."""
    joints = skeleton(config)
    network = model(config, len(joints)).to(on).to(memory_format=torch.channels_last)
    coder = codec(config, network, joints)
    trained = prepared(config, network, on)
    return loop.Trainer(
        model=trained,
        criterion=criterion(config, network),
        batches=_NoPictures(config.TRAIN.MICRO_BATCH or config.TRAIN.BATCH),
        feed=Feed(on, coder.encode, normalise, view_shape(config)),
        optimizer=optimizer(config, network),
        schedule=schedule(config),
        average=optim.Average(network, config.TRAIN.EMA) if config.TRAIN.EMA else None,
        settings=settings(config, on, "AP"),
        examine=lambda state, epoch: {},
        keep_best=lambda state: None,
        folder=Path(),
        log=None,
    )


@dataclass(frozen=True)
class _NoPictures:
    """Batches of a trainer that is given its batches by hand."""

    batch: int
    parts: int = 1
    steps: int = 0

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        return iter(())


def criterion(config: Config, network: HigherHRNet | PoseHRNet) -> loop.Criterion:
    """The losses of the network's heads."""
    if is_top_down(config):
        weights_of = tuple(config.LOSS.JOINTS)
        if len(weights_of) not in (0, network.joints):
            raise UserError(
                f"config key 'LOSS.JOINTS' has {len(weights_of)} factors, but the skeleton has "
                f"{network.joints} joints"
            )
        return TopDownLoss(network.heads, weights_of, config.LOSS.HARDEST)
    return BottomUpLoss(
        network.heads,
        heatmap_factors=tuple(config.LOSS.HEATMAP),
        pull_factor=config.LOSS.PULL,
        push_factor=config.LOSS.PUSH,
        push_kind=config.LOSS.PUSH_KIND,
    )


def start(config: Config, joints: Skeleton, talk: bool = True) -> HigherHRNet | PoseHRNet:
    """The network with the weights that the training starts from."""
    network = model(config, len(joints))
    if config.MODEL.PRETRAINED:
        path = expand_path(config.MODEL.PRETRAINED, "MODEL.PRETRAINED")
        file = open_weights(str(path))
        report = weights.load_start(network, file, skeleton_of(file), joints)
        if talk:
            print(f"{file.path}: {report}")
            old = skeleton_of(file)
            new = [joint for joint in joints.joints if old and joint not in old.joints]
            if new:
                print(f"joints that begin without weights: {', '.join(new)}")
    elif talk:
        print("MODEL.PRETRAINED is empty: training starts from random weights")
    return network


def prepared(config: Config, network: nn.Module, on: torch.device) -> nn.Module:
    """The network with frozen parameters, and the batch norms and arithmetic that the config
    wants."""
    t = config.TRAIN
    if on.type == "cuda" and t.PRECISION == "fp32":
        forbid_rounded_floats()
    try:
        optim.freeze(network, t.FREEZE)
    except UserError as error:
        raise UserError(f"config key 'TRAIN.FREEZE': {error}") from error
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError("config key 'TRAIN.FREEZE' leaves nothing to train")
    if t.NORM == "sync":
        if on.type != "cuda":
            raise UserError(f"config key 'TRAIN.NORM': sync needs GPUs, not '{on}'")
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return converted
    return network


def optimizer(config: Config, network: nn.Module) -> torch.optim.Optimizer:
    """Adam as published for poses, or SGD with Nesterov momentum as published for ImageNet."""
    t = config.TRAIN
    factors = {}
    for entry in t.RATE_FACTORS:
        prefix, _, factor = entry.rpartition(" ")
        try:
            factors[prefix.strip()] = float(factor)
        except ValueError as error:
            raise UserError(
                f"config key 'TRAIN.RATE_FACTORS' lists 'PREFIX FACTOR', not '{entry}'"
            ) from error
        if not 0 <= factors[prefix.strip()] < math.inf:
            raise UserError(f"config key 'TRAIN.RATE_FACTORS': no factor for a rate is '{entry}'")
    try:
        parameters = optim.groups(network, factors)
    except UserError as error:
        raise UserError(f"config key 'TRAIN.RATE_FACTORS': {error}") from error
    if t.OPTIMIZER == "adam":
        return torch.optim.Adam(parameters, lr=t.RATE, weight_decay=t.WEIGHT_DECAY, fused=True)
    return torch.optim.SGD(
        parameters, lr=t.RATE, momentum=t.MOMENTUM, nesterov=t.MOMENTUM > 0,
        weight_decay=t.WEIGHT_DECAY, fused=True,
    )  # fmt: skip


def schedule(config: Config) -> optim.Schedule:
    """The learning rate as a function of the step."""
    t = config.TRAIN
    return optim.Schedule(t.SCHEDULE, t.RATE, t.EPOCHS, tuple(t.MILESTONES), t.FACTOR, t.WARMUP)


def settings(config: Config, on: torch.device, score: str) -> loop.Settings:
    """How the loop runs."""
    t = config.TRAIN
    return loop.Settings(
        epochs=t.EPOCHS,
        device=on,
        precision=t.PRECISION,
        clip=t.CLIP,
        validate_every=t.VALIDATE_EVERY,
        score=score,
        compile=t.COMPILE,
        freeze_norms=t.NORM == "frozen",
        unfreeze_epoch=t.UNFREEZE_EPOCH,
        save_every=t.SAVE_EVERY,
        keep=t.KEEP,
    )


def _pictures(ready: BottomUp | TopDown, sample: Sample, where: Boxes | None) -> dict[str, Any]:
    """What TensorBoard shows of one picture."""
    poses, maps = ready.predict(sample.image, where)
    heat, tags = ready.seen(maps, (sample.image.shape[0], sample.image.shape[1]))
    shown = {
        "predictions": poses.draw(sample.image, ready.skeleton),
        "annotations": sample.poses.draw(sample.image, ready.skeleton),
        "heatmaps": show.heat(sample.image, heat.max(axis=0)),
    }
    if tags is not None:
        shown["tags"] = show.heat(sample.image, np.median(tags, axis=0))
    return shown
