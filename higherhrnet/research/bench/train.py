"""Training steps on random images: how many a second, and how much memory at most."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from ...config import PoseConfig, override_config
from ...factory.data import find_skeleton
from ...factory.device import choose_device
from ...factory.training import build_step_trainer
from ...methods.base import method_of
from ...structures import Batch, KeypointIndices
from .table import Row


def run(
    config: PoseConfig, device: torch.device, variants: Sequence[Sequence[str]], steps: int
) -> list[Row]:
    """One row a variant, each in a process of its own so that peaks do not mix.

    Args:
        config: what is trained.
        device: device.
        variants: overrides ``KEY, VALUE, …`` of each row.
        steps: to measure, after two to warm up.
    """
    rows: list[Row] = []
    for overrides in variants:
        varied = override_config(config, overrides)
        t = varied.TRAIN
        row: dict[str, Any] = {
            "width": varied.MODEL.WIDTH,
            "size": method_of(varied).view_shape(varied)[0],
            "batch": t.MICRO_BATCH_SIZE or t.BATCH_SIZE,
            "precision": t.PRECISION,
            "compile": t.COMPILE,
            "checkpointing": t.ACTIVATION_CHECKPOINTING,
        }
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row |= pool.apply(measure, (config, list(overrides), str(device), steps))
        if rows and "images/s" in rows[0] and "images/s" in row:
            row["ratio"] = row["images/s"] / rows[0]["images/s"]
        elif "images/s" in row:
            row["ratio"] = 1.0
        print("  " + ", ".join(f"{k} {v}" for k, v in row.items()), file=sys.stderr)
        rows.append(row)
    return rows


def measure(
    config: PoseConfig, overrides: Sequence[str], device_name: str, steps: int
) -> dict[str, float | str]:
    """Images a second of whole steps (targets made on the device), and peak memory.

    Memory is what torch allocated on a GPU, and by how much the process grew on a CPU.
    """
    varied = override_config(config, overrides)
    t = varied.TRAIN
    device = choose_device(device_name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        trainer = build_step_trainer(varied, device)
        batch = make_batch(varied, t.MICRO_BATCH_SIZE or t.BATCH_SIZE)
        if device.type == "cuda":  # as the loader's batches are
            (batch,) = DataLoader([batch], batch_size=None, pin_memory=True)  # type: ignore[arg-type]
        trainer.model.train()
        trainer.wrap_model()
        begun = time.perf_counter()
        losses = [trainer.train_step([batch]) for _ in range(2)]
        first = sum(value.item() for value in losses[0].values())
        started = time.perf_counter()
        for _ in range(steps):
            trainer.train_step([batch])
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent = time.perf_counter() - started
    except torch.OutOfMemoryError:
        return {"note": "out of memory"}
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**30
    else:
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    return {
        "images/s": steps * len(batch.ids) / spent,
        "GiB": peak,
        "start s": started - begun,
        "first loss": round(first, 6),
    }


def make_batch(config: PoseConfig, batch: int, people: int = 5) -> Batch:
    """A batch of noise with people at random places; always the same."""
    height, width = method_of(config).view_shape(config)
    generator = torch.Generator().manual_seed(0)
    joints = len(find_skeleton(config))
    with torch.device("meta"):
        strides = [head.stride for head in method_of(config).build_model(config, joints).heads]
    indices = tuple(
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
        keypoints=KeypointIndices(indices, valid),
        color=torch.ones(batch, 3),
        ids=tuple(range(batch)),
    )
