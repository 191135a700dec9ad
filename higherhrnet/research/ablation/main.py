"""An ablation from plan to report."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from ...config import PoseConfig
from ...datasets.base import PoseDataset
from ...drawing import Image
from ...factory.data import build_dataset
from ...factory.device import choose_device
from ...factory.evaluation import build_evaluator
from ...io.atomic import write_json
from ...methods.base import method_of
from ...visualization import contact_sheet
from ..bench.table import describe_hardware
from . import cost, report
from .compare import compare, most_different
from .fairness import find_unfairness
from .oracle_analysis import OracleResult, oracle_analysis
from .plan import Plan
from .results import Results
from .runner import EvaluationResult, TrainedRun, load_predictor, parse_pose_config, run_plan

_log = logging.getLogger(__name__)
_DIFFERENT = 6


def run_ablation(
    plan: Plan,
    output: Path,
    overrides: Sequence[str],
    device: str,
    processes: int,
    command: str,
) -> Results:
    """Train and evaluate what is not there yet, measure, and write the report.

    Args:
        plan: the experiment.
        output: its folder; what is there already is not done again.
        overrides: settings of every run and evaluation.
        device: where.
        processes: how many trainings or evaluations at the same time; costs are measured alone.
        command: what the user typed, for the report.
    """
    runs, evaluations = run_plan(plan, output, overrides, device, processes)
    by_name = {evaluation.name: evaluation for evaluation in evaluations}
    run_of = {run.name: run for run in runs}
    pairs, sheets, unequal = [], [], []
    for one, other in ((by_name[a], by_name[b]) for a, b in plan.compare):
        dataset = _dataset(one)
        _log.info("comparing '%s' with '%s'", one.name, other.name)
        annotations, skeleton = dataset.annotations, dataset.skeleton
        configs = [parse_pose_config(evaluation.config) for evaluation in (one, other)]
        kind = configs[0].TEST.EVALUATION
        parts = compare(one.records, other.records, annotations, skeleton, kind)
        pairs.append((one, other, parts))
        given = any(run_of[evaluation.run].given for evaluation in (one, other))
        differences = find_unfairness(configs[0], configs[1], given)
        if given:
            differences = [
                "weights are given, and their training is not this plan's", *differences
            ]  # fmt: skip
        unequal.append(differences)
        sheets.append(_sheet(one, other, dataset, kind))
    oracle = {}
    for name in plan.oracle_analysis:
        _log.info("oracle analysis of '%s'", name)
        oracle[name] = _oracle_analysis(by_name[name], run_of[by_name[name].run], output, device)
    points: list[cost.Point] = []
    detector, note = cost.find_detector(plan.cost, device) if plan.cost.evaluations else (None, "")
    for name in plan.cost.evaluations:
        _log.info("timing '%s'", name)
        evaluation = by_name[name]
        file = run_of[evaluation.run].file
        predictor = load_predictor(parse_pose_config(evaluation.config), file, device)
        points += cost.measure(name, predictor, plan.cost, _dataset(evaluation), detector)
        if predictor.engine.device == "cpu":
            points = cost.with_memory(points, name, evaluation.config, file, plan.cost)
    results = Results(
        title=plan.title, command=command, hardware=describe_hardware(choose_device(device)),
        date=str(datetime.date.today()), runs=runs, evaluations=evaluations, pairs=pairs,
        unequal=unequal, oracle=oracle, points=points, detector=note, sheets=sheets,
    )  # fmt: skip
    report.write_report(output, results)
    return results


def _dataset(evaluation: EvaluationResult) -> PoseDataset:
    return build_dataset(parse_pose_config(evaluation.config), "test")


def _oracle_analysis(
    evaluation: EvaluationResult, run: TrainedRun, output: Path, device: str
) -> list[OracleResult]:
    """From the folder, or done now."""
    file = output / "oracle_analysis" / f"{evaluation.hash}.json"
    if not file.is_file():
        config: PoseConfig = parse_pose_config(evaluation.config)
        predictor = load_predictor(config, run.file, device)
        dataset = _dataset(evaluation)
        results = oracle_analysis(
            predictor,
            dataset,
            method_of(config).build_boxes(config, dataset),
            lambda: build_evaluator(config, dataset),
        )
        write_json(file, [vars(result) for result in results])
    return [OracleResult(**result) for result in json.loads(file.read_text())]


def _sheet(
    one: EvaluationResult, other: EvaluationResult, dataset: PoseDataset, kind: str
) -> tuple[str, Image] | None:
    """Ground truth, first and second evaluation side by side for the images where they differ
    most."""
    annotations, skeleton = dataset.annotations, dataset.skeleton
    chosen = most_different(one.records, other.records, annotations, skeleton, _DIFFERENT, kind)
    if not chosen:
        return None
    index = {image["id"]: n for n, image in enumerate(annotations["images"])}
    tiles = []
    found = [evaluation.poses(skeleton) for evaluation in (one, other)]
    for image, _ in chosen:
        sample = dataset.sample(index[image])
        tiles.append((sample.image, sample.poses, sample.valid))
        for poses in found:
            people = poses.get(image)
            drawn = sample.poses.select([]) if people is None else people.filter(person=0.2)
            tiles.append((sample.image, drawn, sample.valid))
    caption = (
        f"Where {one.name} and {other.name} differ most: ground truth, {one.name} and "
        f"{other.name} (people scoring from 0.2). People right in the first less in the second, "
        "mean over the OKS thresholds: "
        + ", ".join(f"{image} {difference:+.1f}" for image, difference in chosen)
        + "."
    )
    return caption, contact_sheet(tiles, skeleton, columns=6)
