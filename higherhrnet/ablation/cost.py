"""What a picture costs by the number of people in it: time by stage, and memory."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

from .. import build
from ..boxes import Boxes
from ..datasets.keypoints import Pictures
from ..datasets.toy import Drawing, DrawnPeople
from ..errors import UserError
from ..fields import Sample
from ..inference.bottom_up import BottomUp
from ..inference.detectors import TorchvisionDetector, torchvision_detector
from ..inference.predictor import Scene
from ..inference.top_down import TopDown
from .matrix import predictor_of
from .plan import Cost

STAGES = ("warp", "network", "merge", "decode")
_STATUS = "/proc/self/status"


class Point(NamedTuple):
    """A row on pictures of one crowd.

    Attributes:
        row: its name.
        top_down: its mode.
        kind: ``drawn`` or ``real`` pictures.
        people: in each picture.
        milliseconds: a picture, median, without a detector.
        stages: of these, by stage.
        detector: milliseconds of the detector; 0 bottom-up.
        megabytes: peak memory above what the loaded model takes; -1 where it is not known.
        pictures: how many were timed.
    """

    row: str
    top_down: bool
    kind: str
    people: int
    milliseconds: float
    stages: Mapping[str, float]
    detector: float
    megabytes: float
    pictures: int


def measure(
    name: str,
    ready: BottomUp | TopDown,
    cost: Cost,
    truth: Pictures,
    detector: TorchvisionDetector | None,
) -> list[Point]:
    """Time a row on drawn crowds, and on real pictures by their number of people.

    Args:
        name: of the row.
        ready: its predictor; a top-down one is given the true boxes.
        cost: what to measure.
        truth: real pictures.
        detector: timed on the same pictures beside a top-down row.
    """
    points = []
    for people in cost.people:
        drawn = crowd(people, cost.size)
        scene = _scene(ready, drawn)
        points.append(_point(name, "drawn", people, ready, [scene], cost.repeats, detector))
    by_people: dict[int, list[Scene]] = defaultdict(list)
    for number in range(min(cost.pictures, len(truth))):
        sample = truth.sample(number)
        by_people[len(sample.poses)].append(_scene(ready, sample))
    for people, scenes in sorted(by_people.items()):
        if people:
            points.append(_point(name, "real", people, ready, scenes, 1, detector))
    return points


def crowd(people: int, size: int) -> Drawing:
    """A drawn picture with so many people, the smaller the more there are."""
    tallest = min(0.8, 2.2 / people**0.5)
    figures = DrawnPeople(
        1, seed=people, size=size, people=(people, people), overlap=1.0, occlusion=0.0,
        height=(0.6 * tallest, tallest),
    )  # fmt: skip
    return figures.drawing(0)


def _point(
    name: str,
    kind: str,
    people: int,
    ready: BottomUp | TopDown,
    scenes: Sequence[Scene],
    repeats: int,
    detector: TorchvisionDetector | None,
) -> Point:
    ready.waits = True
    # Shapes that a GPU or a compiler sees for the first time are prepared for.
    for scene in scenes if ready.device.type == "cuda" or ready.compiled else scenes[:1]:
        ready.predict(*scene)
        if detector is not None and isinstance(ready, TopDown):
            detector([scene.image])
    megabytes = -1.0
    if ready.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(ready.device)
        before = torch.cuda.memory_allocated(ready.device)
        ready.predict(*scenes[0])
        megabytes = (torch.cuda.max_memory_allocated(ready.device) - before) / 2**20
    times, stages, found = [], [], []
    for scene in scenes:
        for _ in range(repeats):
            ready.seconds.clear()
            _wait(ready.device)
            begun = time.perf_counter()
            ready.predict(*scene)
            _wait(ready.device)
            times.append(1000 * (time.perf_counter() - begun))
            stages.append({stage: 1000 * ready.seconds[stage] for stage in STAGES})
            if detector is not None and isinstance(ready, TopDown):
                begun = time.perf_counter()
                detector([scene.image])
                _wait(ready.device)
                found.append(1000 * (time.perf_counter() - begun))
    return Point(
        name, isinstance(ready, TopDown), kind, people, statistics.median(times),
        {stage: statistics.median(s[stage] for s in stages) for stage in STAGES},
        statistics.median(found) if found else 0.0,
        megabytes,
        len(scenes),
    )  # fmt: skip


def crossover(one: Sequence[Point], other: Sequence[Point], detector: bool) -> float | None:
    """People a picture from which the second row takes longer than the first, between the measured
    crowds in a straight line; None if it never does, 0 if it always does.

    Args:
        one: a row's points on drawn crowds, fewest people first.
        other: the other row's, on the same crowds.
        detector: count the other's detector too.
    """

    def longer(a: Point, b: Point) -> float:
        return b.milliseconds + (b.detector if detector else 0) - a.milliseconds

    former: tuple[int, float] | None = None
    for a, b in zip(one, other, strict=True):
        now = longer(a, b)
        if now > 0:
            if former is None:
                return 0.0
            people, before = former
            return people + (a.people - people) * -before / (now - before)
        former = (a.people, now)
    return None


def find_detector(cost: Cost, device: str) -> tuple[TorchvisionDetector | None, str]:
    """The detector to time, and what the report must say of it."""
    if not cost.detector:
        return None, ""
    on = build.device(device)
    try:
        return torchvision_detector(cost.detector, on), f"detector {cost.detector}"
    except UserError:
        bare = torchvision_detector(cost.detector, on, pretrained=False)
        note = "with random weights, since its own could not be fetched: its time is meant alone"
        return bare, f"detector {cost.detector} {note}"


def _scene(ready: BottomUp | TopDown, sample: Sample | Drawing) -> Scene:
    """With the true boxes for a mode that looks at boxes."""
    return Scene(sample.image, Boxes.of(sample.boxes) if isinstance(ready, TopDown) else None)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def with_memory(
    points: Sequence[Point], name: str, config: str, file: Path, cost: Cost
) -> list[Point]:
    """The points of a row with the memory that its drawn crowds take on a CPU.

    Each crowd has a process of its own, since memory once used stays with a process.
    """
    found = []
    for point in points:
        if point.row == name and point.kind == "drawn" and Path(_STATUS).is_file():
            with get_context("spawn").Pool(1) as pool:
                taken = pool.apply(_memory, (config, file, point.people, cost.size))
            found.append(point._replace(megabytes=taken))
        else:
            found.append(point)
    return found


def _memory(config: str, file: Path, people: int, size: int) -> float:
    """Megabytes by which this process's peak rises with the first crowd."""
    ready = predictor_of(build.parse_config(config), file, "cpu")
    drawn = crowd(people, size)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak of loading is not meant
        before = _status("VmRSS")
        ready.predict(*_scene(ready, drawn))
        return max(_status("VmHWM") - before, 0.0)
    except (OSError, StopIteration):  # some containers' kernels keep no such book
        return -1.0


def _status(what: str) -> float:
    """A line of the kernel's book on this process, in megabytes (Linux)."""
    lines = Path(_STATUS).read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what + ":"))
