"""From names and files to checkpoints, and from checkpoints to configs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import strict_yaml
from ..config import Config, parse_config
from ..errors import UserError
from ..models import layouts, published, weights
from ..skeleton import SKELETONS, Skeleton

BUNDLED = Path(__file__).parent.parent / "weights"
"""Checkpoints that come with the package."""
_BY_JOINTS: dict[int | None, str] = {len(s): s.name for s in SKELETONS.values()}


def find_weights(name_or_file: str) -> Path:
    """A weights file: a path, or the name of a bundled or a published checkpoint.

    Raises:
        UserError: it is neither, or a published one that cannot be had; see
            :func:`published.fetch`.
        OSError: fetching failed.
    """
    bundled = BUNDLED / f"{name_or_file}.safetensors"
    if bundled.is_file():
        return bundled
    path = Path(name_or_file)
    if name_or_file in published.PUBLISHED and not path.is_file():
        return published.fetch(name_or_file)
    if not path.is_file() and not path.suffix:
        names = sorted(file.stem for file in BUNDLED.glob("*.safetensors"))
        raise UserError(
            f"'{name_or_file}' is neither a bundled checkpoint ({', '.join(names)}), nor a "
            "published one (higherhrnet weights list), nor a file"
        )
    return path


def open_weights(name_or_file: str) -> weights.Checkpoint:
    """What a weights file holds, with what is known of it by name; see :func:`find_weights`.

    Raises:
        UserError: it cannot be found or read.
        OSError: fetching failed.
    """
    file = weights.read(find_weights(name_or_file))
    known = {entry.file: entry for entry in published.PUBLISHED.values()}.get(file.path.name)
    return replace(file, settings=known.settings) if known else file


def skeleton_of(file: weights.Checkpoint) -> Skeleton | None:
    """Whose joints a checkpoint predicts: as it says, else by their number; None for a trunk."""
    if file.skeleton is not None:
        return file.skeleton
    found = layouts.architecture(file.state)
    name = _BY_JOINTS.get(found.joints) if found else None
    return SKELETONS[name] if name else None


def fusion_of(file: weights.Checkpoint) -> str | None:
    """How a checkpoint's network enlarges, which no tensor shows; None if the file does not say.
    Nothing else of its config is looked at: it may be an older version's."""
    try:
        stored = strict_yaml.parse(file.config) if file.config else None
        fusion: str | None = ((stored or {}).get("MODEL") or {}).get("FUSION")
    except (UserError, AttributeError) as error:
        raise UserError(f"'{file.path}' is damaged: its config cannot be read") from error
    return fusion


def config_of(checkpoint_file: weights.Checkpoint, overrides: Sequence[Any] = ()) -> Config:
    """The config inside a native checkpoint, else one that fits a foreign file's tensors."""
    source = str(checkpoint_file.path)
    overrides = [*checkpoint_file.settings, *overrides]
    if checkpoint_file.config is not None:
        return parse_config(checkpoint_file.config, overrides, source)
    found = layouts.architecture(checkpoint_file.state)
    if found is None or found.kind not in ("higher_hrnet", "pose_hrnet"):
        kind = "no HRNet" if found is None else f"a {found.kind} of width {found.width}"
        raise UserError(f"'{source}' is a checkpoint of another model: it holds {kind}")
    if found.joints not in _BY_JOINTS and "DATASET.SKELETON" not in overrides:
        raise UserError(
            f"'{source}' predicts {found.joints} joints, which is no built-in skeleton; "
            "give one with DATASET.SKELETON FILE.yaml"
        )
    guess: dict[str, dict[str, Any]] = {
        "MODEL": {
            "NAME": found.kind,
            "WIDTH": found.width,
            "MODULES": list(found.modules),
            "BLOCKS": found.blocks,
        },
        "DATASET": {"SKELETON": _BY_JOINTS.get(found.joints, "coco")},
    }
    if found.kind == "higher_hrnet":
        guess["MODEL"] |= {
            "TAG_HEADS": list(found.tag_heads),
            "SHARED_TAG": found.shared_tag,
            "CONCATENATE": found.concatenate,
            "RESIDUAL_BLOCKS": found.residual_blocks,
        }
        guess["LOSS"] = {"HEATMAP": [1.0] * len(found.tag_heads)}
    return parse_config(json.dumps(guess), overrides, source)
