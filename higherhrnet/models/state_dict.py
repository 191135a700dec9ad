"""What the names and shapes of tensors say: whose layout it is, and of which network.

Our module names *are* the official ones, so an official state dict needs no renaming; other
trainers put prefixes before them and mappings around them, see :func:`find_network`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ..skeleton import SKELETONS

State = dict[str, torch.Tensor]

_ANCHOR = "stage2.0.branches.0.0.conv1.weight"
_AVERAGED = re.compile(r"(?i:(^|_)(ema|averaged?|swa)(_|$))|EMA|Ema")
_ONLINE = re.compile(r"online|source")
_LOSSES = re.compile(
    r"(data_preprocessor|criterion|loss\w*|metrics?|ema_\w+|n_averaged|steps)(\.|$)"
)
_HEAD_OF_MMPOSE = re.compile(
    r"(keypoint_head\.|head\.)?"
    r"((?:final_layers?|deconv_layers|incre_modules|downsamp_modules|classifier)\..*)"
)
_HEAD_OF_MMSEG = {
    "decode_head.convs.0.conv.": "last_layer.0.",
    "decode_head.convs.0.bn.": "last_layer.1.",
    "decode_head.conv_seg.": "last_layer.3.",
}
_NO_NETWORKS = frozenset({"optimizer", "optimizer_states", "optimizer_state_dict", "optim", "meta"})
_OTHER_STATE = re.compile(r"^(scaler|amp|lr_scheduler)")
_DEEPEST, _FEW = 6, 50
_SHAPED = ("conv1.weight", "final_layer.weight", "classifier.weight", "last_layer.3.weight",
           "deconv_layers.0.0.0.weight",
           *(f"final_layers.{n}.weight" for n in range(9)))  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """What the tensors' shapes say of the network they belong to.

    Attributes:
        kind: ``pose_higher_hrnet``, ``pose_hrnet``, ``cls_hrnet``, ``seg_hrnet``, ``det_hrnet`` or
            ``trunk``.
        width: HRNet width.
        num_modules: exchange modules of stages 2-4.
        num_blocks: BasicBlocks in each branch.
        joints: K, or None for a backbone or classifier.
        tag_heads, tag_per_joint, tag_dim, scale_adaptive, cat_output, num_basic_blocks: see
            ``HigherHRNet``.
        classes: of a segmentation network.
        extra_heads: heads beside those of the keypoints.
    """

    kind: str
    width: int
    num_modules: tuple[int, int, int]
    num_blocks: int
    joints: int | None = None
    tag_heads: tuple[bool, ...] = ()
    tag_per_joint: bool = True
    tag_dim: int = 1
    scale_adaptive: bool = False
    cat_output: bool = False
    num_basic_blocks: int = 0
    classes: int = 0
    extra_heads: tuple[str, ...] = ()


class Network(NamedTuple):
    """A network found among whatever a training program saved.

    Attributes:
        state: official names → tensors.
        name: where it was, e.g. ``state_dict_ema``; empty at the top.
        others: where more networks were.
    """

    state: State
    name: str = ""
    others: tuple[str, ...] = ()


def find_network(loaded: Any) -> Network:
    """The HRNet in a file, whatever stands around it.

    Known by its own layers' names, below any prefixes and mappings: DataParallel's ``module.``,
    torch.compile's ``_orig_mod.``, ``model.`` or ``net.`` of Lightning, mmpose's ``backbone.`` and
    ``head.``, timm's ``state_dict_ema``, nested containers. Of several the averaged weights are
    taken, which such programs validate, else the first.

    mmpose's network with tags at 1/4 calls its only head as a top-down one's is called. Its config
    in the file tells, else its maps, twice as many as a known skeleton has joints.
    """
    tensors = dict(_flatten(loaded))
    places = [name.removesuffix(_ANCHOR) for name in tensors if name.endswith(_ANCHOR)]
    places = [p for p in places if (not p or p.endswith(".")) and f"{p}conv1.weight" in tensors]
    if not places:  # no HRNet; its names are shown as they are
        return Network({name: t for name, t in tensors.items() if not _OTHER_STATE.search(name)})
    # mmengine is the other way round: it saves the averaged weights as 'state_dict'.
    wants_average = not isinstance(loaded, Mapping) or "message_hub" not in loaded
    chosen = max(places, key=_averaged) if wants_average else min(places, key=_averaged)
    root = chosen.removesuffix("backbone.")
    state: State = {}
    is_mmpose = False
    for name, tensor in tensors.items():
        if name.startswith(chosen):
            state[name.removeprefix(chosen)] = tensor
        elif root != chosen and name.startswith(root):
            # What is beside the backbone is its head, or what keeps the file from being ours.
            inner = name.removeprefix(root)
            found = _HEAD_OF_MMPOSE.fullmatch(inner)
            if found is not None:
                state[found[2]] = tensor
                is_mmpose |= bool(found[1])
            elif not _LOSSES.match(inner):
                state[inner] = tensor
    outputs = state.get("final_layer.weight")
    if is_mmpose and outputs is not None and _predicts_tags(loaded, len(outputs)):
        state = {re.sub(r"^final_layer\.", "final_layers.0.", n): t for n, t in state.items()}
    state = _rename_mmseg(state)
    others = tuple(_title(place) for place in places if place != chosen)
    return Network(state, _title(chosen), others)


def _rename_mmseg(state: State) -> State:
    """mmsegmentation's head under the official names; its first convolution has no bias."""
    renamed = {}
    for name, tensor in state.items():
        prefix = next((prefix for prefix in _HEAD_OF_MMSEG if name.startswith(prefix)), "")
        renamed[_HEAD_OF_MMSEG.get(prefix, "") + name.removeprefix(prefix)] = tensor
    weight = renamed.get("last_layer.0.weight")
    if weight is not None and weight.ndim == 4:
        renamed.setdefault("last_layer.0.bias", weight.new_zeros(len(weight)))
    return renamed


