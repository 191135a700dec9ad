"""Training steps on made-up pictures: how many a second, and how much memory at most."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from .. import build
from ..fields import Batch, Marks
from .table import Row


def run(
    config: build.Config, on: torch.device, variants: Sequence[Sequence[str]], steps: int
) -> list[Row]:
    """One row a variant, each in a process of its own so that peaks do not mix.

    Args:
        config: what is trained.
        on: device.
        variants: overrides ``KEY, VALUE, …`` of each row.
        steps: to measure, after two to warm up.
    """
    rows: list[Row] = []
    for overrides in variants:
        varied = build.varied(config, overrides)
        t = varied.TRAIN
        row: dict[str, Any] = {
            "width": varied.MODEL.WIDTH,
            "size": build.view_shape(varied)[0],
            "batch": t.MICRO_BATCH or t.BATCH,
            "precision": t.PRECISION,
            "compile": t.COMPILE,
            "checkpointing": t.CHECKPOINTING,
        }
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row |= pool.apply(measure, (config, list(overrides), str(on), steps))
        if rows and "images/s" in rows[0] and "images/s" in row:
            row["ratio"] = row["images/s"] / rows[0]["images/s"]
        elif "images/s" in row:
            row["ratio"] = 1.0
        print("  " + ", ".join(f"{k} {v}" for k, v in row.items()), file=sys.stderr)
        rows.append(row)
    return rows


def measure(
    config: build.Config, overrides: Sequence[str], device_name: str, steps: int
) -> dict[str, float | str]:
    """Images a second of whole steps (targets made on the device), and peak memory.

    Memory is what torch allocated on a GPU, and by how much the process grew on a CPU.
    """
    varied = build.varied(config, overrides)
    t = varied.TRAIN
    on = build.device(device_name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        trainer = build.bare_trainer(varied, on)
        batch = made_up(varied, t.MICRO_BATCH or t.BATCH)
        if on.type == "cuda":  # as the loader's batches are
            (batch,) = DataLoader([batch], batch_size=None, pin_memory=True)  # type: ignore[arg-type]
        trainer.model.train()
        trainer.wrap()
        begun = time.perf_counter()
        losses = [trainer.step([batch]) for _ in range(2)]
        first = sum(value.item() for value in losses[0].values())
        started = time.perf_counter()
        for _ in range(steps):
            trainer.step([batch])
        if on.type == "cuda":
            torch.cuda.synchronize(on)
        spent = time.perf_counter() - started
    except torch.OutOfMemoryError:
        return {"note": "out of memory"}
    if on.type == "cuda":
        peak = torch.cuda.max_memory_allocated(on) / 2**30
    else:
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    return {
        "images/s": steps * len(batch.ids) / spent,
        "GiB": peak,
        "start s": started - begun,
        "first loss": round(first, 6),
    }


def made_up(config: build.Config, batch: int, people: int = 5) -> Batch:
    """A batch of noise with people at random places; always the same."""
    height, width = build.view_shape(config)
    generator = torch.Generator().manual_seed(0)
    joints = len(build.skeleton(config))
    with torch.device("meta"):
        strides = [head.stride for head in build.model(config, joints).heads]
    cells = tuple(
        torch.randint(
            0, (height // stride) * (width // stride), (batch, people, joints), generator=generator
        )
        for stride in strides
    )
    finest = min(strides)
    valid = torch.ones(batch, height // finest, width // finest, dtype=torch.uint8)
    return Batch(
        images=torch.randint(0, 256, (batch, 3, height, width), generator=generator).to(
            torch.uint8
        ),
        marks=Marks(cells, valid),
        colour=torch.ones(batch, 3),
        ids=tuple(range(batch)),
    )
