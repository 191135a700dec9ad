"""PyTorch as an engine. It prepares a model for inference: batch norms fused into convolutions,
half precision, compiled, recorded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ...errors import UserError
from ...models.normalization import normalize
from ...models.precision import best_precision, disable_tf32
from ...outputs import Outputs, map_outputs, to_host
from .auto_precision import choose_way

Forward = Callable[[torch.Tensor], Outputs]
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_MAX_GRAPHS = 8
_MAX_COMPILED = 64
"""Input sizes that are compiled for; with more, torch goes on uncompiled."""


class TorchEngine:
    """A PyTorch model, prepared at the first call.

    Args:
        model: in evaluation mode, on the device; it is left as it is.
        device: where images are sent.
        precision, compile, cuda_graphs: see :func:`prepare_for_inference`.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        precision: str = "auto",
        compile: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        self.model, self.device, self._device = model, str(device), device
        self.precision, self.compile, self.cuda_graphs = precision, compile, cuda_graphs
        self.fixed_batch = compile or cuda_graphs
        self._forward: Forward | None = None

    @torch.inference_mode()
    def __call__(self, images: npt.NDArray[np.uint8]) -> Outputs:
        """(B, H, W, 3) uint8 RGB → outputs: arrays from a CPU, else tensors on the device."""
        if self._forward is None:
            self._forward = prepare_for_inference(
                self.model, self._device, self.precision, self.compile, self.cuda_graphs
            )
        outputs = self._forward(torch.from_numpy(images).permute(0, 3, 1, 2))
        return map_outputs(outputs, to_host) if self._device.type == "cpu" else outputs

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take other weights; the model is prepared anew."""
        self.model.load_state_dict(state)
        self._forward = None


def prepare_for_inference(
    model: nn.Module,
    device: torch.device,
    precision: str = "auto",
    compile: bool = False,
    cuda_graphs: bool = False,
) -> Forward:
    """(B, 3, H, W) uint8 images → float32 outputs.

    Args:
        model: in evaluation mode, on the device; in ``fp32`` without compilation it is used as it
            is: the exact published arithmetic.
        device: where images are sent.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto`` for what the hardware does best, on a
            CPU as measured (``auto_precision.py``). Other than fp32, batch norms are fused into the
            convolutions and the weights are rounded.
        compile: through ``torch.compile`` with weights frozen: minutes for each input size.
        cuda_graphs: replay CUDA graphs, one an input size; on GPUs only.

    Raises:
        UserError: CUDA graphs without a GPU.
    """
    if cuda_graphs and device.type != "cuda":
        raise UserError(f"TEST.CUDA_GRAPHS needs a GPU, not '{device}'")
    if precision == "auto" and device.type == "cpu" and not compile:
        return _measured(model)
    dtype = _TYPES[best_precision(device) if precision == "auto" else precision]
    if dtype == torch.float32 and device.type == "cuda":
        disable_tf32()
    network: Forward = model
    if dtype != torch.float32 or compile:
        network = fuse_conv_bn(model).to(dtype).to(memory_format=torch.channels_last)
    if compile:
        network = _compile(network)

    forward = _prepared(network, dtype, device)
    if cuda_graphs:
        return _PadBatch(_CudaGraphs(forward, device))
    return _PadBatch(forward) if compile else forward


def _prepared(network: Forward, dtype: torch.dtype, device: torch.device) -> Forward:
    """Images to the device, normalized, through the network, and its outputs in float32."""

    def forward(images: torch.Tensor) -> Outputs:
        if device.type == "cuda" and not images.is_cuda:
            images = images.pin_memory()  # without it the copy waits for all earlier work
        inputs = images.to(device, memory_format=torch.channels_last, non_blocking=True)
        outputs = network(normalize(inputs).to(dtype))
        return map_outputs(outputs, torch.Tensor.float)

    return forward


def _measured(model: nn.Module) -> Forward:
    """The fastest way on this CPU: as it is, with batch norms fused, or that in bfloat16."""
    device = torch.device("cpu")

    def fused(dtype: torch.dtype) -> Forward:
        network = fuse_conv_bn(model).to(dtype).to(memory_format=torch.channels_last)
        return _prepared(network, dtype, device)

    builders: dict[str, Callable[[], Forward]] = {
        "fp32": lambda: _prepared(model, torch.float32, device),
        "fused fp32": lambda: fused(torch.float32),
    }
    if best_precision(device) == "bf16":
        builders["bf16"] = lambda: fused(torch.bfloat16)
    with torch.inference_mode():
        return choose_way(model, builders)


def fuse_conv_bn(model: nn.Module) -> nn.Module:
    """A copy whose every batch norm has become part of the convolution before it.

    In all our networks a batch norm follows a convolution in a ``Sequential``, or is called
    ``bnN`` beside ``convN``.
    """
    fused = copy.deepcopy(model).eval()
    for parent in fused.modules():
        children = dict(parent.named_children())
        ordered = list(children)
        for position, name in enumerate(ordered):
            norm = children[name]
            if not isinstance(norm, nn.BatchNorm2d):
                continue
            is_sequence = isinstance(parent, nn.Sequential)
            before = ordered[position - 1] if is_sequence else name.replace("bn", "conv")
            convolution = children[before]
            assert isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d), (before, name)
            transposed = isinstance(convolution, nn.ConvTranspose2d)
            setattr(parent, before, fuse_conv_bn_eval(convolution, norm, transpose=transposed))
            setattr(parent, name, nn.Identity())
    return fused


def _compile(network: nn.Module | Forward) -> Forward:
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    inductor.freezing = True
    dynamo.recompile_limit = _MAX_COMPILED
    compiled: Forward = torch.compile(network, dynamic=False)
    return compiled


class _PadBatch:
    """Pads the last, smaller batch of an image size to the largest seen before, instead of having
    the network compiled or recorded for it too."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._largest: dict[tuple[int, ...], int] = {}

    def __call__(self, images: torch.Tensor) -> Outputs:
        count, size = len(images), tuple(images.shape[1:])
        largest = self._largest[size] = max(count, self._largest.get(size, 0))
        if largest > count:
            images = torch.cat([images, images.new_zeros(largest - count, *size)])
        outputs = self._forward(images)
        return map_outputs(outputs, lambda maps: maps[:count])


class _CudaGraphs:
    """Records the GPU's work for each input size once and replays it."""

    def __init__(self, forward: Forward, device: torch.device) -> None:
        self._forward = forward
        self._device = device
        self._pool: Any = None
        self._recorded: dict[
            tuple[int, ...], tuple[torch.cuda.CUDAGraph, torch.Tensor, Outputs]
        ] = {}

    def __call__(self, images: torch.Tensor) -> Outputs:
        with torch.cuda.device(self._device):
            return self._replay(images)

    def _replay(self, images: torch.Tensor) -> Outputs:
        shape = tuple(images.shape)
        if shape not in self._recorded:
            if len(self._recorded) == _MAX_GRAPHS:
                return self._forward(images)
            self._recorded[shape] = self._record(images)
        graph, inputs, outputs = self._recorded[shape]
        inputs.copy_(images if images.is_cuda else images.pin_memory(), non_blocking=True)
        graph.replay()
        return map_outputs(outputs, torch.Tensor.clone)

    def _record(self, images: torch.Tensor) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, Outputs]:
        inputs = images.to(self._device)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._forward(inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        # All recordings share their memory: they are replayed one after the other, and their
        # outputs are copied before the next one. Other threads decode on the same device
        # meanwhile; their work is not recorded.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = self._forward(inputs)
        return graph, inputs, outputs
