"""What a training will need, before it is started: parameters, work, memory, settings."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ..config import PoseConfig, override_config
from ..datasets.combined import compute_quotas
from ..errors import UserError
from ..factory.data import build_dataset, find_skeleton
from ..factory.training import build_step_trainer
from ..methods.base import method_of
from ..outputs import Outputs
from ..structures import Targets
from .bench.table import Row
from .bench.train import measure

_SMALL = 128
"""Side of a view that is measured on a CPU in place of a larger one, pixels."""
_WORTH_TELLING = 2000
"""Views from which on a training's hours are told before it starts."""
_COPIES = 4
"""Of every parameter: itself, its gradient and Adam's two moments, each in float32."""


@dataclass
class _Saved:
    """Bytes that autograd keeps, storage by storage."""

    bytes: int = 0
    seen: dict[int, torch.Tensor] = field(default_factory=dict)

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in self.seen and not isinstance(tensor, nn.Parameter):
            self.seen[key] = tensor  # kept, so that no other storage gets its address
            self.bytes += tensor.untyped_storage().nbytes()
        return tensor


def giga_macs(config: PoseConfig) -> float:
    """Multiply-accumulates of one forward pass at the training size, in 10⁹.

    A transposed convolution is counted once for each input pixel and kernel weight; published
    values count it four times.
    """
    height, width = method_of(config).view_shape(config)
    with torch.device("meta"):
        network = method_of(config).build_model(config, len(find_skeleton(config))).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, height, width))
    return counter.get_total_flops() / 2e9


def memory(config: PoseConfig, batch: int) -> float:
    """Estimated peak bytes of a training step; nothing is computed.

    Parameters with gradient, Adam's moments and the average; what autograd keeps of the forward
    pass and the losses; and the largest two maps for what flows backward.
    """
    t = config.TRAIN
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(t.PRECISION)
    trainer = build_step_trainer(
        override_config(config, ["TRAIN.EMA_DECAY", "0"]), torch.device("cpu")
    )
    network = trainer.model.train()
    fixed = sum(p.numel() * 4 for p in network.parameters())
    largest = _Largest(network)
    # Shapes only: tensors of this mode have no memory behind them.
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.empty(batch, 3, *method_of(config).view_shape(config)).to(
            memory_format=torch.channels_last
        )
        saved = _Saved()
        checkpoint_activations = _PartWise(saved)
        if t.ACTIVATION_CHECKPOINTING:
            network.run = checkpoint_activations  # type: ignore[assignment]
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                outputs = network(images)
            trainer.criterion(outputs, _blank_targets(outputs))
        kept = (
            saved.bytes
            - checkpoint_activations.inside
            + checkpoint_activations.inputs
            + checkpoint_activations.largest
        )
    copies = _COPIES + (1 if t.EMA_DECAY else 0)
    return copies * fixed + kept + 2 * largest.bytes


def _blank_targets(outputs: Outputs, people: int = 30) -> Targets:
    maps = outputs.heatmaps
    return Targets(
        heatmaps=tuple(torch.empty(m.shape) for m in maps),
        weights=tuple(torch.empty(m.shape[0], 1, *m.shape[2:]) for m in maps),
        indices=tuple(torch.zeros(m.shape[0], people, m.shape[1], dtype=torch.int64) for m in maps),
    )


class _PartWise:
    """Replaces a network's ``run``: counts what checkpointing keeps and recomputes."""

    def __init__(self, saved: _Saved) -> None:
        self._saved = saved
        self.inside = self.inputs = self.largest = 0

    def __call__(self, part: nn.Module, inputs: Any) -> Any:
        before = self._saved.bytes
        outputs = part(inputs)
        used = self._saved.bytes - before
        self.inside += used
        self.largest = max(self.largest, used)
        maps = inputs if isinstance(inputs, list) else [inputs]
        self.inputs += sum(x.untyped_storage().nbytes() for x in maps)
        return outputs


