"""OpenVINO as an engine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import UserError
from .exported import METADATA, ExportedEngine, ExportInfo, first_line, parse_info


class OpenVinoEngine(ExportedEngine):
    """Runs an ``.xml`` file with its ``.bin``."""

    runtime = "openvino"

    def __init__(self, path: Path, info: ExportInfo, device: str, compiled: Any) -> None:
        super().__init__(path, info, device)
        self._request = compiled.create_infer_request()

    @classmethod
    def open(cls, path: Path, device: str, precision: str) -> OpenVinoEngine:
        """See :func:`exported.open_export`."""
        runtime = _import(path)
        if device != "cpu":
            raise UserError(f"OpenVINO computes on the CPU here, not on '{device}': --device cpu")
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        threads = int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        if precision == "fp32":  # else bfloat16 where the processor has it
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        core = runtime.Core()
        model = _read(core, path)
        return cls(path, _info(path, model), device, core.compile_model(model, "CPU", settings))

    @classmethod
    def read_info(cls, path: Path) -> ExportInfo:
        """See :class:`ExportedEngine`."""
        return _info(path, _read(_import(path).Core(), path))

    def run(
        self, images: npt.NDArray[np.uint8], outputs: Sequence[str]
    ) -> list[npt.NDArray[np.float32]]:
        """See :class:`ExportedEngine`."""
        # The arrays are copies: the next images overwrite what the request holds.
        found = self._request.infer([np.ascontiguousarray(images)], share_inputs=True)
        return [found[name] for name in outputs]


def _import(path: Path) -> Any:
    try:
        import openvino
    except ImportError as error:
        raise UserError(
            f"'{path}' needs OpenVINO: pip install openvino (or higherhrnet[export])"
        ) from error
    return openvino


def _read(core: Any, path: Path) -> Any:
    try:
        return core.read_model(path)
    except RuntimeError as error:
        raise UserError(f"'{path}' is no OpenVINO network: {first_line(error)}") from error


def _info(path: Path, model: Any) -> ExportInfo:
    key = [METADATA, "info"]
    return parse_info(path, str(model.get_rt_info(key).value) if model.has_rt_info(key) else None)
