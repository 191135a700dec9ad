"""Activation checkpointing (Chen et al. 2016) that leaves batch norm's statistics exact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(part: nn.Module, inputs: Any) -> Any:
    """``part(inputs)``, keeping only the inputs and computing the rest again when it is needed.

    The second pass sees the same batch; counted again it would enter the running statistics
    twice, so they rest meanwhile.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _resting_statistics(part)

    return checkpoint(part, inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _resting_statistics(part: nn.Module) -> Iterator[None]:
    norms = [
        module
        for module in part.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
    ]
    former = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # a running value plus 0 times the new one
        if norm.num_batches_tracked is not None:  # synchronized norms insist on one
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, former, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked = batches
