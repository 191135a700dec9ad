"""Weights in files: read any known layout, load with a report, write our own.

Files of our own are safetensors whose metadata carries the config (YAML) and the skeleton (JSON).
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from ..errors import UserError, WriteError
from ..io.atomic import atomic_write
from ..skeleton import Skeleton
from .pickles import load_torch
from .state_dict import State, find_network, fit_head

_log = logging.getLogger(__name__)
_EXTRAS = ("skeleton", "display", "presets", "classes")
_DTYPES = frozenset({
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.uint8,
    torch.int16, torch.int32, torch.int64, torch.bool,
})  # fmt: skip
_FULL = 2**20
"""A disk with fewer bytes left is full."""
_HEADS = (
    "final_layer", "deconv_layers.", "scale_layers.", "incre_modules.", "downsamp_modules.",
    "classifier.", "neck.", "detector.", "last_layer.", "extra_heads.",
)  # fmt: skip
_LOWER_OUTPUTS = re.compile(r"stage4\.\d+\.fuse_layers\.[1-3]\.")


@dataclass(frozen=True)
class Checkpoint:
    """What a weights file holds.

    Attributes:
        path: where it was read.
        state: official names → tensors as stored.
        config: YAML of the config that made it, or None for files of other programs.
        skeleton: the skeleton it predicts, or None likewise.
        operating_point: its limits for images, or None if it was never calibrated.
        settings: config ``KEY, VALUE, …`` that are known of it though the file does not tell.
        presets: name → ``settings`` (config key → value) and ``operating_point``.
        classes: what a segmentation network or a detector tells apart, by number.
    """

    path: Path
    state: State
    config: str | None = None
    skeleton: Skeleton | None = None
    operating_point: Mapping[str, Any] | None = None
    settings: tuple[str, ...] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadReport:
    """How a state met a model: counts and names."""

    matched: int
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.matched} tensors matched"]
        for what, names in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape or kind", self.reshaped),
        ):
            if names:
                shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
                parts.append(f"{len(names)} {what} ({shown})")
        return "; ".join(parts)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read ``.safetensors`` or ``.pth`` / ``.pt`` / ``.bin`` (never unpickling code).

    Raises:
        UserError: no such file, not a weights file, or no tensors in it.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"weights file '{path}' does not exist")
    metadata: Mapping[str, str] = {}
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            loaded = load_torch(path)
            if isinstance(loaded, dict) and loaded.keys() >= {"model", "average", "progress"}:
                loaded, metadata = _of_training(loaded)
            state = loaded
        found = find_network(state)
    except UserError:
        raise
    except Exception as error:  # arbitrary bytes make the readers raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"'{path}' is not a readable weights file: {reason}") from error
    state = found.state
    if not state:
        raise UserError(
            f"'{path}' holds no tensors by name; if it is a whole model, save its weights instead: "
            "torch.save(model.state_dict(), FILE)"
        )
    if found.others:
        _log.info("'%s' holds %d networks; '%s' is read, not %s", path, len(found.others) + 1,
                  found.name, ", ".join(f"'{other}'" for other in found.others))  # fmt: skip
    for name, tensor in state.items():
        _check_tensor(path, name, tensor)
    broken = next((n for n, t in state.items() if t.is_floating_point() and not _finite(t)), None)
    if broken is not None:
        raise UserError(f"'{path}' holds values that are no finite numbers, in '{broken}'")
    try:
        stored = {name: json.loads(metadata[name]) for name in _EXTRAS if name in metadata}
        skeleton = Skeleton.from_dict(stored["skeleton"]) if "skeleton" in stored else None
        limits = stored.get("display", {})
        if not {*map(type, limits.values())} <= {int, float}:
            raise UserError("an operating point must be numbers")
        presets = stored.get("presets", {})
        for preset in presets.values():
            if not {*map(type, preset["operating_point"].values())} <= {int, float}:
                raise UserError("an operating point must be numbers")
            preset["settings"].items()
        classes = tuple(map(str, stored.get("classes", ())))
    except (
        UserError, ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise UserError(f"'{path}' is damaged: its description cannot be read: {error}") from error
    return Checkpoint(
        path=path,
        state=state,
        config=metadata.get("config"),
        skeleton=skeleton,
        operating_point=stored.get("display"),
        presets=presets,
        classes=classes,
    )


def _check_tensor(path: Path, name: str, tensor: torch.Tensor) -> None:
    """That a tensor has numbers of a kind that is computed with, one for each place in it."""
    if tensor.is_meta:
        raise UserError(f"'{path}' holds names and shapes alone, no numbers")
    if tensor.dtype not in _DTYPES:
        raise UserError(
            f"'{path}': '{name}' is {str(tensor.dtype).removeprefix('torch.')}, which is not read; "
            "store it as float16 or float32"
        )
    # A few bytes with strides of 0 could claim a petabyte.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError(f"'{path}': '{name}' claims more numbers than the file holds")


def _finite(tensor: torch.Tensor) -> bool:
    # A sum is finite only if all its parts are; it costs a tenth of asking each.
    return bool(tensor.sum(dtype=torch.float64).isfinite())


def _of_training(saved: Mapping[str, Any]) -> tuple[Any, Mapping[str, str]]:
    """The weights that a checkpoint to resume from would have validated, and whose they are."""
    average = saved["average"]
    return average[1] if average else saved["model"], saved.get("about", {})


def compare_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> LoadReport:
    """How the state would meet the model, without touching either."""
    own = model.state_dict()
    state = fit_head(state, own)
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    reshaped = [n for n, t in state.items() if n in own and not _alike(own[n], t)]
    return LoadReport(
        matched=sum(name in own for name in state) - len(reshaped),
        missing=[name for name in own if name not in state and name not in counters],
        unexpected=[name for name in state if name not in own],
        reshaped=reshaped,
    )


def _alike(own: torch.Tensor, other: torch.Tensor) -> bool:
    # Whole numbers in the place of weights are a quantized model's.
    kind = other.is_floating_point() or not own.is_floating_point()
    return own.shape == other.shape and kind


def load_weights(
    model: nn.Module, checkpoint: Checkpoint, joints: Skeleton | None = None
) -> LoadReport:
    """Load a checkpoint of this very model; half precision becomes the model's own.

    Args:
        joints: what the model is to predict; None takes the checkpoint's word.

    Raises:
        UserError: anything is missing, unexpected or of another shape, or the checkpoint predicts
            other joints; nothing was loaded.
    """
    stored = checkpoint.skeleton
    if joints is not None and stored is not None and stored.joints != joints.joints:
        raise UserError(
            f"'{checkpoint.path}' predicts the joints of skeleton '{stored.name}', not those of "
            f"'{joints.name}'"
        )
    report = compare_state(model, checkpoint.state)
    if report.missing or report.unexpected or report.reshaped:
        raise UserError(
            f"'{checkpoint.path}' is a checkpoint of another model: {report}. "
            f"'higherhrnet weights inspect {checkpoint.path}' says what it holds"
        )
    model.load_state_dict(fit_head(checkpoint.state, model.state_dict()), strict=False)
    return report


def load_backbone(model: nn.Module, checkpoint: Checkpoint) -> LoadReport:
    """Start a model from pre-trained weights: the backbone must fit, heads are taken where they do.

    Raises:
        UserError: a backbone tensor is missing or of another shape; nothing was loaded.
    """
    report = compare_state(model, checkpoint.state)
    # A pose network ends in the highest resolution; the others' last exchange starts anew.
    held = {found[0] for name in checkpoint.state if (found := _LOWER_OUTPUTS.match(name))}
    missing = [
        name
        for name in report.missing
        if not (found := _LOWER_OUTPUTS.match(name)) or found[0] in held
    ]
    wrong = [name for name in (*missing, *report.reshaped) if not name.startswith(_HEADS)]
    if wrong:
        raise UserError(f"'{checkpoint.path}' does not hold the backbone of this model: {report}")
    fitting = {n: t for n, t in checkpoint.state.items() if n not in report.reshaped}
    model.load_state_dict(fitting, strict=False)
    return report


def load_pretrained(
    model: nn.Module, checkpoint: Checkpoint, old: Skeleton | None, new: Skeleton
) -> LoadReport:
    """:func:`load_backbone`, with the heads of a network for other joints taken over by joint name.

    Args:
        model: predicts ``new``.
        old: what the checkpoint predicts; None for a backbone.

    Raises:
        UserError: the backbone does not fit; nothing was loaded.
    """
    if old is None:
        return load_backbone(model, checkpoint)
    return load_backbone(
        model, replace(checkpoint, state=match_heads_by_name(checkpoint.state, model, old, new))
    )


def match_heads_by_name(
    state: Mapping[str, torch.Tensor], model: nn.Module, old: Skeleton, new: Skeleton
) -> State:
    """A state whose heads predict another skeleton: joints of the same name keep their weights.

    What a head predicts, and what the next transposed convolution reads of it, is one channel a
    joint and, with tags, for each of their dimensions another one a joint or one for all.
    Channels of new joints get the model's own fresh weights. Tensors that are no heads stay as they
    are. As many joints are not the same joints: shapes say nothing here.
    """
    fresh = model.state_dict()
    adapted = dict(state)
    for name, tensor in state.items():
        if name not in fresh:
            continue
        is_output = re.match(r"final_layers?(\.\d+)?\.(weight|bias)$", name)
        is_input = re.match(r"deconv_layers\.\d+\.0\.0\.weight$", name)
        if not is_output and not is_input:
            continue
        if tensor.shape[1:] != fresh[name].shape[1:]:
            continue  # another backbone; that is found where backbones are compared
        # A deconvolution's input begins with the backbone's features, as many as it gives out.
        features = tensor.shape[1] if is_input else 0
        source = _head_channels(tensor.shape[0] - features, old)
        target = _head_channels(fresh[name].shape[0] - features, new)
        merged = fresh[name].clone()
        merged[:features] = tensor[:features].to(merged.dtype)
        for channel, meaning in enumerate(target):
            if meaning in source:
                row = features + source.index(meaning)
                merged[features + channel] = tensor[row].to(merged.dtype)
        adapted[name] = merged
    return adapted


def _head_channels(count: int, skeleton: Skeleton) -> list[tuple[str, str, int]]:
    """What each of a head's channels means; a deconvolution that stands alone reads none."""
    if not count:
        return []
    heatmaps = [("heatmap", joint, 0) for joint in skeleton.joints]
    dimensions, rest = divmod(count - len(skeleton), len(skeleton))
    if rest:
        return [*heatmaps, *(("tag", "", dimension) for dimension in range(count - len(skeleton)))]
    tags = [("tag", joint, d) for d in range(dimensions) for joint in skeleton.joints]
    return [*heatmaps, *tags]


