"""The parser of all commands; those that train and predict are declared here. Nothing heavy is
imported: ``--help`` is immediate."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import __version__
from . import types
from .options import (
    CONFIG_HELP,
    DEFAULT_WEIGHTS,
    TAIL,
    Commands,
    add_preset,
    add_weights,
    device_options,
    gpu_options,
    offline_option,
    output_options,
)
from .parser_tools import declare_bench, declare_configs, declare_data, declare_weights
from .suggestions import SuggestingParser


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line; ``module`` and ``function`` name what a command runs."""
    parser = SuggestingParser(
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
        declare_weights,
        declare_data,
        declare_configs,
        declare_bench,
    ):
        declare(commands)
    return parser


def _train(commands: Commands) -> None:
    train = commands.add_parser(
        "train", parents=[gpu_options()], epilog=TAIL, help="train what a config describes"
    )
    train.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
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


def _valid(commands: Commands) -> None:
    valid = commands.add_parser(
        "valid",
        parents=[gpu_options()],
        epilog=TAIL,
        help="measure AP, mIoU or accuracy on annotated images",
    )
    valid.add_argument("config", metavar="CONFIG", help=CONFIG_HELP)
    add_weights(valid, required=True)
    add_preset(valid, "measure a preset's test settings instead of the config's")
    valid.add_argument(
        "--calibrate",
        action="store_true",
        help="write the operating point for images (TEST.DISPLAY_PRECISION) into the weights file; "
        "with --preset that of the preset, whose test settings are those that were measured",
    )
    valid.add_argument(
        "--report",
        action="store_true",
        help="of poses: analyze errors: report.md, report.png, keypoint_errors.csv, worst.jpg",
    )
    valid.set_defaults(module="valid", function="valid")


def _predict(commands: Commands) -> None:
    predict = commands.add_parser(
        "predict", parents=[gpu_options()], epilog=TAIL,
        help="find and draw people in images and videos; boxes, label maps",
    )  # fmt: skip
    predict.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image, video, folder, glob, camera:0, rtsp://… or http(s)://… of an image or stream",
    )
    add_weights(predict, default=None)
    predict.add_argument(
        "--mode",
        choices=("bottom-up", "top-down"),
        help="which bundled weights to take (default bottom-up); given weights know their own",
    )
    predict.add_argument(
        "--boxes",
        metavar="SOURCE",
        help="top-down: where boxes come from: weights of a detector (default fcos_w18_person, "
        f"bundled) or of a bottom-up network like {DEFAULT_WEIGHTS}, a detector of torchvision "
        "like fasterrcnn_resnet50_fpn_v2 (downloaded once), a COCO result file, or annotations "
        "with boxes",
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


def _predict_dataset(commands: Commands) -> None:
    predict = commands.add_parser(
        "predict-dataset", parents=[gpu_options()], epilog=TAIL,
        help="find people in very many images: folders, tar shards, object stores → Parquet",
    )  # fmt: skip
    predict.add_argument(
        "sources", nargs="+", metavar="SOURCE",
        help="folder, glob, shard-{0000..0099}.tar, @list.txt, or an address like s3://bucket/folder",
    )  # fmt: skip
    add_weights(predict)
    add_preset(predict, "test settings (default: the checkpoint's own)")
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


def _demo(commands: Commands) -> None:
    demo = commands.add_parser(
        "demo",
        parents=[output_options()],
        help="find people in an image that comes with the package",
    )
    _add_drawing(demo)
    demo.set_defaults(
        module="predict", function="demo", settings=False, weights=None, mode=None, boxes=None
    )


def _export(commands: Commands) -> None:
    export = commands.add_parser(
        "export",
        parents=[offline_option()],
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
    add_preset(export, "test settings that go along (default: the checkpoint's own)")
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


def _serve(commands: Commands) -> None:
    serve = commands.add_parser(
        "serve",
        parents=[device_options()],
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
    add_preset(serve, "of requests that name none (default: the checkpoint's own settings)")
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
    add_preset(
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


def _ablate(commands: Commands) -> None:
    ablate = commands.add_parser(
        "ablate", parents=[output_options()], epilog=TAIL,
        help="train and compare what a plan lists, and report why they differ",
    )  # fmt: skip
    ablate.add_argument("plan", type=Path, metavar="PLAN", help="configs/ablation/*.yaml")
    ablate.add_argument(
        "--processes", type=types.positive, default=1, metavar="N",
        help="runs at the same time (default 1)",
    )  # fmt: skip
    ablate.set_defaults(module="ablate", function="ablate")


def _submit(commands: Commands) -> None:
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
