"""Finding people in all that the user named, drawing them and writing them down."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from .. import show
from ..boxes import Boxes
from ..datasets.pictures import read_picture
from ..errors import UserError
from ..poses import Poses
from . import pipeline
from .frames import output_names
from .predictor import Drawable, Image, Predictor, Scene
from .records import Predictions
from .tracking import OneEuro, Tracker
from .video import Frame
from .video_writer import VideoWriter

Job = TypeVar("Job")
_FEW = 20
"""So many pictures are reported one by one; more get a progress bar only."""
_CUT = 0.9
"""Share of the announced frames and seconds below which a file was cut."""


@dataclass(frozen=True)
class Wishes:
    """What the user wants to have.

    Attributes:
        output: folder of everything that is written.
        poses: draw people.
        fields: draw heatmaps and tags.
        track: number the people of a video.
        smooth: and smooth their joints.
    """

    output: Path
    poses: bool = True
    fields: bool = False
    track: bool = True
    smooth: bool = False


@dataclass
class Done:
    """What came of it: pictures or frames that were done, and broken ones."""

    pictures: int = 0
    failures: int = 0

    def fail(self, error: UserError, name: str = "") -> None:
        """Say what is wrong with an input, by its name if the error does not tell, and count it."""
        about = f"'{name}': " if name and name not in str(error) else ""
        tqdm.write(f"higherhrnet: {about}{error}", file=sys.stderr)
        self.failures += 1


@dataclass
class _Picture:
    """A picture file; its pixels are there from when a thread has read it until it is drawn."""

    number: int
    path: Path
    name: str
    image: Image | None = None
    boxes: Boxes | None = None

    def load(self) -> Scene:
        self.image = read_picture(self.path)
        return Scene(self.image, self.boxes)


def pictures(
    predictor: Predictor,
    paths: Sequence[Path],
    wishes: Wishes,
    into: Predictions,
    done: Done,
    process: int = 0,
    processes: int = 1,
    boxes: Mapping[int | str, Boxes] | None = None,
) -> None:
    """People of picture files; a broken one is reported and the rest is done.

    Args:
        done: counts on, also when interrupted.
        process, processes: take every ``processes``-th picture only, from ``process`` on.
        boxes: top-down: where people are in the pictures, by the number or word that is the file's
            name; a picture that is not listed shows nobody.
    """
    names = output_names(paths, ".jpg")
    listed = None if boxes is None else _listed(boxes, paths)
    jobs = [
        _Picture(number, path, name, boxes=None if listed is None else listed[number - 1])
        for number, (path, name) in enumerate(zip(paths, names, strict=True), 1)
    ][process::processes]
    talk = len(paths) <= _FEW
    results = pipeline.run_aside(predictor, jobs, _Picture.load)
    with closing(results) as stream:
        for job, found in _progress(stream, len(jobs), "pictures", talk or process > 0):
            image, job.image = job.image, None  # the list of jobs must not keep all pixels
            if isinstance(found, UserError):
                done.fail(found, str(job.path))
                continue
            poses, maps = found
            assert image is not None
            into.add(job.number, str(job.path), image.shape[:2], poses)
            try:
                _draw(predictor, image, poses, maps, wishes, wishes.output / job.name)
            except UserError as error:  # too large for its format
                done.fail(error, str(job.path))
                continue
            done.pictures += 1
            if talk:
                people = "1 person" if len(poses) == 1 else f"{len(poses)} people"
                where = f" → {wishes.output / job.name}" if wishes.poses else ""
                print(f"{job.path}: {people}{where}")


def _listed(boxes: Mapping[int | str, Boxes], paths: Sequence[Path]) -> list[Boxes]:
    """Each picture's boxes, by its name as a number, without its ending, or whole."""
    found = []
    for path in paths:
        keys: list[int | str] = [int(path.stem)] if path.stem.isdecimal() else []
        keys += [path.stem, path.name]
        found.append(next((boxes[key] for key in keys if key in boxes), None))
    if paths and all(one is None for one in found):
        raise UserError("the box file lists none of the pictures by the number or word of its name")
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


