"""A trained network made ready to answer fast: batch norms folded, half precision, compiled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import UserError
from ..fields import Outputs
from ..models.pixels import normalise
from ..models.precision import best_precision, forbid_rounded_floats

Network = Callable[[torch.Tensor], Outputs]
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_MOST_GRAPHS = 8
_MOST_COMPILED = 64
"""Input sizes that are compiled for; with more, torch goes on uncompiled."""


def ready(
    model: nn.Module,
    device: torch.device,
    precision: str = "auto",
    compiled: bool = False,
    graphs: bool = False,
) -> Network:
    """(B, 3, H, W) uint8 images → float32 outputs.

    Args:
        model: in evaluation mode, on the device; it is left as it is, and in ``fp32`` without
            compilation it is used as it is: the exact published arithmetic.
        device: where images are sent.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto`` for what the hardware does best. Other
            than fp32, batch norms are folded into the convolutions and the weights are rounded.
        compiled: through ``torch.compile`` with weights frozen: minutes for each input size.
        graphs: replay CUDA graphs, one an input size; on GPUs only.

    Raises:
        UserError: graphs without a GPU.
    """
    if graphs and device.type != "cuda":
        raise UserError(f"TEST.CUDA_GRAPHS needs a GPU, not '{device}'")
    dtype = _TYPES[best_precision(device) if precision == "auto" else precision]
    if dtype == torch.float32 and device.type == "cuda":
        forbid_rounded_floats()
    network: Callable[[torch.Tensor], Outputs] = model
    if dtype != torch.float32 or compiled:
        network = folded(model).to(dtype).to(memory_format=torch.channels_last)
    if compiled:
        network = _compiled(network)

    def answer(images: torch.Tensor) -> Outputs:
        if device.type == "cuda" and not images.is_cuda:
            images = images.pin_memory()  # without it the copy waits for all earlier work
        inputs = images.to(device, memory_format=torch.channels_last, non_blocking=True)
        outputs = network(normalise(inputs).to(dtype))
        return Outputs(
            tuple(heatmap.float() for heatmap in outputs.heatmaps),
            tuple(tag.float() for tag in outputs.tags),
        )

    if graphs:
        return _Filled(_Graphs(answer, device))
    return _Filled(answer) if compiled else answer


def folded(model: nn.Module) -> nn.Module:
    """A copy whose every batch norm has become part of the convolution in front of it.

    In all our networks a norm stands behind a convolution in a ``Sequential``, or is called
    ``bnN`` beside ``convN``.
    """
    copied = copy.deepcopy(model).eval()
    for parent in copied.modules():
        names = dict(parent.named_children())
        ordered = list(names)
        for position, name in enumerate(ordered):
            norm = names[name]
            if not isinstance(norm, nn.BatchNorm2d):
                continue
            before = (
                ordered[position - 1]
                if isinstance(parent, nn.Sequential)
                else name.replace("bn", "conv")
            )
            convolution = names[before]
            assert isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d), (before, name)
            transposed = isinstance(convolution, nn.ConvTranspose2d)
            setattr(parent, before, fuse_conv_bn_eval(convolution, norm, transpose=transposed))
            setattr(parent, name, nn.Identity())
    return copied


def _compiled(network: nn.Module | Network) -> Network:
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    inductor.freezing = True
    dynamo.recompile_limit = _MOST_COMPILED
    compiled: Network = torch.compile(network, dynamic=False)
    return compiled


class _Filled:
    """Fills the last, smaller batch of an image size up to the largest that was seen before,
    instead of having the network compiled or recorded for it too."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._most: dict[tuple[int, ...], int] = {}

    def __call__(self, images: torch.Tensor) -> Outputs:
        count, size = len(images), tuple(images.shape[1:])
        most = self._most[size] = max(count, self._most.get(size, 0))
        if most > count:
            images = torch.cat([images, images.new_zeros(most - count, *size)])
        outputs = self._network(images)
        return Outputs(
            tuple(heatmap[:count] for heatmap in outputs.heatmaps),
            tuple(tag[:count] for tag in outputs.tags),
        )


class _Graphs:
    """Records the GPU's work for each input size once and replays it."""

    def __init__(self, network: Network, device: torch.device) -> None:
        self._network = network
        self._device = device
        self._pool: Any = None
        self._recorded: dict[
            tuple[int, ...], tuple[torch.cuda.CUDAGraph, torch.Tensor, Outputs]
        ] = {}

    def __call__(self, images: torch.Tensor) -> Outputs:
        with torch.cuda.device(self._device):
            return self._answer(images)

    def _answer(self, images: torch.Tensor) -> Outputs:
        shape = tuple(images.shape)
        if shape not in self._recorded:
            if len(self._recorded) == _MOST_GRAPHS:
                return self._network(images)
            self._recorded[shape] = self._record(images)
        graph, inputs, outputs = self._recorded[shape]
        inputs.copy_(images if images.is_cuda else images.pin_memory(), non_blocking=True)
        graph.replay()
        return Outputs(
            tuple(heatmap.clone() for heatmap in outputs.heatmaps),
            tuple(tag.clone() for tag in outputs.tags),
        )

    def _record(self, images: torch.Tensor) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, Outputs]:
        inputs = images.to(self._device)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._network(inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        # All recordings share their memory: they are replayed one after the other, and what they
        # answer is copied before the next one. Other threads decode on the same device meanwhile;
        # their work is not recorded.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = self._network(inputs)
        return graph, inputs, outputs