class _Largest:
    """Bytes of the largest output of any layer."""

    def __init__(self, network: nn.Module) -> None:
        self.bytes = 0
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
                module.register_forward_hook(self._look)

    def _look(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self.bytes = max(self.bytes, output.untyped_storage().nbytes())


def plan_training(
    config: PoseConfig, device: torch.device, processes: int = 1
) -> tuple[list[str], list[Row]]:
    """Sentences and a table: what each way of cutting the effective batch takes.

    Args:
        config: what is to be trained.
        device: measured there as well if it is a GPU.
        processes: that share the batch.
    """
    if config.TRAIN.UNFREEZE_EPOCH:  # from then on it takes most
        config = override_config(config, ["TRAIN.FREEZE", "[]"])
    batch = config.TRAIN.BATCH_SIZE
    height, width = method_of(config).view_shape(config)
    with torch.device("meta"):
        network = method_of(config).build_model(config, len(find_skeleton(config)))
    parameters = sum(p.numel() for p in network.parameters())
    lines = [
        f"{parameters:,} parameters; {giga_macs(config):.2f} GMAC a view forward at "
        f"{width}x{height} px, about three times that for a training step",
        f"effective batch {batch}, learning rate {config.TRAIN.LR:g}: every row below keeps both",
        "another batch needs another rate: TRAIN.LR in proportion to TRAIN.BATCH_SIZE, e.g. "
        f"TRAIN.BATCH_SIZE {batch // 2 or 1} TRAIN.LR {config.TRAIN.LR / 2:g}",
    ]
    lines += describe_hours(config, device)
    rows: list[Row] = []
    estimates: dict[tuple[str, bool], tuple[float, float]] = {}
    share = batch // processes
    cuts = [size for size in range(share, 0, -1) if share % size == 0]
    for micro in _spread(cuts, 4):
        for precision in ("fp32", "bf16"):
            for again in (False, True):
                overrides = [
                    "TRAIN.MICRO_BATCH_SIZE", str(micro), "TRAIN.PRECISION", precision,
                    "TRAIN.ACTIVATION_CHECKPOINTING", str(again), "TRAIN.COMPILE", "False",
                ]  # fmt: skip
                if (precision, again) not in estimates:
                    varied = override_config(config, overrides)
                    estimates[precision, again] = memory(varied, 1), memory(varied, 2)
                one, two = estimates[precision, again]  # memory grows in a line with the batch
                row: dict[str, Any] = {
                    "TRAIN.MICRO_BATCH_SIZE": micro,
                    "micro-batches": share // micro,
                    "TRAIN.PRECISION": precision,
                    "TRAIN.ACTIVATION_CHECKPOINTING": again,
                    "estimated GiB": (one + (micro - 1) * (two - one)) / 2**30,
                }
                if device.type == "cuda":
                    found = measure(
                        config, [*overrides, "TRAIN.BATCH_SIZE", str(micro)], str(device), steps=5
                    )
                    row |= {k: found[k] for k in ("GiB", "images/s", "note") if k in found}
                    print(f"  measured {row}", file=sys.stderr)
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats(device)
                rows.append(row)
    return lines, rows


def tell_hours(config: PoseConfig, device: torch.device) -> str:
    """One sentence on how long a training will take on this machine; takes some seconds.

    Empty for one that will be over in minutes, or that says itself what fits into its time.
    """
    t = config.TRAIN
    if t.MINUTES or _count_views(config) * t.END_EPOCH < _WORTH_TELLING:
        return ""
    return next(iter(describe_hours(config, device)), "")


def describe_hours(config: PoseConfig, device: torch.device) -> list[str]:
    """How long the training will take on this machine, from a few steps on random images.

    A large view is measured as a small one and the time scaled by its area: steps of large networks
    take minutes on a CPU.
    """
    overrides = ["TRAIN.COMPILE", "False", "TRAIN.MICRO_BATCH_SIZE", "0"]
    if device.type == "cpu":
        overrides += ["TRAIN.BATCH_SIZE", str(min(config.TRAIN.BATCH_SIZE, 8))]
        if config.TRAIN.PRECISION == "fp16":  # which CPUs only emulate
            overrides += ["TRAIN.PRECISION", "fp32"]
        if hasattr(config.DATASET, "INPUT_SIZE"):
            overrides += ["DATASET.INPUT_SIZE", str(min(config.DATASET.INPUT_SIZE, _SMALL))]
    measured = override_config(config, overrides)
    found = measure(config, overrides, str(device), steps=2)
    if "images/s" not in found:
        return []
    area, whole = (math.prod(method_of(c).view_shape(c)) for c in (measured, config))
    pace = float(found["images/s"]) * area / whole
    where = f"{pace:.2g} views/s on this machine ({device}), network and losses alone"
    if device.type != "cuda":
        where += "; on a GPU: not measured, run --plan there"
    minutes = config.TRAIN.MINUTES
    try:
        count = _count_views(config)
    except UserError as error:
        return [f"about {_duration(100_000 / pace)} for 100,000 views: {where} ({error})"]
    if minutes:
        return [f"about {minutes * 60 * pace / count:.2g} epochs in {minutes:g} minutes: {where}"]
    epochs = config.TRAIN.END_EPOCH
    time = _duration(count * epochs / pace)
    return [f"about {time} for {epochs} epochs of {count:,} views: {where}"]


def _duration(seconds: float) -> str:
    if seconds < 5400:
        return f"{max(seconds / 60, 1):.0f} minutes"
    return f"{seconds / 3600:.3g} hours"


def _count_views(config: PoseConfig) -> int:
    """Of one epoch."""
    dataset = build_dataset(config, "train")
    items, image_of_item = method_of(config).training_items(dataset)
    quotas = compute_quotas(dataset, image_of_item)
    return sum(quota.views for quota in quotas) or len(items)


def _spread(values: Sequence[int], most: int) -> list[int]:
    """At most so many of the values, first and last among them."""
    if len(values) <= most:
        return list(values)
    step = (len(values) - 1) / (most - 1)
    return [values[round(i * step)] for i in range(most)]
