"""Predicting all images and videos that the user named, with drawings and prediction files."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from .. import visualization
from ..boxes import Boxes, find_boxes
from ..errors import UserError
from ..io.images import count_frames, read_annotated, read_image
from ..io.pixels import Image
from ..poses import Poses
from . import pipeline
from .inputs import output_names
from .live_view import LiveView
from .prediction_files import PredictionWriter
from .predictor import Maps, Predictor, Scene
from .stats import InferenceStats
from .tracking import OneEuro, Tracker
from .video import Frame
from .video_writer import VideoWriter

_log = logging.getLogger(__name__)
Job = TypeVar("Job")
_SEVERAL = (".gif", ".webp", ".tif", ".tiff", ".png", ".avif")
"""What may be an animation or have several pages."""
_FEW = 20
"""So many images are reported one by one; more get a progress bar only."""
_TRUNCATED = 0.9
"""Share of the announced frames and seconds below which a file was truncated."""


@dataclass(frozen=True)
class OutputOptions:
    """What is written.

    Attributes:
        output: folder of everything that is written.
        poses: draw people.
        heatmaps: draw heatmaps and tags.
        track: number the people of a video.
        smooth: smooth the joints of a video.
        skip_done: leave out images whose people are in the folder already.
        live: shows the frames of videos as they are drawn.
    """

    output: Path
    poses: bool = True
    heatmaps: bool = False
    track: bool = True
    smooth: bool = False
    skip_done: bool = False
    live: LiveView | None = None


@dataclass
class Counts:
    """What was done.

    Attributes:
        images: images and frames with results.
        failures: broken ones.
        stats: of the predictions.
    """

    images: int = 0
    failures: int = 0
    stats: InferenceStats = field(default_factory=InferenceStats)

    def fail(self, error: UserError, name: str = "") -> None:
        """Report what is wrong with an input, by its name if the error does not tell, and count
        it."""
        about = f"'{name}': " if name and name not in str(error) else ""
        _log.error("%s%s", about, error)
        self.failures += 1


@dataclass
class _ImageJob:
    """An image file; its pixels are in memory from when they are read until they are drawn."""

    number: int
    path: Path
    name: str
    image: Image | None = None
    boxes: Boxes | None = None

    def load(self) -> Scene:
        # Boxes that tell the size of their image mean its pixels, as annotations do.
        size = None if self.boxes is None else self.boxes.annotated
        self.image = read_image(self.path) if size is None else read_annotated(self.path, size)
        if self.path.suffix.lower() in _SEVERAL and (frames := count_frames(self.path)) > 1:
            _log.info(
                "'%s' holds %d images, and only the first is read; make a video or single files of "
                "it to have all",
                self.path,
                frames,
            )
        return Scene(self.image, self.boxes)


def predict_images(
    predictor: Predictor,
    paths: Sequence[Path],
    options: OutputOptions,
    records: PredictionWriter,
    counts: Counts,
    process: int = 0,
    processes: int = 1,
    boxes: Mapping[int | str, Boxes] | None = None,
    done: Collection[int] = (),
) -> None:
    """Predict and draw image files; broken ones are reported and passed over.

    Args:
        counts: added to, also when interrupted.
        process, processes: take every ``processes``-th image only, from ``process`` on.
        boxes: top-down: boxes of the images, by the number or word that is the file's name;
            images that are not listed have no people.
        done: numbers (from 1) of images that are left out.
    """
    names = output_names(paths, ".jpg")
    listed = None if boxes is None else _boxes_of_files(boxes, paths)
    jobs = [
        _ImageJob(number, path, name, boxes=None if listed is None else listed[number - 1])
        for number, (path, name) in enumerate(zip(paths, names, strict=True), 1)
        if number not in done
    ][process::processes]
    one_by_one = len(paths) <= _FEW
    results = pipeline.run_in_background(predictor, jobs, _ImageJob.load, counts.stats)
    with closing(results) as stream:
        for job, result in _progress(stream, len(jobs), "images", one_by_one or process > 0):
            image, job.image = job.image, None  # the list of jobs must not keep all pixels
            if isinstance(result, UserError):
                counts.fail(result, str(job.path))
                continue
            poses, maps = result
            assert image is not None
            records.add(job.number, str(job.path), image.shape[:2], poses)
            try:
                _draw(predictor, image, poses, maps, options, options.output / job.name)
            except UserError as error:  # too large for its format
                counts.fail(error, str(job.path))
                continue
            counts.images += 1
            if one_by_one:
                people = "1 person" if len(poses) == 1 else f"{len(poses)} people"
                where = f" → {options.output / job.name}" if options.poses else ""
                _log.info("%s: %s%s", job.path, people, where)


def _boxes_of_files(boxes: Mapping[int | str, Boxes], paths: Sequence[Path]) -> list[Boxes]:
    """Each image's boxes, by its name as a number, without its suffix, or as it is."""
    found = [find_boxes(boxes, path.stem, path.name) for path in paths]
    if paths and all(one is None for one in found):
        raise UserError("the box file lists none of the images by the number or word of its name")
    return [Boxes.of([]) if one is None else one for one in found]


