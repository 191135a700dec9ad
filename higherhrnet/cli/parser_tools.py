"""Commands around training and predicting: weights, configs, data, bench."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import types
from .options import (
    CONFIG_HELP,
    TAIL,
    Commands,
    add_preset,
    add_weights,
    declare_verbs,
    device_options,
    offline_option,
)


def declare_weights(commands: Commands) -> None:
    declare = declare_verbs(
        commands, "weights",
        "list, fetch, inspect, convert, average and push checkpoints", "{}_weights",
    )  # fmt: skip

    declare("list", help="checkpoints that have a name: bundled, published")
    fetch = declare(
        "fetch", parents=[offline_option()], help="download a published checkpoint into the cache"
    )
    fetch.add_argument("name", metavar="NAME")
    inspect = declare("inspect", True, epilog=TAIL, help="say what a weights file holds")
    inspect.add_argument("file", metavar="FILE", help="weights file, or a name")
    convert = declare(
        "convert",
        True,
        epilog=f"{TAIL} A file without a config needs DATASET.SKELETON for joints of your own.",
        help="between native and official layout",
    )
    convert.add_argument("source", metavar="IN", help="weights file, or a name")
    convert.add_argument("target", metavar="OUT", type=Path, help="file to write")
    convert.add_argument("--to", choices=("native", "official"), help="default: by OUT's suffix")
    convert.add_argument("--half", action="store_true", help="native only: store float16")
    push = declare("push", help="upload a pose network to the Hugging Face Hub, with a model card")
    push.set_defaults(module="push")
    push.add_argument("file", metavar="FILE", help="native weights file, or a name")
    push.add_argument("repository", metavar="USER/MODEL")
    push.add_argument("--license", default="other", help="of the weights, for the model card")
    push.add_argument(
        "--metrics", type=Path, metavar="FILE", help="metrics.json of valid, for the model card"
    )
    push.add_argument("--private", action="store_true", help="if the repository is new")
    push.add_argument("--message", default="Upload weights", help="of the commit")
    push.add_argument("--card-only", action="store_true", help="print the card, upload nothing")
    average = declare("average", True, epilog=TAIL, help="the mean of checkpoints of one network")
    average.add_argument("sources", metavar="IN", nargs="+")
    average.add_argument("target", metavar="OUT.safetensors", type=Path)
    average.add_argument("--half", action="store_true", help="store float16")


def declare_configs(commands: Commands) -> None:
    declare = declare_verbs(
        commands, "configs", "list, show and copy bundled configs and plans", "{}_bundled"
    )

    declare("list", help="their names, with what they are for")
    show = declare("show", True, epilog=TAIL, help="print one")
    show.add_argument("name", metavar="NAME")
    show.add_argument("--full", action="store_true", help="with every setting, defaults included")
    copy = declare("copy", help="copy one, to change it")
    copy.add_argument("name", metavar="NAME")
    copy.add_argument("target", metavar="FILE", nargs="?", type=Path, help="default: its own name")


def declare_data(commands: Commands) -> None:
    declare = declare_verbs(
        commands, "data", "import, check, count, prepare and synthesize data sets", "{}_data", True
    )

    check = declare("check", help="look for mistakes in a config's data sets")
    check.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
    check.add_argument("--output", type=Path, metavar="DIR", help="folder for the contact sheets")
    check.add_argument(
        "--images",
        "--pictures",
        action="store_true",
        help="decode every image and name broken ones",
    )
    stats = declare("stats", help="people, sizes, joints and crowding of a config's data sets")
    stats.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
    prepare = declare("prepare", False, help="download or unpack a public data set")
    prepare.add_argument("name", choices=("coco", "crowdpose", "mpii"))
    prepare.add_argument("folder", metavar="DIR", type=Path)
    prepare.add_argument(
        "--offline", action="store_true", help="download nothing; say what to download by hand"
    )
    imported = declare(
        "import",
        False,
        help="bring in labels of another tool: SLEAP, DeepLabCut, Label Studio, CVAT, YOLO, COCO, "
        "AlphaTracker",
    )
    imported.set_defaults(module="labels")
    imported.add_argument(
        "source", metavar="SOURCE", type=Path, help="file of labels, its folder, or a .zip of it"
    )
    imported.add_argument("folder", metavar="OUT", type=Path, help="new folder")
    imported.add_argument(
        "--split", type=types.inner_share, metavar="SHARE",
        help="share of images to train on, by video where there are several (default: the source's "
        "own split, else 0.8)",
    )  # fmt: skip
    imported.add_argument(
        "--images", type=Path, metavar="DIR", help="where images or the video are, if elsewhere"
    )
    imported.add_argument(
        "--skeleton", metavar="FILE_OR_NAME",
        help="skeleton of these joints: order, bones, flip pairs and sigmas",
    )  # fmt: skip
    imported.add_argument("--format", choices=types.LABEL_FORMATS, help="default: by content")
    exported = declare(
        "export", False, help="predictions as label files, to correct them in another tool"
    )
    exported.set_defaults(module="labels")
    exported.add_argument(
        "predictions", metavar="PREDICTIONS.json", type=Path,
        help="what predict wrote, or any COCO file with keypoints",
    )  # fmt: skip
    exported.add_argument("output", metavar="OUT", type=Path, help="new file; yolo: new folder")
    exported.add_argument(
        "--to", required=True, choices=("coco", "label_studio", "yolo"),
        help="coco: what CVAT, COCO Annotator, FiftyOne and others import",
    )  # fmt: skip
    exported.add_argument(
        "--min-score", type=types.number, default=0.0, metavar="SCORE",
        help="leave out people scoring less",
    )  # fmt: skip
    exported.add_argument(
        "--prefix", default="", metavar="ADDRESS",
        help="label_studio: what stands before image names, e.g. /data/local-files/?d=images/",
    )  # fmt: skip
    split = declare("split", False, help="split a COCO-format file in two")
    split.set_defaults(module="labels")
    split.add_argument("file", metavar="FILE.json", type=Path)
    split.add_argument(
        "--split", type=types.inner_share, default=0.8, metavar="SHARE",
        help="share of images to train on, by video_id where there are several (default 0.8)",
    )  # fmt: skip
    split.add_argument("--output", type=Path, metavar="DIR", help="default: beside the file")
    skeleton = declare("skeleton", False, help="the skeleton YAML that labels describe")
    skeleton.set_defaults(module="labels")
    skeleton.add_argument("source", metavar="SOURCE", type=Path, help="as for data import")
    skeleton.add_argument("--format", choices=types.LABEL_FORMATS, help="default: by content")
    skeleton.add_argument("--output", type=Path, metavar="FILE.yaml", help="default: print it")
    synthetic = declare("synthetic", False, help="write synthetic people in COCO's layout")
    synthetic.add_argument("folder", metavar="DIR", type=Path)
    synthetic.add_argument("--images", type=int, required=True, metavar="N")
    synthetic.add_argument("--seed", type=types.seed, default=0)
    synthetic.add_argument("--size", type=int, default=256, help="side of an image, pixels")
    synthetic.add_argument("--people", type=int, nargs=2, default=[1, 4], metavar=("LOW", "HIGH"))
    synthetic.add_argument("--overlap", type=float, default=0.3, help="0 apart … 1 anywhere")
    synthetic.add_argument(
        "--occlusion", type=float, default=0.2, help="probability of an object in front"
    )


def declare_bench(commands: Commands) -> None:
    bench = commands.add_parser("bench", help="measure, print a table, write JSON")
    benches = bench.add_subparsers(required=True, metavar="BENCHMARK")
    common = device_options()
    common.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")

    def declare(name: str, text: str, settings: bool = True) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = benches.add_parser(
            name, parents=[common], epilog=TAIL if settings else None, help=text
        )
        parser.set_defaults(module="bench", function="bench", what=name, settings=settings)
        return parser

    positive = types.positive
    declare("loss", "losses beside plain loops", settings=False)
    declare("hostile", "files made to harm: what is said, time, memory", settings=False)
    decode = declare("decode", "from the network's outputs to people")
    decode.add_argument("--people", type=positive, nargs="+", default=[1, 5, 15, 30, 100])
    decode.add_argument("--repeats", type=positive, default=3, help="images a crowd (default 3)")
    model = declare("model", "the network, eager and prepared for inference")
    add_weights(model)
    model.add_argument("--sizes", type=types.side, nargs="+", default=[256, 512])
    model.add_argument("--batches", type=positive, nargs="+", default=[1, 4])
    model.add_argument("--compile", action="store_true", help="compiled rows too (minutes each)")
    engines = declare("engines", "the network in PyTorch, ONNX Runtime and OpenVINO")
    add_weights(engines)
    engines.add_argument("--size", type=types.side, default=512, help="side of the image")
    engines.add_argument("--repeats", type=positive, default=7, help="rounds (default 7)")
    engines.add_argument(
        "--exports", nargs="+", default=[], metavar="FILE", help="exported networks too"
    )
    pipeline = declare("pipeline", "from files to people")
    pipeline.add_argument("inputs", nargs="+", metavar="INPUT", help="image, folder or glob")
    add_weights(pipeline)
    pipeline.add_argument("--batches", type=positive, nargs="+", default=[1, 4])
    pipeline.add_argument("--workers", type=positive, nargs="+", default=[1, 2])
    dataset = declare("dataset", "a million images: measured parts, simulated workers")
    dataset.add_argument("inputs", nargs="+", metavar="INPUT", help="image, folder or glob")
    add_weights(dataset)
    add_preset(dataset, "test settings (default: the checkpoint's own)")
    dataset.add_argument("--workers", type=positive, nargs="+", default=[1, 8, 64, 256, 1024, 4096])
    dataset.add_argument("--images", type=positive, default=1_000_000)
    dataset.add_argument("--unit-size", type=positive, default=256, help="images (default 256)")
    dataset.add_argument(
        "--store", type=types.above_zero, default=1000.0, metavar="MB_S",
        help="MB a second of the object store, for all workers (default 1000)",
    )  # fmt: skip
    dataset.add_argument(
        "--failures", type=types.number, default=0.01, metavar="N",
        help="of a worker an hour (default 0.01)",
    )  # fmt: skip
    dataset.add_argument(
        "--ray", action="store_true", help="measure Ray's scheduler; else 1 ms a unit is assumed"
    )
    serve = declare("serve", "the server under load, with rubbish among the requests")
    add_weights(serve)
    serve.add_argument("--clients", type=positive, default=32)
    serve.add_argument("--requests", type=positive, default=2000)
    serve.add_argument("--broken", type=types.share, default=0.05, help="share (default 0.05)")
    track = declare("track", "ids through a synthetic video whose ids are known")
    add_weights(track)
    track.add_argument("--people", type=positive, nargs="+", default=[2, 4, 8])
    track.add_argument(
        "--seconds", type=types.above_zero, default=10.0, help="of video (default 10)"
    )
    track.add_argument("--seed", type=types.seed, default=0, help="of the videos")
    track.add_argument("--output", type=Path, metavar="DIR", help="write the videos there")
    evaluate = declare("evaluate", "the evaluation beside pycocotools", settings=False)
    evaluate.add_argument("--images", type=positive, nargs="+", default=[1000, 5000])
    evaluate.add_argument(
        "--parsed", type=positive, default=262_465, help="people in a file to parse"
    )
    data = declare("data", "the input pipeline by stage, on one core")
    data.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
    data.add_argument("--count", type=positive, default=200, help="images (default 200)")
    data.add_argument("--batch", type=positive, default=16, help="images a batch (default 16)")
    train = declare("train", "training steps: images/s and peak memory")
    train.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
    train.add_argument("--widths", type=positive, nargs="+", default=[18, 32])
    train.add_argument(
        "--sizes", type=types.side, nargs="+", help="bottom-up: of images (default 256 512)"
    )
    train.add_argument("--batches", type=positive, nargs="+", default=[4])
    train.add_argument("--steps", type=positive, default=5, help="measured a row (default 5)")
    train.add_argument("--compile", action="store_true", help="compiled rows too (minutes each)")
