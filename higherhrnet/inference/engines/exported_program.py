"""A program of ``torch.export`` as an engine."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...errors import UserError
from .export_info import METADATA, AnyInfo, parse_info
from .exported import ExportedEngine, check_device, first_line


class ExportedProgramEngine(ExportedEngine):
    """Runs a ``.pt2`` file."""

    runtime = "torch"

    def __init__(self, path: Path, about: AnyInfo, device: str, module: Any) -> None:
        super().__init__(path, about, device)
        self._module = module

    @classmethod
    def open(cls, path: Path, device: str, precision: str) -> ExportedProgramEngine:
        """See :func:`exported.open_export`; the file decides precision and device."""
        check_device(device, "torch.export", ("cpu",))
        program, info = _load(path)
        return cls(path, info, device, program.module())

    @classmethod
    def read_info(cls, path: Path) -> AnyInfo:
        """See :class:`ExportedEngine`."""
        try:
            with zipfile.ZipFile(path) as archive:
                ends = f"extra/{METADATA}"
                names = [name for name in archive.namelist() if name.endswith(ends)]
                text = archive.read(names[0]).decode() if names else None
        except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
            raise UserError(f"'{path}' is no exported program: {first_line(error)}") from error
        return parse_info(path, text)

    @torch.inference_mode()
    def run(
        self, images: npt.NDArray[np.uint8], outputs: Sequence[str]
    ) -> list[npt.NDArray[np.float32]]:
        """See :class:`ExportedEngine`."""
        found = self._module(torch.from_numpy(images))
        named = dict(zip(self.about.outputs, found, strict=True))
        return [named[name].numpy() for name in outputs]


def _load(path: Path) -> tuple[torch.export.ExportedProgram, AnyInfo]:
    files = {METADATA: ""}
    try:
        program = torch.export.load(path, extra_files=files)
    except Exception as error:  # of many kinds, all of the file
        raise UserError(f"'{path}' is no exported program: {first_line(error)}") from error
    return program, parse_info(path, files[METADATA] or None)