def average_weights(checkpoints: Sequence[Checkpoint]) -> State:
    """The mean of several trainings' weights, batch norms' statistics included, as float32
    (Izmailov et al. 2018; of ends of runs that started from one another it often beats each).

    Raises:
        UserError: they are not of one network.
    """
    first = checkpoints[0]
    shapes = {name: tensor.shape for name, tensor in first.state.items()}
    for other in checkpoints[1:]:
        if {name: tensor.shape for name, tensor in other.state.items()} != shapes:
            raise UserError(f"'{other.path}' is of another network than '{first.path}'")
        if other.skeleton != first.skeleton:
            raise UserError(f"'{other.path}' predicts other joints than '{first.path}'")
        if other.classes != first.classes:
            raise UserError(f"'{other.path}' tells other classes apart than '{first.path}'")
    return {
        name: torch.stack([c.state[name].float() for c in checkpoints]).mean(dim=0)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in first.state.items()
    }


def write_native(
    path: str | Path,
    state: Mapping[str, torch.Tensor],
    config: str,
    skeleton: Skeleton | None,
    half: bool = False,
    operating_point: Mapping[str, Any] | None = None,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    classes: Sequence[str] = (),
) -> None:
    """Write native safetensors, whole or not at all.

    Args:
        path: file to (over)write.
        state: names → tensors.
        config: YAML of the whole config.
        skeleton: what the K heatmaps mean; None for networks without.
        half: store floating tensors as float16.
        operating_point: limits of the operating point for images.
        presets, classes: see :class:`Checkpoint`.
    """
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in state.items()
    }
    metadata = {"format": "higherhrnet", **metadata_of(config, skeleton, classes)}
    if operating_point is not None:
        metadata["display"] = json.dumps(dict(operating_point))
    if presets:
        metadata["presets"] = json.dumps(dict(presets))
    with atomic_write(path) as partial:
        partial.write_bytes(save(tensors, metadata))


