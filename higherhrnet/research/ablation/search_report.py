"""What a search found: table, numbers, picture, and the best config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...config import PoseConfig, override_config, to_yaml
from ...io.atomic import atomic_write, write_json
from .search_plan import Range, Search


@dataclass(frozen=True)
class Trial:
    """A training of the search.

    Attributes:
        number: its number.
        state: ``complete``, ``pruned`` or ``fail``.
        values: setting → value.
        metric: the best of its validations; None if there was none.
        epochs: so many it was trained.
    """

    number: int
    state: str
    values: Mapping[str, Any]
    metric: float | None = None
    epochs: int = 0


@dataclass
class SearchResults:
    """All trials, the best first."""

    metric: str
    trials: list[Trial] = field(default_factory=list)


def write_report(search: Search, output: Path, results: SearchResults, config: PoseConfig) -> None:
    trials = results.trials
    states = {
        state: sum(t.state == state for t in trials) for state in ("complete", "pruned", "fail")
    }
    lines = [
        f"# {search.title}", "",
        f"{states['complete']} trials to their end, {states['pruned']} pruned, {states['fail']} "
        f"failed; sampler {search.sampler}, pruner {search.pruner}, config `{search.config}`.",
        "",
        f"Settings were chosen by {results.metric} on `{config.DATASET.TEST}`: that of the best is "
        "too high by this choice. Measure it on images that were not looked at here.", "",
        "| trial | " + results.metric + " | epochs | state | " + " | ".join(search.space) + " |",
        "|" + "---|" * (4 + len(search.space)),
        *(
            f"| {t.number} | {'–' if t.metric is None else f'{100 * t.metric:.2f}'} | {t.epochs} | "
            f"{t.state} | " + " | ".join(_show(t.values.get(key)) for key in search.space) + " |"
            for t in trials
        ), "",
        "![Metric by setting](search.png)", "",
    ]  # fmt: skip
    with atomic_write(output / "search.md") as partial_file:
        partial_file.write_text("\n".join(lines))
    write_json(
        output / "search.json", {"metric": results.metric, "trials": [vars(t) for t in trials]}
    )
    if trials and trials[0].state == "complete":
        pairs = [word for pair in trials[0].values.items() for word in pair]
        with atomic_write(output / "best.yaml") as partial_file:
            partial_file.write_text(
                f"# Trial {trials[0].number} of a search: {results.metric} "
                f"{100 * (trials[0].metric or 0):.2f}.\n" + to_yaml(override_config(config, pairs))
            )
    _draw(search, results, output / "search.png")


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _draw(search: Search, results: SearchResults, file: Path) -> None:
    """The metric by each setting, and in the order of trials."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [t for t in results.trials if t.metric is not None]
    count = len(search.space) + 1
    figure, axes = plt.subplots(1, count, figsize=(3.4 * count, 3.2), squeeze=False, sharey=True)
    colors = {"complete": "#1f77b4", "pruned": "#bbbbbb", "fail": "#d62728"}
    for axis, key in zip(axes[0], ["trial", *search.space], strict=True):
        space = search.space.get(key)
        for state, color in colors.items():
            own = [t for t in shown if t.state == state]
            places = [t.number if key == "trial" else t.values.get(key) for t in own]
            if isinstance(space, tuple):
                places = [str(place) for place in places]
            metrics = [100 * (t.metric or 0.0) for t in own]
            axis.scatter(places, metrics, c=color, s=22, label=state if own else None)
        if isinstance(space, Range) and space.log:
            axis.set_xscale("log")
        axis.set_xlabel(key)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(f"{results.metric}, %")
    if shown:
        axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    with atomic_write(file) as partial_file:
        figure.savefig(partial_file, format="png", dpi=110)
    plt.close(figure)
