"""The error report: one Markdown file, one image of curves and bars, one table of all joints."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..io.atomic import atomic_write
from ..poses import ABSENT, REFINED, people_by_image, visibility_of
from ..skeleton import Skeleton
from ..visualization import ignored_backend
from .coco import AREAS, by_crowding
from .error_analysis import KINDS, JointError, summarize_by_joint
from .evaluator import format_metric, resolve_evaluation
from .matching import Matches, match

Record = Mapping[str, Any]
Part = dict[str, Any]
_PARTS = {
    "people an image": ((1, "1"), (2, "2-3"), (4, "4-6"), (7, "7 and more")),
    "crowd index": ((0, "below 0.1"), (0.1, "0.1 to 0.5"), (0.5, "0.5 and more")),
    "hidden joints": ((0, "below 5 %"), (0.05, "5 to 25 %"), (0.25, "25 % and more")),
}
"""Parts of the set by the images' properties, each from its lowest value on."""
FEWEST_IMAGES = 10
"""From which on an interval is given: a bootstrap over one image has no width."""
_COLORS = ("#2b9348", "#aacc00", "#ffb703", "#fb8500", "#d00000", "#8d99ae")


def evaluate_parts(
    records: Sequence[Record],
    annotations: Mapping[str, Any],
    skeleton: Skeleton,
    crowding: Mapping[int | str, float],
    evaluation: str = "auto",
) -> list[Part]:
    """Average precision of parts of the set, each with its 95 % interval.

    Args:
        crowding: image id → crowd index.
        evaluation: see :func:`evaluator.evaluate`.

    Returns:
        rows ``by``, ``part``, ``images``, ``people``, ``AP``, ``low``, ``high``; of parts
        with people in them.
    """
    use_area = areas_count(evaluation, annotations, skeleton)
    table = match(records, annotations, skeleton, use_area=use_area)
    rows = [_row("all", "all", table, table.images)]
    for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
        rows.append(_row("all", name, table.at(threshold), table.images))
    for name, size in (("medium", "M"), ("large", "L")):
        sized = match(records, annotations, skeleton, AREAS[size], use_area)
        rows.append(_row("person size", name, sized, sized.images))
    groups = images_by_part(annotations, crowding)
    rows += [_row(*key, table, images) for key, images in groups.items() if images]
    return [row for row in rows if row["people"]]


def areas_count(evaluation: str, annotations: Mapping[str, Any], skeleton: Skeleton) -> bool:
    """Whether people's annotated areas count; CrowdPose's evaluation takes a part of the box."""
    return resolve_evaluation(evaluation, annotations, skeleton) != "crowdpose"


def images_by_part(
    annotations: Mapping[str, Any], crowding: Mapping[int | str, float]
) -> dict[tuple[str, str], list[int | str]]:
    """Image ids of every part of the set: by people an image, crowd index, hidden joints, and
    CrowdPose's levels where images have one; empty parts too."""
    people = people_by_image(annotations)
    groups: dict[tuple[str, str], list[int | str]] = {
        (by, part): [] for by, parts_of in _PARTS.items() for _, part in parts_of
    }
    for image in (entry["id"] for entry in annotations["images"]):
        if image not in people:
            continue
        joints = np.concatenate([np.reshape(p["keypoints"], (-1, 3)) for p in people[image]])
        hidden = visibility_of(joints)
        values = {
            "people an image": len(people[image]),
            "crowd index": crowding.get(image, 0.0),
            "hidden joints": float((hidden == REFINED).sum() / max((hidden > ABSENT).sum(), 1)),
        }
        for by, value in values.items():
            part = next(name for limit, name in reversed(_PARTS[by]) if value >= limit)
            groups[by, part].append(image)
    for name, images in by_crowding(annotations["images"]).items():
        groups["CrowdPose level", name] = images
    return groups


def _row(by: str, part: str, table: Matches, images: Sequence[int | str]) -> Part:
    wanted = set(images)
    ground_truths = sum(
        int(t)
        for image, t in zip(table.images, table.ground_truths, strict=True)
        if image in wanted
    )
    low, high = table.interval(images=images) if ground_truths else (-1.0, -1.0)
    return {
        "by": by, "part": part, "images": len(wanted), "people": ground_truths,
        "AP": table.only(images), "low": low, "high": high,
    }  # fmt: skip


