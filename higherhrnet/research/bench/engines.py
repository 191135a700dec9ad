"""``bench engines``: one network by PyTorch and by other runtimes, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ...errors import UserError
from ...inference.engines.exported import open_export
from ...inference.engines.torch_engine import TorchEngine
from ...models.pose_model import PoseModel
from ...models.precision import best_precision
from .table import Row

_PRECISIONS = ("fp32", "auto")
Engines = dict[str, Callable[[npt.NDArray[np.uint8]], Any]]


def run(
    model: PoseModel,
    exported: Callable[[str], Path],
    exports: Sequence[Path],
    size: int,
    repeats: int,
) -> list[Row]:
    """Milliseconds of each engine for one image, and the ratio to eager float32.

    Args:
        model: in evaluation mode, on the CPU.
        exported: runtime → the network's float32 file for it.
        exports: further files.
        size: side of the image, pixels.
        repeats: rounds; in each, every engine computes once. Medians count.
    """
    device = torch.device("cpu")
    engines: Engines = {"torch, eager fp32": TorchEngine(model, device, "fp32")}
    engines["torch, auto"] = TorchEngine(model, device, "auto")
    if best_precision(device) == "bf16":
        engines["torch, bf16"] = TorchEngine(model, device, "bf16")
    for runtime in ("onnxruntime", "openvino"):
        try:
            file = exported(runtime)
        except UserError as error:
            print(f"{runtime}: {error}")
            continue
        for precision in _PRECISIONS if runtime == "openvino" else ("fp32",):
            engines[f"{runtime}, {precision}"] = open_export(file, "cpu", precision)
    for path in exports:
        opened = open_export(path)
        engines[f"{opened.runtime}, {path.name} ({opened.info.precision})"] = opened
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (size // 32, size // 32, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    image = np.asarray(smooth[None], np.uint8)
    times: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(2 + repeats):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine(image)
            if number >= 2:
                times[name].append(time.perf_counter() - start)
    eager = statistics.median(times["torch, eager fp32"])
    return [
        {
            "engine": name,
            "size": size,
            "threads": torch.get_num_threads(),
            "ms": 1000 * statistics.median(taken),
            "ratio": eager / statistics.median(taken),
        }
        for name, taken in times.items()
    ]
