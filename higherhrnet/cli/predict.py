"""``higherhrnet predict`` and ``demo``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from ..boxes import Boxes
from ..distributed import ProcessGroup, init_distributed, is_main_process
from ..errors import UserError
from ..evaluation.operating_point import OperatingPoint
from ..factory.checkpoints import config_of, is_task, open_network
from ..factory.device import choose_device
from ..factory.inference import load_predictor
from ..factory.presets import choose_video_preset, preset_overrides
from ..factory.provenance import describe_predictor
from ..inference.draw_predictions import (
    Counts,
    OutputOptions,
    Source,
    drawn_names,
    predict_images,
    predict_video,
)
from ..inference.inputs import (
    Inputs,
    describe_skipped,
    find_inputs,
    output_names,
    refuse_overwriting,
)
from ..inference.live_view import LiveView
from ..inference.prediction_files import (
    NAMES,
    RESTORED_PARTS,
    DoneImage,
    PredictionWriter,
    note_settings,
    read_done,
    restore,
)
from ..inference.predictor import Predictor
from ..inference.streams import Stream, fetch_file, hide_password
from ..inference.video import Camera, VideoFile
from ..io.lock import lock_folder, remove_leftovers
from ..methods.base import get_method, method_of
from .messages import count
from .signals import catch_sigterm

_FRAMES_OF_A_VIDEO = 10_000_000
"""Frames are numbered from multiples of this, one for each video."""


def predict(options: argparse.Namespace) -> int:
    """Predict and draw what the user named."""
    if "none" in options.show and len(options.show) > 1:
        others = " ".join(word for word in options.show if word != "none")
        raise UserError(f"--show none and --show {others} contradict each other")
    if options.weights is not None and is_task(file := open_network(options.weights)):
        from .tasks import predict_task

        return predict_task(options, file)
    inputs = find_inputs(options.inputs, getattr(options, "recursive", False))
    if inputs.skipped and is_main_process():
        print(f"higherhrnet: {describe_skipped(inputs.skipped)}", file=sys.stderr)
    device = choose_device(options.device)
    # The first process does all videos, and the others wait for it.
    with (
        init_distributed(device.type == "cuda", timedelta(days=365)) as group,
        catch_sigterm(group),
    ):
        is_shared = device.type == "cuda" and group.size > 1
        name = f"cuda:{group.local_rank}" if is_shared else str(device)
        predictor, boxes, for_videos, about = _load(options, name)
        wanted = OutputOptions(
            output=options.output or Path("output/predict"),
            poses="poses" in options.show,
            heatmaps="heatmaps" in options.show,
            track=options.track,
            smooth=options.smooth,
            skip_done=getattr(options, "skip_done", False),  # the demo has one image
        )
        also_read = [Path(name) for name in (options.boxes, options.weights) if name is not None]
        live = getattr(options, "live", None)
        with LiveView(live) if live is not None and group.main else nullcontext() as view:
            if view is not None:
                print(f"live: {view.address}", flush=True)
                wanted = dataclasses.replace(wanted, live=view)
            return predict_inputs(
                predictor, inputs, wanted, group, boxes, also_read, for_videos, about
            )


def _fetch(inputs: Inputs, output: Path) -> tuple[Inputs, list[UserError]]:
    """Addresses of images and videos become files; those of live streams stay. Besides, what is
    wrong with the others."""
    streams, files, failed = [], [], []
    for number, address in enumerate(inputs.addresses, 1):
        try:
            file = fetch_file(address, output / "fetched", number)
        except UserError as error:  # the others are predicted all the same
            failed.append(error)
            continue
        if file is None:
            streams.append(address)
        else:
            files.append(str(file))
    found = find_inputs(files)
    fetched = dataclasses.replace(
        inputs,
        images=[*inputs.images, *found.images],
        videos=[*inputs.videos, *found.videos],
        addresses=streams,
    )
    return fetched, failed


def demo(options: argparse.Namespace) -> int:
    """Predict the bundled photograph."""
    options.output = options.output or Path("output/demo")
    with as_file(files("higherhrnet") / "assets" / "demo.jpg") as image:
        options.inputs = [str(image)]
        return predict(options)


def _load(
    options: argparse.Namespace, device: str
) -> tuple[Predictor, dict[int | str, Boxes] | None, Callable[[], Predictor], dict[str, Any]]:
    """The predictor, boxes by image if the user has a list of them, what makes the predictor of
    videos, and what decides the predictions."""
    name = options.weights
    if name is None:
        name = get_method(options.mode or "bottom-up").default_weights
    file = open_network(name)
    method = method_of(config_of(file, options.overrides))
    if options.mode is not None and options.mode != method.name:
        raise UserError(
            f"'{name}' are {method.name} weights, which --mode {options.mode} contradicts"
        )
    try:
        own = method.prediction_overrides(options.boxes, options.overrides)
    except UserError as error:
        hint = "; add --mode top-down" if options.boxes and options.weights is None else ""
        raise UserError(f"{error}{hint}") from error
    overrides = [*options.overrides, *own]
    listed = method.listed_boxes(config_of(file, overrides))

    def build(preset: str | None) -> Predictor:
        predictor = load_predictor(file, device, overrides, options.raw, preset)
        if options.min_score is not None:
            predictor.operating_point = _operating_point(predictor, options.min_score)
        return predictor

    predictor = build(options.preset)

    def build_for_videos() -> Predictor:
        preset = None if options.preset else choose_video_preset(file, options.overrides)
        if preset is None:
            return predictor
        print(f"videos: preset {preset}; --preset accurate takes the settings of images")
        return build(preset)

    config = config_of(file, [*preset_overrides(file, options.preset), *overrides])
    about = describe_predictor(file, predictor, config)
    return predictor, listed, build_for_videos, about


def predict_inputs(
    predictor: Predictor,
    inputs: Inputs,
    options: OutputOptions,
    group: ProcessGroup | None = None,
    boxes: Mapping[int | str, Boxes] | None = None,
    also_read: Sequence[Path] = (),
    for_videos: Callable[[], Predictor] | None = None,
    about: Mapping[str, Any] | None = None,
) -> int:
    """Predict all inputs; returns the exit status.

    Images are shared among the processes of ``torchrun``; the first one takes all videos.

    Args:
        boxes: of images by the number in their names, where a list of them is given.
        also_read: further files that must not be written over.
        for_videos: makes the predictor of videos; the same if None.
        about: what decides the predictions; only such are gone on with.
    """
    group = group or ProcessGroup()
    holds = lock_folder(options.output, "prediction", clean=False)
    with holds if group.main else nullcontext():
        counts = Counts()
        if inputs.addresses:
            fetched = _fetch(inputs, options.output) if group.main else (inputs, [])
            inputs, failed = group.gather(fetched)[0]
            for error in failed if group.main else ():
                counts.fail(error)
        if boxes is not None and inputs.has_videos:
            raise UserError("a box file serves images; for videos name a detector with --boxes")
        _check_outputs(inputs, options, also_read)
        joints, about = predictor.skeleton.joints, about or {}
        done = _restore(inputs, options, joints, about) if group.main else ()
        done = group.gather(done)[0]  # and nobody writes before the folder is ready
        return _predict_inputs(
            predictor, inputs, options, group, boxes, done, for_videos, about, counts
        )


def _restore(
    inputs: Inputs, options: OutputOptions, joints: Sequence[str], about: Mapping[str, Any]
) -> frozenset[int]:
    """Numbers of the images that were predicted before, if these are to be left out; what is known
    of them becomes a part of this run."""
    found: dict[int, DoneImage] = {}
    if options.skip_done:
        done = read_done(options.output, joints, about)
        names = [str(path) for path in inputs.images]
        found = {number: done[name] for number, name in enumerate(names, 1) if name in done}
    if found:
        restore(options.output, found)
        print(f"{len(found)} of {len(inputs.images)} images were predicted before")
    remove_leftovers(options.output, "prediction", keep=RESTORED_PARTS if found else "")
    note_settings(options.output, about)
    return frozenset(found)


def _predict_inputs(
    predictor: Predictor,
    inputs: Inputs,
    options: OutputOptions,
    group: ProcessGroup,
    boxes: Mapping[int | str, Boxes] | None,
    done: Collection[int],
    for_videos: Callable[[], Predictor] | None,
    about: Mapping[str, Any],
    counts: Counts,
) -> int:
    interrupt: BaseException | None = None
    start = time.perf_counter()
    points = {"": predictor.operating_point}
    with PredictionWriter(
        options.output, predictor.skeleton, group.rank, group.size, about
    ) as records:
        try:
            predict_images(
                predictor, inputs.images, options, records, counts, group.rank, group.size, boxes,
                done,
            )  # fmt: skip
            if group.main and inputs.has_videos:
                used = predictor if for_videos is None else for_videos()
                if not inputs.images:
                    points = {"": used.operating_point}
                elif used.operating_point != predictor.operating_point:
                    points = {
                        " of images": predictor.operating_point, " of videos": used.operating_point
                    }  # fmt: skip
                _predict_videos(used, inputs, options, records, counts)
        except (KeyboardInterrupt, Exception) as error:  # what was found so far is written
            interrupt = error
        records.flush()
        totals = group.total((records.people, counts.images, counts.failures, records.images))
        dropped = group.total([*counts.stats.dropped.values()])
        seconds: Counter[str] = Counter()
        for share in group.gather(dict(counts.stats.seconds)):
            seconds.update(share)
        # Older results are worth more than none.
        nothing = not totals[3] and not done and (totals[2] or interrupt)
        if group.main and not nothing:
            records.finish()
        group.gather(None)  # no process removes its parts before they are read
    if group.main and not nothing:
        limits = dict(zip(counts.stats.dropped, dropped, strict=True))
        _print(points, options, totals, limits, seconds, time.perf_counter() - start)
    if interrupt:
        raise interrupt
    return 2 if totals[2] else 0


def _check_outputs(inputs: Inputs, options: OutputOptions, also_read: Sequence[Path]) -> None:
    """Refuse to write over what is to be read.

    Raises:
        UserError: a drawing or the predictions would get the name of an input.
    """
    names = [*NAMES, *drawn_names(inputs.images, options)]
    if options.poses or options.heatmaps:
        names += _video_names([str(video) for video in inputs.videos], options)
    written = [options.output / name for name in names]
    refuse_overwriting(written, [*inputs.images, *inputs.videos, *also_read])


def _video_names(labels: Sequence[str], options: OutputOptions) -> list[str]:
    names = output_names(labels, ".mp4")
    if options.poses:
        return names
    return [name.removesuffix("_poses.mp4") + "_heatmaps.mp4" for name in names]


def _predict_videos(
    predictor: Predictor,
    inputs: Inputs,
    options: OutputOptions,
    records: PredictionWriter,
    counts: Counts,
) -> None:
    """One after another; a file that is no video is reported and passed over."""
    sources: list[Path | int | str] = [*inputs.videos, *inputs.cameras, *inputs.addresses]
    labels = [_label(source) for source in sources]
    outputs = [options.output / name for name in _video_names(labels, options)]
    for number, (source, label, output) in enumerate(zip(sources, labels, outputs, strict=True), 1):
        file = source if isinstance(source, Path) else None
        before = counts.images
        interrupt: KeyboardInterrupt | None = None
        try:
            frames = _open_source(source)
            first = number * _FRAMES_OF_A_VIDEO
            predict_video(
                predictor, frames, label, output, options, records, counts, first, sound=file
            )
        except UserError as error:
            counts.fail(error)
        except KeyboardInterrupt as error:  # the video is closed properly
            interrupt = error
        if counts.images > before:
            where = f" → {output}" if options.poses or options.heatmaps else ""
            print(f"{label}: {count(counts.images - before, 'frame')}{where}")
        if interrupt is not None:
            raise interrupt


def _label(source: Path | int | str) -> str:
    if isinstance(source, int):
        return f"camera:{source}"
    return hide_password(source) if isinstance(source, str) else str(source)


def _open_source(source: Path | int | str) -> Source:
    if isinstance(source, Path):
        return VideoFile(source)
    return Camera(source) if isinstance(source, int) else Stream(source)


def _operating_point(predictor: Predictor, min_score: float) -> OperatingPoint:
    """The predictor's, or with ``--raw`` one without other limits, from a person score."""
    point = predictor.operating_point or OperatingPoint(joint=0.0, refined=0.0, duplicate=1.0)
    return dataclasses.replace(point, person=min_score, precision=0.0, recall=0.0, images=0)


