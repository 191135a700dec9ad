"""The runs and evaluations of an ablation; nothing is done twice.

Everything is stored in the output folder under a hash of all that decides it (config, weights), so
that an interrupted plan continues where it stopped, and a changed plan repeats only what changed.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ...config import PoseConfig, override_config, parse_config, read_config, to_yaml
from ...datasets.base import PoseDataset
from ...errors import UserError
from ...factory.checkpoints import kind_of, open_network
from ...factory.data import (
    build_dataset,
    find_annotations,
    find_set_skeletons,
    find_skeleton,
    report_findings,
)
from ...factory.device import choose_device
from ...factory.evaluation import run_validation
from ...factory.inference import build_predictor, check_network
from ...factory.training import train
from ...inference.predictor import Predictor
from ...io.atomic import write_json
from ...io.paths import expand_weights
from ...methods.base import method_of
from ...methods.top_down.detectors import DETECTORS
from ...models.model_zoo import find_weights
from ...poses import Poses
from ...skeleton import Skeleton
from ..bench.table import describe_hardware
from .fairness import compare_test_images
from .plan import Evaluation, Plan, Run
from .processes import list_gpus, run_jobs

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedRun:
    """A run with its weights.

    Attributes:
        name: of the run.
        config: its config as YAML.
        file: its weights.
        hash: of both, and of everything else that decides the weights.
        given: not trained here.
        seconds: that training took, over all interruptions.
    """

    name: str
    config: str
    file: Path
    hash: str
    given: bool
    seconds: float


@dataclass(frozen=True)
class EvaluationResult:
    """The results of an evaluation.

    Attributes:
        name, run: of the evaluation and of its run.
        method: ``bottom-up`` or ``top-down``.
        finds_people: whether the method needs no boxes.
        config: with the evaluation's settings, as YAML.
        settings: the evaluation's own.
        hash: of config, weights, boxes, annotations, skeleton, folder and kind of device.
        metrics: the evaluator's, 0..1.
        records: COCO keypoint results.
        seconds: that the evaluation took.
        images: how many.
        hardware, date: where and when.
    """

    name: str
    run: str
    method: str
    finds_people: bool
    config: str
    settings: tuple[str, ...]
    hash: str
    metrics: Mapping[str, float]
    records: Sequence[Mapping[str, Any]]
    seconds: float
    images: int
    hardware: str
    date: str

    def poses(self, skeleton: Skeleton) -> dict[int | str, Poses]:
        """Poses by image id; images without any are absent."""
        found: dict[int | str, list[Mapping[str, Any]]] = {}
        for record in self.records:
            found.setdefault(record["image_id"], []).append(record)
        return {image: Poses.from_coco(people, skeleton) for image, people in found.items()}


def run_plan(
    plan: Plan,
    output: Path,
    overrides: Sequence[str],
    device: str,
    processes: int,
) -> tuple[list[TrainedRun], list[EvaluationResult]]:
    """All runs and evaluations of a plan, from the folder where they are done already.

    Args:
        overrides: settings of every run and evaluation, over the plan's own.
        device: where.
        processes: how many at the same time.
    """
    check_plan(plan, overrides)
    gpus = list_gpus(device)
    trained = run_jobs(
        partial(_train, output=output, overrides=tuple(overrides), device=device),
        plan.runs,
        processes,
        gpus,
        _job_name,
    )
    run_of = {run.name: run for run in trained}
    evaluated = run_jobs(
        partial(_evaluate, output=output, overrides=tuple(overrides), device=device),
        [(evaluation, run_of[evaluation.run]) for evaluation in plan.evaluations],
        processes,
        gpus,
        _job_name,
    )
    return trained, evaluated


def check_plan(plan: Plan, overrides: Sequence[str]) -> None:
    """Find what is wrong with a plan before hours are spent on it.

    Raises:
        UserError: a config, setting, weights file, box file, detector or comparison.
    """
    read: dict[object, PoseDataset] = {}  # COCO's take ten seconds, and evaluations share them

    def dataset_of(config: PoseConfig, split: str) -> PoseDataset:
        d = config.DATASET
        names = ("DATASET", "ROOT", split.upper(), f"{split.upper()}_LIMIT", "IMAGE_DIR",
                 "SKELETON", "CATEGORIES", "SYNTHETIC_IMAGES")  # fmt: skip
        key = (split, *(getattr(d, name) for name in names), config.SYNTHETIC, config.TRAIN.SEED)
        if key not in read:
            read[key] = build_dataset(config, split)
            report_findings(config, **{split: read[key]})
        return read[key]

    configs = {}
    for run in plan.runs:
        config = configs[run.name] = _read_run_config(run, overrides)
        skeleton = find_skeleton(config)
        if run.weights:
            check_network(config, open_network(str(_given_weights(run))), skeleton)
        else:
            start = _pretrained_file(config)
            if start is not None and not start.is_file():
                raise UserError(f"run '{run.name}': MODEL.PRETRAINED '{start}' does not exist")
            dataset_of(config, "train")
    varied = {}
    for evaluation in plan.evaluations:
        config = override_config(configs[evaluation.run], [*evaluation.settings, *overrides])
        method = method_of(config)
        try:
            method.check_detector(config, lambda name: kind_of(open_network(name)))
        except UserError as error:
            raise UserError(f"evaluation '{evaluation.name}': {error}") from error
        method.build_boxes(config, dataset_of(config, "test"))
        varied[evaluation.name] = config
    _refuse_twins("runs", [(r.name, (r.weights, to_yaml(configs[r.name]))) for r in plan.runs])
    _refuse_twins(
        "evaluations", [(e.name, (e.run, to_yaml(varied[e.name]))) for e in plan.evaluations]
    )
    for one, other in plan.compare:
        differences = compare_test_images(varied[one], varied[other])
        if differences:
            raise UserError(
                f"evaluations '{one}' and '{other}' see other images: {', '.join(differences)}"
            )
    detector = plan.cost.detector
    if plan.cost.evaluations and detector and not _is_detector(detector):
        raise UserError(
            f"COST.DETECTOR must be weights or one of {', '.join(DETECTORS)}, not '{detector}'"
        )


def _is_detector(name: str) -> bool:
    """Whether a name is one of torchvision's detectors, or of weights that are there."""
    if name in DETECTORS:
        return True
    try:
        return find_weights(name).is_file()
    except UserError:
        return False


