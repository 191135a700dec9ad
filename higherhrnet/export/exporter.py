"""Write a network's graph as ONNX, OpenVINO or a program of ``torch.export``."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ..errors import UserError
from ..inference.engines.export_info import METADATA
from ..inference.engines.exported import SUFFIXES
from ..io.atomic import atomic_write
from . import quantization

FORMATS = {"onnx": ".onnx", "openvino": ".xml", "torch_export": ".pt2"}
"""Format → suffix."""
Batches = Sequence[npt.NDArray[np.uint8]]
"""Network inputs (B, H, W, 3) that int8 is calibrated on."""
_OPSET = 18
_LARGEST = 8192
"""Of a side, in units of what it is a multiple of."""


class Graph(Protocol):
    """What is exported: ``module`` reads (B, H, W, 3) uint8 RGB, and ``module.cast`` sets what its
    network is computed in."""

    @property
    def module(self) -> Any: ...

    @property
    def outputs(self) -> tuple[str, ...]: ...


class Info(Protocol):
    """What the file says of itself."""

    @property
    def precision(self) -> str: ...

    def to_json(self) -> str: ...


class _Job(NamedTuple):
    """What a writer of one format needs."""

    program: torch.export.ExportedProgram
    graph: Graph
    info: Info
    target: Path
    calibration: Batches


def export_graph(
    graph: Graph,
    info: Info,
    target: Path,
    size: tuple[int, int] | None = None,
    calibration: Batches = (),
) -> None:
    """Write a graph, whole or not at all.

    Args:
        graph: as :meth:`Method.build_graph` makes it, float32.
        info: goes into the file's metadata; its precision is what is written.
        target: the file; its suffix decides the format. OpenVINO's weights go beside it.
        size: (H, W) of the images if it is to take but one.
        calibration: for ``int8``.

    Raises:
        UserError: the format does not have the precision, or what writes it is not installed.
    """
    formats = {suffix: name for name, suffix in FORMATS.items()}
    name = formats[target.suffix]
    if info.precision == "int8" and name == "torch_export":
        raise UserError("--precision int8 is for ONNX and OpenVINO, not for torch_export")
    if info.precision == "fp16" and name != "openvino":  # which stores what it is given in halves
        graph.module.cast(torch.float16)
    with _quiet():
        program = trace(graph, size)
        _WRITERS[name](_Job(program, graph, info, target, calibration))


def trace(graph: Graph, size: tuple[int, int] | None) -> torch.export.ExportedProgram:
    """The graph for any batch, and any height and width that are multiples of 32 or of what the
    graph says, or one size."""
    height, width = size or (256, 384)
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=1024)
    # A multiple of 32: what five halvings need, and guards of the decoder follow from.
    multiple = getattr(graph, "multiple", 32)
    sides = (
        {}
        if size
        else {
            1: multiple * torch.export.Dim("height_units", min=1, max=_LARGEST),
            2: multiple * torch.export.Dim("width_units", min=1, max=_LARGEST),
        }
    )
    with torch.no_grad():
        return torch.export.export(
            graph.module.eval(), (example,), dynamic_shapes=({0: batch, **sides},)
        )


def _write_program(job: _Job) -> None:
    with atomic_write(job.target) as partial:
        whole = partial.with_name(f"{partial.name}.pt2")  # torch wants its suffix
        try:
            torch.export.save(job.program, whole, extra_files={METADATA: job.info.to_json()})
            whole.replace(partial)
        finally:
            whole.unlink(missing_ok=True)


def _write_onnx(job: _Job) -> None:
    with atomic_write(job.target) as partial, TemporaryDirectory() as folder:
        file = _to_onnx(job.program, job.graph, Path(folder))
        if job.info.precision == "int8":
            file = quantization.quantize_onnx(file, job.calibration)
        import onnx

        model = onnx.load(file)
        onnx.helper.set_model_props(model, {METADATA: job.info.to_json()})
        onnx.save(model, partial)


def _to_onnx(program: torch.export.ExportedProgram, graph: Graph, folder: Path) -> Path:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            "exporting needs ONNX: pip install 'higherhrnet[export]' (onnx, onnxscript, "
            "onnxruntime, openvino, nncf)"
        ) from error
    made: Any = torch.onnx.export(
        program, (), None, input_names=["images"], output_names=list(graph.outputs),
        opset_version=_OPSET, dynamo=True, verbose=False,
    )  # fmt: skip
    file = folder / "network.onnx"
    made.save(str(file))
    return file


def _write_openvino(job: _Job) -> None:
    try:
        import openvino
    except ImportError as error:
        raise UserError("exporting needs OpenVINO: pip install 'higherhrnet[export]'") from error
    with TemporaryDirectory() as folder:
        model = openvino.convert_model(_to_onnx(job.program, job.graph, Path(folder)))
        if job.info.precision == "int8":
            model = quantization.quantize_openvino(model, job.calibration)
        model.set_rt_info(job.info.to_json(), [METADATA, "info"])
        written = Path(folder) / "network.xml"
        openvino.save_model(model, written, compress_to_fp16=job.info.precision == "fp16")
        for suffix in (".bin", ".xml"):  # the file that users name comes last
            with atomic_write(job.target.with_suffix(suffix)) as partial:
                partial.write_bytes(written.with_suffix(suffix).read_bytes())


_WRITERS: dict[str, Callable[[_Job], None]] = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "torch_export": _write_program,
}
assert {*FORMATS.values()} == {*SUFFIXES}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters narrate their steps and warn of their own parts."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "nncf")]
    former = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, former, strict=True):
            logger.setLevel(level)
