"""Where a run's numbers and pictures go beside ``log.jsonl``: TRAIN.LOGGERS.

Each package is imported when its logger is built. Whether it works online or offline, and to which
server it sends, is its own business, by its own environment variables: ``WANDB_MODE``,
``WANDB_PROJECT``, ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME``, ``TRACKIO_DIR``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..plugins import load_object

_log = logging.getLogger(__name__)
Images = Mapping[str, npt.NDArray[np.uint8]]
_PROJECT = "higherhrnet"


class Logger(Protocol):
    """What a logger does. A plug-in's is made by ``name(folder, config)``."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step or (names that begin with ``epoch/``) of an epoch."""

    def text(self, step: int, name: str, text: str) -> None:
        """A sentence, of an alarm say."""

    def images(self, step: int, images: Images) -> None:
        """(H, W, 3) uint8 RGB images of an epoch."""

    def close(self) -> None:
        """At the end, also of an interrupted run."""


class TensorBoardLogger:
    """Event files in ``folder/tensorboard``."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._folder = folder
        self._opened: Any = None

    @property
    def _board(self) -> Any:
        if self._opened is None:
            from torch.utils.tensorboard import SummaryWriter  # takes a second

            self._opened = SummaryWriter(str(self._folder / "tensorboard"))
        return self._opened

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See :class:`Logger`."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def text(self, step: int, name: str, text: str) -> None:
        """See :class:`Logger`."""
        self._board.add_text(name, text, step)

    def images(self, step: int, images: Images) -> None:
        """See :class:`Logger`."""
        for name, image in images.items():
            self._board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """See :class:`Logger`."""
        if self._opened is not None:
            self._opened.close()


class _RunLogger:
    """Loggers that know one rising step: epochs are logged at the step where they end."""

    def __init__(self) -> None:
        self._step = 0

    def _place(self, step: int, values: Mapping[str, float]) -> int:
        """The step to log at; an epoch's numbers are told by their names."""
        if not all(name.startswith("epoch/") for name in values):
            self._step = max(step, self._step)
        return self._step


class WandbLogger(_RunLogger):
    """Weights & Biases; a resumed folder goes on with its run."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        super().__init__()
        wandb = _require("wandb")
        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=folder.name,
            id=_remember(folder, "wandb", lambda: token_hex(4)),
            resume="allow",
            dir=str(folder),
            config=dict(config),
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See :class:`Logger`."""
        self._run.log(dict(values), step=self._place(step, values))

    def text(self, step: int, name: str, text: str) -> None:
        """See :class:`Logger`."""
        self._run.log({name: self._wandb.Html(text)}, step=self._step)

    def images(self, step: int, images: Images) -> None:
        """See :class:`Logger`."""
        pictures = {name: self._wandb.Image(image) for name, image in images.items()}
        self._run.log(pictures, step=self._step)

    def close(self) -> None:
        """See :class:`Logger`."""
        self._run.finish()


class MlflowLogger(_RunLogger):
    """MLflow; by default into ``mlflow.db`` in the working folder, as MLflow itself."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._told = False
        mlflow = _require("mlflow")
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        self._error = mlflow.exceptions.MlflowException
        self._client = mlflow.MlflowClient()
        try:
            number = mlflow.set_experiment(experiment).experiment_id
        except self._error as error:
            raise UserError(
                f"config key 'TRAIN.LOGGERS': MLflow at '{mlflow.get_tracking_uri()}' does not "
                f"answer: {' '.join(str(error).split())}"
            ) from error

        def create() -> str:
            return str(self._client.create_run(number, run_name=folder.name).info.run_id)

        self._run = _remember(folder, "mlflow", create)
        try:
            self._client.get_run(self._run)
        except self._error:  # of another server
            (folder / ".mlflow.run").unlink()
            self._run = _remember(folder, "mlflow", create)
        for key, value in config.items():
            with suppress(self._error):  # a resumed run with other settings
                self._client.log_param(self._run, key, str(value)[:500])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See :class:`Logger`."""
        at = self._place(step, values)
        for name, value in values.items():
            self._send(self._client.log_metric, self._run, name, value, step=at)

    def text(self, step: int, name: str, text: str) -> None:
        """See :class:`Logger`."""
        self._send(self._client.log_text, self._run, text, f"{name}/{step:04d}.txt")

    def images(self, step: int, images: Images) -> None:
        """See :class:`Logger`."""
        for name, image in images.items():
            self._send(self._client.log_image, self._run, image, f"{name}/{step:04d}.png")

    def close(self) -> None:
        """See :class:`Logger`."""
        self._send(self._client.set_terminated, self._run)

    def _send(self, call: Callable[..., Any], *arguments: Any, **more: Any) -> None:
        """A server that does not answer for a while costs numbers, not the training."""
        try:
            call(*arguments, **more)
        except self._error as error:
            if not self._told:
                _log.warning("MLflow does not answer, and its numbers are lost: %s", error)
            self._told = True


class TrackioLogger(_RunLogger):
    """Trackio, on this machine (``trackio show``) or, with its own settings, on a Space."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._trackio = _require("trackio")
        name = _remember(folder, "trackio", lambda: f"{folder.name}-{token_hex(3)}")
        self._trackio.init(project=_PROJECT, name=name, config=dict(config), resume="allow")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See :class:`Logger`."""
        self._trackio.log(dict(values), step=self._place(step, values))

    def text(self, step: int, name: str, text: str) -> None:
        """See :class:`Logger`."""
        self._trackio.log({name: self._trackio.Markdown(text)}, step=self._step)

    def images(self, step: int, images: Images) -> None:
        """See :class:`Logger`."""
        pictures = {name: self._trackio.Image(image) for name, image in images.items()}
        self._trackio.log(pictures, step=self._step)

    def close(self) -> None:
        """See :class:`Logger`."""
        self._trackio.finish()


LOGGERS: dict[str, Callable[[Path, Mapping[str, Any]], Logger]] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
    "mlflow": MlflowLogger,
    "trackio": TrackioLogger,
}


def build_loggers(names: tuple[str, ...], folder: Path, config: Mapping[str, Any]) -> list[Logger]:
    """The loggers of a run.

    Args:
        names: keys of :data:`LOGGERS`, or ``package:name``.
        folder: of the run.
        config: flat, ``SECTION.KEY`` → value.

    Raises:
        UserError: a name is unknown, or its package is not installed.
    """
    found: list[Logger] = []
    for name in names:
        if ":" in name:
            make = load_object(name, "TRAIN.LOGGERS")
        elif name in LOGGERS:
            make = LOGGERS[name]
        else:
            raise UserError(
                f"config key 'TRAIN.LOGGERS' lists {', '.join(LOGGERS)} or package:name, not "
                f"'{name}'"
            )
        found.append(make(folder, config))
    return found


def _require(package: str) -> Any:
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError as error:
        raise UserError(
            f"config key 'TRAIN.LOGGERS': {package} is not installed: pip install {package}"
        ) from error


def _remember(folder: Path, tool: str, make: Callable[[], str]) -> str:
    """The id of the folder's run with a tool, so that a resumed one goes on with it."""
    file = folder / f".{tool}.run"
    with suppress(OSError):
        if text := file.read_text().strip():
            return text
    made = make()
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(made + "\n")
    return made
