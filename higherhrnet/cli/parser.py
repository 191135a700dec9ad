"""All commands and their options. Nothing heavy is imported: ``--help`` is immediate."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .. import __version__
from . import types

DEFAULT_WEIGHTS = "higherhrnet_w18_mini"
TAIL = "KEY VALUE pairs change settings of the config, e.g. TEST.FLIP_TEST False."
_CONFIG_HELP = "YAML file, or a name (higherhrnet configs list) like coco/higherhrnet_w32_512"
_Commands = Any
"""What ``ArgumentParser.add_subparsers`` returns."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line; ``module`` and ``function`` name what a command runs."""
    parser = argparse.ArgumentParser(
        prog="higherhrnet",
        description="Multi-person keypoint estimation with HigherHRNet and HRNet: train, validate "
        "and use them from one command.",
        epilog="Settings are changed by KEY VALUE pairs anywhere, e.g. TEST.FLIP_TEST False.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for declare in (
        _train,
        _valid,
        _predict,
        _predict_dataset,
        _demo,
        _export,
        _serve,
        _ablate,
        _submit,
        _weights,
        _data,
        _configs,
        _bench,
    ):
        declare(commands)
    return parser


def _offline() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--offline", action="store_true", help="download nothing; say where files can be found"
    )
    return parser


def _device() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, parents=[_offline()])
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    parser.add_argument("--verbose", action="store_true", help="say what was chosen, and why")
    return parser


def _gpus() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, parents=[_output()])
    parser.add_argument(
        "--gpus", type=types.positive, metavar="N", help="N processes, one a GPU (by torchrun)"
    )
    parser.add_argument(
        "--restarts", type=types.whole, default=0, metavar="N",
        help="with --gpus: start all anew, up to N times, when one is lost; training goes on from "
        "its last checkpoint",
    )  # fmt: skip
    return parser


def _output() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, parents=[_device()])
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for what is written (default below output/)",
    )
    return parser


def _add_weights(
    parser: argparse.ArgumentParser, required: bool = False, default: str | None = DEFAULT_WEIGHTS
) -> None:
    parser.add_argument(
        "--weights",
        required=required,
        default=None if required else default,
        metavar="FILE_OR_NAME",
        help=f"weights file, or a name (higherhrnet weights list) like {DEFAULT_WEIGHTS}",
    )


def _add_preset(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("--preset", choices=("fast", "balanced", "accurate"), help=help)


def _train(commands: _Commands) -> None:
    train = commands.add_parser(
        "train", parents=[_gpus()], epilog=TAIL, help="train what a config describes"
    )
    train.add_argument("config", metavar="CONFIG", help=_CONFIG_HELP)
    train.add_argument("--resume", action="store_true", help="go on from DIR/last.pth")
    train.add_argument(
        "--plan", action="store_true", help="estimate memory and work, and train nothing"
    )
    train.set_defaults(
        module="train",
        function="train",
        less_memory="Set TRAIN.MICRO_BATCH_SIZE lower or TRAIN.ACTIVATION_CHECKPOINTING True; "
        "higherhrnet train CONFIG --plan shows what fits. What was trained so far goes on from its "
        "last checkpoint with --resume",
    )


def _valid(commands: _Commands) -> None:
    valid = commands.add_parser(
        "valid", parents=[_gpus()], epilog=TAIL, help="measure AP on annotated images"
    )
    valid.add_argument("config", metavar="CONFIG", help=_CONFIG_HELP)
    _add_weights(valid, required=True)
    _add_preset(valid, "measure a preset's test settings instead of the config's")
    valid.add_argument(
        "--calibrate",
        action="store_true",
        help="write the operating point for images (TEST.DISPLAY_PRECISION) into the weights file; "
        "with --preset that of the preset, whose test settings are those that were measured",
    )
    valid.add_argument(
        "--report",
        action="store_true",
        help="analyze errors: report.md, report.png, keypoint_errors.csv, worst.jpg",
    )
    valid.set_defaults(module="valid", function="valid")


def _predict(commands: _Commands) -> None:
    predict = commands.add_parser(
        "predict", parents=[_gpus()], epilog=TAIL,
        help="find and draw people in images and videos",
    )  # fmt: skip
    predict.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image, video, folder, glob, camera:0, rtsp://… or http(s)://… of an image or stream",
    )
    _add_weights(predict, default=None)
    predict.add_argument(
        "--mode",
        choices=("bottom-up", "top-down"),
        help="which bundled weights to take (default bottom-up); given weights know their own",
    )
    predict.add_argument(
        "--boxes",
        metavar="SOURCE",
        help="top-down: where boxes come from: a detector of torchvision like "
        "fasterrcnn_resnet50_fpn_v2 (default; its weights are downloaded once), bottom-up weights "
        f"like {DEFAULT_WEIGHTS} (bundled), or a COCO result file, or annotations with boxes",
    )
    predict.add_argument(
        "--recursive", action="store_true", help="look into folders' subfolders, too"
    )
    predict.add_argument(
        "--skip-done",
        action="store_true",
        help="go on after a kill: leave out images whose people are in the output folder already",
    )
    predict.add_argument(
        "--live", nargs="?", type=types.port, const=8001, metavar="PORT",
        help="show videos and cameras on a local page while they are predicted (port 8001)",
    )  # fmt: skip
    _add_drawing(predict)
    predict.set_defaults(module="predict", function="predict")


