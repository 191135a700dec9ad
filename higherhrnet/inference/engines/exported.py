"""Exported networks: files of other runtimes that carry all that predicting with them needs.

Nothing here needs PyTorch, so that a program with NumPy, OpenCV and a runtime can predict.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...errors import UserError
from ...outputs import Head, NetworkSpec, Outputs
from ...skeleton import Skeleton

METADATA = "higherhrnet"
"""The key under which a file's metadata holds the :class:`ExportInfo`."""
_FORMAT = 1


@dataclass(frozen=True)
class ExportInfo:
    """What an exported network says of itself.

    Attributes:
        method: ``bottom-up`` or ``top-down``.
        skeleton: whose joints it predicts.
        network: what ``heatmaps`` and ``tags`` are, and what is inside.
        outputs: names of the outputs, in order.
        precision: ``fp32``, ``fp16`` or ``int8``.
        config: YAML of the config with the test settings.
        operating_point: which people are shown; None if never calibrated.
        presets: as in a checkpoint.
        predictors: preset, or ``default`` → the predictor's settings and its operating point,
            for programs that read no config.
        version: of the package that wrote it.
    """

    method: str
    skeleton: Skeleton
    network: NetworkSpec
    outputs: tuple[str, ...]
    precision: str
    config: str
    operating_point: Mapping[str, Any] | None = None
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    predictors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    version: str = ""

    def to_json(self) -> str:
        """For the file's metadata."""
        values = {
            **vars(self),
            "skeleton": self.skeleton.to_dict(),
            "network": asdict(self.network),
            "format": _FORMAT,
        }
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> ExportInfo:
        """Inverse of :meth:`to_json`.

        Raises:
            UserError: it is of a newer version.
            ValueError, TypeError, KeyError: it is damaged.
        """
        values = json.loads(text)
        if "task" in values:
            raise UserError(
                f"it is an exported network for {values['task']}, for other programs; give the "
                "checkpoint that it was made from"
            )
        if values.pop("format") != _FORMAT:
            raise UserError("it was exported by a newer version of this package")
        network = values["network"]
        heads, size = tuple(Head(**head) for head in network["heads"]), network["size"]
        size = None if size is None else (int(size[0]), int(size[1]))
        return cls(
            **values
            | {
                "skeleton": Skeleton.from_dict(values["skeleton"]),
                "network": NetworkSpec(heads, bool(network["flip"]), size),
                "outputs": tuple(values["outputs"]),
            }
        )


class ExportedEngine(ABC):
    """An engine that runs an exported network.

    Attributes:
        path: its file.
        info: what it says of itself.
        runtime: the name of what computes it.
    """

    fixed_batch = False
    runtime: ClassVar[str]

    def __init__(self, path: Path, info: ExportInfo, device: str = "cpu") -> None:
        self.path, self.info, self.device = path, info, device

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
    def read_info(cls, path: Path) -> ExportInfo:
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
    """An engine for a file that ``higherhrnet export`` wrote.

    Args:
        path: ``.onnx``, ``.xml`` of OpenVINO (its ``.bin`` beside it), or ``.pt2``.
        device: ``cpu``, or ``cuda:N`` where the runtime has it.
        precision: what a runtime that can choose computes in: ``auto`` or ``fp32``.

    Raises:
        UserError: no such file, not such a file, or the runtime is not installed.
    """
    path = Path(path)
    return _engine_of(path).open(path, device, precision)


def read_info(path: str | Path) -> ExportInfo:
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


def parse_info(path: Path, text: str | None) -> ExportInfo:
    """What a file's metadata say.

    Raises:
        UserError: there are none, or they are damaged.
    """
    if text is None:
        raise UserError(
            f"'{path}' does not say how it is decoded: it was not written by higherhrnet export"
        )
    try:
        return ExportInfo.from_json(text)
    except UserError as error:
        raise UserError(f"'{path}': {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"'{path}' is damaged: its description cannot be read: {error}") from error


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
