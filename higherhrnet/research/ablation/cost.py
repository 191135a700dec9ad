"""What an image costs by the number of people in it: time by stage, and memory."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

from ...boxes import Boxes
from ...datasets.base import PoseDataset
from ...errors import UserError
from ...factory.device import choose_device
from ...factory.inference import load_finder
from ...inference.predictor import Predictor, Scene
from ...inference.stats import InferenceStats
from ...methods.top_down.detectors import (
    DETECTORS,
    BottomUpDetector,
    PersonDetector,
    build_torchvision_detector,
)
from ...methods.top_down.predictor import Detector
from ...structures import Sample
from ..synthetic.dataset import SyntheticImage, SyntheticPeople
from .plan import Cost
from .runner import load_predictor, parse_pose_config

STAGES = ("preprocess", "forward", "aggregate", "decode")
_STATUS = "/proc/self/status"


class Point(NamedTuple):
    """An evaluation on images of one crowd.

    Attributes:
        evaluation: its name.
        finds_people: whether its method needs no boxes.
        kind: ``synthetic`` or ``real`` images.
        people: in each image.
        milliseconds: an image, median, without a detector.
        stages: of these, by stage.
        detector: milliseconds of the detector; 0 if none is needed.
        megabytes: peak memory above what the loaded model takes; -1 where it is not known.
        images: how many were timed.
    """

    evaluation: str
    finds_people: bool
    kind: str
    people: int
    milliseconds: float
    stages: Mapping[str, float]
    detector: float
    megabytes: float
    images: int


def measure(
    name: str,
    predictor: Predictor,
    cost: Cost,
    dataset: PoseDataset,
    detector: Detector | None,
) -> list[Point]:
    """Time an evaluation on synthetic crowds, and on real images by their number of people.

    Args:
        name: of the evaluation.
        predictor: its predictor; one that needs boxes is given those of the ground truth.
        cost: what to measure.
        dataset: real images.
        detector: timed on the same images, beside a predictor that needs boxes.
    """
    detector = None if predictor.finds_people else detector
    points = []
    for people in cost.people:
        scene = _scene(predictor, make_crowd(people, cost.size))
        points.append(_time(name, "synthetic", people, predictor, [scene], cost.repeats, detector))
    by_people: dict[int, list[Scene]] = defaultdict(list)
    for number in range(min(cost.images, len(dataset))):
        sample = dataset.sample(number)
        by_people[len(sample.poses)].append(_scene(predictor, sample))
    for people, scenes in sorted(by_people.items()):
        if people:
            points.append(_time(name, "real", people, predictor, scenes, 1, detector))
    return points


def make_crowd(people: int, size: int) -> SyntheticImage:
    """A synthetic image with so many people, the smaller the more there are."""
    tallest = min(0.8, 2.2 / people**0.5)
    crowd = SyntheticPeople(
        1, seed=people, size=size, people=(people, people), overlap=1.0, occlusion=0.0,
        height=(0.6 * tallest, tallest),
    )  # fmt: skip
    return crowd.draw(0)


def _time(
    name: str,
    kind: str,
    people: int,
    predictor: Predictor,
    scenes: Sequence[Scene],
    repeats: int,
    detector: Detector | None,
) -> Point:
    device = torch.device(predictor.engine.device)
    # Shapes that a GPU or a compiler sees for the first time are prepared for.
    is_prepared_by_size = device.type == "cuda" or predictor.engine.fixed_batch
    for scene in scenes if is_prepared_by_size else scenes[:1]:
        predictor.predict(*scene)
        if detector is not None:
            detector([scene.image])
    megabytes = -1.0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        predictor.predict(*scenes[0])
        megabytes = (torch.cuda.max_memory_allocated(device) - before) / 2**20
    times, stages, detections = [], [], []
    for scene in scenes:
        for _ in range(repeats):
            stats = InferenceStats(synchronize=device)
            _synchronize(device)
            start = time.perf_counter()
            predictor.predict(*scene, stats)
            _synchronize(device)
            times.append(1000 * (time.perf_counter() - start))
            stages.append({stage: 1000 * stats.seconds[stage] for stage in STAGES})
            if detector is not None:
                start = time.perf_counter()
                detector([scene.image])
                _synchronize(device)
                detections.append(1000 * (time.perf_counter() - start))
    return Point(
        name, predictor.finds_people, kind, people, statistics.median(times),
        {stage: statistics.median(s[stage] for s in stages) for stage in STAGES},
        statistics.median(detections) if detections else 0.0,
        megabytes,
        len(scenes),
    )  # fmt: skip


def crossover(one: Sequence[Point], other: Sequence[Point], detector: bool) -> float | None:
    """People an image from which the second evaluation takes longer than the first.

    Interpolated between the measured crowds; None if it never does, 0 if it always does.

    Args:
        one: a evaluation's points on drawn crowds, fewest people first.
        other: the other evaluation's, on the same crowds.
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


def find_detector(cost: Cost, device: str) -> tuple[Detector | None, str]:
    """The detector to time, and what the report must say of it."""
    if not cost.detector:
        return None, ""
    chosen = choose_device(device)
    if cost.detector not in DETECTORS:
        finder = load_finder(cost.detector, chosen)
        found: Detector = (
            BottomUpDetector(finder) if isinstance(finder, Predictor) else PersonDetector(finder)
        )
        return found, f"detector {cost.detector}"
    try:
        return build_torchvision_detector(cost.detector, chosen), f"detector {cost.detector}"
    except UserError:
        untrained = build_torchvision_detector(cost.detector, chosen, pretrained=False)
        note = "with random weights, since its own could not be downloaded: only its time counts"
        return untrained, f"detector {cost.detector} {note}"


def _scene(predictor: Predictor, sample: Sample | SyntheticImage) -> Scene:
    """With the ground-truth boxes for predictors that need boxes."""
    return Scene(sample.image, None if predictor.finds_people else Boxes.of(sample.boxes))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def with_memory(
    points: Sequence[Point], name: str, config: str, file: Path, cost: Cost
) -> list[Point]:
    """The points of an evaluation with the memory that its synthetic crowds take on a CPU.

    Each crowd has a process of its own, since memory once used stays with a process.
    """
    found = []
    for point in points:
        is_own = point.evaluation == name and point.kind == "synthetic"
        if is_own and Path(_STATUS).is_file():
            with get_context("spawn").Pool(1) as pool:
                taken = pool.apply(_memory, (config, file, point.people, cost.size))
            found.append(point._replace(megabytes=taken))
        else:
            found.append(point)
    return found


def _memory(config: str, file: Path, people: int, size: int) -> float:
    """Megabytes by which this process's peak rises with the first crowd."""
    predictor = load_predictor(parse_pose_config(config), file, "cpu")
    crowd = make_crowd(people, size)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak of loading does not count
        before = _status("VmRSS")
        predictor.predict(*_scene(predictor, crowd))
        return max(_status("VmHWM") - before, 0.0)
    except (OSError, StopIteration):  # some containers' kernels keep no such record
        return -1.0


def _status(what: str) -> float:
    """A line of the kernel's book on this process, in megabytes (Linux)."""
    lines = Path(_STATUS).read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what + ":"))