def parse_pose_config(text: str) -> PoseConfig:
    """A config of a pose network, from YAML."""
    config = parse_config(text, quiet=True)
    method_of(config)
    assert isinstance(config, PoseConfig)
    return config


def load_predictor(config: PoseConfig, file: Path, device: str) -> Predictor:
    """The config's predictor with a file's weights, to be validated."""
    skeleton = find_skeleton(config)
    return build_predictor(config, open_network(str(file)), skeleton, choose_device(device))[0]


def _read_run_config(run: Run, overrides: Sequence[str]) -> PoseConfig:
    config = read_config(run.config, [*run.settings, *overrides])
    method_of(config)
    assert isinstance(config, PoseConfig)
    return config


def _refuse_twins(what: str, named: Sequence[tuple[str, object]]) -> None:
    """Of two equal runs one is a mistake, and at the same time they would write the same files."""
    first: dict[object, str] = {}
    for name, content in named:
        if content in first:
            raise UserError(f"{what} '{first[content]}' and '{name}' have the same settings")
        first[content] = name


def _pretrained_file(config: PoseConfig) -> Path | None:
    """The weights file that training starts from."""
    name = config.MODEL.PRETRAINED
    return find_weights(expand_weights(name, "MODEL.PRETRAINED")) if name else None


def _given_weights(run: Run) -> Path:
    file = find_weights(expand_weights(run.weights, f"run '{run.name}' WEIGHTS"))
    if not file.is_file():
        raise UserError(f"run '{run.name}': weights file '{file}' does not exist")
    return file


def _job_name(job: object) -> str:
    named = job[0] if isinstance(job, tuple) else job
    kind = "run" if isinstance(named, Run) else "evaluation"
    return f"{kind} '{getattr(named, 'name', named)}'"


def _train(run: Run, output: Path, overrides: tuple[str, ...], device: str) -> TrainedRun:
    config = _read_run_config(run, overrides)
    text = to_yaml(config)
    if run.weights:
        file = _given_weights(run)
        return TrainedRun(run.name, text, file, _hash(text, _digest(file)), True, 0.0)
    start = _pretrained_file(config)
    key = _hash(text, _digest(start) if start else "", _annotation_digest(config, "train"))
    folder = output / "runs" / f"{_file_name(run.name)}-{key}"
    file, note = folder / "best.safetensors", folder / "time.json"
    known = json.loads(note.read_text()) if note.is_file() else {"seconds": 0.0, "done": False}
    if not known["done"] or not file.is_file():
        begun = time.perf_counter()
        try:
            train(config, folder, device, resume=(folder / "last.pth").is_file())
            known["done"] = True
        finally:
            known["seconds"] += time.perf_counter() - begun
            write_json(note, known)
    return TrainedRun(run.name, text, file, _hash(text, _digest(file)), False, known["seconds"])


def _evaluate(
    job: tuple[Evaluation, TrainedRun], output: Path, overrides: tuple[str, ...], device: str
) -> EvaluationResult:
    evaluation, run = job
    config = override_config(parse_pose_config(run.config), [*evaluation.settings, *overrides])
    method, text = method_of(config), to_yaml(config)
    key = _hash(
        text,
        run.hash,
        *map(_digest, method.input_files(config)),
        _annotation_digest(config, "test"),
        os.path.expandvars(config.DATASET.ROOT),
        choose_device(device).type,
    )
    file = output / "evaluations" / f"{key}.json"
    if not file.is_file():
        begun = time.perf_counter()
        predictor = load_predictor(config, run.file, device)
        dataset = build_dataset(config, "test", predictor.skeleton)
        result = run_validation(config, predictor, dataset)
        write_json(
            file,
            {
                "metrics": result.metrics,
                "records": result.records,
                "seconds": time.perf_counter() - begun,
                "images": len(dataset),
                "hardware": describe_hardware(choose_device(device)),
                "date": str(datetime.date.today()),
            },
        )
    known = json.loads(file.read_text())
    return EvaluationResult(
        name=evaluation.name, run=evaluation.run, method=method.name,
        finds_people=method.finds_people, config=text, settings=evaluation.settings, hash=key,
        **known,
    )  # fmt: skip


def _annotation_digest(config: PoseConfig, split: str) -> str:
    """Digest of the annotations of the config's images, and of how they are read."""
    skeleton = json.dumps(find_skeleton(config).to_dict())
    if config.DATASET.DATASET != "coco":
        return skeleton
    own = [json.dumps(found.to_dict()) for found in find_set_skeletons(config, split)]
    skeleton += "".join(text for text in own if text != skeleton)
    return skeleton + "".join(_digest(file) for file, _ in find_annotations(config, split))


def _digest(file: Path) -> str:
    status = file.stat()
    return _digest_of(file, status.st_mtime_ns, status.st_size)


@lru_cache
def _digest_of(file: Path, *_: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:10]


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)