def metadata_of(
    config: str, skeleton: Skeleton | None, classes: Sequence[str] = ()
) -> dict[str, str]:
    """What goes with weights of our own: the config that made them and what they predict."""
    metadata = {"config": config}
    if skeleton is not None:
        metadata["skeleton"] = json.dumps(skeleton.to_dict())
    if classes:
        metadata["classes"] = json.dumps(list(classes))
    return metadata


def write_operating_point(
    path: Path,
    operating_point: Mapping[str, Any],
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Put another operating point for images into a native file; the rest stays as it is.

    Args:
        path: the file.
        operating_point: limits.
        preset: name of the preset that they are for; None for the checkpoint's own settings.
        settings: the preset's.

    Raises:
        UserError: the file is not of our own.
    """
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata.get("format") != "higherhrnet":
        raise UserError(f"'{path}' is not a file of higherhrnet and cannot hold settings")
    if preset is None:
        metadata["display"] = json.dumps(dict(operating_point))
    else:
        presets = json.loads(metadata.get("presets", "{}"))
        presets[preset] = {"settings": settings or {}, "operating_point": dict(operating_point)}
        metadata["presets"] = json.dumps(presets)
    with atomic_write(path) as partial:
        partial.write_bytes(save(tensors, metadata))


def write_official(path: str | Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write a plain float32 state dict that the original code loads, whole or not at all."""
    tensors = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).cpu()
        for name, tensor in state.items()
    }
    save_torch(path, tensors)


def save_torch(path: str | Path, values: Mapping[str, Any]) -> None:
    """``torch.save``, whole or not at all.

    Raises:
        OSError: it could not be written; the message names the file.
    """
    with atomic_write(path) as partial:
        try:
            torch.save(values, partial)
        except RuntimeError as error:  # torch's own writer tells of positions, not of a full disk
            full = shutil.disk_usage(partial.parent).free < _FULL
            reason = os.strerror(errno.ENOSPC) if full else str(error).splitlines()[0]
            raise WriteError(reason) from error
