"""``higherhrnet weights``: list, fetch, inspect, convert, average."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from pathlib import Path

from .. import build
from ..config import to_yaml
from ..errors import UserError
from ..models import layouts, published, weights
from . import arguments


def add(verbs: arguments.Verbs) -> None:
    """Declare the commands."""
    weight = verbs.add_parser(
        "weights", help="list, fetch, inspect, convert and average checkpoints"
    )
    weight_verbs = weight.add_subparsers(required=True, metavar="COMMAND")
    known = weight_verbs.add_parser("list", help="checkpoints that have a name: bundled, published")
    known.set_defaults(run=_list, settings=False)
    fetch = weight_verbs.add_parser(
        "fetch", parents=[arguments.offline()], help="bring a published checkpoint into the cache"
    )
    fetch.add_argument("name", metavar="NAME")
    fetch.set_defaults(run=_fetch, settings=False)
    inspect = weight_verbs.add_parser(
        "inspect", epilog=arguments.TAIL, help="say what a weights file holds"
    )
    inspect.add_argument("file", metavar="FILE")
    inspect.set_defaults(run=_inspect)
    convert = weight_verbs.add_parser(
        "convert",
        epilog=f"{arguments.TAIL} A file without a config needs DATASET.SKELETON for joints of "
        "your own.",
        help="between our and the original layout",
    )
    convert.add_argument("source", metavar="IN")
    convert.add_argument("target", metavar="OUT", type=Path)
    convert.add_argument("--to", choices=("native", "official"), help="default: by OUT's suffix")
    convert.add_argument("--half", action="store_true", help="native only: store float16")
    convert.set_defaults(run=_convert)
    average = weight_verbs.add_parser(
        "average", epilog=arguments.TAIL, help="the mean of several checkpoints of one network"
    )
    average.add_argument("sources", metavar="IN", nargs="+")
    average.add_argument("target", metavar="OUT.safetensors", type=Path)
    average.add_argument("--half", action="store_true", help="store float16")
    average.set_defaults(run=_average)


def _average(options: argparse.Namespace) -> int:
    if len(options.sources) < 2 or options.target.exists():
        # A forgotten OUT would be the last of those that are to be averaged.
        what = f"'{options.target}' is there already" if options.target.exists() else "one is none"
        raise UserError(f"the mean takes two files or more and a new one to write to; {what}")
    _fits_suffix(options.target, "native")
    files = [build.open_weights(source) for source in options.sources]
    fusions = [build.fusion_of(file) for file in files]
    for file, fusion in zip(files, fusions, strict=True):
        if fusion != fusions[0]:
            raise UserError(
                f"'{file.path}' is of another network than '{files[0].path}': MODEL.FUSION is "
                f"{fusion}, not {fusions[0]}"
            )
    config = build.config_of(files[0], options.overrides)
    joints = files[0].skeleton or build.skeleton(config)
    state = weights.averaged(files)
    # An operating point is of one set of weights; the mean needs its own.
    weights.write(options.target, state, to_yaml(config), joints, options.half)
    print(f"mean of {len(files)} files, {len(state)} tensors: {options.target}")
    return 0


def _fits_suffix(target: Path, layout: str) -> None:
    """Readers go by the suffix."""
    if (target.suffix == ".safetensors") != (layout == "native"):
        wanted = "ends" if layout == "native" else "does not end"
        raise UserError(f"a file in {layout} layout {wanted} in .safetensors, unlike '{target}'")


def _list(_: argparse.Namespace) -> int:
    print("bundled:")
    for file in sorted(build.BUNDLED.glob("*.safetensors")):
        print(f"  {file.stem}  {file.stat().st_size / 1e6:.0f} MB  {file}")
    folder = published.cache()
    print(f"published, fetched by name into {folder} (${published.CACHE}):")
    width = max(map(len, published.PUBLISHED))
    for name, entry in published.PUBLISHED.items():
        where = entry.url or f"by browser from {entry.page}"
        here = " (here)" if (folder / entry.file).is_file() else ""
        checked = f"SHA-256 {entry.sha256}…" if entry.sha256 else "no public hash"
        print(f"  {name:{width}s}  {entry.what}{here}")
        print(f"  {'':{width}s}  about {entry.megabytes} MB, {entry.licence}, {checked}")
        print(f"  {'':{width}s}  {where}")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    if (build.BUNDLED / f"{options.name}.safetensors").is_file():
        raise UserError(f"'{options.name}' comes with the package: there is nothing to fetch")
    if options.name not in published.PUBLISHED:
        close = difflib.get_close_matches(options.name, published.PUBLISHED, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else "; see higherhrnet weights list"
        raise UserError(f"there is no published checkpoint '{options.name}'{hint}")
    print(published.fetch(options.name))
    return 0


def _inspect(options: argparse.Namespace) -> int:
    file = build.open_weights(options.file)
    numbers = sum(tensor.numel() for tensor in file.state.values())
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in file.state.values()})
    print(f"{file.path}: {len(file.state)} tensors, {numbers:,} numbers, {', '.join(kinds)}")
    found = layouts.architecture(file.state)
    if found is None:
        raise UserError(f"'{file.path}' holds no HRNet that is known here")
    described = {k: v for k, v in dataclasses.asdict(found).items() if v not in (None, ())}
    print("  network: " + ", ".join(f"{k} {v}" for k, v in described.items()))
    if file.skeleton:
        print(f"  skeleton: {file.skeleton.name}, {len(file.skeleton)} joints")
    print(f"  config: {'inside' if file.config else 'none; guessed from the tensors'}")
    if file.display:
        print(f"  for pictures: {build.point_of(file)}")
    if found.kind in ("higher_hrnet", "pose_hrnet"):
        config = build.config_of(file, options.overrides)
        joints = file.skeleton or build.skeleton(config)
        print(f"  {weights.compare(build.model(config, len(joints)), file.state)}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    file = build.open_weights(options.source)
    to = options.to or ("native" if options.target.suffix == ".safetensors" else "official")
    _fits_suffix(options.target, to)
    if options.half and to == "official":
        raise UserError("--half is for native files; the original code reads float32")
    config = build.config_of(file, options.overrides)
    joints = file.skeleton or build.skeleton(config)
    network = build.model(config, len(joints))
    report = weights.load_all(network, file)
    if to == "native":
        weights.write(
            options.target,
            network.state_dict(),
            to_yaml(config),
            joints,
            options.half,
            file.display,
        )
    else:
        weights.write_official(options.target, network.state_dict())
    print(f"{file.path}: {report}; written as {to} to {options.target}")
    if to == "official" and config.MODEL.FUSION != "nearest":
        print(
            "note: the original code enlarges by nearest neighbours where this network does it "
            f"bilinearly (MODEL.FUSION {config.MODEL.FUSION}); there it will score otherwise"
        )
    return 0
