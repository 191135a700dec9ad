"""What a run tells: JSON lines, TensorBoard and a progress bar."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.tensorboard import SummaryWriter


class Log:
    """Writes ``log.jsonl`` (one line an epoch) and TensorBoard events into a folder."""

    def __init__(self, folder: Path) -> None:
        self._lines = folder / "log.jsonl"
        self._board = SummaryWriter(str(folder / "tensorboard"))

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._board.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Curves on TensorBoard."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """One JSON line; NaN and infinity, which JSON lacks, become null."""
        clean = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }
        with self._lines.open("a") as file:
            file.write(json.dumps(clean) + "\n")

    def pictures(self, step: int, pictures: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """(H, W, 3) RGB pictures on TensorBoard."""
        for name, picture in pictures.items():
            self._board.add_image(name, picture, step, dataformats="HWC")
