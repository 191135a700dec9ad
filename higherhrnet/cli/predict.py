"""``higherhrnet predict`` and ``demo``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib.resources import as_file, files
from pathlib import Path
from types import FrameType

from .. import build, strict_yaml
from ..boxes import Boxes, read_detections
from ..errors import UserError
from ..evaluation.operating_point import OperatingPoint
from ..inference import annotate
from ..inference.annotate import Done, Wishes
from ..inference.frames import Inputs, find_inputs, output_names
from ..inference.predictor import Predictor
from ..inference.records import Predictions
from ..inference.top_down import TopDown
from ..inference.video import Camera, VideoFile
from ..training.distributed import Group, joined
from . import arguments

DETECTOR = "fasterrcnn_resnet50_fpn_v2"
"""Finds the people for top-down weights, if nothing else is named."""
_FRAMES_OF_ONE = 10_000_000
"""Frames are numbered from multiples of this, one for each video."""


class TerminatedError(KeyboardInterrupt):
    """SIGTERM, the notice of a cluster or a container, is heard as Ctrl-C is."""


@contextmanager
def _termination(group: Group) -> Iterator[None]:
    """Several processes end at once instead: they would wait for the one that is gone."""

    def hear(number: int, frame: FrameType | None) -> None:
        raise TerminatedError

    if group.size > 1 or threading.current_thread() is not threading.main_thread():
        yield  # elsewhere Python allows no handlers
        return
    former = signal.signal(signal.SIGTERM, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def add(verbs: arguments.Verbs) -> None:
    """Declare the commands."""
    predict = verbs.add_parser(
        "predict",
        parents=[arguments.where()],
        epilog=arguments.TAIL,
        help="find and draw people in pictures and videos",
    )
    predict.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="picture, video, folder, glob, or camera:0"
    )
    arguments.add_weights(predict, default=None)
    predict.add_argument(
        "--mode",
        choices=("bottom-up", "top-down"),
        help="which bundled weights to take (default bottom-up); given weights know their own",
    )
    predict.add_argument(
        "--boxes",
        metavar="WHAT",
        help="top-down: what finds people: a detector of torchvision like "
        f"{DETECTOR} (default; its weights are fetched once), bottom-up weights like "
        f"{arguments.DEFAULT_WEIGHTS} (bundled), or a COCO result file by picture name",
    )
    _add_looks(predict)
    predict.set_defaults(run=_predict)
    demo = verbs.add_parser(
        "demo",
        parents=[arguments.where()],
        help="find people in a picture that comes with the package",
    )
    _add_looks(demo)
    demo.set_defaults(run=_demo, settings=False, weights=None, mode=None, boxes=None)


def _add_looks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--min-score",
        type=arguments.number,
        metavar="SCORE",
        help="leave out people scoring less (default: the checkpoint's operating point)",
    )
    parser.add_argument("--raw", action="store_true", help="show everybody, as benchmarks want it")
    parser.add_argument(
        "--show",
        nargs="+",
        choices=("poses", "fields", "none"),
        default=["poses"],
        help="draw people (default), heatmaps and (of pictures) tags, or nothing",
    )
    parser.add_argument(
        "--track",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="number the people of a video (default)",
    )
    parser.add_argument("--smooth", action="store_true", help="smooth the joints of a video")


def _demo(options: argparse.Namespace) -> int:
    options.output = options.output or Path("output/demo")
    with as_file(files("higherhrnet") / "assets" / "crowd.png") as picture:
        options.inputs = [str(picture)]
        return _predict(options)


def _predict(options: argparse.Namespace) -> int:
    if "none" in options.show and len(options.show) > 1:
        others = " ".join(word for word in options.show if word != "none")
        raise UserError(f"--show none and --show {others} contradict each other")
    inputs = find_inputs(options.inputs)
    on = build.device(options.device)
    # The first process does all videos, and the others wait for it.
    with joined(on.type == "cuda", timedelta(days=365)) as group, _termination(group):
        device = f"cuda:{group.local_rank}" if on.type == "cuda" and group.size > 1 else str(on)
        predictor, boxes = _predictor(options, device)
        if options.min_score is not None:
            predictor.point = _point_from(predictor, options.min_score)
        wishes = Wishes(
            output=options.output or Path("output/predict"),
            poses="poses" in options.show,
            fields="fields" in options.show,
            track=options.track,
            smooth=options.smooth,
        )
        return predict(predictor, inputs, wishes, group, boxes, _read_by(options))


def _read_by(options: argparse.Namespace) -> list[Path]:
    """Files beside the inputs that the command reads."""
    return [Path(name) for name in (options.boxes, options.weights) if name is not None]


def _predictor(
    options: argparse.Namespace, device: str
) -> tuple[Predictor, dict[int | str, Boxes] | None]:
    """Who predicts, and listed boxes of pictures if the user has a list."""
    bundled = arguments.TOP_DOWN_WEIGHTS if options.mode == "top-down" else None
    weights = bundled or arguments.DEFAULT_WEIGHTS if options.weights is None else options.weights
    overrides = list(options.overrides)
    if options.boxes is not None:
        overrides += ["TEST.BOXES", json.dumps(options.boxes)]  # a file's name, not YAML
    elif "TEST.BOXES" not in overrides:
        overrides += ["TEST.BOXES", DETECTOR]
    predictor = build.load(weights, device, overrides, options.raw)
    top_down = isinstance(predictor, TopDown)
    if options.mode is not None and top_down != (options.mode == "top-down"):
        own = "top-down" if top_down else "bottom-up"
        raise UserError(f"'{weights}' are {own} weights, which --mode {options.mode} contradicts")
    if options.boxes is not None and not top_down:
        hint = "; add --mode top-down" if options.weights is None else ""
        raise UserError(f"--boxes serves top-down weights, and '{weights}' are bottom-up{hint}")
    if isinstance(predictor, TopDown) and predictor.detector is None:
        last = len(overrides) - overrides[::-1].index("TEST.BOXES")
        named = str(strict_yaml.parse(overrides[last]))
        if named == "truth":
            raise UserError(
                "config key 'TEST.BOXES' is truth, but these pictures are not annotated"
            )
        return predictor, read_detections(build.expand_path(named, "TEST.BOXES"))
    return predictor, None


def predict(
    predictor: Predictor,
    inputs: Inputs,
    wishes: Wishes,
    group: Group | None = None,
    boxes: Mapping[int | str, Boxes] | None = None,
    others: Sequence[Path] = (),
) -> int:
    """Find people in all inputs; returns the exit status.

    ``boxes`` are those of pictures by the number in their names, where a list of them is given;
    ``others`` are files that must not be written over either.
    Pictures are shared among the processes of ``torchrun``; the first one takes all videos.
    """
    group = group or Group()
    if boxes is not None and (inputs.videos or inputs.cameras):
        raise UserError("a box file serves pictures; for videos name a detector with --boxes")
    _spare(inputs, wishes, others)
    interrupt: KeyboardInterrupt | OSError | None = None
    start = time.perf_counter()
    done = Done()
    with Predictions(wishes.output, predictor.skeleton, group.rank, group.size) as into:
        try:
            annotate.pictures(
                predictor, inputs.pictures, wishes, into, done, group.rank, group.size, boxes
            )
            if group.main:
                _videos(predictor, inputs, wishes, into, done)
        except (KeyboardInterrupt, OSError) as error:  # what was found is written all the same
            interrupt = error
        into.flush()
        counts = (into.people, done.pictures, done.failures, into.pictures)
        totals = group.total(counts)
        dropped = group.total([*predictor.dropped.values()])
        work: Counter[str] = Counter()
        for share in group.gather(dict(predictor.seconds)):
            work.update(share)
        nothing = not totals[3] and (totals[2] or interrupt)  # older results are worth more
        if group.main and not nothing:
            into.finish()
        group.gather(None)  # nobody's parts go before they are read
    if group.main and not nothing:
        _say(predictor, wishes, totals, dropped, work, time.perf_counter() - start)
    if interrupt:
        raise interrupt
    return 2 if totals[2] else 0


def _spare(inputs: Inputs, wishes: Wishes, others: Sequence[Path]) -> None:
    """Refuse to write over what is to be read.

    Raises:
        UserError: a drawing or the predictions would get the name of an input.
    """
    drawn = ["predictions.json", "predictions.csv"]
    drawn += annotate.drawn_names(inputs.pictures, wishes)
    if wishes.poses or wishes.fields:
        drawn += _film_names([str(video) for video in inputs.videos], wishes)
    written = {(wishes.output / name).resolve() for name in drawn}
    for path in [*inputs.pictures, *inputs.videos, *others]:
        if path.resolve() in written:
            raise UserError(f"'{path}' is an input and would be overwritten; change --output")


def _film_names(labels: Sequence[str], wishes: Wishes) -> list[str]:
    names = output_names(labels, ".mp4")
    return names if wishes.poses else [n.removesuffix("_poses.mp4") + "_fields.mp4" for n in names]


def _videos(
    predictor: Predictor, inputs: Inputs, wishes: Wishes, into: Predictions, done: Done
) -> None:
    """One after another; a file that is no video is reported and the rest is done."""
    sources: list[Path | int] = [*inputs.videos, *inputs.cameras]
    labels = [str(s) if isinstance(s, Path) else f"camera:{s}" for s in sources]
    outputs = [wishes.output / name for name in _film_names(labels, wishes)]
    for number, (source, label, output) in enumerate(zip(sources, labels, outputs, strict=True), 1):
        file = source if isinstance(source, Path) else None
        before = done.pictures
        interrupt: KeyboardInterrupt | None = None
        try:
            frames = VideoFile(source) if isinstance(source, Path) else Camera(source)
            first = number * _FRAMES_OF_ONE
            annotate.video(predictor, frames, label, output, wishes, into, done, first, sound=file)
        except UserError as error:
            done.fail(error)
        except KeyboardInterrupt as error:  # the video is closed properly
            interrupt = error
        if done.pictures > before:
            where = f" → {output}" if wishes.poses or wishes.fields else ""
            print(f"{label}: {done.pictures - before} frames{where}")
        if interrupt is not None:
            raise interrupt


def _point_from(predictor: Predictor, least: float) -> OperatingPoint:
    """The predictor's point, or with ``--raw`` one without other limits, from a person score."""
    point = predictor.point or OperatingPoint(joint=0.0, filled=0.0, duplicate=1.0)
    return dataclasses.replace(point, person=least, precision=0.0, recall=0.0, pictures=0)


def _say(
    predictor: Predictor,
    wishes: Wishes,
    totals: Sequence[int],
    dropped: Sequence[int],
    work: Mapping[str, float],
    seconds: float,
) -> None:
    people, pictures, *_ = totals
    if pictures:
        shares = ", ".join(
            f"{stage} {1000 * spent / pictures:.0f}" for stage, spent in work.items()
        )
        print(
            f"{people} people in {pictures} pictures, {pictures / seconds:.1f} a second; work in "
            f"ms a picture: {shares}"
        )
    shown = "everybody" if predictor.point is None else str(predictor.point)
    print(f"shown: {shown}")
    candidates, beyond, alike = dropped
    if candidates or beyond:
        print(f"limits dropped {candidates} candidates of joints and {beyond} people")
    if alike:
        print(f"{alike} people were too like others and are not shown")
    print(f"predictions.json and predictions.csv in {wishes.output}")
