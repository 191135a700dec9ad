"""The ablation's report: Markdown, JSON and CSV, with plots and sheets of pictures."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import show
from ..evaluation.report import table
from ..evaluation.results import shown
from ..files import whole, write_json
from . import plots
from .compare import DRAWS, Part
from .cost import STAGES, Point
from .findings import Findings
from .matrix import Evaluated, Trained


def write(folder: Path, found: Findings) -> None:
    """``report.md``, ``report.json``, CSV tables, PNG plots and JPEG sheets."""
    lines = [
        f"# {found.title}", "",
        f"`{found.command}`", "",
        f"{found.date}, {found.hardware}. The hash before a row is that of its config and weights; "
        "its results are `rows/HASH.json`.", "",
    ]  # fmt: skip
    lines += ["## Runs", "", *table([_arm(arm) for arm in found.arms]), ""]
    rows = [_row(row) for row in found.rows]
    lines += ["## Accuracy", "", *table(rows), ""]
    _csv(folder / "rows.csv", [row | _origin(r) for row, r in zip(rows, found.rows, strict=True)])
    compared: list[dict[str, Any]] = []
    for number, ((one, other, parts), unequal) in enumerate(
        zip(found.pairs, found.unequal, strict=True), 1
    ):
        lines += [f"## {one.name} and {other.name}", "", *_fairness(unequal), ""]
        printed = [_part(part, one.name, other.name) for part in parts]
        compared += [
            {"first row": one.name, "second row": other.name, **part._asdict()} for part in parts
        ]
        lines += [*table(printed), "", f"![](compare_{number}.png)", ""]
        lines += [
            f"Differences are {one.name} less {other.name}; intervals are 95 % of {DRAWS} "
            "bootstrap draws, in each of which both rows see the same pictures.", "",
        ]  # fmt: skip
        plots.parts(folder / f"compare_{number}.png", one, other, parts, found)
    _csv(folder / "compare.csv", compared)
    for number, (made, pair) in enumerate(zip(found.sheets, found.pairs, strict=True), 1):
        if made is None:
            continue
        caption, sheet = made
        show.save(
            folder / f"differ_{number}.jpg",
            show.signed(sheet, found.signature([*pair[:2]])),
        )
        lines += [f"![](differ_{number}.jpg)", "", caption, ""]
    if found.causes:
        lines += _autopsy(found)
        plots.causes(folder / "autopsy.png", found)
        _csv(
            folder / "autopsy.csv",
            [{"row": r, **vars(c)} for r, causes in found.causes.items() for c in causes],
        )
    if found.points:
        lines += _costs(found)
        plots.points(folder / "cost.png", found)
        _csv(folder / "cost.csv", [_point(point) for point in found.points])
    with whole(folder / "report.md") as partial:
        partial.write_text("\n".join(lines))
    write_json(
        folder / "report.json",
        {
            "title": found.title, "command": found.command, "hardware": found.hardware,
            "date": found.date,
            "arms": [{**_arm(arm), "config": arm.config} for arm in found.arms],
            "rows": [
                {"name": r.name, "hash": r.hash, "mode": _mode(r), "settings": list(r.settings),
                 "metrics": dict(r.metrics), "seconds": r.seconds, "hardware": r.hardware,
                 "date": r.date}
                for r in found.rows
            ],
            "compare": compared,
            "autopsy": {row: [vars(c) for c in causes] for row, causes in found.causes.items()},
            "cost": [_point(point) for point in found.points],
            "crossover": found.crossovers(),
        },
    )  # fmt: skip


def _mode(row: Evaluated) -> str:
    return "top-down" if row.top_down else "bottom-up"


def _arm(arm: Trained) -> dict[str, Any]:
    trained = "given" if arm.given else f"{arm.seconds / 60:.0f} minutes"
    return {"arm": arm.name, "hash": arm.hash, "weights": arm.file.name, "training": trained}


def _row(row: Evaluated) -> dict[str, Any]:
    settings = " ".join(row.settings).replace("|", "/") or "as its arm"
    figures = {name: shown(value) for name, value in row.metrics.items()}
    return {"row": row.name, "hash": row.hash, "mode": _mode(row), "settings": settings, **figures}


def _origin(row: Evaluated) -> dict[str, Any]:
    return {
        "pictures": row.pictures, "seconds": round(row.seconds, 1), "hardware": row.hardware,
        "date": row.date,
    }  # fmt: skip


def _fairness(unequal: Sequence[str]) -> list[str]:
    if not unequal:
        return ["Both arms share backbone, start, pictures, passes, seed and evaluator."]
    return ["**Not the same in both:** " + "; ".join(unequal) + "."]


def _part(part: Part, first: str, second: str) -> dict[str, Any]:
    def one(value: float, interval: tuple[float, float]) -> str:
        return f"{100 * value:.1f} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"

    better = {"first": first, "second": second, "undecided": "undecided"}[part.verdict]
    return {
        "by": part.by, "part": part.part, "pictures": part.pictures, "people": part.people,
        f"AP {first}": one(part.first, part.first_interval),
        f"AP {second}": one(part.second, part.second_interval),
        "difference": one(part.difference, (part.low, part.high)), "better": better,
    }  # fmt: skip


def _autopsy(found: Findings) -> list[str]:
    lines = ["## Autopsy", "", "AP when one part of a row's answer is replaced by the truth; what",
             "that gains is what the part costs.", ""]  # fmt: skip
    for row, causes in found.causes.items():
        lines += [f"**{row}**", ""]
        lines += table([
            {"truth instead of": cause.replaced.replace("nothing", "nothing: as it is"),
             "AP": f"{100 * cause.AP:.1f}" if cause.AP >= 0 else "-",
             "AP it costs": f"{100 * cause.gain:+.1f}"}
            for cause in causes
        ])  # fmt: skip
        lines += [""]
    return [*lines, "![](autopsy.png)", ""]


def _point(point: Point) -> dict[str, Any]:
    return {
        "row": point.row, "pictures": point.kind, "people": point.people,
        "ms": round(point.milliseconds, 2),
        **{f"{stage} ms": round(point.stages[stage], 2) for stage in STAGES},
        "detector ms": round(point.detector, 2), "MB": round(point.megabytes, 1),
        "number": point.pictures,
    }  # fmt: skip


def _costs(found: Findings) -> list[str]:
    lines = ["## Cost", "", *table([_point(point) for point in found.points]), ""]
    for answer in found.crossovers():
        said = []
        for way in ("without detector", "with detector"):
            if f"people, {way}" not in answer:
                continue
            people = answer[f"people, {way}"]
            said.append(
                f"{way} " + ("never in these crowds" if people is None
                else "always" if people == 0 else f"from {people:.1f} people a picture on")
            )  # fmt: skip
        lines += [
            f"**Crossover:** {answer['top-down']} takes longer than {answer['bottom-up']} "
            + ", ".join(said) + ".", "",
        ]  # fmt: skip
    memory = "MB: the peak above what the loaded model takes (-1: unknown)."
    return [*lines, f"{found.detector}. {memory}".lstrip(". "), "", "![](cost.png)", ""]


def _csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with whole(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
