"""An ablation from plan to report."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import build, show
from ..bench.table import hardware
from ..datasets.keypoints import Pictures
from ..drawing import Image
from ..files import write_json
from . import autopsy, cost, matrix, report
from .compare import compare, most_different
from .findings import Findings
from .matrix import Evaluated, Trained
from .plan import Plan

_DIFFERENT = 6


def run(
    plan: Plan,
    output: Path,
    overrides: Sequence[str],
    device: str,
    processes: int,
    command: str,
    say: Callable[[str], None] = print,
) -> Findings:
    """Train and evaluate what is not there yet, measure, and write the report.

    Args:
        plan: the experiment.
        output: its folder; what lies there already is not done again.
        overrides: settings of every arm and row.
        device: where.
        processes: how many trainings or evaluations at the same time; costs are measured alone.
        command: what the user typed, for the report.
        say: told what is being done.
    """
    arms, rows = matrix.run(plan, output, overrides, device, processes, say)
    by_name = {row.name: row for row in rows}
    weights = {arm.name: arm for arm in arms}
    pairs, sheets, unequal = [], [], []
    for one, other in ((by_name[a], by_name[b]) for a, b in plan.compare):
        truth = _pictures(one)
        say(f"comparing '{one.name}' with '{other.name}'")
        annotations, skeleton = truth.annotations, truth.skeleton
        configs = [build.parse_config(row.config) for row in (one, other)]
        kind = configs[0].TEST.EVALUATION
        parts = compare(one.records, other.records, annotations, skeleton, kind)
        pairs.append((one, other, parts))
        given = any(weights[row.arm].given for row in (one, other))
        apart = build.unlike(configs[0], configs[1], given)
        if given:
            apart = ["weights are given, and their training is not this plan's", *apart]
        unequal.append(apart)
        sheets.append(_sheet(one, other, truth, kind))
    causes = {}
    for name in plan.autopsy:
        say(f"autopsy of '{name}'")
        causes[name] = _autopsy(by_name[name], weights[by_name[name].arm], output, device)
    points: list[cost.Point] = []
    detector, note = cost.find_detector(plan.cost, device) if plan.cost.rows else (None, "")
    for name in plan.cost.rows:
        say(f"timing '{name}'")
        row = by_name[name]
        config = build.parse_config(row.config)
        ready = matrix.predictor_of(config, weights[row.arm].file, device)
        points += cost.measure(name, ready, plan.cost, _pictures(row), detector)
        if ready.device.type == "cpu":
            points = cost.with_memory(points, name, row.config, weights[row.arm].file, plan.cost)
    found = Findings(
        title=plan.title, command=command, hardware=hardware(build.device(device)),
        date=str(datetime.date.today()), arms=arms, rows=rows, pairs=pairs, unequal=unequal,
        causes=causes, points=points, detector=note, sheets=sheets,
    )  # fmt: skip
    report.write(output, found)
    return found


def _pictures(row: Evaluated) -> Pictures:
    return build.pictures(build.parse_config(row.config), "test")


def _autopsy(row: Evaluated, arm: Trained, output: Path, device: str) -> list[autopsy.Cause]:
    """From the folder, or done now."""
    file = output / "autopsies" / f"{row.hash}.json"
    if not file.is_file():
        config = build.parse_config(row.config)
        ready = matrix.predictor_of(config, arm.file, device)
        truth = _pictures(row)
        causes = autopsy.autopsy(ready, truth, build.boxes(config, truth), build.evaluation(config))
        write_json(file, [vars(cause) for cause in causes])
    return [autopsy.Cause(**cause) for cause in json.loads(file.read_text())]


def _sheet(
    one: Evaluated, other: Evaluated, truth: Pictures, kind: str
) -> tuple[str, Image] | None:
    """Truth, first row and second row side by side for the pictures where they differ most."""
    annotations, skeleton = truth.annotations, truth.skeleton
    chosen = most_different(one.records, other.records, annotations, skeleton, _DIFFERENT, kind)
    if not chosen:
        return None
    number = {image["id"]: n for n, image in enumerate(annotations["images"])}
    tiles = []
    found = [row.poses(skeleton) for row in (one, other)]
    for image, _ in chosen:
        sample = truth.sample(number[image])
        tiles.append((sample.image, sample.poses, sample.valid))
        for poses in found:
            people = poses.get(image)
            shown = sample.poses.select([]) if people is None else people.filter(person=0.2)
            tiles.append((sample.image, shown, sample.valid))
    caption = (
        f"Where {one.name} and {other.name} differ most: the truth, {one.name} and {other.name} "
        "(people scoring from 0.2). People right in the first less in the second, mean over the "
        "OKS thresholds: " + ", ".join(f"{image} {apart:+.1f}" for image, apart in chosen) + "."
    )
    return caption, show.contact_sheet(tiles, skeleton, columns=6)