def _print(
    points: Mapping[str, OperatingPoint | None],
    options: OutputOptions,
    totals: Sequence[int],
    dropped: Mapping[str, int],
    work: Mapping[str, float],
    seconds: float,
) -> None:
    people, images, *_ = totals
    if images:
        shares = ", ".join(f"{stage} {1000 * spent / images:.0f}" for stage, spent in work.items())
        print(
            f"{count(people, 'person', 'people')} in {count(images, 'image')}, "
            f"{images / seconds:.1f} images/s; work in ms an image: {shares}"
        )
    for which, point in points.items():
        print(f"operating point{which}: {'all people' if point is None else point}")
    if dropped["candidates"] or dropped["people"]:
        print(
            f"dropped: {dropped['candidates']} candidates of joints beyond DATASET.MAX_NUM_PEOPLE, "
            f"{dropped['people']} people beyond TEST.MAX_DETECTIONS"
        )
    if number := dropped["duplicates"]:
        who = (
            "1 person was too like another"
            if number == 1
            else f"{number} people were too like others"
        )
        print(f"{who} and dropped")
    if images and not people:
        print("nobody was found, or nobody is sure enough to be shown: --raw shows all")
    print(f"{', '.join(NAMES[:-1])} and {NAMES[-1]} in {options.output}")
