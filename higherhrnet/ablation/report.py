"""The ablation's report: Markdown, JSON, CSV, plots, and a sheet of pictures where modes differ."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from .. import show
from ..drawing import Image
from ..evaluation.report import table
from ..evaluation.results import shown
from ..files import whole, write_json
from .autopsy import Cause
from .compare import DRAWS, Part
from .cost import STAGES, Point, crossover
from .matrix import Evaluated, Trained

_COLOURS = ("#1d70a2", "#e07a1f", "#3a9d5d", "#8e5ea2")


@dataclass(frozen=True)
class Findings:
    """Everything that an ablation found.

    Attributes:
        title: of the plan.
        command, hardware, date: how, where and when it was run.
        arms, rows: the runs.
        pairs: (first row, second row, their parts) of each comparison.
        unequal: for each comparison, settings in which its arms differ though a fair one would not.
        causes: row → where its AP is lost.
        points: what pictures cost.
        detector: what is to be said of the timed detector.
        sheets: (caption, picture) of each comparison: where the rows differ most; None if nowhere.
    """

    title: str
    command: str
    hardware: str
    date: str
    arms: Sequence[Trained]
    rows: Sequence[Evaluated]
    pairs: Sequence[tuple[Evaluated, Evaluated, list[Part]]]
    unequal: Sequence[Sequence[str]]
    causes: Mapping[str, list[Cause]]
    points: Sequence[Point]
    detector: str
    sheets: Sequence[tuple[str, Image] | None]


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
        _draw_parts(folder / f"compare_{number}.png", one, other, parts, found)
    _csv(folder / "compare.csv", compared)
    for number, (made, pair) in enumerate(zip(found.sheets, found.pairs, strict=True), 1):
        if made is None:
            continue
        caption, sheet = made
        show.save(
            folder / f"differ_{number}.jpg",
            show.signed(sheet, _signature(f"{pair[0].hash} {pair[1].hash}", found)),
        )
        lines += [f"![](differ_{number}.jpg)", "", caption, ""]
    if found.causes:
        lines += _autopsy(found)
        _draw_causes(folder / "autopsy.png", found)
        _csv(
            folder / "autopsy.csv",
            [{"row": r, **vars(c)} for r, causes in found.causes.items() for c in causes],
        )
    if found.points:
        lines += _costs(found)
        _draw_points(folder / "cost.png", found)
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
            "crossover": crossovers(found.points),
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
             "AP": f"{100 * cause.AP:.1f}",
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


def crossovers(points: Sequence[Point]) -> list[dict[str, Any]]:
    """For each bottom-up and top-down row: people from which top-down is slower, on drawn crowds,
    without and, where one was timed, with a detector."""
    drawn = [point for point in points if point.kind == "drawn"]
    names = list(dict.fromkeys(point.row for point in drawn))
    by_row = {name: [point for point in drawn if point.row == name] for name in names}
    slow = [name for name in names if any(point.top_down for point in by_row[name])]
    answers = []
    for one in (name for name in names if name not in slow):
        for other in slow:
            answer: dict[str, Any] = {"bottom-up": one, "top-down": other}
            answer["people, without detector"] = crossover(by_row[one], by_row[other], False)
            if any(point.detector for point in by_row[other]):
                answer["people, with detector"] = crossover(by_row[one], by_row[other], True)
            answers.append(answer)
    return answers


def _costs(found: Findings) -> list[str]:
    lines = ["## Cost", "", *table([_point(point) for point in found.points]), ""]
    for answer in crossovers(found.points):
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


def _draw_parts(
    path: Path, one: Evaluated, other: Evaluated, parts: Sequence[Part], found: Findings
) -> None:
    figure = Figure(figsize=(11, 0.42 * len(parts) + 2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    places = np.arange(len(parts))[::-1].astype(float)
    for shift, row, values, intervals, colour in (
        (0.2, one, [p.first for p in parts], [p.first_interval for p in parts], _COLOURS[0]),
        (-0.2, other, [p.second for p in parts], [p.second_interval for p in parts], _COLOURS[1]),
    ):
        at = 100 * np.array(values)
        spread = np.abs(100 * np.array(intervals).T - at)
        left.barh(places + shift, at, 0.38, color=colour, label=row.name, xerr=spread,
                  error_kw={"ecolor": "#444444", "capsize": 2, "elinewidth": 1})  # fmt: skip
    names = [p.part if p.by == "all" else f"{p.by}: {p.part}" for p in parts]
    left.set_yticks(places, [f"{n} ({p.people})" for n, p in zip(names, parts, strict=True)])
    left.set_xlabel("AP, 95 % interval (people in brackets)")
    left.set_xlim(left=0)
    left.legend(frameon=False, loc="lower right", fontsize="small")
    apart = 100 * np.array([p.difference for p in parts])
    spread = np.abs(100 * np.array([[p.low for p in parts], [p.high for p in parts]]) - apart)
    right.errorbar(apart, places, xerr=spread, fmt="o", color="#333333", capsize=3)
    right.axvline(0, color="#999999", linewidth=1)
    right.set_xlabel(f"AP of {one.name} less {other.name}")
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
    _save(figure, path, f"{one.hash} {other.hash}", found)


def _draw_causes(path: Path, found: Findings) -> None:
    figure = Figure(figsize=(10, 1.2 + 0.35 * sum(map(len, found.causes.values()))),
                    layout="constrained")  # fmt: skip
    axes = figure.subplots()
    place, ticks = 0, []
    for (row, causes), colour in zip(found.causes.items(), _COLOURS * 9, strict=False):
        for cause in causes:
            as_it_is = cause.replaced == "nothing"
            axes.barh(-place, 100 * causes[0].AP, color=colour)
            if not as_it_is:
                start = 100 * min(causes[0].AP, cause.AP)
                axes.barh(-place, abs(100 * cause.gain), left=start, color=colour, alpha=0.35,
                          hatch="" if cause.gain >= 0 else "//")  # fmt: skip
                axes.text(100 * max(causes[0].AP, cause.AP) + 0.5, -place,
                          f"{100 * cause.gain:+.1f}", va="center", fontsize="small")  # fmt: skip
            ticks.append(
                (-place, f"{row}: " + ("as it is" if as_it_is else f"true {cause.replaced}"))
            )
            place += 1
        place += 1
    axes.set_yticks(*zip(*ticks, strict=True))
    axes.set_xlabel("AP; light: what the truth gains")
    axes.set_xlim(0, 107)
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path, _hashes(found, list(found.causes)), found)


def _draw_points(path: Path, found: Findings) -> None:
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    time, memory = figure.subplots(1, 2)
    names = list(dict.fromkeys(point.row for point in found.points))
    for name, colour in zip(names, _COLOURS * 9, strict=False):
        drawn = [p for p in found.points if p.row == name and p.kind == "drawn"]
        real = [p for p in found.points if p.row == name and p.kind == "real"]
        people = [p.people for p in drawn]
        time.plot(people, [p.milliseconds for p in drawn], "o-", color=colour, label=name)
        if any(p.detector for p in drawn):
            with_detector = [p.milliseconds + p.detector for p in drawn]
            time.plot(people, with_detector, "o--", color=colour, label=f"{name} and detector")
        time.plot([p.people for p in real], [p.milliseconds for p in real], "x", color=colour,
                  label=f"{name}, real pictures" if real else None)  # fmt: skip
        known = [(p.people, p.megabytes) for p in drawn if p.megabytes > 0]
        memory.plot(*zip(*known, strict=True), "o-", color=colour, label=name) if known else None
    for answer in crossovers(found.points):
        for way, style in (("without detector", ":"), ("with detector", "-.")):
            if answer.get(f"people, {way}"):
                time.axvline(answer[f"people, {way}"], color="#777777", linestyle=style,
                             label=f"crossover {way}: {answer[f'people, {way}']:.1f}")  # fmt: skip
    crowds = sorted({point.people for point in found.points if point.kind == "drawn"})
    _labelled(time, "milliseconds a picture", crowds)
    _labelled(memory, "peak MB above the loaded model", crowds)
    _save(figure, path, _hashes(found, names), found)


def _labelled(axes: Axes, what: str, people: Sequence[int]) -> None:
    axes.set_xlabel("people in the picture")
    axes.set_ylabel(what)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(people, [str(number) for number in people])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False, fontsize="small")


def _hashes(found: Findings, names: Sequence[str]) -> str:
    return " ".join(row.hash for row in found.rows if row.name in names)


def _signature(hashes: str, found: Findings) -> str:
    return f"{found.command}  |  {hashes}  |  {found.hardware}  |  {found.date}"


def _save(figure: Figure, path: Path, hashes: str, found: Findings) -> None:
    """With a line that says where the figures come from."""
    figure.supxlabel(_signature(hashes, found), fontsize=6, color="#777777")
    with whole(path) as partial:
        figure.savefig(partial, dpi=120, format="png")


def _csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with whole(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