def _predict_dataset(commands: _Commands) -> None:
    predict = commands.add_parser(
        "predict-dataset", parents=[_gpus()], epilog=TAIL,
        help="find people in very many images: folders, tar shards, object stores → Parquet",
    )  # fmt: skip
    predict.add_argument(
        "sources", nargs="+", metavar="SOURCE",
        help="folder, glob, shard-{0000..0099}.tar, @list.txt, or an address like s3://bucket/folder",
    )  # fmt: skip
    _add_weights(predict)
    _add_preset(predict, "test settings (default: the checkpoint's own)")
    predict.add_argument(
        "--unit-size", type=types.positive, default=256, metavar="N",
        help="images of a file; a kill loses no more (default 256; a tar archive is one file)",
    )  # fmt: skip
    predict.add_argument(
        "--ray", nargs="?", const="local", metavar="ADDRESS",
        help="spread over the workers of a Ray cluster; without ADDRESS one on this machine",
    )  # fmt: skip
    predict.add_argument(
        "--workers", type=types.whole, default=0, metavar="N",
        help="of Ray (default: one a GPU, or one a CPU core)",
    )  # fmt: skip
    predict.set_defaults(
        module="predict_dataset", function="predict_many", output=Path("output/predict_dataset")
    )


def _demo(commands: _Commands) -> None:
    demo = commands.add_parser(
        "demo", parents=[_output()], help="find people in an image that comes with the package"
    )
    _add_drawing(demo)
    demo.set_defaults(
        module="predict", function="demo", settings=False, weights=None, mode=None, boxes=None
    )


def _export(commands: _Commands) -> None:
    export = commands.add_parser(
        "export",
        parents=[_offline()],
        epilog=TAIL,
        help="write a network for ONNX Runtime, OpenVINO, TensorRT or the browser",
    )
    export.add_argument(
        "weights", metavar="MODEL", help=f"weights file, or a name like {DEFAULT_WEIGHTS}"
    )
    export.add_argument(
        "--to",
        choices=("onnx", "openvino", "torch_export", "web"),
        default="onnx",
        help="format (default onnx); web: a folder with a page that finds people in the browser",
    )
    export.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="of weights and arithmetic (default fp32)",
    )
    sizes = export.add_mutually_exclusive_group()
    sizes.add_argument(
        "--size",
        nargs=2,
        type=types.positive,
        metavar=("H", "W"),
        help="one input size, multiples of 32, into which images are fitted",
    )
    sizes.add_argument(
        "--dynamic",
        action="store_true",
        help="any height and width that are multiples of 32 (default)",
    )
    export.add_argument("--flip", action="store_true", help="do the flip test inside")
    export.add_argument(
        "--decode", action="store_true", help="find peaks inside: points, scores and tags come out"
    )
    _add_preset(export, "test settings that go along (default: the checkpoint's own)")
    export.add_argument(
        "--images",
        nargs="+",
        metavar="IMAGE",
        help="int8: images, folders or globs to calibrate on; 100 to 300 are enough",
    )
    export.add_argument(
        "--compare",
        metavar="CONFIG",
        help="measure AP of the weights and of the export on the config's test images",
    )
    export.add_argument(
        "--output", type=Path, metavar="FILE", help="default output/MODEL.SUFFIX; web: a folder"
    )
    export.set_defaults(module="export", function="export")


