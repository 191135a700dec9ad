"""From config to ImageNet pre-training of a backbone: ``MODEL.NAME classifier``."""

from __future__ import annotations

import copy
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from ..config import Config, to_yaml
from ..datasets.classes import ClassBatch, ClassFolder, collate_classes
from ..datasets.loader import Loader
from ..errors import UserError
from ..models import weights
from ..models.classifier import Classifier
from ..models.pixels import normalise
from ..training import loop, optim
from ..training.log import Log
from ..training.stop import Stop, StoppedError
from .checkpoints import open_weights
from .input import sampler
from .parts import expand_path
from .training import optimizer, prepared, schedule, settings, started


def pretrain(
    config: Config, output: Path, device_name: str = "auto", resume: bool = False
) -> float:
    """Train a classifier on folders of classes into ``output``; returns the best accuracy.

    ``best.pth`` has the official names, so that ``MODEL.PRETRAINED`` of any pose config takes its
    trunk. The other files are those of a pose training.
    """
    d = config.DATASET
    root = expand_path(d.ROOT, "DATASET.ROOT")
    trained = ClassFolder(root / d.TRAIN, d.INPUT_SIZE, config.TRAIN.SEED, d.AUGMENT)
    truth = ClassFolder(root / d.TEST, d.INPUT_SIZE, config.TRAIN.SEED, augment=False)
    if trained.names != truth.names:
        odd = sorted(set(trained.names) ^ set(truth.names))
        raise UserError(f"'{root}': classes of {d.TRAIN} and {d.TEST} differ, e.g. '{odd[0]}'")
    with started(config, output, device_name, resume) as (group, on), ExitStack() as closing:
        shape = config.MODEL
        network = Classifier(
            shape.WIDTH, len(trained.names), tuple(shape.MODULES), shape.BLOCKS, shape.FUSION,
            config.TRAIN.CHECKPOINTING,
        )  # fmt: skip
        if config.MODEL.PRETRAINED and not resume:
            file = open_weights(str(expand_path(config.MODEL.PRETRAINED, "MODEL.PRETRAINED")))
            report = weights.load_trunk(network, file)
            if group.main:
                print(f"{file.path}: {report}")
        network.to(on).to(memory_format=torch.channels_last)
        examiner = copy.deepcopy(network).eval()
        model = prepared(config, network, on)
        batches = Loader(
            trained, sampler(config, len(trained), group), config.TRAIN.WORKERS, collate_classes
        )
        closing.callback(batches.close)
        log = closing.enter_context(Log(output, to_yaml(config))) if group.main else None
        stop = Stop()

        def feed(batch: ClassBatch) -> tuple[torch.Tensor, torch.Tensor]:
            images = batch.images.to(on, memory_format=torch.channels_last, non_blocking=True)
            return normalise(images), batch.classes.to(on, non_blocking=True)

        def examine(state: Mapping[str, torch.Tensor], epoch: int) -> dict[str, float]:
            examiner.load_state_dict(state)
            mine = _right(examiner, truth, on, group.rank, group.size, stop)
            if group.any(bool(stop.signal)):
                raise StoppedError(stop.signal or signal.SIGTERM)
            accuracy = sum(group.gather(mine)) / len(truth)
            if log is not None:
                print(f"epoch {epoch}: accuracy {100 * accuracy:.2f}")
            return {"accuracy": accuracy}

        trainer = loop.Trainer(
            model=model,
            criterion=lambda logits, classes: {"classes": F.cross_entropy(logits.float(), classes)},
            batches=batches,
            feed=feed,
            optimizer=optimizer(config, network),
            schedule=schedule(config),
            average=optim.Average(network, config.TRAIN.EMA) if config.TRAIN.EMA else None,
            settings=settings(config, on, "accuracy"),
            examine=examine,
            keep_best=lambda state: weights.write_official(output / "best.pth", state),
            folder=output,
            log=log,
            group=group,
            stop=stop,
        )
        return trainer.fit(resume).best


@torch.inference_mode()
def _right(
    network: nn.Module,
    truth: ClassFolder,
    on: torch.device,
    process: int,
    processes: int,
    stop: Stop,
    batch: int = 32,
) -> int:
    """How many of this process's share of the pictures are classified right."""
    right = 0
    mine = range(process, len(truth), processes)
    for first in range(0, len(mine), batch):
        items = collate_classes([truth[0, index] for index in mine[first : first + batch]])
        logits = network(normalise(items.images.to(on)))
        right += int((logits.argmax(dim=1).cpu() == items.classes).sum())
        if stop.signal:
            break
    return right
