"""ONNX Runtime as an engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import UserError
from .export_info import METADATA, AnyInfo, parse_info
from .exported import (
    ExportedEngine,
    check_device,
    first_line,
    import_runtime,
    thread_count,
)


class OnnxRuntimeEngine(ExportedEngine):
    """Runs an ``.onnx`` file."""

    runtime = "onnxruntime"

    def __init__(self, path: Path, about: AnyInfo, device: str, session: Any) -> None:
        super().__init__(path, about, device)
        self._session = session

    @classmethod
    def open(cls, path: Path, device: str, precision: str) -> OnnxRuntimeEngine:
        """See :func:`exported.open_export`; the file decides the precision."""
        runtime = import_runtime("onnxruntime", "ONNX Runtime", path)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = thread_count()
        # Spinning threads take a processor from whatever else runs, decoding among it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[Any] = ["CPUExecutionProvider"]
        check_device(device, "ONNX Runtime", ("cpu", "cuda"))
        if device.startswith("cuda"):
            if "CUDAExecutionProvider" not in runtime.get_available_providers():
                raise UserError(
                    f"ONNX Runtime has no GPU here, which '{device}' asks for: "
                    "pip install onnxruntime-gpu, or --device cpu"
                )
            number = int(device.partition(":")[2] or 0)
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": number}))
        session = _open(runtime, path, options, providers)
        if device != "cpu" and session.get_providers()[0] == "CPUExecutionProvider":
            raise UserError(
                f"ONNX Runtime cannot use '{device}' (CUDA or cuDNN does not fit): --device cpu"
            )
        return cls(path, _info(path, session), device, session)

    @classmethod
    def read_info(cls, path: Path) -> AnyInfo:
        """See :class:`ExportedEngine`."""
        runtime = import_runtime("onnxruntime", "ONNX Runtime", path)
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return _info(path, _open(runtime, path, options, ["CPUExecutionProvider"]))

    def run(
        self, images: npt.NDArray[np.uint8], outputs: Sequence[str]
    ) -> list[npt.NDArray[np.float32]]:
        """See :class:`ExportedEngine`."""
        found: list[npt.NDArray[np.float32]]
        found = self._session.run(list(outputs), {"images": np.ascontiguousarray(images)})
        return found


def _open(runtime: Any, path: Path, options: Any, providers: Sequence[Any]) -> Any:
    options.log_severity_level = 3  # errors; warnings are of graphs, for their makers
    try:
        return runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # of many kinds, all of the file
        raise UserError(f"'{path}' is no ONNX file that runs: {first_line(error)}") from error


def _info(path: Path, session: Any) -> AnyInfo:
    return parse_info(path, session.get_modelmeta().custom_metadata_map.get(METADATA))
