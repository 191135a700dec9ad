"""Constants where a device reads them."""

from __future__ import annotations

from functools import lru_cache

import torch

Numbers = tuple[float, ...] | tuple[tuple[float, ...], ...]


@lru_cache(maxsize=256)
def constant(values: Numbers, device: torch.device) -> torch.Tensor:
    """Numbers on a device, copied there once; not to be changed. Whole numbers are int64, others
    float32.

    A copy from common memory makes the host wait for all that a GPU was told before, and cannot
    be part of a CUDA graph.
    """
    with torch.inference_mode(False):  # training may ask after inference has
        return torch.tensor(values, device=device)
