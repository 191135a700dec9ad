"""Exported networks: files of other runtimes that carry all that predicting with them needs.

Nothing here needs PyTorch, so that a program with NumPy, OpenCV and a runtime can predict.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...errors import UserError
from ...outputs import Outputs
from .export_info import AnyInfo, ExportInfo, TaskExportInfo


class ExportedEngine(ABC):
    """An engine that runs an exported network.

    Attributes:
        path: its file.
        about: what it says of itself.
        runtime: the name of what computes it.
    """

    fixed_batch = False
    runtime: ClassVar[str]

    def __init__(self, path: Path, about: AnyInfo, device: str = "cpu") -> None:
        self.path, self.about, self.device = path, about, device

    @property
    def info(self) -> ExportInfo:
        """What a pose network says of itself."""
        assert isinstance(self.about, ExportInfo)
        return self.about

    def __call__(self, images: npt.NDArray[np.uint8]) -> Outputs:
        """(B, H, W, 3) uint8 RGB → one head's outputs."""
        wanted = [name for name in ("heatmaps", "tags") if name in self.info.outputs]
        maps = self.run(images, wanted)
        return Outputs((maps[0],), (maps[1] if len(maps) > 1 else maps[0][:, :0],))

    @classmethod
    @abstractmethod
    def open(cls, path: Path, device: str, precision: str) -> ExportedEngine:
        """See :func:`open_export`."""

    @classmethod
    @abstractmethod
    def read_info(cls, path: Path) -> AnyInfo:
        """See :func:`read_info`."""

    @abstractmethod
    def run(
        self, images: npt.NDArray[np.uint8], outputs: Sequence[str]
    ) -> list[npt.NDArray[np.float32]]:
        """(B, H, W, 3) uint8 RGB → the named outputs."""


SUFFIXES = {
    ".onnx": ("onnxruntime_engine", "OnnxRuntimeEngine"),
    ".xml": ("openvino_engine", "OpenVinoEngine"),
    ".pt2": ("exported_program", "ExportedProgramEngine"),
}
"""A file's suffix → module and class of the engine that runs it."""


def is_export(name: str | Path) -> bool:
    """Whether a file's name is one of an exported network."""
    return Path(name).suffix in SUFFIXES


def open_export(path: str | Path, device: str = "cpu", precision: str = "auto") -> ExportedEngine:
    """An engine for a pose network that ``higherhrnet export`` wrote.

    Args:
        path: ``.onnx``, ``.xml`` of OpenVINO (its ``.bin`` beside it), or ``.pt2``.
        device: ``cpu``, or ``cuda:N`` where the runtime has it.
        precision: what a runtime that can choose computes in: ``auto`` or ``fp32``.

    Raises:
        UserError: no such file, not such a file, or the runtime is not installed.
    """
    engine = open_any_export(path, device, precision)
    if isinstance(engine.about, TaskExportInfo):
        raise UserError(
            f"'{path}' is an exported network for {engine.about.task}, which finds no poses; "
            "load_task reads it"
        )
    return engine


def open_any_export(
    path: str | Path, device: str = "cpu", precision: str = "auto"
) -> ExportedEngine:
    """Like :func:`open_export`, of a network for poses or for a task."""
    path = Path(path)
    return _engine_of(path).open(path, device, precision)


def read_info(path: str | Path) -> AnyInfo:
    """What an exported network says of itself, without preparing it.

    Raises:
        UserError: as :func:`open_export`.
    """
    path = Path(path)
    return _engine_of(path).read_info(path)


def _engine_of(path: Path) -> type[ExportedEngine]:
    if not path.is_file():
        raise UserError(f"exported network '{path}' does not exist")
    module, name = SUFFIXES[path.suffix]
    try:
        engine: type[ExportedEngine] = getattr(import_module(f".{module}", __package__), name)
    except ImportError as error:
        raise UserError(f"'{path}' needs PyTorch, which is not installed here") from error
    return engine


def import_runtime(module: str, name: str, path: Path) -> Any:
    """The package that runs a file.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"'{path}' needs {name}: pip install {module} (or higherhrnet[export])"
        ) from error


def thread_count() -> int:
    """What ``OMP_NUM_THREADS`` asks for, as PyTorch reads it; 0 leaves it to the runtime."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdigit() else 0


def check_device(device: str, runtime: str, known: Sequence[str]) -> None:
    """That a runtime can compute where the user wants.

    Raises:
        UserError: it cannot.
    """
    if device.partition(":")[0] not in known:
        raise UserError(
            f"{runtime} computes on {' and '.join(known)} here, not on '{device}': --device cpu"
        )


def first_line(error: Exception) -> str:
    """Of an error's message; runtimes write paragraphs."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