def video(
    predictor: Predictor,
    source: Source,
    name: str,
    output: Path,
    wishes: Wishes,
    into: Predictions,
    done: Done,
    first: int,
    sound: Path | None = None,
) -> None:
    """People of a video, drawn into a video beside it; a broken frame is left out.

    Ctrl-C ends the video where it is; what was done so far is kept, and the interrupt goes on.

    Args:
        name: what the records call it.
        output: the video that is written, if anything is to be drawn.
        done: counts on, also when interrupted.
        first: number of the first frame among the records.
        sound: the file whose sound is kept.
    """
    before, seen, end = done.pictures, 0, 0.0
    tracker = Tracker(predictor.skeleton, smoothing=OneEuro() if wishes.smooth else None)
    interrupt: KeyboardInterrupt | None = None
    results = pipeline.run_aside(predictor, iter(source), lambda frame: Scene(frame.picture()))
    drawing = wishes.poses or wishes.fields
    film = VideoWriter(output, source.rate, sound) if drawing else nullcontext()
    with film as writer, closing(results) as stream:
        if writer is not None and writer.mute:
            tqdm.write(f"higherhrnet: '{name}': {writer.mute}", file=sys.stderr)
        try:
            for frame, found in _progress(stream, source.count, "frames", False):
                seen, end = seen + 1, frame.time + 1 / float(source.rate)
                if isinstance(found, UserError):
                    done.fail(found, name)
                    continue
                poses, maps = found
                if wishes.track or wishes.smooth:
                    poses = tracker.update(poses, frame.time)
                if not wishes.track:
                    poses = replace(poses, track=np.full(len(poses), -1))
                image = frame.picture()
                if writer is not None:
                    drawn = poses.draw(image, predictor.skeleton) if wishes.poses else image
                    if wishes.fields:
                        heat, _ = predictor.seen(maps, image.shape[:2])
                        drawn = show.heat(drawn, heat.max(axis=0), 0, 1)
                    writer.origin = source.origin
                    writer.add(drawn, frame.time)
                into.add(first + frame.number, name, image.shape[:2], poses, frame.time)
                done.pictures += 1
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt
    if done.pictures == before:
        raise UserError(f"'{name}' holds no frame that can be read")
    # Empty frames and cut ones are announced too, but leave no time out.
    fewer = not source.announced or seen < _CUT * source.announced
    if fewer and end < _CUT * source.length:
        came = (
            f"{seen} of {source.announced} frames"
            if source.announced
            else f"{end:.1f} of {source.length:.1f} seconds"
        )
        raise UserError(f"'{name}' breaks off after {came}")


def _draw(
    predictor: Predictor, image: Image, poses: Poses, maps: Drawable, wishes: Wishes, path: Path
) -> None:
    if wishes.poses:
        show.save(path, poses.draw(image, predictor.skeleton))
    if wishes.fields:
        heat, tags = predictor.seen(maps, image.shape[:2])
        shown = show.fields(image, heat, tags, predictor.skeleton)
        show.save(path.with_name(_fields_name(path.name)), shown)


def drawn_names(paths: Sequence[Path], wishes: Wishes) -> list[str]:
    """Names of all that :func:`pictures` draws."""
    names = output_names(paths, ".jpg")
    fields = [_fields_name(name) for name in names]
    return names * wishes.poses + fields * wishes.fields


def _fields_name(name: str) -> str:
    return name.removesuffix("_poses.jpg") + "_fields.jpg"


def _progress(results: Iterable[Job], total: int, unit: str, quiet: bool) -> Iterable[Job]:
    bar: Iterable[Job] = tqdm(
        results, total=total or None, unit=f" {unit}", mininterval=1.0, disable=quiet
    )
    return bar