def _averaged(place: str) -> int:
    """How much a place is called that of averaged weights."""
    parts = place.split(".")
    return sum(bool(_AVERAGED.search(p)) for p in parts) - any(map(_ONLINE.search, parts))


def _title(place: str) -> str:
    return place.rstrip(".").removesuffix(".backbone") or "the top level"


def _flatten(value: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors by the path of their names through nested mappings."""
    if depth > _DEEPEST:
        return
    if isinstance(value, list | tuple) and len(value) <= _FEW:
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return
    for name, inner in value.items():
        if isinstance(inner, torch.Tensor) and inner.layout == torch.strided:
            yield f"{prefix}{name}", inner
        elif isinstance(inner, Mapping | list | tuple) and name not in _NO_NETWORKS:
            yield from _flatten(inner, f"{prefix}{name}.", depth + 1)


def _predicts_tags(loaded: Any, outputs: int) -> bool:
    """Whether an mmpose checkpoint's single head gives tags beside heatmaps."""
    meta = loaded.get("meta") if isinstance(loaded, Mapping) else None
    config = " ".join(v for v in meta.values() if isinstance(v, str)) if meta else ""
    if re.search(r"Associative|AESimpleHead|AEHigher|Bottom_?[Uu]p", config):
        return True
    if re.search(r"Top_?[Dd]own", config):
        return False
    return outputs in {2 * len(skeleton) for skeleton in SKELETONS.values()}


def infer_architecture(
    state: Mapping[str, torch.Tensor], joints: int | None = None
) -> Architecture | None:
    """Which of our networks the tensors belong to; None if to none of them.

    Args:
        state: official names → tensors.
        joints: K where it is known; heads of K and of K + T maps are else told apart by their
            sizes.
    """
    if _ANCHOR not in state or "conv1.weight" not in state:
        return None
    if any(not tensor.ndim for name, tensor in state.items() if name.endswith(_SHAPED)):
        return None  # a scalar where a layer's weights should be

    def count(pattern: str) -> int:
        numbers = [int(m[1]) for name in state if (m := re.match(pattern, name))]
        return max(numbers, default=-1) + 1

    width = state["stage2.0.branches.0.0.conv1.weight"].shape[0]
    modules = (count(r"stage2\.(\d+)\."), count(r"stage3\.(\d+)\."), count(r"stage4\.(\d+)\."))
    blocks = count(r"stage2\.0\.branches\.0\.(\d+)\.")
    if "last_layer.3.weight" in state:
        classes = state["last_layer.3.weight"].shape[0]
        return Architecture("seg_hrnet", width, modules, blocks, classes=classes)
    if "neck.reduction_conv.conv.weight" in state:
        return Architecture("det_hrnet", width, modules, blocks)
    if "classifier.weight" in state:
        return Architecture("cls_hrnet", width, modules, blocks)
    if "final_layer.weight" in state:
        found = state["final_layer.weight"].shape[0]
        return Architecture("pose_hrnet", width, modules, blocks, found)
    heads = count(r"final_layers\.(\d+)\.weight")
    if heads == 0:
        return Architecture("trunk", width, modules, blocks)
    outputs = [state[f"final_layers.{i}.weight"].shape[0] for i in range(heads)]
    # A head gives K or K + T maps, T = K or 1 for each dimension; the smallest head is taken to
    # have no tags if another has more, and a lone head to have a tag map for each joint.
    smallest, largest = min(outputs), max(outputs)
    if heads == 1 and joints is not None and largest == joints:  # mmpose's name for both kinds
        return Architecture("pose_hrnet", width, modules, blocks, joints)
    if joints is None:
        joints = smallest if largest > smallest else largest // 2
    tags = largest - joints
    per_joint = tags != 1 and tags % joints == 0
    first_deconvolution = state.get("deconv_layers.0.0.0.weight")
    return Architecture(
        "pose_higher_hrnet",
        width,
        modules,
        blocks,
        joints,
        tag_heads=tuple(count > joints for count in outputs),
        tag_per_joint=per_joint,
        scale_adaptive="scale_layers.0.weight" in state,
        tag_dim=max(tags // joints if per_joint else tags, 1),
        cat_output=first_deconvolution is not None and first_deconvolution.shape[0] > width,
        num_basic_blocks=max(count(r"deconv_layers\.0\.(\d+)\.") - 1, 0),
        extra_heads=tuple(
            name
            for name in ("masks", "boxes")
            if any(key.startswith(f"extra_heads.{name}.") for key in state)
        ),
    )


def fit_head(state: Mapping[str, torch.Tensor], names: Collection[str]) -> State:
    """A state whose single head is called as a network calls its own: mmpose has one name for
    both kinds."""
    ours, theirs = "final_layer.weight", "final_layers.0.weight"
    heads = [name for name in state if re.fullmatch(r"final_layers\.\d+\.weight", name)]
    if ours in names and ours not in state and heads == [theirs]:
        return {n.replace("final_layers.0.", "final_layer."): t for n, t in state.items()}
    return dict(state)
