"""What a run writes: JSON lines, and whatever its loggers write."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError, WriteError
from ..io.atomic import atomic_write
from .loggers import Logger


class RunLog:
    """Writes into a folder: ``log.jsonl`` (one line an epoch) and the config; tells loggers.

    Nothing is written before :meth:`begin`: a run that cannot be resumed stays as it is.

    Args:
        folder: made if need be.
        config: the run's settings as YAML.
        make_loggers: makes those that are told, too, when the run begins.
    """

    def __init__(
        self, folder: Path, config: str, make_loggers: Callable[[], list[Logger]] = list
    ) -> None:
        self._folder, self._config = folder, config
        self._lines = folder / "log.jsonl"
        self._make_loggers = make_loggers
        self._loggers: list[Logger] = []

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for logger in self._loggers:
            logger.close()

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
        """Write the config, start the loggers, and drop lines of epochs after the first ``epochs``,
        which will be done again."""
        with atomic_write(self._folder / "config.yaml") as partial:
            partial.write_text(self._config)
        kept = [record for record in self.records() if record["epoch"] <= epochs]
        with atomic_write(self._lines) as partial:
            partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
        self._loggers = self._make_loggers()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step."""
        for logger in self._loggers:
            logger.scalars(step, values)

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
            for logger in self._loggers:
                logger.text(record["epoch"], f"alarm/{number}", alarm)

    def images(self, step: int, images: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """(H, W, 3) RGB images of an epoch."""
        for logger in self._loggers:
            logger.images(step, images)
