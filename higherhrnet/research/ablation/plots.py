"""The ablation's plots, each with a line that says where its metrics come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...io.atomic import atomic_write
from ...visualization import ignored_backend
from .compare import Part
from .results import Results
from .runner import EvaluationResult

with ignored_backend():
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

_COLORS = ("#1d70a2", "#e07a1f", "#3a9d5d", "#8e5ea2")


def plot_parts(
    path: Path,
    one: EvaluationResult,
    other: EvaluationResult,
    parts: Sequence[Part],
    found: Results,
) -> None:
    """AP of two evaluations in every part of the set, and its difference, with intervals."""
    figure = Figure(figsize=(11, 0.42 * len(parts) + 2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    places = np.arange(len(parts))[::-1].astype(float)
    for shift, evaluation, values, intervals, color in (
        (0.2, one, [p.first for p in parts], [p.first_interval for p in parts], _COLORS[0]),
        (-0.2, other, [p.second for p in parts], [p.second_interval for p in parts], _COLORS[1]),
    ):
        at = 100 * np.array(values)
        spread = np.abs(100 * np.array(intervals).T - at)
        left.barh(places + shift, at, 0.38, color=color, label=evaluation.name, xerr=spread,
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
    _save(figure, path, found.signature([one, other]))


def plot_oracle(path: Path, found: Results) -> None:
    """What each replacement gains."""
    figure = Figure(figsize=(10, 1.2 + 0.35 * sum(map(len, found.oracle.values()))),
                    layout="constrained")  # fmt: skip
    axes = figure.subplots()
    place, ticks = 0, []
    for (evaluation, oracle), color in zip(found.oracle.items(), _COLORS * 9, strict=False):
        for result in oracle:
            as_it_is = result.replaced == "nothing"
            axes.barh(-place, 100 * oracle[0].AP, color=color)
            if not as_it_is:
                start = 100 * min(oracle[0].AP, result.AP)
                axes.barh(-place, abs(100 * result.gain), left=start, color=color, alpha=0.35,
                          hatch="" if result.gain >= 0 else "//")  # fmt: skip
                axes.text(100 * max(oracle[0].AP, result.AP) + 0.5, -place,
                          f"{100 * result.gain:+.1f}", va="center", fontsize="small")  # fmt: skip
            ticks.append(
                (
                    -place,
                    f"{evaluation}: " + ("as it is" if as_it_is else f"oracle {result.replaced}"),
                )
            )
            place += 1
        place += 1
    axes.set_yticks(*zip(*ticks, strict=True))
    axes.set_xlabel("AP; light: what ground truth gains")
    axes.set_xlim(0, 107)
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path, found.signature([r for r in found.evaluations if r.name in found.oracle]))


def plot_costs(path: Path, found: Results) -> None:
    """Time and memory by crowd."""
    figure = Figure(figsize=(14, 6), layout="constrained")
    time, memory = figure.subplots(1, 2)
    names = list(dict.fromkeys(point.evaluation for point in found.points))
    for name, color in zip(names, _COLORS * 9, strict=False):
        drawn = [p for p in found.points if p.evaluation == name and p.kind == "synthetic"]
        real = [p for p in found.points if p.evaluation == name and p.kind == "real"]
        people = [p.people for p in drawn]
        time.plot(people, [p.milliseconds for p in drawn], "o-", color=color, label=name)
        if any(p.detector for p in drawn):
            with_detector = [p.milliseconds + p.detector for p in drawn]
            time.plot(people, with_detector, "o--", color=color, label=f"{name} and detector")
        time.plot([p.people for p in real], [p.milliseconds for p in real], "x", color=color,
                  label=f"{name}, real images" if real else None)  # fmt: skip
        known = [(p.people, p.megabytes) for p in drawn if p.megabytes > 0]
        memory.plot(*zip(*known, strict=True), "o-", color=color, label=name) if known else None
    color_of = dict(zip(names, _COLORS * 9, strict=False))
    for answer in found.crossovers():
        for way, style in (("without detector", ":"), ("with detector", "-.")):
            if answer.get(f"people, {way}"):
                time.axvline(
                    answer[f"people, {way}"], color=color_of[answer["bottom-up"]],
                    linestyle=style, linewidth=1,
                    label=f"from {answer[f'people, {way}']:.1f} people on it is faster, {way}",
                )  # fmt: skip
    crowds = sorted({point.people for point in found.points if point.kind == "synthetic"})
    _label_axes(time, "milliseconds an image", crowds)
    _label_axes(memory, "peak MB above the loaded model", crowds)
    _save(figure, path, found.signature([r for r in found.evaluations if r.name in names]))


def _label_axes(axes: Axes, what: str, people: Sequence[int]) -> None:
    axes.set_xlabel("people in the image")
    axes.set_ylabel(what)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(people, [str(number) for number in people])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def _save(figure: Figure, path: Path, signature: str) -> None:
    """With a line that says where the metrics come from."""
    figure.supxlabel(signature, fontsize=6, color="#777777")
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
