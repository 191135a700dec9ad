"""``TEST.PRECISION auto`` on a CPU: the fastest of what is near enough, measured once.

What is fastest depends on the processor: bfloat16 halves the time where it is multiplied natively
and multiplies it where it is not; fused batch norms and channels-last memory gain on some and lose
on others. It is measured with the network itself, so that ``auto`` is not slower than float32 as it
is; what was found is remembered for this network, processor, number of threads and torch.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from ...io.atomic import write_json
from ...models.model_zoo import cache_dir
from ...models.precision import processor_name

_log = logging.getLogger(__name__)
_SIZE = 256
_ROUNDS = 3
Way = Callable[[torch.Tensor], Any]


def choose_way(model: nn.Module, builders: Mapping[str, Callable[[], Way]]) -> Way:
    """The fastest way to compute a network on this machine, measured if it is not known.

    Args:
        model: the network.
        builders: make ways, (B, 3, H, W) uint8 images → outputs, by name; the first one wins ties
            of a few percent.
    """
    numbers = sum(parameter.numel() for parameter in model.parameters())
    key = " | ".join([
        torch.__version__, processor_name(), f"{torch.get_num_threads()} threads",
        f"{type(model).__name__} of {numbers}",
    ])  # fmt: skip
    file = cache_dir() / "precision.json"
    known = _read(file)
    if known.get(key) in builders:
        _log.debug("precision auto: %s, as measured before (%s)", known[key], file)
        return builders[known[key]]()
    ways = {name: build() for name, build in builders.items()}
    seconds = _measure(ways)
    first = next(iter(ways))
    best = min(seconds, key=lambda name: seconds[name])
    if seconds[best] > 0.95 * seconds[first]:
        best = first
    _log.debug(
        "precision auto: %s (%s an image of %d px; remembered in %s)",
        best, ", ".join(f"{name} {1000 * s:.0f} ms" for name, s in seconds.items()), _SIZE, file,
    )  # fmt: skip
    with suppress(OSError):  # a cache that cannot be written is measured again
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            write_json(file, _read(file) | {key: best})
    return ways[best]


def _read(file: Path) -> dict[str, str]:
    """What was measured before; nothing if the file is missing or damaged."""
    with suppress(OSError, ValueError):
        known = json.loads(file.read_text())
        if isinstance(known, dict):
            return known
    return {}


def _measure(ways: Mapping[str, Way]) -> dict[str, float]:
    """Least seconds of each, in turns: neighbors on the machine slow them all."""
    images = torch.zeros(1, 3, _SIZE, _SIZE, dtype=torch.uint8)
    seconds = dict.fromkeys(ways, float("inf"))
    for number in range(1 + _ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            way(images)
            if number:
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds
