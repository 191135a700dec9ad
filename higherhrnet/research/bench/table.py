"""Rows of values: printed in columns, written as JSON with what they were measured on."""

from __future__ import annotations

import datetime
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...io.atomic import write_json
from ...models.precision import processor_name

Row = Mapping[str, Any]


def describe_hardware(device: torch.device | None = None) -> str:
    """The machine in words."""
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def print_table(title: str, rows: Sequence[Row], on: str) -> None:
    """Print a table; columns are the keys of all rows in order of appearance."""
    print(f"{title} ({datetime.date.today()}, {on}, torch {torch.__version__})")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, *([_format(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  " + "  ".join(text.rjust(w) for text, w in zip(line, widths, strict=True)))


def write_table(path: Path, command: str, rows: Sequence[Row], on: str) -> None:
    """Write ``{"command", "date", "hardware", "torch", "rows": [...]}``."""
    write_json(
        path,
        {
            "command": command,
            "date": str(datetime.date.today()),
            "hardware": on,
            "torch": torch.__version__,
            "rows": [dict(row) for row in rows],
        },
    )


def median_seconds(work: Callable[[], object], repeats: int, warm: int = 1) -> float:
    """Median wall-clock seconds of a call."""
    times = []
    for number in range(warm + repeats):
        start = time.perf_counter()
        work()
        if number >= warm:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def _format(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