def write_report(
    folder: Path,
    title: str,
    metrics: Mapping[str, float],
    rows: Sequence[Part],
    errors: Sequence[JointError],
    worst: Sequence[tuple[str, float]],
    skeleton: Skeleton,
) -> None:
    """``report.md``, ``report.png`` and ``keypoint_errors.csv`` in a folder.

    Args:
        title: what was measured, on what, how.
        metrics: the evaluator's metrics.
        rows: see :func:`evaluate_parts`.
        errors: see :func:`joint_errors`.
        worst: file names of the worst images with their wrong joints.
    """
    joints = summarize_by_joint(errors, skeleton)
    _write_csv(folder / "keypoint_errors.csv", errors)
    _draw(folder / "report.png", title, rows, joints)
    lines = [f"# {title}", "", "![](report.png)", ""]
    lines += [
        "## Metrics",
        "",
        *markdown_table([{name: format_metric(value) for name, value in metrics.items()}]),
        "",
    ]
    lines += ["## Average precision of parts", ""]
    lines += markdown_table([
        {"by": r["by"], "part": r["part"], "images": r["images"], "people": r["people"],
         "AP": format_metric(r["AP"]),
         "95 %": f"{format_metric(r['low'])} to {format_metric(r['high'])}"
         if r["images"] >= FEWEST_IMAGES else "–"}
        for r in rows
    ])  # fmt: skip
    lines += [
        "",
        f"Intervals: bootstrap over images, 300 draws; of {FEWEST_IMAGES} images and more. Images "
        "without annotated people are in no part.",
        "",
        "## Joints",
        "",
    ]
    lines += markdown_table([
        {k: f"{100 * v:.1f} %" if k in (*KINDS, "right") else f"{v:.1f}" if isinstance(v, float)
         else v for k, v in row.items()}
        for row in joints
    ])  # fmt: skip
    lines += [
        "", "good: OKS of the joint from 0.85; jitter from 0.5; inversion: on another joint of the",
        "same person; swap: on another's; miss: on no one's; absent: not found. right: good or",
        "jitter. Every joint is in `keypoint_errors.csv`.", "", "## Worst images", "",
        "Drawn in `worst.jpg`: the annotations beside the predictions.", "",
        *markdown_table([{"file": name, "wrong joints": f"{n:.0f}"} for name, n in worst]), "",
    ]  # fmt: skip
    with atomic_write(folder / "report.md") as partial:
        partial.write_text("\n".join(lines))


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a Markdown table; columns are the keys of all rows in order of appearance."""
    if not rows:
        return ["(nothing)"]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    body = ["| " + " | ".join(str(row.get(c, "")) for c in columns) + " |" for row in rows]
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *body]


def _write_csv(path: Path, errors: Sequence[JointError]) -> None:
    with atomic_write(path) as partial, partial.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([
            "image", "person", "joint", "truth_x", "truth_y", "found_x", "found_y", "distance_px",
            "distance_sigmas", "kind",
        ])  # fmt: skip
        for e in errors:
            found = ("", "") if e.found is None else (f"{e.found[0]:.2f}", f"{e.found[1]:.2f}")
            far = ("", "") if e.found is None else (f"{e.distance:.2f}", f"{e.sigmas:.3f}")
            table.writerow([
                e.image, e.person, e.joint, f"{e.ground_truth[0]:.2f}",
                f"{e.ground_truth[1]:.2f}", *found, *far, e.kind,
            ])  # fmt: skip


def _draw(
    path: Path, title: str, rows: Sequence[Part], joints: Sequence[Mapping[str, Any]]
) -> None:
    with ignored_backend():
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    rows = [r for r in rows if r["part"] not in ("AP50", "AP75")]  # would dwarf the others
    names = [r["part"] if r["by"] == "all" else f"{r['by']}: {r['part']}" for r in rows]
    values = 100 * np.array([max(r["AP"], 0.0) for r in rows])
    spread = np.array([[r["AP"] - r["low"], r["high"] - r["AP"]] for r in rows]).reshape(-1, 2)
    spread = 100 * np.abs(spread.T)
    places = np.arange(len(rows))[::-1]
    left.barh(places, values, color="#4cc9f0", xerr=spread, ecolor="#333333", capsize=3)
    left.set_yticks(places, [f"{n} ({r['people']})" for n, r in zip(names, rows, strict=True)])
    left.set_xlabel("AP, with 95 % bootstrap interval (people in brackets)")
    left.set_xlim(0, max(10.0, min(100.0, 1.1 * float((values + spread[1]).max(initial=1)))))
    left.grid(axis="x", alpha=0.3)
    places = np.arange(len(joints))[::-1]
    start = np.zeros(len(joints))
    for kind, color in zip(KINDS, _COLORS, strict=True):
        share = 100 * np.array([row[kind] for row in joints])
        right.barh(places, share, left=start, color=color, label=kind)
        start += share
    right.set_yticks(places, [row["joint"] for row in joints])
    right.set_xlim(0, 100)
    right.set_xlabel("annotated joints, %")
    right.legend(ncols=6, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
    plt.close(figure)
