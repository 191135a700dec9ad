"""How long a forward pass takes: eager float32 first, then prepared for inference."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from ...inference.engines.torch_engine import Forward, prepare_for_inference
from ...models.normalization import normalize
from ...models.precision import best_precision
from .table import Row, median_seconds


def run(
    model: nn.Module,
    device: torch.device,
    sizes: Sequence[int],
    batches: Sequence[int],
    compiled: bool,
    repeats: int = 5,
) -> list[Row]:
    """Rows of size × batch × way, each with its ratio to eager float32 of the same input.

    Args:
        model: in evaluation mode, on the device.
        device: where it runs.
        sizes: sides of square inputs, pixels.
        batches: images at once.
        compiled: also compiled, which takes minutes a row.
        repeats: measured calls; the median counts.
    """
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    best = best_precision(device)
    ways: dict[str, Forward] = {
        "eager fp32": lambda images: plain(normalize(images.to(device))),
        "fp32, channels last": prepare_for_inference(model, device, "fp32"),
        f"{best}, batch norms fused": prepare_for_inference(model, device, best),
    }
    if device.type == "cuda":
        ways["the same in a CUDA graph"] = prepare_for_inference(
            model, device, best, cuda_graphs=True
        )
    if compiled:
        ways["the same compiled"] = prepare_for_inference(model, device, best, compile=True)
    rows: list[Row] = []
    for size in sizes:
        for batch in batches:
            # Random pixels would be noise that no image is; a blurred field is nearer to one.
            coarse = torch.rand(batch, 3, size // 32, size // 32)
            images = nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
            rows += _rows(ways, (255 * images).to(torch.uint8), device, repeats)
    return rows


@torch.inference_mode()
def _rows(
    ways: dict[str, Forward], images: torch.Tensor, device: torch.device, repeats: int
) -> list[Row]:
    rows: list[Row] = []
    expected = [field.float() for field in ways["eager fp32"](images).heatmaps]
    scale = max(float(field.abs().max()) for field in expected)
    for name, network in ways.items():

        def forward(network: Forward = network) -> None:
            network(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        taken = median_seconds(forward, repeats, warm=2)
        apart = max(
            float((field.float() - ground_truth).abs().max())
            for field, ground_truth in zip(network(images).heatmaps, expected, strict=True)
        )
        rows.append({
            "size": images.shape[3],
            "batch": len(images),
            "way": name,
            "ms an image": 1000 * taken / len(images),
            "ratio": rows[0]["ms"] / (1000 * taken) if rows else 1.0,
            "heatmap difference": apart / scale,
            "ms": 1000 * taken,
        })  # fmt: skip
    return rows
