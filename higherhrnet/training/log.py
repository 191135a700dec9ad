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

from ..errors import UserError, WriteError
from ..files import whole


class Log:
    """Writes into a folder: ``log.jsonl`` (one line an epoch), TensorBoard events, the config.

    Nothing is written before :meth:`begin`: a run that cannot be resumed stays as it is.

    Args:
        folder: made if need be.
        config: the run's settings as YAML.
    """

    def __init__(self, folder: Path, config: str) -> None:
        self._folder, self._config = folder, config
        self._lines = folder / "log.jsonl"
        self._opened: SummaryWriter | None = None

    @property
    def _board(self) -> SummaryWriter:
        if self._opened is None:
            self._opened = SummaryWriter(str(self._folder / "tensorboard"))
        return self._opened

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._opened is not None:
            self._opened.close()

    def records(self) -> list[dict[str, Any]]:
        """The lines written so far, those of interrupted runs included.

        A last line that a full disk or a power cut left unfinished is passed over: its epoch has
        no checkpoint either.

        Raises:
            UserError: another line cannot be read.
        """
        if not self._lines.is_file():
            return []
        lines = self._lines.read_text().splitlines()
        records = []
        for number, line in enumerate(lines, 1):
            try:
                records.append(json.loads(line))
            except ValueError as error:
                if number < len(lines):
                    raise UserError(f"'{self._lines}', line {number}, is not JSON") from error
        return records

    def begin(self, epochs: int) -> None:
        """Write the config, and forget lines of epochs after the first ``epochs``: they are about
        to be done again."""
        with whole(self._folder / "config.yaml") as partial:
            partial.write_text(self._config)
        kept = [record for record in self.records() if record["epoch"] <= epochs]
        with whole(self._lines) as partial:
            partial.write_text("".join(json.dumps(record) + "\n" for record in kept))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Curves on TensorBoard."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """One JSON line, and its numbers as curves; NaN and infinity, which JSON lacks, become
        null."""
        clean = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }
        try:
            with self._lines.open("a") as file:
                file.write(json.dumps(clean) + "\n")
        except OSError as error:
            raise WriteError(f"could not write '{self._lines}': {error.strerror}") from error
        numbers = {k: v for k, v in clean.items() if isinstance(v, int | float)}
        self.scalars(record["epoch"], {f"epoch/{name}": v for name, v in numbers.items()})
        for number, alarm in enumerate(record.get("alarms", ())):
            self._board.add_text(f"alarm/{number}", alarm, record["epoch"])

    def pictures(self, step: int, pictures: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """(H, W, 3) RGB pictures on TensorBoard."""
        for name, picture in pictures.items():
            self._board.add_image(name, picture, step, dataformats="HWC")
