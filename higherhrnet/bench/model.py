"""How long a network takes to answer: eager float32 first, then every way it is made ready."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from ..inference.network import Network, ready
from ..models.pixels import normalise
from ..models.precision import best_precision
from .table import Row, seconds


def run(
    model: nn.Module,
    on: torch.device,
    sizes: Sequence[int],
    batches: Sequence[int],
    compiled: bool,
    repeats: int = 5,
) -> list[Row]:
    """Rows of size × batch × way, each with its ratio to eager float32 of the same input.

    Args:
        model: in evaluation mode, on the device.
        on: where it runs.
        sizes: sides of square inputs, pixels.
        batches: pictures at once.
        compiled: also compiled, which takes minutes a row.
        repeats: measured calls; the median counts.
    """
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    best = best_precision(on)
    ways: dict[str, Network] = {
        "eager fp32": lambda images: plain(normalise(images.to(on))),
        "fp32, channels last": ready(model, on, "fp32"),
        f"{best}, norms folded": ready(model, on, best),
    }
    if on.type == "cuda":
        ways["the same in a CUDA graph"] = ready(model, on, best, graphs=True)
    if compiled:
        ways["the same compiled"] = ready(model, on, best, compiled=True)
    rows: list[Row] = []
    for size in sizes:
        for batch in batches:
            # Random pixels would be noise that no picture is; a blurred field is nearer to one.
            coarse = torch.rand(batch, 3, size // 32, size // 32)
            images = nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
            rows += _rows(ways, (255 * images).to(torch.uint8), on, repeats)
    return rows


@torch.inference_mode()
def _rows(
    ways: dict[str, Network], images: torch.Tensor, on: torch.device, repeats: int
) -> list[Row]:
    rows: list[Row] = []
    expected = [field.float() for field in ways["eager fp32"](images).heatmaps]
    scale = max(float(field.abs().max()) for field in expected)
    for name, network in ways.items():

        def answer(network: Network = network) -> None:
            network(images)
            if on.type == "cuda":
                torch.cuda.synchronize(on)

        taken = seconds(answer, repeats, warm=2)
        apart = max(
            float((field.float() - truth).abs().max())
            for field, truth in zip(network(images).heatmaps, expected, strict=True)
        )
        rows.append({
            "size": images.shape[3],
            "batch": len(images),
            "way": name,
            "ms a picture": 1000 * taken / len(images),
            "ratio": rows[0]["ms"] / (1000 * taken) if rows else 1.0,
            "heat apart": apart / scale,
            "ms": 1000 * taken,
        })  # fmt: skip
    return rows