class Source(Protocol):
    """A video file or a camera."""

    rate: Fraction
    count: int
    announced: int
    length: float
    origin: float

    def __iter__(self) -> Iterator[Frame]:
        """Frames in order."""


def predict_video(
    predictor: Predictor,
    source: Source,
    name: str,
    output: Path,
    options: OutputOptions,
    records: PredictionWriter,
    counts: Counts,
    first: int,
    sound: Path | None = None,
) -> None:
    """Predict and draw a video; broken frames are left out.

    Ctrl-C ends the video where it is; what was done so far is kept, and the interrupt goes on.

    Args:
        name: of the video, for records and messages.
        output: the video that is written, if anything is to be drawn.
        counts: added to, also when interrupted.
        first: number of the first frame among the records.
        sound: the file whose sound is kept.
    """
    before, seen, end = counts.images, 0, 0.0
    tracker = Tracker(predictor.skeleton, smoothing=OneEuro() if options.smooth else None)
    interrupt: KeyboardInterrupt | None = None
    results = pipeline.run_in_background(
        predictor, iter(source), lambda frame: Scene(frame.require_image()), counts.stats
    )
    is_drawn = options.poses or options.heatmaps
    video = VideoWriter(output, source.rate, sound) if is_drawn else nullcontext()
    with video as writer, closing(results) as stream:
        if writer is not None and writer.mute:
            _log.error("'%s': %s", name, writer.mute)
        try:
            for frame, result in _progress(stream, source.count, "frames", False):
                seen, end = seen + 1, frame.time + 1 / float(source.rate)
                if isinstance(result, UserError):
                    counts.fail(result, name)
                    continue
                poses, maps = result
                if options.track or options.smooth:
                    poses = tracker.update(poses, frame.time)
                if not options.track:
                    poses = replace(poses, track=np.full(len(poses), -1))
                image = frame.require_image()
                if writer is not None or options.live is not None:
                    drawn = poses.draw(image, predictor.skeleton) if options.poses else image
                    if options.heatmaps:
                        heatmaps, _ = predictor.overlay(maps, image.shape[:2])
                        drawn = visualization.draw_heatmap(drawn, heatmaps.max(axis=0), 0, 1)
                    if options.live is not None:
                        options.live.show(drawn)
                    if writer is not None:
                        writer.origin = source.origin
                        writer.add(drawn, frame.time)
                records.add(
                    first + frame.number, name, image.shape[:2], poses, frame.time, frame.number
                )
                counts.images += 1
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt
    if counts.images == before:
        raise UserError(f"'{name}' holds no frame that can be read")
    check_complete(source, name, seen, end)


def check_complete(source: Source, name: str, frames: int, end: float) -> None:
    """Find out whether a video was truncated, after ``frames`` that end at ``end`` seconds. Empty
    frames are announced too, but take no time.

    Raises:
        UserError: it was.
    """
    fewer = not source.announced or frames < _TRUNCATED * source.announced
    if fewer and end < _TRUNCATED * source.length:
        read = (
            f"{frames} of {source.announced} frames"
            if source.announced
            else f"{end:.1f} of {source.length:.1f} seconds"
        )
        raise UserError(f"'{name}' breaks off after {read}")


def _draw(
    predictor: Predictor, image: Image, poses: Poses, maps: Maps, options: OutputOptions, path: Path
) -> None:
    if options.poses:
        visualization.save_image(path, poses.draw(image, predictor.skeleton))
    if options.heatmaps:
        heatmaps, tags = predictor.overlay(maps, image.shape[:2])
        drawn = visualization.draw_maps(image, heatmaps, tags, predictor.skeleton)
        visualization.save_image(path.with_name(_heatmaps_name(path.name)), drawn)


def drawn_names(paths: Sequence[Path], options: OutputOptions) -> list[str]:
    """Names of all drawings that :func:`predict_images` writes."""
    names = output_names(paths, ".jpg")
    heatmaps = [_heatmaps_name(name) for name in names]
    return names * options.poses + heatmaps * options.heatmaps


def _heatmaps_name(name: str) -> str:
    return name.removesuffix("_poses.jpg") + "_heatmaps.jpg"


def _progress(results: Iterable[Job], total: int, unit: str, quiet: bool) -> Iterable[Job]:
    bar: Iterable[Job] = tqdm(
        results, total=total or None, unit=f" {unit}", mininterval=1.0, disable=quiet
    )
    return bar
