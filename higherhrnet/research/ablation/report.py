"""The ablation's report: Markdown, JSON and CSV, with plots and sheets of images."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...evaluation.evaluator import format_metric
from ...evaluation.report import FEWEST_IMAGES, markdown_table
from ...io.atomic import atomic_write, write_json
from ...visualization import add_caption, save_image
from . import plots
from .compare import DRAWS, Part
from .cost import STAGES, Point
from .results import Results
from .runner import EvaluationResult, TrainedRun


def write_report(folder: Path, found: Results) -> None:
    """``report.md``, ``report.json``, CSV tables, PNG plots and JPEG sheets."""
    lines = [
        f"# {found.title}", "",
        f"`{found.command}`", "",
        f"{found.date}, {found.hardware}. Hashes are those of config and weights; the "
        "results of an evaluation are in `evaluations/HASH.json`.", "",
    ]  # fmt: skip
    lines += ["## Runs", "", *markdown_table([_run(run) for run in found.runs]), ""]
    evaluations = [_evaluation(evaluation) for evaluation in found.evaluations]
    lines += ["## Accuracy", "", *markdown_table(evaluations), ""]
    _csv(
        folder / "evaluations.csv",
        [
            evaluation | _origin(r)
            for evaluation, r in zip(evaluations, found.evaluations, strict=True)
        ],
    )
    compared: list[dict[str, Any]] = []
    for number, ((one, other, parts), unequal) in enumerate(
        zip(found.pairs, found.unequal, strict=True), 1
    ):
        lines += [f"## {one.name} and {other.name}", "", *_describe_fairness(unequal), ""]
        printed = [_part(part, one.name, other.name) for part in parts]
        compared += [
            {"first evaluation": one.name, "second evaluation": other.name, **part._asdict()}
            for part in parts
        ]
        lines += [*markdown_table(printed), "", f"![](compare_{number}.png)", ""]
        lines += [
            f"Differences are {one.name} less {other.name}; intervals are 95 % of {DRAWS} "
            "bootstrap draws, in each of which both evaluations see the same images; parts of "
            f"fewer than {FEWEST_IMAGES} images have none.", "",
        ]  # fmt: skip
        plots.plot_parts(folder / f"compare_{number}.png", one, other, parts, found)
    _csv(folder / "compare.csv", compared)
    for number, (made, pair) in enumerate(zip(found.sheets, found.pairs, strict=True), 1):
        if made is None:
            continue
        caption, sheet = made
        save_image(
            folder / f"differ_{number}.jpg",
            add_caption(sheet, found.signature([*pair[:2]])),
        )
        lines += [f"![](differ_{number}.jpg)", "", caption, ""]
    if found.oracle:
        lines += _oracle_analysis(found)
        plots.plot_oracle(folder / "oracle_analysis.png", found)
        _csv(
            folder / "oracle_analysis.csv",
            [{"evaluation": r, **vars(c)} for r, oracle in found.oracle.items() for c in oracle],
        )
    if found.points:
        lines += _costs(found)
        plots.plot_costs(folder / "cost.png", found)
        _csv(folder / "cost.csv", [_point(point) for point in found.points])
    with atomic_write(folder / "report.md") as partial:
        partial.write_text("\n".join(lines))
    write_json(
        folder / "report.json",
        {
            "title": found.title, "command": found.command, "hardware": found.hardware,
            "date": found.date,
            "runs": [{**_run(run), "config": run.config} for run in found.runs],
            "evaluations": [
                {"name": r.name, "hash": r.hash, "method": r.method, "settings": list(r.settings),
                 "metrics": dict(r.metrics), "seconds": r.seconds, "hardware": r.hardware,
                 "date": r.date}
                for r in found.evaluations
            ],
            "compare": compared,
            "oracle_analysis": {
                name: [vars(result) for result in oracle] for name, oracle in found.oracle.items()
            },
            "cost": [_point(point) for point in found.points],
            "crossover": found.crossovers(),
        },
    )  # fmt: skip


def _run(run: TrainedRun) -> dict[str, Any]:
    trained = "given" if run.given else f"{run.seconds / 60:.0f} minutes"
    return {"run": run.name, "hash": run.hash, "weights": run.file.name, "training": trained}


def _evaluation(evaluation: EvaluationResult) -> dict[str, Any]:
    settings = " ".join(evaluation.settings).replace("|", "/") or "as its run"
    metrics = {name: format_metric(value) for name, value in evaluation.metrics.items()}
    return {
        "evaluation": evaluation.name,
        "hash": evaluation.hash,
        "method": evaluation.method,
        "settings": settings,
        **metrics,
    }


def _origin(evaluation: EvaluationResult) -> dict[str, Any]:
    return {
        "images": evaluation.images, "seconds": round(evaluation.seconds, 1),
        "hardware": evaluation.hardware,
        "date": evaluation.date,
    }  # fmt: skip


def _describe_fairness(unequal: Sequence[str]) -> list[str]:
    if not unequal:
        return ["Both runs share backbone, start, images, passes, seed and evaluator."]
    return ["**Not the same in both:** " + "; ".join(unequal) + "."]


def _part(part: Part, first: str, second: str) -> dict[str, Any]:
    def one(value: float, interval: tuple[float, float]) -> str:
        if part.images < FEWEST_IMAGES:
            return f"{100 * value:.1f}"
        return f"{100 * value:.1f} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"

    better = {"first": first, "second": second, "undecided": "undecided"}[part.verdict]
    return {
        "by": part.by, "part": part.part, "images": part.images, "people": part.people,
        f"AP {first}": one(part.first, part.first_interval),
        f"AP {second}": one(part.second, part.second_interval),
        "difference": one(part.difference, (part.low, part.high)), "better": better,
    }  # fmt: skip


def _oracle_analysis(found: Results) -> list[str]:
    lines = [
        "## Oracle analysis", "",
        "AP when one part of an evaluation's predictions is replaced by ground truth; what that",
        "gains is what the part costs. Bottom-up it is of one look at the whole image, without",
        "TEST.ZOOM_SIZES and TEST.MASK_SUPPORT.", "",
    ]  # fmt: skip
    for evaluation, oracle in found.oracle.items():
        lines += [f"**{evaluation}**", ""]
        lines += markdown_table([
            {"replaced by ground truth": result.replaced.replace("nothing", "nothing: as it is"),
             "AP": f"{100 * result.AP:.1f}" if result.AP >= 0 else "-",
             "AP it costs": f"{100 * result.gain:+.1f}"}
            for result in oracle
        ])  # fmt: skip
        lines += [""]
    return [*lines, "![](oracle_analysis.png)", ""]


def _point(point: Point) -> dict[str, Any]:
    return {
        "evaluation": point.evaluation, "images": point.kind, "people": point.people,
        "ms": round(point.milliseconds, 2),
        **{f"{stage} ms": round(point.stages[stage], 2) for stage in STAGES},
        "detector ms": round(point.detector, 2), "MB": round(point.megabytes, 1),
        "number": point.images,
    }  # fmt: skip


def _costs(found: Results) -> list[str]:
    lines = ["## Cost", "", *markdown_table([_point(point) for point in found.points]), ""]
    for answer in found.crossovers():
        said = []
        for way in ("without detector", "with detector"):
            if f"people, {way}" not in answer:
                continue
            people = answer[f"people, {way}"]
            said.append(
                f"{way} " + ("never in these crowds" if people is None
                else "always" if people == 0 else f"from {people:.1f} people an image on")
            )  # fmt: skip
        lines += [
            f"**Crossover:** {answer['top-down']} takes longer than {answer['bottom-up']} "
            + ", ".join(said) + ".", "",
        ]  # fmt: skip
    memory = "MB: the peak above what the loaded model takes (-1: unknown)."
    return [*lines, f"{found.detector}. {memory}".lstrip(". "), "", "![](cost.png)", ""]


def _csv(path: Path, evaluations: Sequence[Mapping[str, Any]]) -> None:
    if not evaluations:
        return
    columns = list(dict.fromkeys(key for evaluation in evaluations for key in evaluation))
    with atomic_write(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(evaluations)
