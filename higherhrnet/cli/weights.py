"""``higherhrnet weights``: list, fetch, inspect, convert, average."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import Config, PoseConfig, SegmentationConfig, to_yaml
from ..errors import UserError
from ..factory.checkpoints import (
    any_config_of,
    config_of,
    is_task,
    open_checkpoint,
    operating_point_of,
    upsample_mode_of,
)
from ..factory.inference import check_architecture
from ..factory.presets import measured_operating_point, preset_operating_point, presets_over
from ..factory.tasks import load_task
from ..methods.base import method_of
from ..models.model_zoo import BUNDLED, CACHE, MODEL_ZOO, cache_dir
from ..models.model_zoo import fetch_weights as fetch_published
from ..models.pose_model import PoseModel
from ..models.state_dict import infer_architecture
from ..models.weights import (
    Checkpoint,
    compare_state,
    load_weights,
    write_native,
    write_official,
)
from ..models.weights import average_weights as average_states
from ..skeleton import Skeleton, load_skeleton


def list_weights(_: argparse.Namespace) -> int:
    """Print the checkpoints that have a name."""
    print("bundled:")
    for file in sorted(BUNDLED.glob("*.safetensors")):
        print(f"  {file.stem}  {file.stat().st_size / 1e6:.0f} MB  {file}")
    folder = cache_dir()
    print(f"published, downloaded by name into {folder} (${CACHE}):")
    width = max(map(len, MODEL_ZOO))
    for name, entry in MODEL_ZOO.items():
        where = entry.url or f"by browser from {entry.page}"
        here = " (here)" if (folder / entry.file).is_file() else ""
        checked = f"SHA-256 {entry.sha256}…" if entry.sha256 else "no public hash"
        print(f"  {name:{width}s}  {entry.what}{here}")
        print(f"  {'':{width}s}  about {entry.megabytes} MB, {entry.license}, {checked}")
        print(f"  {'':{width}s}  {where}")
    return 0


def fetch_weights(options: argparse.Namespace) -> int:
    """Download a published checkpoint."""
    if (BUNDLED / f"{options.name}.safetensors").is_file():
        raise UserError(f"'{options.name}' comes with the package: there is nothing to fetch")
    if options.name not in MODEL_ZOO:
        close = difflib.get_close_matches(options.name, MODEL_ZOO, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else "; see higherhrnet weights list"
        raise UserError(f"there is no published checkpoint '{options.name}'{hint}")
    print(fetch_published(options.name))
    return 0


def inspect_weights(options: argparse.Namespace) -> int:
    """Print what a weights file holds."""
    file = open_checkpoint(options.file)
    numbers = sum(tensor.numel() for tensor in file.state.values())
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in file.state.values()})
    print(f"{file.path}: {len(file.state)} tensors, {numbers:,} numbers, {', '.join(kinds)}")
    found = infer_architecture(file.state)
    if found is None:
        raise UserError(f"'{file.path}' holds no HRNet that is known here")
    described = {k: v for k, v in dataclasses.asdict(found).items() if v not in (None, ())}
    if is_task(file):
        described = {k: described[k] for k in ("kind", "width", "num_modules", "num_blocks")}
    print("  network: " + ", ".join(f"{k} {v}" for k, v in described.items() if k != "classes"))
    if file.classes:
        shown = ", ".join(file.classes[:8]) + (", …" if len(file.classes) > 8 else "")
        print(f"  classes: {len(file.classes)} ({shown})")
    if file.skeleton:
        print(f"  skeleton: {file.skeleton.name}, {len(file.skeleton)} joints")
    print(f"  config: {'inside' if file.config else 'none; guessed from the tensors'}")
    if file.operating_point:
        print(f"  operating point: {operating_point_of(file)}")
    for name, preset in file.presets.items():
        settings = ", ".join(f"{key} {value}" for key, value in preset["settings"].items())
        print(f"  preset {name}: {settings}; {preset_operating_point(file, name)}")
    if found.joints is not None:
        _, _, model = _build(file, options.overrides)
        print(f"  {compare_state(model, file.state)}")
    return 0


def convert_weights(options: argparse.Namespace) -> int:
    """Write a checkpoint in another layout."""
    file = open_checkpoint(options.source)
    layout = options.to or ("native" if options.target.suffix == ".safetensors" else "official")
    _check_suffix(options.target, layout)
    if options.half and layout == "official":
        raise UserError("--half is for native files; the original code reads float32")
    config: Config
    skeleton: Skeleton | None = None
    if is_task(file):
        loaded = load_task(file, "cpu", options.overrides)
        if layout == "official" and loaded.task.name == "detection":
            raise UserError("detectors have no official layout: write a .safetensors file")
        assert loaded.model is not None  # of a checkpoint
        config, model = loaded.config, loaded.model
        file = dataclasses.replace(file, classes=loaded.classes)
    else:
        built, skeleton, model = _build(file, options.overrides)
        config = built
        if file.operating_point and options.overrides:
            point = measured_operating_point(file, None, built).to_dict()
            presets = presets_over(file, built)
            file = dataclasses.replace(file, operating_point=point, presets=presets)
    report = load_weights(model, file)
    if layout == "native":
        write_native(
            options.target,
            model.state_dict(),
            to_yaml(config),
            skeleton,
            options.half,
            file.operating_point,
            file.presets,
            file.classes,
        )
    else:
        write_official(options.target, model.state_dict())
    print(f"{file.path}: {report}; written as {layout} to {options.target}")
    mode = config.MODEL.UPSAMPLE_MODE
    if layout == "official" and mode != "nearest" and skeleton is not None:
        print(
            "note: the original code upsamples by nearest neighbors, and this network was trained "
            f"with MODEL.UPSAMPLE_MODE {mode}; its metrics will differ there"
        )
    elif layout == "official" and isinstance(config, SegmentationConfig):
        own = f"MODEL.UPSAMPLE_MODE {mode}, MODEL.ALIGN_CORNERS {config.MODEL.ALIGN_CORNERS}"
        print(f"note: the official layout does not say that this network was trained with {own}")
    return 0


def average_weights(options: argparse.Namespace) -> int:
    """Write the mean of several checkpoints."""
    if len(options.sources) < 2 or options.target.exists():
        # A forgotten OUT would be the last of those that are to be averaged.
        what = f"'{options.target}' exists already" if options.target.exists() else "one is missing"
        raise UserError(f"average takes two or more files and a new one to write to; {what}")
    _check_suffix(options.target, "native")
    files = [open_checkpoint(source) for source in options.sources]
    networks = [_network_of(file) for file in files]
    for file, network in zip(files, networks, strict=True):
        for key in sorted(network.keys() & networks[0].keys()):
            if network[key] != networks[0][key]:
                raise UserError(
                    f"'{file.path}' is of another network than '{files[0].path}': "
                    f"MODEL.{key} is {network[key]}, not {networks[0][key]}"
                )
    config = any_config_of(files[0], options.overrides)
    skeleton = files[0].skeleton
    if skeleton is None and isinstance(config, PoseConfig):
        skeleton = load_skeleton(config.DATASET.SKELETON)
    state = average_states(files)
    # An operating point is of one set of weights; the mean needs its own.
    write_native(
        options.target, state, to_yaml(config), skeleton, options.half, classes=files[0].classes
    )
    print(f"mean of {len(files)} files, {len(state)} tensors: {options.target}")
    return 0


def _network_of(file: Checkpoint) -> dict[str, Any]:
    """What a checkpoint's config says of its network, in today's words, without what it started
    from; how it upsamples alone where the config cannot be read."""
    mode = {"UPSAMPLE_MODE": upsample_mode_of(file)}
    if file.config is None:
        return mode
    try:
        model = dataclasses.asdict(any_config_of(file).MODEL)
    except UserError:
        return mode
    return {key: value for key, value in model.items() if key != "PRETRAINED"}


def _build(file: Checkpoint, overrides: Sequence[str]) -> tuple[PoseConfig, Skeleton, PoseModel]:
    """A file's config, skeleton and network, of the size of its tensors."""
    config = config_of(file, overrides)
    skeleton = file.skeleton or load_skeleton(config.DATASET.SKELETON)
    check_architecture(config, file)
    return config, skeleton, method_of(config).build_model(config, len(skeleton))


def _check_suffix(target: Path, layout: str) -> None:
    """Readers go by the suffix."""
    if (target.suffix == ".safetensors") != (layout == "native"):
        wanted = "ends" if layout == "native" else "does not end"
        raise UserError(f"a file in {layout} layout {wanted} in .safetensors, unlike '{target}'")
