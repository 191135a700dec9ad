"""Config → training of what finds no poses: classifiers, segmentation networks, detectors."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

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
from .checkpoints import open_checkpoint
from .data import build_sampler
from .run import can_go_on, start_run

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
    with start_run(config, output, device_name, resume) as run, ExitStack() as stack:
        group, device = run.group, run.device
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

        def validate(weights: Mapping[str, torch.Tensor], epoch: int) -> dict[str, Any]:
            evaluated.load_state_dict(weights)
            parts = evaluate(task, predict, test, group, lambda: run.is_stopped)
            run.end_if_stopped()
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

        return run.fit(
            model=model,
            criterion=task.build_criterion(config, training),
            batches=batches,
            to_device=task.to_device(config, device),
            metric=task.metric,
            validate=validate,
            save_best=save_best,
            metadata=metadata_of(to_yaml(config), None, training.classes),
            predict=lambda index: task.evaluate(predict, test, [index]),
            test_images=len(test),
        )


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
