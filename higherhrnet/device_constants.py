"""Constants where a device reads them."""

from __future__ import annotations

from functools import cache

import torch

Numbers = tuple[float, ...] | tuple[tuple[float, ...], ...]


@cache  # never forgotten: a recorded CUDA graph may read them
def constant(
    values: Numbers, device: torch.device, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Numbers on a device, copied there once; not to be changed.

    A copy from common memory makes the host wait for all that a GPU was told before, and cannot
    be part of a CUDA graph.
    """
    with torch.inference_mode(False):  # training may ask after inference has
        return torch.tensor(values, dtype=dtype, device=device)
