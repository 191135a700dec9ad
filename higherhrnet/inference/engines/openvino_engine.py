"""OpenVINO as an engine."""

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


class OpenVinoEngine(ExportedEngine):
    """Runs an ``.xml`` file with its ``.bin``."""

    runtime = "openvino"

    def __init__(self, path: Path, about: AnyInfo, device: str, compiled: Any) -> None:
        super().__init__(path, about, device)
        self._request = compiled.create_infer_request()

    @classmethod
    def open(cls, path: Path, device: str, precision: str) -> OpenVinoEngine:
        """See :func:`exported.open_export`."""
        runtime = import_runtime("openvino", "OpenVINO", path)
        check_device(device, "OpenVINO", ("cpu",))
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads := thread_count():
            settings["INFERENCE_NUM_THREADS"] = threads
        if precision == "fp32":  # else bfloat16 where the processor has it
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        core = runtime.Core()
        model = _read(core, path)
        try:
            compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"OpenVINO cannot prepare '{path}' on this CPU: {reason}") from error
        return cls(path, _info(path, model), device, compiled)

    @classmethod
    def read_info(cls, path: Path) -> AnyInfo:
        """See :class:`ExportedEngine`."""
        return _info(path, _read(import_runtime("openvino", "OpenVINO", path).Core(), path))

    def run(
        self, images: npt.NDArray[np.uint8], outputs: Sequence[str]
    ) -> list[npt.NDArray[np.float32]]:
        """See :class:`ExportedEngine`."""
        # The arrays are copies: the next images overwrite what the request holds.
        found = self._request.infer([np.ascontiguousarray(images)], share_inputs=True)
        return [found[name] for name in outputs]


def _read(core: Any, path: Path) -> Any:
    try:
        return core.read_model(path)
    except RuntimeError as error:
        raise UserError(f"'{path}' is no OpenVINO network: {first_line(error)}") from error


def _info(path: Path, model: Any) -> AnyInfo:
    key = [METADATA, "info"]
    return parse_info(path, str(model.get_rt_info(key).value) if model.has_rt_info(key) else None)
