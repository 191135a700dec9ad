"""``higherhrnet weights inspect`` and ``convert``."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from .. import build
from ..config import to_yaml
from ..evaluation.operating_point import OperatingPoint
from ..models import weights
from . import arguments


def add(verbs: arguments.Verbs) -> None:
    """Declare the commands."""
    weight = verbs.add_parser("weights", help="look into and convert weights files")
    weight_verbs = weight.add_subparsers(required=True, metavar="COMMAND")
    inspect = weight_verbs.add_parser("inspect", help="say what a weights file holds")
    inspect.add_argument("file", metavar="FILE")
    inspect.set_defaults(run=_inspect, settings=False)
    convert = weight_verbs.add_parser("convert", help="between our and the original layout")
    convert.add_argument("source", metavar="IN")
    convert.add_argument("target", metavar="OUT", type=Path)
    convert.add_argument("--to", choices=("native", "official"), help="default: by OUT's suffix")
    convert.add_argument("--half", action="store_true", help="native only: store float16")
    convert.set_defaults(run=_convert, settings=False)


def _inspect(options: argparse.Namespace) -> int:
    file = weights.read(build.find_weights(options.file))
    numbers = sum(tensor.numel() for tensor in file.state.values())
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in file.state.values()})
    print(f"{file.path}: {len(file.state)} tensors, {numbers:,} numbers, {', '.join(kinds)}")
    found = weights.architecture(file.state)
    if found is None:
        raise ValueError(f"'{file.path}' holds no HRNet that is known here")
    described = {k: v for k, v in dataclasses.asdict(found).items() if v not in (None, ())}
    print("  network: " + ", ".join(f"{k} {v}" for k, v in described.items()))
    if file.skeleton:
        print(f"  skeleton: {file.skeleton.name}, {len(file.skeleton)} joints")
    print(f"  config: {'inside' if file.config else 'none; guessed from the tensors'}")
    if file.display:
        print(f"  for pictures: {OperatingPoint(**file.display)}")
    if found.kind == "higher_hrnet":
        config = build.config_of(file)
        joints = file.skeleton or build.skeleton(config)
        print(f"  {weights.compare(build.model(config, len(joints)), file.state)}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    file = weights.read(build.find_weights(options.source))
    to = options.to or ("native" if options.target.suffix == ".safetensors" else "official")
    config = build.config_of(file)
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
    return 0