def _serve(commands: _Commands) -> None:
    serve = commands.add_parser(
        "serve",
        parents=[_device()],
        epilog=TAIL,
        help="answer HTTP requests, with a page",
    )
    serve.add_argument(
        "weights", nargs="?", default=DEFAULT_WEIGHTS, metavar="MODEL",
        help=f"weights file, a name, or an exported network (default {DEFAULT_WEIGHTS})",
    )  # fmt: skip
    serve.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1: this machine alone")
    serve.add_argument(
        "--port", type=types.port, default=8000, help="default 8000; 0 takes a free one"
    )
    serve.add_argument(
        "--compare", nargs=1, default=[], metavar="MODEL",
        help="a model of the other method, for requests that name it and for the page",
    )  # fmt: skip
    serve.add_argument(
        "--queue", type=types.positive, default=64, metavar="N",
        help="images that may wait (default 64); more are answered by 503",
    )  # fmt: skip
    serve.add_argument(
        "--max-bytes", type=types.positive, default=20 << 20, metavar="N", help="of an image"
    )
    serve.add_argument(
        "--max-pixels", type=types.positive, default=50_000_000, metavar="N", help="of an image"
    )
    serve.add_argument(
        "--timeout", type=types.above_zero, default=60.0, metavar="SECONDS", help="of a request"
    )
    serve.set_defaults(module="serve", function="serve")


def _add_drawing(parser: argparse.ArgumentParser) -> None:
    _add_preset(
        parser,
        "test settings from fast (one scale, no flip) to accurate (the checkpoint's own); default: "
        "its own for images, fast for videos if it is calibrated",
    )
    parser.add_argument(
        "--min-score",
        type=types.number,
        metavar="SCORE",
        help="leave out people scoring less (default: the checkpoint's operating point)",
    )
    parser.add_argument(
        "--raw", action="store_true", help="keep all people: no operating point, as for AP"
    )
    parser.add_argument(
        "--show",
        nargs="+",
        choices=("poses", "heatmaps", "none"),
        default=["poses"],
        help="draw people (default), heatmaps and (of images) tags, or nothing",
    )
    parser.add_argument(
        "--track",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="number the people of a video (default)",
    )
    parser.add_argument("--smooth", action="store_true", help="smooth the joints of a video")


def _ablate(commands: _Commands) -> None:
    ablate = commands.add_parser(
        "ablate", parents=[_output()], epilog=TAIL,
        help="train and compare what a plan lists, and report why they differ",
    )  # fmt: skip
    ablate.add_argument("plan", type=Path, metavar="PLAN", help="configs/ablation/*.yaml")
    ablate.add_argument(
        "--processes", type=types.positive, default=1, metavar="N",
        help="runs at the same time (default 1)",
    )  # fmt: skip
    ablate.set_defaults(module="ablate", function="ablate")


def _submit(commands: _Commands) -> None:
    submit = commands.add_parser(
        "submit",
        help="send a train, valid or ablate command to a Slurm cluster",
        epilog="What follows COMMAND is its own: higherhrnet submit --gpus 4 train CONFIG --output "
        "DIR KEY VALUE.",
    )
    submit.add_argument(
        "--cluster", choices=("auto", "slurm", "local"), default="auto",
        help="auto: Slurm where there is one, else processes on this machine",
    )  # fmt: skip
    submit.add_argument("--nodes", type=types.positive, default=1, metavar="N")
    submit.add_argument(
        "--gpus", dest="node_gpus", type=types.whole, default=0, metavar="N", help="of a node"
    )
    submit.add_argument(
        "--tasks", type=types.positive, metavar="N",
        help="processes of a node (default: one a GPU)",
    )  # fmt: skip
    submit.add_argument("--cpus", type=types.positive, default=4, metavar="N", help="of a task")
    submit.add_argument("--memory", type=types.positive, default=16, metavar="GB", help="of a node")
    submit.add_argument("--hours", type=types.above_zero, default=24.0)
    submit.add_argument("--partition", metavar="NAME")
    submit.add_argument("--account", metavar="NAME")
    submit.add_argument(
        "--slurm", action="append", default=[], metavar="KEY=VALUE",
        help="any other parameter of sbatch, e.g. constraint=h100",
    )  # fmt: skip
    submit.add_argument(
        "--logs", type=Path, default=Path("output/submit"), metavar="DIR",
        help="scripts and what jobs print (default output/submit)",
    )  # fmt: skip
    submit.add_argument("--wait", action="store_true", help="until the job has ended")
    submit.add_argument("command", metavar="COMMAND", choices=("train", "valid", "ablate"))
    submit.add_argument("words", nargs=argparse.REMAINDER, metavar="…", help="as without submit")
    submit.set_defaults(module="submit", function="submit")


