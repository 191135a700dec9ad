"""``higherhrnet bench``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import torch

from .. import build
from ..bench import data, decode, evaluate, loss, model, pipeline, table, track, train
from ..codecs.bottom_up import BottomUpCodec
from ..config import parse_config, read_config
from ..datasets.keypoints import CocoKeypoints
from ..datasets.loader import Views
from ..errors import UserError
from ..inference.bottom_up import BottomUp
from ..inference.frames import find_inputs
from ..skeleton import COCO
from . import arguments

Rows = Callable[[argparse.Namespace, torch.device], Sequence[table.Row]]


def add(verbs: arguments.Verbs) -> None:
    """Declare the commands."""
    bench = verbs.add_parser("bench", help="measure, print a table, write JSON")
    benches = bench.add_subparsers(required=True, metavar="WHAT")
    common = arguments.device()
    common.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")

    def declare(name: str, rows: Rows, text: str, settings: bool = True) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = benches.add_parser(
            name, parents=[common], epilog=arguments.TAIL if settings else None, help=text
        )
        parser.set_defaults(run=_bench, rows=rows, what=name, settings=settings)
        return parser

    declare("loss", _loss, "losses beside plain loops", settings=False)
    decoder = declare("decode", _decode, "from the network's answers to people")
    decoder.add_argument(
        "--people", type=arguments.positive, nargs="+", default=[1, 5, 15, 30, 100]
    )
    decoder.add_argument(
        "--repeats", type=arguments.positive, default=3, help="pictures a crowd (default 3)"
    )
    forward = declare("model", _model, "the network, eager and made ready")
    arguments.add_weights(forward)
    forward.add_argument("--sizes", type=arguments.side, nargs="+", default=[256, 512])
    forward.add_argument("--batches", type=arguments.positive, nargs="+", default=[1, 4])
    forward.add_argument("--compile", action="store_true", help="compiled rows too (minutes each)")
    whole_path = declare("pipeline", _pipeline, "from files to people")
    whole_path.add_argument("inputs", nargs="+", metavar="INPUT", help="picture, folder or glob")
    arguments.add_weights(whole_path)
    whole_path.add_argument("--batches", type=arguments.positive, nargs="+", default=[1, 4])
    whole_path.add_argument("--workers", type=arguments.positive, nargs="+", default=[1, 2])
    follow = declare("track", _track, "ids through a drawn video whose ids are known")
    arguments.add_weights(follow)
    follow.add_argument("--people", type=arguments.positive, nargs="+", default=[2, 4, 8])
    follow.add_argument(
        "--seconds", type=arguments.above_zero, default=10.0, help="of video (default 10)"
    )
    follow.add_argument("--seed", type=arguments.seed, default=0, help="of the videos")
    follow.add_argument("--output", type=Path, metavar="DIR", help="write the drawn videos there")
    evaluation = declare(
        "evaluate", _evaluate, "the evaluation of a set beside pycocotools", settings=False
    )
    evaluation.add_argument("--pictures", type=arguments.positive, nargs="+", default=[1000, 5000])
    evaluation.add_argument(
        "--parsed", type=arguments.positive, default=262_465, help="people in a file to parse"
    )
    input_path = declare("data", _data, "the input path by stage, on one core")
    input_path.add_argument("config", metavar="CONFIG")
    input_path.add_argument(
        "--count", type=arguments.positive, default=200, help="pictures (default 200)"
    )
    input_path.add_argument(
        "--batch", type=arguments.positive, default=16, help="pictures a batch (default 16)"
    )
    steps = declare("train", _train, "training steps: images/s and peak memory")
    steps.add_argument("config", metavar="CONFIG")
    steps.add_argument("--widths", type=arguments.positive, nargs="+", default=[18, 32])
    steps.add_argument(
        "--sizes", type=arguments.side, nargs="+", help="bottom-up: of pictures (default 256 512)"
    )
    steps.add_argument("--batches", type=arguments.positive, nargs="+", default=[4])
    steps.add_argument(
        "--steps", type=arguments.positive, default=5, help="measured a row (default 5)"
    )
    steps.add_argument("--compile", action="store_true", help="compiled rows too (minutes each)")


def _bench(options: argparse.Namespace) -> int:
    on = build.device(options.device)
    rows = options.rows(options, on)
    machine = table.hardware(on)
    table.show(f"bench {options.what}", rows, machine)
    if options.json:
        command = " ".join(["higherhrnet", *sys.argv[1:]])
        table.write(options.json, command, rows, machine)
        print(f"written to {options.json}")
    return 0


def _loss(_: argparse.Namespace, on: torch.device) -> Sequence[table.Row]:
    return loss.run(on)


def _decode(options: argparse.Namespace, on: torch.device) -> Sequence[table.Row]:
    idle = {"TEST.SCALES", "TEST.FLIP", "TEST.PROJECT"} & {*options.overrides[::2]}
    if idle:
        raise UserError(
            f"bench decode draws its own answers, one scale with its mirrored view: {min(idle)} "
            "changes nothing"
        )
    config = parse_config("", options.overrides, "the command line")
    joints = build.skeleton(config)
    coder = build.codec(config, build.model(config, len(joints)), joints)
    if not isinstance(coder, BottomUpCodec):
        raise UserError("bench decode measures grouping, which the top-down mode does without")
    return decode.run(coder, on, options.people, config.DATASET.INPUT_SIZE, options.repeats)


def _model(options: argparse.Namespace, on: torch.device) -> Sequence[table.Row]:
    found = build.load(options.weights, options.device, options.overrides)
    return model.run(found.model, on, options.sizes, options.batches, options.compile)


def _pipeline(options: argparse.Namespace, _: torch.device) -> Sequence[table.Row]:
    pictures = find_inputs(options.inputs).pictures
    if not pictures:
        raise UserError("bench pipeline measures pictures; none was given")
    found = build.load(options.weights, options.device, options.overrides, raw=True)
    if not isinstance(found, BottomUp):
        raise UserError("bench pipeline compares with the published bottom-up decoding alone")
    return pipeline.run(found, pictures, options.batches, options.workers)


def _track(options: argparse.Namespace, _: torch.device) -> Sequence[table.Row]:
    found = build.load(options.weights, options.device, options.overrides)
    if not isinstance(found, BottomUp) or found.skeleton.joints != COCO.joints:
        raise UserError(
            f"bench track draws people with COCO's joints, for bottom-up weights, and "
            f"'{options.weights}' are of other joints or top-down"
        )
    return track.run(found, options.people, options.seconds, options.seed, options.output)


def _evaluate(options: argparse.Namespace, _: torch.device) -> Sequence[table.Row]:
    return evaluate.run(options.pictures, options.parsed)


def _data(options: argparse.Namespace, on: torch.device) -> Sequence[table.Row]:
    config = read_config(options.config, options.overrides)
    if build.is_top_down(config):
        raise UserError("bench data measures whole pictures, as the bottom-up mode reads them")
    pictures = build.pictures(config, "train")
    if not isinstance(pictures, CocoKeypoints):
        raise UserError("bench data measures files; the config's pictures are drawn")
    count = min(options.count, len(pictures))
    if count < options.batch:
        raise UserError(f"{count} pictures are less than one --batch of {options.batch}")
    joints = build.skeleton(config)
    network = build.model(config, len(joints))
    coder = build.codec(config, network, joints)
    batches, feed = build.input_path(config, pictures, coder, on)
    assert isinstance(batches.items, Views)
    return data.run(pictures, batches.items, feed, network.heads, count, options.batch)


def _train(options: argparse.Namespace, on: torch.device) -> Sequence[table.Row]:
    config = read_config(options.config, options.overrides)
    if build.is_top_down(config) and options.sizes:
        raise UserError("--sizes is for the bottom-up mode; people's crops are of DATASET.CROP")
    sizes = [config.DATASET.INPUT_SIZE] if build.is_top_down(config) else [256, 512]
    return train.run(config, on, _variants(options, options.sizes or sizes), options.steps)


def _variants(options: argparse.Namespace, sizes: Sequence[int]) -> list[list[str]]:
    """Overrides of every row of ``bench train``: the plain step first, the rest against it."""
    rows = []
    for width, size, batch in product(options.widths, sizes, options.batches):
        for precision, compiled in (("fp32", False), ("bf16", False), ("bf16", True)):
            if compiled and not options.compile:
                continue
            rows.append([
                "MODEL.WIDTH", str(width), "DATASET.INPUT_SIZE", str(size),
                "TRAIN.BATCH", str(batch), "TRAIN.MICRO_BATCH", "0",
                "TRAIN.PRECISION", precision, "TRAIN.COMPILE", str(compiled),
            ])  # fmt: skip
    return rows
