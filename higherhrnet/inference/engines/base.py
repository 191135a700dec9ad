"""What a predictor asks of the runtime that computes its network."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...outputs import Outputs


class Engine(Protocol):
    """Images → outputs."""

    device: str
    """Where it computes, as PyTorch names it: ``cpu``, ``cuda:0``."""
    fixed_batch: bool
    """Whether every batch size is prepared anew, so that callers had better keep to one."""

    def __call__(self, images: npt.NDArray[np.uint8]) -> Outputs:
        """(B, H, W, 3) uint8 RGB → outputs."""
