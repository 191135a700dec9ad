"""Multi-person keypoint estimation: HigherHRNet, trained, validated and used from one command."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from itertools import product
from pathlib import Path

import torch

from . import __version__, build, show
from .bench import data as bench_data
from .bench import decode as bench_decode
from .bench import loss as bench_loss
from .bench import model as bench_model
from .bench import pipeline as bench_pipeline
from .bench import plan, table
from .bench import train as bench_train
from .config import Config, parse_config, read_config, to_yaml
from .datasets.check import check
from .datasets.keypoints import CocoKeypoints, Joined
from .datasets.loader import Views, WorkerLostError
from .datasets.pictures import read_picture
from .datasets.toy import DrawnPeople, write_coco
from .evaluation import results
from .files import write_json
from .inference.frames import find_pictures, output_names
from .models import weights
from .training.distributed import PeerLostError, is_main_process
from .training.stop import StoppedError
from .training.watch import DivergenceError

_KEY = re.compile(r"(MODEL|DATASET|TOY|LOSS|TRAIN|TEST)\.[A-Z_0-9]+")
DEFAULT_WEIGHTS = "higherhrnet_w18_mini"
WEIGHTS_HELP = f"weights file, or a bundled name like {DEFAULT_WEIGHTS}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 failed while running, 2 wrong input."""
    words, overrides = split_overrides(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words)
    options.overrides = overrides
    try:
        if overrides and options.run in (_demo, _inspect, _convert, _toy):
            raise ValueError(f"this command has no config, so '{overrides[0]}' changes nothing")
        status: int = options.run(options)
        return status
    except ValueError as error:
        print(f"higherhrnet: {error}", file=sys.stderr)
        return 2
    except (DivergenceError, PeerLostError, WorkerLostError, OSError) as error:
        print(f"higherhrnet: {error}", file=sys.stderr)
        return 1
    except torch.OutOfMemoryError as error:
        print(
            f"higherhrnet: {str(error).splitlines()[0]} Set TRAIN.MICRO_BATCH lower or "
            "TRAIN.CHECKPOINTING True; higherhrnet train CONFIG --plan shows what fits",
            file=sys.stderr,
        )
        return 1
    except StoppedError as error:
        print(f"higherhrnet: {error}", file=sys.stderr)
        return 128 + error.signal
    except KeyboardInterrupt:
        print("higherhrnet: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take ``SECTION.KEY VALUE`` pairs out of the command line, wherever they stand."""
    rest: list[str] = []
    overrides: list[str] = []
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        if _KEY.fullmatch(word):
            overrides += [word, *remaining[:1]]
            del remaining[:1]
        else:
            rest.append(word)
    return rest, overrides


def _train(options: argparse.Namespace) -> int:
    config = read_config(options.config, options.overrides)
    if options.plan:
        on = build.device(options.device)
        lines, rows = plan.run(config, on, int(os.environ.get("WORLD_SIZE", "1")))
        print("\n".join(lines))
        table.show("plan", rows, table.hardware(on))
        return 0
    output = options.output or _default_output(options.config)
    if config.MODEL.NAME == "classifier":
        best = build.pretrain(config, output, options.device, options.resume)
        if is_main_process():
            print(f"best accuracy {100 * best:.2f}; weights in {output / 'best.pth'}")
        return 0
    best = build.train(config, output, options.device, options.resume)
    if is_main_process():
        print(f"best AP {100 * best:.2f}; weights in {output / 'best.safetensors'}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    on = build.device(options.device)
    if options.what == "loss":
        rows = bench_loss.run(on)
    elif options.what == "decode":
        config = parse_config("", options.overrides, "the command line")
        joints = build.skeleton(config)
        coder = build.codec(config, build.model(config, len(joints)), joints)
        size = config.DATASET.INPUT_SIZE
        rows = bench_decode.run(coder, on, options.people, size, options.repeats)
    elif options.what == "model":
        found = build.load(options.weights, options.device, options.overrides)
        rows = bench_model.run(found.model, on, options.sizes, options.batches, options.compile)
    elif options.what == "pipeline":
        found = build.load(options.weights, options.device, options.overrides)
        files_found = find_pictures(options.inputs)
        rows = bench_pipeline.run(found, files_found, options.batches, options.workers)
    else:
        config = read_config(options.config, options.overrides)
        if options.what == "data":
            pictures = build.pictures(config, "train")
            if not isinstance(pictures, CocoKeypoints):
                raise ValueError("bench data measures files; the config's pictures are drawn")
            joints = build.skeleton(config)
            network = build.model(config, len(joints))
            coder = build.codec(config, network, joints)
            batches, feed = build.input_path(config, pictures, coder, on)
            assert isinstance(batches.items, Views)
            rows = bench_data.run(
                pictures, batches.items, feed, network.heads, options.count, options.batch
            )
        else:
            rows = bench_train.run(config, on, _variants(options, config), options.steps)
    machine = table.hardware(on)
    table.show(f"bench {options.what}", rows, machine)
    if options.json:
        command = " ".join(["higherhrnet", *sys.argv[1:]])
        table.write(options.json, command, rows, machine)
        print(f"written to {options.json}")
    return 0


def _variants(options: argparse.Namespace, config: build.Config) -> list[list[str]]:
    """Overrides of every row of ``bench train``: the plain step first, the rest against it."""
    rows = []
    for width, size, batch in product(options.widths, options.sizes, options.batches):
        for precision, compiled in (("fp32", False), ("bf16", False), ("bf16", True)):
            if compiled and not options.compile:
                continue
            rows.append([
                "MODEL.WIDTH", str(width), "DATASET.INPUT_SIZE", str(size),
                "TRAIN.BATCH", str(batch), "TRAIN.MICRO_BATCH", "0",
                "TRAIN.PRECISION", precision, "TRAIN.COMPILE", str(compiled),
            ])  # fmt: skip
    return rows


def _valid(options: argparse.Namespace) -> int:
    config = read_config(options.config, options.overrides)
    output = options.output or _default_output(options.config)
    file = weights.read(build.find_weights(options.weights))
    joints = build.skeleton(config)
    network = build.model(config, len(joints))
    print(f"{file.path}: {weights.load_all(network, file)}")
    predictor = build.predictor(config, network, joints, build.device(options.device))
    truth = build.pictures(config, "test")
    found = build.validate(predictor, truth, batch=config.TEST.BATCH, workers=config.TEST.WORKERS)
    protocol = _protocol(config)
    write_json(output / "results.json", found.records)
    write_json(
        output / "metrics.json",
        {
            "metrics": found.metrics,
            "health": found.health,
            "protocol": protocol,
            "weights": options.weights,
            "pictures": len(truth),
            "people": len(found.records),
            "people_beyond_20_a_picture": found.beyond,
        },
    )
    print(f"{len(truth)} pictures, {len(found.records)} people found; protocol:")
    print("  " + ", ".join(f"{name} {value}" for name, value in protocol.items()))
    print(results.table(found.metrics))
    if "tags/separability" in found.health:
        print(
            "  tags: {tags/within:.2f} within a person, {tags/between:.2f} between people, "
            "separability {tags/separability:.3f}, true joints grouped right "
            "{tags/grouped_right:.3f}".format_map(found.health)
        )
    if found.beyond:
        print(f"{found.beyond} people were beyond the 20 a picture that COCO's evaluation looks at")
    print(f"results.json and metrics.json in {output}")
    return 0


def _protocol(config: Config) -> dict[str, object]:
    """The settings that produced a figure."""
    test = config.TEST
    return {
        "size": config.DATASET.INPUT_SIZE,
        "flip": test.FLIP,
        "scales": list(test.SCALES),
        "project": test.PROJECT,
        "aggregate": test.AGGREGATE,
        "adjust": test.ADJUST,
        "refine": test.REFINE,
        "threshold": test.THRESHOLD,
        "tag threshold": test.TAG_THRESHOLD,
        "candidates": test.CANDIDATES,
        "assignment": test.ASSIGNMENT,
        "precision": test.PRECISION,
    }


def _predict(options: argparse.Namespace) -> int:
    return predict(
        options.inputs,
        options.weights,
        options.output or Path("output/predict"),
        options.device,
        options.min_score,
        options.overrides,
    )


def predict(
    inputs: Sequence[str],
    weights_name: str,
    output: Path,
    device: str,
    min_score: float,
    overrides: Sequence[str],
) -> int:
    """Draw and list the people of pictures; a broken picture is reported and the rest is done."""
    pictures = find_pictures(inputs)
    predictor = build.load(weights_name, device, overrides)
    images, annotations, failures = [], [], 0
    seconds = {"read": 0.0, "write": 0.0}
    interrupted: KeyboardInterrupt | None = None
    for number, (path, name) in enumerate(zip(pictures, output_names(pictures), strict=True), 1):
        try:
            with timed(seconds, "read"):
                image = read_picture(path, upright=True)
            poses = predictor(image).filter(person=min_score)
            with timed(seconds, "write"):
                show.save(output / name, poses.draw(image, predictor.skeleton))
        except ValueError as error:
            failures += 1
            print(f"higherhrnet: {error}", file=sys.stderr)
            continue
        except KeyboardInterrupt as error:
            interrupted = error
            break
        people = "1 person" if len(poses) == 1 else f"{len(poses)} people"
        print(f"{path}: {people} → {output / name}")
        height, width = image.shape[:2]
        images.append({"id": number, "file_name": str(path), "width": width, "height": height})
        annotations += poses.to_coco(number)
    category = {"id": 1, "name": "person", "keypoints": list(predictor.skeleton.joints)}
    write_json(
        output / "predictions.json",
        {"images": images, "annotations": annotations, "categories": [category]},
    )
    if images:
        spent = seconds | predictor.seconds
        shares = ", ".join(f"{k} {1000 * v / len(images):.0f}" for k, v in spent.items())
        print(f"found {len(annotations)} in {len(images)}; ms a picture: {shares}")
    print(f"predictions.json in {output}")
    if interrupted:
        raise interrupted
    return 2 if failures else 0


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the block's wall-clock seconds to a stage."""
    start = time.perf_counter()
    yield
    seconds[stage] += time.perf_counter() - start


def _demo(options: argparse.Namespace) -> int:
    with as_file(files("higherhrnet") / "assets" / "crowd.png") as picture:
        return predict(
            [str(picture)], DEFAULT_WEIGHTS, options.output, "auto", options.min_score, []
        )


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
        weights.write(options.target, network.state_dict(), to_yaml(config), joints, options.half)
    else:
        weights.write_official(options.target, network.state_dict())
    print(f"{file.path}: {report}; written as {to} to {options.target}")
    return 0


def _check(options: argparse.Namespace) -> int:
    config = read_config(options.config, options.overrides)
    failed = False
    for split in ("train", "test"):
        pictures = build.pictures(config, split)
        for part in pictures.parts if isinstance(pictures, Joined) else [pictures]:
            if not isinstance(part, CocoKeypoints):
                print(f"{split}: {len(part)} drawn pictures, nothing to check")
                continue
            counts, problems = check(part)
            print(f"{split}: " + ", ".join(f"{number} {what}" for what, number in counts.items()))
            for problem in problems:
                print(f"higherhrnet: '{part.annotation_file}': {problem}", file=sys.stderr)
            failed |= bool(problems)
    return 2 if failed else 0


def _toy(options: argparse.Namespace) -> int:
    if options.images < 1:
        raise ValueError(f"--images must be at least 1, not {options.images}")
    people = DrawnPeople(
        count=options.images,
        seed=options.seed,
        size=options.size,
        people=tuple(options.people),
        overlap=options.overlap,
        occlusion=options.occlusion,
    )
    file = write_coco(options.folder, people)
    print(f"{options.images} pictures with {len(people.annotations['annotations'])} people: {file}")
    return 0


def _default_output(config: str) -> Path:
    return Path("output") / Path(config).stem


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="higherhrnet",
        description=__doc__,
        epilog="Settings are changed by KEY VALUE pairs anywhere, e.g. TEST.FLIP False.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--output", type=Path, metavar="DIR", help="folder for what is written")
    where.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    tail = "KEY VALUE pairs change settings of the config, e.g. TRAIN.EPOCHS 10."

    train = verbs.add_parser(
        "train", parents=[where], epilog=tail, help="train what a config describes"
    )
    train.add_argument("config", metavar="CONFIG")
    train.add_argument("--resume", action="store_true", help="go on from DIR/last.pth")
    train.add_argument(
        "--plan", action="store_true", help="say what it needs (memory, work) and train nothing"
    )
    train.set_defaults(run=_train)

    valid = verbs.add_parser(
        "valid", parents=[where], epilog=tail, help="measure AP on annotated pictures"
    )
    valid.add_argument("config", metavar="CONFIG")
    valid.add_argument("--weights", required=True, metavar="FILE_OR_NAME", help=WEIGHTS_HELP)
    valid.set_defaults(run=_valid)

    predictor = verbs.add_parser(
        "predict", parents=[where], epilog=tail, help="find and draw people in pictures"
    )
    predictor.add_argument("inputs", nargs="+", metavar="INPUT", help="picture, folder or glob")
    predictor.add_argument(
        "--weights", default=DEFAULT_WEIGHTS, metavar="FILE_OR_NAME", help=WEIGHTS_HELP
    )
    _add_min_score(predictor)
    predictor.set_defaults(run=_predict)

    weight = verbs.add_parser("weights", help="look into and convert weights files")
    weight_verbs = weight.add_subparsers(required=True, metavar="COMMAND")
    inspect = weight_verbs.add_parser("inspect", help="say what a weights file holds")
    inspect.add_argument("file", metavar="FILE")
    inspect.set_defaults(run=_inspect)
    convert = weight_verbs.add_parser("convert", help="between our and the original layout")
    convert.add_argument("source", metavar="IN")
    convert.add_argument("target", metavar="OUT", type=Path)
    convert.add_argument("--to", choices=("native", "official"), help="default: by OUT's suffix")
    convert.add_argument("--half", action="store_true", help="native only: store float16")
    convert.set_defaults(run=_convert)

    data = verbs.add_parser("data", help="check annotations, draw pictures")
    data_verbs = data.add_subparsers(required=True, metavar="COMMAND")
    checker = data_verbs.add_parser("check", epilog=tail, help="look over a config's data sets")
    checker.add_argument("config", metavar="CONFIG")
    checker.set_defaults(run=_check)
    toy = data_verbs.add_parser("toy", help="write drawn people in COCO's layout")
    toy.add_argument("folder", metavar="DIR", type=Path)
    toy.add_argument("--images", type=int, required=True, metavar="N")
    toy.add_argument("--seed", type=int, default=0)
    toy.add_argument("--size", type=int, default=256, help="side of a picture, pixels")
    toy.add_argument("--people", type=int, nargs=2, default=(1, 4), metavar=("LOW", "HIGH"))
    toy.add_argument("--overlap", type=float, default=0.3, help="0 apart … 1 anywhere")
    toy.add_argument("--occlusion", type=float, default=0.2, help="chance of an object in front")
    toy.set_defaults(run=_toy)

    bench = verbs.add_parser("bench", help="measure, print a table, write JSON")
    benches = bench.add_subparsers(required=True, metavar="WHAT")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    common.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    losses = benches.add_parser("loss", parents=[common], help="losses beside plain loops")
    losses.set_defaults(run=_bench, what="loss")
    decoder = benches.add_parser(
        "decode", parents=[common], epilog=tail, help="from the network's answers to people"
    )
    decoder.add_argument("--people", type=int, nargs="+", default=[1, 5, 15, 30, 100])
    decoder.add_argument("--repeats", type=int, default=3, help="pictures a crowd (default 3)")
    decoder.set_defaults(run=_bench, what="decode")
    forward = benches.add_parser(
        "model", parents=[common], epilog=tail, help="the network, eager and made ready"
    )
    forward.add_argument("--weights", default=DEFAULT_WEIGHTS, metavar="FILE_OR_NAME")
    forward.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    forward.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    forward.add_argument("--compile", action="store_true", help="compiled rows too (minutes each)")
    forward.set_defaults(run=_bench, what="model")
    whole_path = benches.add_parser(
        "pipeline", parents=[common], epilog=tail, help="from files to people"
    )
    whole_path.add_argument("inputs", nargs="+", metavar="INPUT", help="picture, folder or glob")
    whole_path.add_argument("--weights", default=DEFAULT_WEIGHTS, metavar="FILE_OR_NAME")
    whole_path.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    whole_path.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    whole_path.set_defaults(run=_bench, what="pipeline")
    input_path = benches.add_parser(
        "data", parents=[common], epilog=tail, help="the input path by stage, on one core"
    )
    input_path.add_argument("config", metavar="CONFIG")
    input_path.add_argument("--count", type=int, default=200, help="pictures (default 200)")
    input_path.add_argument("--batch", type=int, default=16, help="pictures a batch (default 16)")
    input_path.set_defaults(run=_bench, what="data")
    steps = benches.add_parser(
        "train", parents=[common], epilog=tail, help="training steps: images/s and peak memory"
    )
    steps.add_argument("config", metavar="CONFIG")
    steps.add_argument("--widths", type=int, nargs="+", default=[18, 32])
    steps.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    steps.add_argument("--batches", type=int, nargs="+", default=[4])
    steps.add_argument("--steps", type=int, default=5, help="measured a row (default 5)")
    steps.add_argument("--compile", action="store_true", help="compiled rows too (minutes each)")
    steps.set_defaults(run=_bench, what="train")

    demo = verbs.add_parser("demo", help="find people in a picture that comes with the package")
    demo.add_argument("--output", type=Path, default=Path("output/demo"), metavar="DIR")
    _add_min_score(demo)
    demo.set_defaults(run=_demo)
    return parser


def _add_min_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--min-score", type=float, default=0.1, help="leave out people scoring less (default 0.1)"
    )
