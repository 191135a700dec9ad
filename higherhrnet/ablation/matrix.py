"""The runs of an ablation: arms are trained, rows are evaluated, and nothing is done twice.

Everything lies in the output folder under a hash of all that decides it (config, weights), so that
an interrupted matrix goes on where it stopped, and a changed plan repeats only what changed.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from .. import build
from ..bench.table import hardware
from ..datasets.keypoints import Pictures
from ..errors import UserError
from ..files import write_json
from ..inference.bottom_up import BottomUp
from ..inference.detectors import TORCHVISION
from ..inference.top_down import TopDown
from ..models import weights
from ..poses import Poses
from ..skeleton import Skeleton
from .plan import Arm, Plan, Row
from .processes import all_of, gpus


@dataclass(frozen=True)
class Trained:
    """An arm with its weights.

    Attributes:
        name: of the arm.
        config: its config as YAML.
        file: its weights.
        hash: of both, and of everything else that decides what becomes of it.
        given: not trained here.
        seconds: that training took, over all its legs.
    """

    name: str
    config: str
    file: Path
    hash: str
    given: bool
    seconds: float


@dataclass(frozen=True)
class Evaluated:
    """A row's answer.

    Attributes:
        name, arm: of the row and of its arm.
        top_down: its mode.
        config: with the row's settings, as YAML.
        settings: the row's own.
        hash: of config, weights, boxes, annotations, skeleton, folder and kind of device.
        metrics: the evaluator's figures, 0..1.
        records: COCO keypoint results.
        seconds: that the evaluation took.
        pictures: how many.
        hardware, date: where and when.
    """

    name: str
    arm: str
    top_down: bool
    config: str
    settings: tuple[str, ...]
    hash: str
    metrics: Mapping[str, float]
    records: Sequence[Mapping[str, Any]]
    seconds: float
    pictures: int
    hardware: str
    date: str

    def poses(self, skeleton: Skeleton) -> dict[int | str, Poses]:
        """People by image id; pictures without any are absent."""
        found: dict[int | str, list[Mapping[str, Any]]] = {}
        for record in self.records:
            found.setdefault(record["image_id"], []).append(record)
        return {image: Poses.from_coco(people, skeleton) for image, people in found.items()}


def run(
    plan: Plan,
    output: Path,
    overrides: Sequence[str],
    device: str,
    processes: int,
    say: Callable[[str], None],
) -> tuple[list[Trained], list[Evaluated]]:
    """All arms and rows of a plan, from the folder where they are done already.

    Args:
        overrides: settings of every arm and row, over the plan's own.
        device: where.
        processes: how many runs at the same time.
        say: told what is being done.
    """
    check(plan, overrides)
    trained = all_of(
        partial(_train, output=output, overrides=tuple(overrides), device=device),
        plan.arms,
        processes,
        gpus(device),
        _named,
        say,
    )
    arms = {arm.name: arm for arm in trained}
    evaluated = all_of(
        partial(_evaluate, output=output, overrides=tuple(overrides), device=device),
        [(row, arms[row.arm]) for row in plan.rows],
        processes,
        gpus(device),
        _named,
        say,
    )
    return trained, evaluated


def check(plan: Plan, overrides: Sequence[str]) -> None:
    """Find what is wrong with a plan before hours are spent on it.

    Raises:
        UserError: a config, setting, weights file, box file, detector or comparison.
    """
    read: dict[object, Pictures] = {}  # COCO's take ten seconds, and rows share them

    def pictures(config: build.Config, split: str) -> Pictures:
        d = config.DATASET
        names = ("KIND", "ROOT", split.upper(), f"{split.upper()}_LIMIT", "IMAGES", "SKELETON")
        key = (split, d.DRAWN, *(d[name] for name in names), str(config.TOY), config.TRAIN.SEED)
        if key not in read:
            read[key] = build.pictures(config, split)
        return read[key]

    configs = {}
    for arm in plan.arms:
        config = configs[arm.name] = build.read_config(arm.config, [*arm.settings, *overrides])
        joints = build.skeleton(config)
        if arm.weights:
            build.with_weights(config, build.open_weights(str(_given(arm))), joints)
        else:
            start = _start(config)
            if start is not None and not start.is_file():
                raise UserError(f"arm '{arm.name}': MODEL.PRETRAINED '{start}' does not exist")
            pictures(config, "train")
    rows = {}
    for row in plan.rows:
        config = build.varied(configs[row.arm], [*row.settings, *overrides])
        truth = pictures(config, "test")
        if build.is_top_down(config):
            finder = build.bottom_up_boxes(config)
            if finder and build.is_top_down(build.config_of(build.open_weights(str(finder)))):
                raise UserError(f"row '{row.name}': TEST.BOXES '{finder}' needs boxes itself")
            build.boxes(config, truth)
        rows[row.name] = config
    _refuse_twins(
        "arms", [(a.name, (a.weights, build.to_yaml(configs[a.name]))) for a in plan.arms]
    )
    _refuse_twins("rows", [(r.name, (r.arm, build.to_yaml(rows[r.name]))) for r in plan.rows])
    for one, other in plan.compare:
        apart = build.other_pictures(rows[one], rows[other])
        if apart:
            raise UserError(f"rows '{one}' and '{other}' see other pictures: {', '.join(apart)}")
    if plan.cost.rows and plan.cost.detector and plan.cost.detector not in TORCHVISION:
        raise UserError(
            f"COST.DETECTOR must be one of {', '.join(TORCHVISION)}, not '{plan.cost.detector}'"
        )


def _refuse_twins(what: str, named: Sequence[tuple[str, object]]) -> None:
    """Of two equal runs one is a mistake, and side by side they would write the same files."""
    first: dict[object, str] = {}
    for name, content in named:
        if content in first:
            raise UserError(f"{what} '{first[content]}' and '{name}' have the same settings")
        first[content] = name


def _start(config: build.Config) -> Path | None:
    """The weights file that training starts from."""
    name = config.MODEL.PRETRAINED
    return build.find_weights(str(build.expand_path(name, "MODEL.PRETRAINED"))) if name else None


def _given(arm: Arm) -> Path:
    file = build.find_weights(str(build.expand_path(arm.weights, f"arm '{arm.name}' WEIGHTS")))
    if not file.is_file():
        raise UserError(f"arm '{arm.name}': weights file '{file}' does not exist")
    return file


def _named(job: object) -> str:
    named = job[0] if isinstance(job, tuple) else job
    return f"{'arm' if isinstance(named, Arm) else 'row'} '{getattr(named, 'name', named)}'"


def _train(arm: Arm, output: Path, overrides: tuple[str, ...], device: str) -> Trained:
    config = build.read_config(arm.config, [*arm.settings, *overrides])
    text = build.to_yaml(config)
    if arm.weights:
        file = _given(arm)
        return Trained(arm.name, text, file, _hash(text, _digest(file)), True, 0.0)
    start = _start(config)
    key = _hash(text, _digest(start) if start else "", _annotated(config, "train"))
    folder = output / "arms" / f"{_plain(arm.name)}-{key}"
    file, note = folder / "best.safetensors", folder / "time.json"
    known = json.loads(note.read_text()) if note.is_file() else {"seconds": 0.0, "done": False}
    if not known["done"] or not file.is_file():
        begun = time.perf_counter()
        try:
            build.train(config, folder, device, resume=(folder / "last.pth").is_file())
            known["done"] = True
        finally:
            known["seconds"] += time.perf_counter() - begun
            write_json(note, known)
    return Trained(arm.name, text, file, _hash(text, _digest(file)), False, known["seconds"])


def _evaluate(
    job: tuple[Row, Trained], output: Path, overrides: tuple[str, ...], device: str
) -> Evaluated:
    row, arm = job
    config = build.varied(build.parse_config(arm.config), [*row.settings, *overrides])
    text = build.to_yaml(config)
    boxes = _box_file(config)
    key = _hash(
        text,
        arm.hash,
        _digest(boxes) if boxes else "",
        _annotated(config, "test"),
        os.path.expandvars(config.DATASET.ROOT),
        build.device(device).type,
    )
    file = output / "rows" / f"{key}.json"
    if not file.is_file():
        begun = time.perf_counter()
        predictor = predictor_of(config, arm.file, device)
        truth = build.pictures(config, "test")
        found = build.validate(
            predictor, truth, evaluate=build.evaluation(config), boxes_of=build.boxes(config, truth)
        )
        write_json(
            file,
            {
                "metrics": found.metrics,
                "records": found.records,
                "seconds": time.perf_counter() - begun,
                "pictures": len(truth),
                "hardware": hardware(predictor.device),
                "date": str(datetime.date.today()),
            },
        )
    known = json.loads(file.read_text())
    return Evaluated(
        name=row.name, arm=row.arm, top_down=build.is_top_down(config), config=text,
        settings=row.settings, hash=key, **known,
    )  # fmt: skip


def predictor_of(config: build.Config, file: Path, device: str) -> BottomUp | TopDown:
    """The config's predictor with a file's weights, ready to be validated."""
    joints = build.skeleton(config)
    network, _ = build.with_weights(config, weights.read(file), joints)
    return build.predictor(config, network, joints, build.device(device))


def _box_file(config: build.Config) -> Path | None:
    """What decides the boxes beside the config: a list of them, or bottom-up weights."""
    if not build.is_top_down(config):
        return None
    name = str(config.TEST.BOXES)
    return (
        build.expand_path(name, "TEST.BOXES")
        if name.endswith(".json")
        else build.bottom_up_boxes(config)
    )


def _annotated(config: build.Config, split: str) -> str:
    """Digest of what is annotated of the config's pictures, and of how that is read."""
    skeleton = json.dumps(build.skeleton(config).to_dict())
    drawn = config.DATASET.KIND != "coco"
    return skeleton if drawn else skeleton + _digest(build.split_files(config, split)[0])


def _digest(file: Path) -> str:
    status = file.stat()
    return _digest_of(file, status.st_mtime_ns, status.st_size)


@lru_cache
def _digest_of(file: Path, *_: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:10]


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)
