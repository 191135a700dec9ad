"""One image of a whole training, made from its log."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..io.atomic import atomic_write
from ..visualization import ignored_backend

with ignored_backend():
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_METRICS = ("AP", "AP50", "AP75", "AR", "PCKh", "accuracy")
_TAG_SHARES = ("tags/separability", "tags/grouped_right")
_TAG_DISTANCES = ("tags/between", "tags/within")


def draw_curves(records: Sequence[Mapping[str, Any]], path: Path, metric: str = "AP") -> None:
    """Losses, metrics and embedding diagnostics over epochs as a PNG; nothing without records.

    Args:
        records: the lines of ``log.jsonl``.
        path: file to (over)write.
        metric: the one that decides which weights are best.
    """
    if not records:
        return
    losses = [
        name
        for name in records[-1]
        if name in ("loss", "classes") or re.fullmatch(r"\w+/\d+", name)
    ]
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    _curves(axes[0, 0], records, losses, "losses, weighted", log=True)
    _curves(axes[0, 1], records, _METRICS, "metrics on the test images", factor=100)
    _curves(axes[1, 0], records, _TAG_DISTANCES, "tag distance at annotated joints", log=True)
    _curves(axes[1, 1], records, _TAG_SHARES, "tags: % of joints told apart", factor=100)
    for record in records:
        for axis in axes.flat if record.get("alarms") else ():
            axis.axvline(record["epoch"], color="tab:red", alpha=0.25, linewidth=1)
    best = max((r[metric] for r in records if r.get(metric) is not None), default=None)
    alarms = sum(bool(record.get("alarms")) for record in records)
    title = f"{records[-1]['epoch']} epochs"
    title += f", best {metric} {100 * best:.2f}" if best is not None and best >= 0 else ""
    title += f", alarms in {alarms} epochs (red)" if alarms else ", no alarms"
    figure.suptitle(title)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=110, format="png")


def _curves(
    axes: Axes,
    records: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    title: str,
    log: bool = False,
    factor: float = 1.0,
) -> None:
    for name in names:
        points = [(r["epoch"], factor * r[name]) for r in records if r.get(name) is not None]
        points = [(epoch, value) for epoch, value in points if value > 0 or not log]
        if points:
            axes.plot(
                *zip(*points, strict=True), marker="." if len(points) < 40 else "", label=name
            )
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small", frameon=False)
        if log:
            axes.set_yscale("log")
        else:
            axes.set_ylim(-2, 102)
    else:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color="gray")