def _weights(commands: _Commands) -> None:
    weights = commands.add_parser(
        "weights", help="list, fetch, inspect, convert, average and push checkpoints"
    )
    verbs = weights.add_subparsers(required=True, metavar="COMMAND")

    def declare(name: str, settings: bool = False, **options: Any) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, **options)
        parser.set_defaults(module="weights", function=f"{name}_weights", settings=settings)
        return parser

    declare("list", help="checkpoints that have a name: bundled, published")
    fetch = declare(
        "fetch", parents=[_offline()], help="download a published checkpoint into the cache"
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
    push = declare("push", help="upload to the Hugging Face Hub, with a model card")
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


def _configs(commands: _Commands) -> None:
    configs = commands.add_parser("configs", help="list, show and copy bundled configs and plans")
    verbs = configs.add_subparsers(required=True, metavar="COMMAND")

    def declare(name: str, settings: bool = False, **options: Any) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, **options)
        parser.set_defaults(module="configs", function=f"{name}_bundled", settings=settings)
        return parser

    declare("list", help="their names, with what they are for")
    show = declare("show", True, epilog=TAIL, help="print one")
    show.add_argument("name", metavar="NAME")
    show.add_argument("--full", action="store_true", help="with every setting, defaults included")
    copy = declare("copy", help="copy one, to change it")
    copy.add_argument("name", metavar="NAME")
    copy.add_argument("target", metavar="FILE", nargs="?", type=Path, help="default: its own name")


def _data(commands: _Commands) -> None:
    data = commands.add_parser(
        "data", help="import, check, count, prepare and synthesize data sets"
    )
    verbs = data.add_subparsers(required=True, metavar="COMMAND")

    def declare(name: str, settings: bool = True, **options: Any) -> argparse.ArgumentParser:
        epilog = TAIL if settings else None
        parser: argparse.ArgumentParser = verbs.add_parser(name, epilog=epilog, **options)
        parser.set_defaults(module="data", function=f"{name}_data", settings=settings)
        return parser

    check = declare("check", help="look for mistakes in a config's data sets")
    check.add_argument("config", metavar="CONFIG", help=_CONFIG_HELP)
    check.add_argument("--output", type=Path, metavar="DIR", help="folder for the contact sheets")
    check.add_argument(
        "--images",
        "--pictures",
        action="store_true",
        help="decode every image and name broken ones",
    )
    stats = declare("stats", help="people, sizes, joints and crowding of a config's data sets")
    stats.add_argument("config", metavar="CONFIG", help=_CONFIG_HELP)
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


def _bench(commands: _Commands) -> None:
    bench = commands.add_parser("bench", help="measure, print a table, write JSON")
    benches = bench.add_subparsers(required=True, metavar="BENCHMARK")
    common = _device()
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
    _add_weights(model)
    model.add_argument("--sizes", type=types.side, nargs="+", default=[256, 512])
    model.add_argument("--batches", type=positive, nargs="+", default=[1, 4])
    model.add_argument("--compile", action="store_true", help="compiled rows too (minutes each)")
    engines = declare("engines", "the network in PyTorch, ONNX Runtime and OpenVINO")
    _add_weights(engines)
    engines.add_argument("--size", type=types.side, default=512, help="side of the image")
    engines.add_argument("--repeats", type=positive, default=7, help="rounds (default 7)")
    engines.add_argument(
        "--exports", nargs="+", default=[], metavar="FILE", help="exported networks too"
    )
    pipeline = declare("pipeline", "from files to people")
    pipeline.add_argument("inputs", nargs="+", metavar="INPUT", help="image, folder or glob")
    _add_weights(pipeline)
    pipeline.add_argument("--batches", type=positive, nargs="+", default=[1, 4])
    pipeline.add_argument("--workers", type=positive, nargs="+", default=[1, 2])
    dataset = declare("dataset", "a million images: measured parts, simulated workers")
    dataset.add_argument("inputs", nargs="+", metavar="INPUT", help="image, folder or glob")
    _add_weights(dataset)
    _add_preset(dataset, "test settings (default: the checkpoint's own)")
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
    _add_weights(serve)
    serve.add_argument("--clients", type=positive, default=32)
    serve.add_argument("--requests", type=positive, default=2000)
    serve.add_argument("--broken", type=types.share, default=0.05, help="share (default 0.05)")
    track = declare("track", "ids through a synthetic video whose ids are known")
    _add_weights(track)
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
    data.add_argument("config", metavar="CONFIG", help=_CONFIG_HELP)
    data.add_argument("--count", type=positive, default=200, help="images (default 200)")
    data.add_argument("--batch", type=positive, default=16, help="images a batch (default 16)")
    train = declare("train", "training steps: images/s and peak memory")
    train.add_argument("config", metavar="CONFIG", help=_CONFIG_HELP)
    train.add_argument("--widths", type=positive, nargs="+", default=[18, 32])
    train.add_argument(
        "--sizes", type=types.side, nargs="+", help="bottom-up: of images (default 256 512)"
    )
    train.add_argument("--batches", type=positive, nargs="+", default=[4])
    train.add_argument("--steps", type=positive, default=5, help="measured a row (default 5)")
    train.add_argument("--compile", action="store_true", help="compiled rows too (minutes each)")
