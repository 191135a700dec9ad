"""Checkpoints → predictors of what finds no poses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import Config, as_pairs
from ..errors import UserError
from ..inference.engines.export_info import TaskExportInfo
from ..inference.engines.exported import is_export, open_any_export
from ..io.pixels import ImageLike, as_several, to_pixels
from ..models.state_dict import infer_architecture
from ..models.weights import Checkpoint, load_weights
from ..tasks.base import TASKS, Predict, Task, get_task
from ..tasks.inputs import InputShape
from .checkpoints import any_config_of, open_network
from .device import choose_device


@dataclass(frozen=True)
class TaskPredictor:
    """A checkpoint that is ready to predict.

    Attributes:
        task: what it does.
        config: with the wanted test settings.
        classes: names by number.
        is_named: whether the file says so, or the config; else they are numbers.
        model: in evaluation mode, on the device; None where an exported file is run.
        predict: (H, W, 3) uint8 RGB → what the task finds there.
    """

    task: Task[Any]
    config: Config
    classes: tuple[str, ...]
    is_named: bool
    model: nn.Module | None
    predict: Predict

    def __call__(self, image: ImageLike, channel_order: str = "RGB") -> Any:
        """What the task finds in an image: a label map (H, W) of class numbers, boxes
        (``FoundBoxes``), or a class number.

        Args:
            image: a file, bytes of one, an array, a tensor; see :mod:`higherhrnet.io.pixels`. Of a
                list, a tuple or a batch a list is found.
            channel_order: ``RGB``, or ``BGR`` for arrays as OpenCV reads them.
        """
        several = as_several(image)
        if several is not None:
            return [self.predict(to_pixels(one, channel_order)) for one in several]
        return self.predict(to_pixels(image, channel_order))


def load_task(
    name_or_file: str | Path | Checkpoint = "fcos_w18_person",
    device: str | torch.device = "auto",
    overrides: Sequence[Any] | Mapping[str, Any] = (),
    config: Config | None = None,
) -> TaskPredictor:
    """The predictor of a segmentation network, a detector or a classifier.

    Args:
        name_or_file: a bundled or published name, a checkpoint's file, a network that
            ``higherhrnet export`` wrote, or a checkpoint that was read.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        overrides: config ``KEY, VALUE, …``, or a dict, over those in the checkpoint.
        config: instead of the checkpoint's.

    Raises:
        UserError: it is one of a pose network, or does not fit the config.
    """
    file = name_or_file
    if not isinstance(file, Checkpoint):
        file = open_network(str(file))
    if isinstance(device, str):
        device = choose_device(device)
    config = any_config_of(file, as_pairs(overrides)) if config is None else config
    if config.method not in TASKS:
        raise UserError(f"'{file.path}' holds a pose network ({config.method}): use load")
    if is_export(file.path):
        return _load_export(file, config, device)
    held = infer_architecture(file.state)
    if held is None or held.kind != config.MODEL.NAME:
        what = "no HRNet" if held is None else f"a {held.kind}"
        raise UserError(
            f"'{file.path}' is a checkpoint of another model: it holds {what}, and the config is "
            f"of a {config.MODEL.NAME}"
        )
    _check_settings(file, config)
    task = get_task(config.method)
    classes = file.classes or _number_classes(file, config)
    model = task.build_model(config, len(classes))
    load_weights(model, file)
    model.to(device).to(memory_format=torch.channels_last).eval()
    predict = task.build_predictor(config, model, classes, device)
    is_named = bool(file.classes or _named_classes(config))
    return TaskPredictor(task, config, classes, is_named, model, predict)


def _load_export(file: Checkpoint, config: Config, device: torch.device) -> TaskPredictor:
    """The predictor of an exported file."""
    precision = getattr(getattr(config, "TEST", None), "PRECISION", "auto")
    if precision not in ("auto", "fp32"):
        raise UserError(
            f"TEST.PRECISION {precision} is for PyTorch; an exported network has its own (auto and "
            "fp32 are taken)"
        )
    engine = open_any_export(file.path, str(device), precision)
    info = engine.about
    if not isinstance(info, TaskExportInfo) or info.task != config.method:
        what = info.task if isinstance(info, TaskExportInfo) else f"{info.method} poses"
        raise UserError(
            f"'{file.path}' is an exported network for {what}, and the config is for "
            f"{config.method}"
        )
    _check_settings(file, config)
    task = get_task(info.task)
    shape = InputShape(info.multiple, info.size)
    predict = task.build_exported_predictor(config, engine.run, shape, info.classes)
    return TaskPredictor(task, config, info.classes, info.is_named, None, predict)


def open_test_set(loaded: TaskPredictor) -> tuple[Any, tuple[str, ...]]:
    """The annotated test images of a predictor's config, and the names of its classes: the images'
    where the checkpoint has none.

    Raises:
        UserError: the images have other classes.
    """
    named = _named_classes(loaded.config)
    classes = loaded.classes if loaded.is_named else ()
    if named and loaded.is_named and not set(named) <= set(classes):
        raise UserError(
            f"config key 'DATASET.CLASSES' names {', '.join(named[:5])}, and the network finds "
            f"{', '.join(classes[:5])}"
        )
    test = loaded.task.open_test(loaded.config, classes)
    if len(test.classes) != len(loaded.classes):
        raise UserError(
            f"the network tells {len(loaded.classes)} classes apart, and the data set has "
            f"{len(test.classes)}"
        )
    return test, tuple(test.classes)


def _check_settings(file: Checkpoint, config: Config) -> None:
    """That a config's network is the file's also in what no tensor shows.

    Raises:
        UserError: a setting of ``MODEL`` contradicts the file.
    """
    if file.config is None and not file.settings:
        return
    stored, wanted = (asdict(each.MODEL) for each in (any_config_of(file), config))
    for key, value in stored.items():
        if key != "PRETRAINED" and wanted.get(key) != value:
            raise UserError(
                f"'{file.path}' was trained with MODEL.{key} {value}, but the config has "
                f"{wanted.get(key)}"
            )


def _named_classes(config: Config) -> tuple[str, ...]:
    """The classes that a config names; none if it leaves them to the data set."""
    dataset = getattr(config, "DATASET", None)
    return tuple(getattr(dataset, "CLASSES", ()))


def _number_classes(file: Checkpoint, config: Config) -> tuple[str, ...]:
    """Names for the classes of a file that has none: those of the config, or numbers."""
    named = _named_classes(config)
    outputs = file.state.get("last_layer.3.weight", file.state.get("classifier.weight"))
    if outputs is None:
        if named:
            return named
        raise UserError(f"'{file.path}' does not name its classes: give DATASET.CLASSES")
    if named and len(named) != len(outputs):
        raise UserError(
            f"'{file.path}' tells {len(outputs)} classes apart, and DATASET.CLASSES names "
            f"{len(named)}"
        )
    return named or tuple(f"class {number}" for number in range(len(outputs)))
