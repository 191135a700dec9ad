"""Config → ImageNet pre-training of a backbone: ``MODEL.NAME cls_hrnet``."""

from __future__ import annotations

import copy
import logging
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from ..config import ClassifierConfig
from ..datasets.image_folder import ClassBatch, ClassFolder, collate_classes
from ..datasets.loader import Loader
from ..errors import UserError
from ..io.paths import expand_path, expand_weights
from ..models.classifier import Classifier
from ..models.normalization import normalize
from ..models.weights import load_backbone, write_official
from ..training import loop
from ..training.callbacks import BestCheckpoint
from ..training.signals import SignalHandler, StoppedError
from .checkpoints import open_checkpoint
from .data import build_sampler
from .training import (
    build_callbacks,
    build_ema,
    build_optimizer,
    build_scheduler,
    build_settings,
    can_go_on,
    open_log,
    prepare_for_training,
    start_run,
)

_log = logging.getLogger(__name__)


def pretrain(
    config: ClassifierConfig, output: Path, device_name: str = "auto", resume: bool = False
) -> float:
    """Train a classifier on folders of classes into a folder; returns the best accuracy.

    ``best.pth`` has the official names, so that ``MODEL.PRETRAINED`` of any pose config takes its
    backbone. The other files are those of a pose training.
    """
    d, m = config.DATASET, config.MODEL
    resume = resume or can_go_on(output)
    root = expand_path(d.ROOT, "DATASET.ROOT")
    train_set = ClassFolder(root / d.TRAIN, d.INPUT_SIZE, config.TRAIN.SEED, d.AUGMENT)
    test_set = ClassFolder(root / d.TEST, d.INPUT_SIZE, config.TRAIN.SEED, augment=False)
    if train_set.names != test_set.names:
        odd = sorted(set(train_set.names) ^ set(test_set.names))
        raise UserError(f"'{root}': classes of {d.TRAIN} and {d.TEST} differ, e.g. '{odd[0]}'")
    with start_run(config, output, device_name, resume) as (group, device), ExitStack() as stack:
        model = Classifier(
            m.WIDTH,
            len(train_set.names),
            num_modules=m.NUM_MODULES,
            num_blocks=m.NUM_BLOCKS,
            upsample_mode=m.UPSAMPLE_MODE,
            activation_checkpointing=config.TRAIN.ACTIVATION_CHECKPOINTING,
        )
        if m.PRETRAINED and not resume:
            file = open_checkpoint(expand_weights(m.PRETRAINED, "MODEL.PRETRAINED"))
            report = load_backbone(model, file)
            if group.main:
                _log.info("%s: %s", file.path, report)
        model.to(device).to(memory_format=torch.channels_last)
        evaluated = copy.deepcopy(model).eval()
        sampler = build_sampler(config, len(train_set), group)
        batches = Loader(train_set, sampler, config.TRAIN.WORKERS, collate_classes)
        stack.callback(batches.close)
        log = stack.enter_context(open_log(output, config)) if group.main else None
        signals = SignalHandler()

        def to_device(batch: ClassBatch) -> tuple[torch.Tensor, torch.Tensor]:
            images = batch.images.to(device, memory_format=torch.channels_last, non_blocking=True)
            return normalize(images), batch.classes.to(device, non_blocking=True)

        def validate(weights: Mapping[str, torch.Tensor], epoch: int) -> dict[str, float]:
            evaluated.load_state_dict(weights)
            own = range(group.rank, len(test_set), group.size)
            correct = _count_correct(evaluated, test_set, own, device, signals)
            if group.any(bool(signals.signal)):
                raise StoppedError(signals.signal or signal.SIGTERM)
            accuracy = sum(group.gather(correct)) / len(test_set)
            if group.main:
                _log.info("epoch %d: accuracy %.2f", epoch, 100 * accuracy)
            return {"accuracy": accuracy}

        best = BestCheckpoint(lambda weights: write_official(output / "best.pth", weights))
        network = prepare_for_training(config, model, device)
        optimizer = build_optimizer(config, model)
        trainer = loop.Trainer(
            model=network,
            criterion=lambda logits, classes: {"classes": F.cross_entropy(logits.float(), classes)},
            batches=batches,
            to_device=to_device,
            optimizer=optimizer,
            scheduler=build_scheduler(config, optimizer, batches.steps),
            ema=build_ema(config, model),
            settings=build_settings(config, device, "accuracy"),
            validate=validate,
            callbacks=build_callbacks(config, log, best),
            folder=output,
            group=group,
            signals=signals,
        )
        return trainer.fit(resume).best


@torch.inference_mode()
def _count_correct(
    model: nn.Module,
    dataset: ClassFolder,
    indices: range,
    device: torch.device,
    signals: SignalHandler,
    batch_size: int = 32,
) -> int:
    """How many of the images are classified correctly."""
    correct = 0
    for first in range(0, len(indices), batch_size):
        items = [dataset[0, index] for index in indices[first : first + batch_size]]
        batch = collate_classes(items)
        logits = model(normalize(batch.images.to(device)))
        correct += int((logits.argmax(dim=1).cpu() == batch.classes).sum())
        if signals.signal:
            break
    return correct
