"""What the names and shapes of tensors say: whose layout it is, and of which network.

Our module names *are* the official ones, so an official state dict needs no renaming; other
trainers put prefixes before them, which :func:`official_names` takes off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..skeleton import SKELETONS

State = dict[str, torch.Tensor]

# DataParallel, the original's half-precision wrapper, and mmpose's two halves of a model.
_PREFIXES = ("module.", "1.", "model.", "backbone.", "keypoint_head.", "head.")


@dataclass(frozen=True)
class Architecture:
    """What the tensors' shapes say of the network they belong to.

    Attributes:
        kind: ``higher_hrnet``, ``pose_hrnet``, ``classifier`` or ``trunk``.
        width: HRNet width.
        modules: exchange modules of stages 2-4.
        blocks: BasicBlocks a branch.
        joints: K, or None for a trunk or classifier.
        tag_heads, shared_tag, concatenate, residual_blocks: see ``HigherHRNet``.
    """

    kind: str
    width: int
    modules: tuple[int, int, int]
    blocks: int
    joints: int | None = None
    tag_heads: tuple[bool, ...] = ()
    shared_tag: bool = False
    concatenate: bool = False
    residual_blocks: int = 0


def official_names(state: Mapping[str, torch.Tensor]) -> State:
    """Take known prefixes off; names without one stay as they are."""
    renamed = {}
    for name, tensor in state.items():
        stripped = True
        while stripped:
            stripped = False
            for prefix in _PREFIXES:
                if name.startswith(prefix):
                    name, stripped = name.removeprefix(prefix), True
        renamed[name] = tensor
    return renamed


def named_by_mmpose(foreign: Mapping[str, torch.Tensor]) -> State:
    """:func:`official_names` for files of other trainers.

    mmpose's network with tags at 1/4 calls its only head as a top-down one's is called, though its
    maps are twice as many as a known skeleton has joints.
    """
    state = official_names(foreign)
    outputs = state.get("final_layer.weight")
    if outputs is None or len(outputs) not in {2 * len(s) for s in SKELETONS.values()}:
        return state
    return {re.sub(r"^final_layer\.", "final_layers.0.", n): t for n, t in state.items()}


def architecture(state: Mapping[str, torch.Tensor]) -> Architecture | None:
    """Which of our networks the tensors belong to; None if to none of them."""
    if "stage2.0.branches.0.0.conv1.weight" not in state or "conv1.weight" not in state:
        return None

    def count(pattern: str) -> int:
        numbers = [int(m[1]) for name in state if (m := re.match(pattern, name))]
        return max(numbers, default=-1) + 1

    width = state["stage2.0.branches.0.0.conv1.weight"].shape[0]
    modules = (count(r"stage2\.(\d+)\."), count(r"stage3\.(\d+)\."), count(r"stage4\.(\d+)\."))
    blocks = count(r"stage2\.0\.branches\.0\.(\d+)\.")
    if "classifier.weight" in state:
        return Architecture("classifier", width, modules, blocks)
    if "final_layer.weight" in state:
        joints = state["final_layer.weight"].shape[0]
        return Architecture("pose_hrnet", width, modules, blocks, joints)
    heads = count(r"final_layers\.(\d+)\.weight")
    if heads == 0:
        return Architecture("trunk", width, modules, blocks)
    outputs = [state[f"final_layers.{i}.weight"].shape[0] for i in range(heads)]
    # A head gives K or K + T maps, T = K or 1; the smallest head is taken to have no tags if
    # another has more, and a lone head to have a tag map for each joint.
    smallest, largest = min(outputs), max(outputs)
    joints = smallest if largest > smallest else largest // 2
    first_deconvolution = state.get("deconv_layers.0.0.0.weight")
    return Architecture(
        "higher_hrnet",
        width,
        modules,
        blocks,
        joints,
        tag_heads=tuple(count > joints for count in outputs),
        shared_tag=largest == joints + 1,
        concatenate=first_deconvolution is not None and first_deconvolution.shape[0] > width,
        residual_blocks=max(count(r"deconv_layers\.0\.(\d+)\.") - 1, 0),
    )
