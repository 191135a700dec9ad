"""What a picture costs by the number of people in it: time by stage, and memory."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .. import build
from ..boxes import Boxes
from ..datasets.keypoints import Pictures
from ..datasets.toy import DrawnPeople
from ..inference.bottom_up import BottomUp
from ..inference.detectors import TorchvisionDetector, torchvision_detector
from ..inference.predictor import Scene
from ..inference.top_down import TopDown
from .plan import Cost

STAGES = ("warp", "network", "merge", "decode")
_PEAK = "VmHWM:"


class Point(NamedTuple):
    """A row on pictures of one crowd.

    Attributes:
        row: its name.
        kind: ``drawn`` or ``real`` pictures.
        people: in each picture.
        milliseconds: a picture, median, without a detector.
        stages: of these, by stage.
        detector: milliseconds of the detector; 0 bottom-up.
        megabytes: peak memory above what was in use before; -1 where it cannot be known.
        pictures: how many were timed.
    """

    row: str
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
        scene = Scene(drawn.image, Boxes.of(drawn.boxes))
        points.append(_point(name, "drawn", people, ready, [scene], cost.repeats, detector))
    by_people: dict[int, list[Scene]] = defaultdict(list)
    for number in range(min(cost.pictures, len(truth))):
        sample = truth.sample(number)
        by_people[len(sample.poses)].append(Scene(sample.image, Boxes.of(sample.boxes)))
    for people, scenes in sorted(by_people.items()):
        if people:
            points.append(_point(name, "real", people, ready, scenes, 1, detector))
    return points


def crowd(people: int, size: int) -> Any:
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
    ready.predict(*scenes[0])  # shapes seen for the first time are prepared for
    before = _in_use(ready.device)
    ready.predict(*scenes[0])
    peak = _peak(ready.device)
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
        name, kind, people, statistics.median(times),
        {stage: statistics.median(s[stage] for s in stages) for stage in STAGES},
        statistics.median(found) if found else 0.0,
        (peak - before) / 2**20 if peak >= 0 else -1.0,
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
    except ValueError:
        bare = torchvision_detector(cost.detector, on, pretrained=False)
        bare.network.to(on)
        note = "with random weights, since its own could not be fetched: its time is meant alone"
        return bare, f"detector {cost.detector} {note}"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _in_use(device: torch.device) -> float:
    """Bytes in use, from which the peak starts to be counted anew; -1 if that is impossible."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return float(torch.cuda.memory_allocated(device))
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak is what is used now
    except OSError:
        return -1.0
    return _peak(device)


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    found = [line for line in lines if line.startswith(_PEAK)]
    return 1024.0 * int(found[0].split()[1]) if found else -1.0
