"""What the names and shapes of tensors say: whose layout it is, and of which network.

Our module names *are* the official ones, so an official state dict needs no renaming; other
trainers put prefixes before them, which :func:`strip_prefixes` takes off.
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
        kind: ``pose_higher_hrnet``, ``pose_hrnet``, ``cls_hrnet`` or ``trunk``.
        width: HRNet width.
        num_modules: exchange modules of stages 2-4.
        num_blocks: BasicBlocks in each branch.
        joints: K, or None for a backbone or classifier.
        tag_heads, tag_per_joint, cat_output, num_basic_blocks: see ``HigherHRNet``.
    """

    kind: str
    width: int
    num_modules: tuple[int, int, int]
    num_blocks: int
    joints: int | None = None
    tag_heads: tuple[bool, ...] = ()
    tag_per_joint: bool = True
    cat_output: bool = False
    num_basic_blocks: int = 0


def strip_prefixes(state: Mapping[str, torch.Tensor]) -> State:
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


def rename_foreign(foreign: Mapping[str, torch.Tensor]) -> State:
    """:func:`strip_prefixes` for files of other trainers.

    mmpose's network with tags at 1/4 calls its only head as a top-down one's is called, though its
    maps are twice as many as a known skeleton has joints.
    """
    state = strip_prefixes(foreign)
    outputs = state.get("final_layer.weight")
    if outputs is None or len(outputs) not in {2 * len(s) for s in SKELETONS.values()}:
        return state
    return {re.sub(r"^final_layer\.", "final_layers.0.", n): t for n, t in state.items()}


def infer_architecture(state: Mapping[str, torch.Tensor]) -> Architecture | None:
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
        return Architecture("cls_hrnet", width, modules, blocks)
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
        "pose_higher_hrnet",
        width,
        modules,
        blocks,
        joints,
        tag_heads=tuple(count > joints for count in outputs),
        tag_per_joint=largest != joints + 1,
        cat_output=first_deconvolution is not None and first_deconvolution.shape[0] > width,
        num_basic_blocks=max(count(r"deconv_layers\.0\.(\d+)\.") - 1, 0),
    )
