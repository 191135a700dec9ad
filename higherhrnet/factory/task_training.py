"""Config → training of what finds no poses: classifiers, segmentation networks, detectors."""

from __future__ import annotations

import copy
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import Config, to_yaml
from ..datasets.loader import Loader
from ..distributed import ProcessGroup
from ..errors import UserError
from ..evaluation.evaluator import format_metric
from ..io.paths import expand_weights
from ..models.weights import (
    load_backbone,
    metadata_of,
    read_checkpoint,
    write_native,
    write_official,
)
from ..tasks.base import Predict, Task, get_task
from ..training import checkpoint, loop
from ..training.budget import TimeBudget
from ..training.callbacks import BestCheckpoint, LastWeights
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
    check_budget,
    open_log,
    prepare_for_training,
    start_run,
)

_log = logging.getLogger(__name__)


def train_task(
    config: Config, output: Path, device_name: str = "auto", resume: bool = False
) -> loop.Progress:
    """Train a classifier, segmentation network or detector into a folder; returns how far it came,
    and the best metric.

    The weights are in the task's ``best_file``; the other files are those of a pose training.
    """
    task = get_task(config.method)
    resume = resume or can_go_on(output)
    training = task.open_training(config)
    test = task.open_test(config, training.classes)
    if resume:
        check_classes(output, training.classes)
    budget = TimeBudget(60 * config.TRAIN.MINUTES) if config.TRAIN.MINUTES else None
    with start_run(config, output, device_name, resume) as (group, device), ExitStack() as stack:
        model = task.build_model(config, len(training.classes))
        if config.MODEL.PRETRAINED and not resume:
            file = open_checkpoint(expand_weights(config.MODEL.PRETRAINED, "MODEL.PRETRAINED"))
            report = load_backbone(model, file)
            if group.main:
                _log.info("%s: %s", file.path, report)
        model.to(device).to(memory_format=torch.channels_last)
        evaluated = copy.deepcopy(model).eval()
        predict = task.build_predictor(config, evaluated, training.classes, device)
        sampler = build_sampler(config, training.count, group)
        batches = Loader(training.views, sampler, config.TRAIN.WORKERS, training.collate)
        stack.callback(batches.close)
        log = stack.enter_context(open_log(output, config)) if group.main else None
        signals = SignalHandler()

        def validate(weights: Mapping[str, torch.Tensor], epoch: int) -> dict[str, Any]:
            evaluated.load_state_dict(weights)
            parts = evaluate(task, predict, test, group, lambda: bool(signals.signal))
            if group.any(bool(signals.signal)):
                raise StoppedError(signals.signal or signal.SIGTERM)
            metrics = task.summarize(config, test, parts)
            if group.main:
                value = format_metric(metrics[task.metric])
                _log.info("epoch %d: %s %s", epoch, task.metric, value)
            return metrics

        def save_best(weights: Mapping[str, torch.Tensor]) -> None:
            path = output / task.best_file
            if path.suffix == ".pth":
                write_official(path, weights)
            else:
                write_native(path, weights, to_yaml(config), None, classes=training.classes)

        called = build_callbacks(config, log, BestCheckpoint(save_best))
        if budget is not None:
            budget.reserve = group.max(_estimate_validation(task, predict, test, group))
            check_budget(budget)
            called.append(LastWeights(save_best))
        network = prepare_for_training(config, model, device)
        optimizer = build_optimizer(config, model)
        trainer = loop.Trainer(
            model=network,
            criterion=task.build_criterion(config, training),
            batches=batches,
            to_device=task.to_device(config, device),
            optimizer=optimizer,
            scheduler=build_scheduler(config, optimizer, batches.steps, budget),
            ema=build_ema(config, model),
            settings=build_settings(config, device, task.metric),
            validate=validate,
            callbacks=called,
            folder=output,
            metadata=metadata_of(to_yaml(config), None, training.classes),
            group=group,
            signals=signals,
            budget=budget,
        )
        return trainer.fit(resume)


def check_classes(output: Path, classes: Sequence[str]) -> None:
    """That a run to go on with tells the same classes apart.

    Raises:
        UserError: it does not.
    """
    file = output / checkpoint.LAST
    stored = read_checkpoint(file).classes if file.is_file() else ()
    if stored and stored != tuple(classes):
        raise UserError(
            f"'{file}' tells {', '.join(stored[:5])} apart, and the data set's classes are "
            f"{', '.join(classes[:5])}, in this order"
        )


def evaluate(
    task: Task[Any],
    predict: Predict,
    test: Any,
    group: ProcessGroup,
    is_stopped: Callable[[], bool] = lambda: False,
) -> list[Any]:
    """What the task's evaluation knows of each process's share of the test images."""

    def indices() -> Iterator[int]:
        for index in range(group.rank, len(test), group.size):
            if is_stopped():
                return
            yield index

    own = task.evaluate(predict, test, indices())
    return list(group.gather(own))


def _estimate_validation(
    task: Task[Any], predict: Predict, test: Any, group: ProcessGroup
) -> float:
    """Seconds that validation and the last checkpoint will take, from three images."""
    chosen = np.linspace(0, len(test) - 1, min(len(test), 3)).astype(int).tolist()
    task.evaluate(predict, test, chosen[:1])  # what the first costs besides
    begun = time.perf_counter()
    task.evaluate(predict, test, chosen)
    each = (time.perf_counter() - begun) / len(chosen)
    return 1.2 * each * len(test) / group.size + 5
