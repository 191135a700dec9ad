"""The error report: one Markdown file, one picture of curves and bars, one table of all joints."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import whole
from ..poses import people_by_picture
from ..skeleton import Skeleton
from .coco import AREAS, by_crowding
from .errors import KINDS, JointError, by_joint
from .matches import Matches, match
from .results import kind_of, shown

Record = Mapping[str, Any]
Part = dict[str, Any]
_PARTS = {
    "people a picture": ((1, "1"), (2, "2-3"), (4, "4-6"), (7, "7 and more")),
    "crowd index": ((0, "below 0.1"), (0.1, "0.1 to 0.5"), (0.5, "0.5 and more")),
    "hidden joints": ((0, "below 5 %"), (0.05, "5 to 25 %"), (0.25, "25 % and more")),
}
"""Parts of the set by the pictures' properties, each from its lowest value on."""
_COLOURS = ("#2b9348", "#aacc00", "#ffb703", "#fb8500", "#d00000", "#8d99ae")


def parts(
    records: Sequence[Record],
    annotations: Mapping[str, Any],
    skeleton: Skeleton,
    crowding: Mapping[int | str, float],
    kind: str = "auto",
) -> list[Part]:
    """Average precision of parts of the set, each with its 95 % interval.

    Args:
        crowding: image id → crowd index.
        kind: of evaluation; see :func:`results.evaluate`.

    Returns:
        rows ``by``, ``part``, ``pictures``, ``people``, ``AP``, ``low``, ``high``; of parts with
        somebody in them.
    """
    use_area = areas_count(kind, annotations, skeleton)
    table = match(records, annotations, skeleton, use_area=use_area)
    rows = [_row("all", "all", table, table.images)]
    for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
        rows.append(_row("all", name, table.at(threshold), table.images))
    for name, size in (("medium", "M"), ("large", "L")):
        sized = match(records, annotations, skeleton, AREAS[size], use_area)
        rows.append(_row("person size", name, sized, sized.images))
    groups = pictures_by_part(annotations, crowding)
    rows += [_row(*key, table, images) for key, images in groups.items() if images]
    return [row for row in rows if row["people"]]


def areas_count(kind: str, annotations: Mapping[str, Any], skeleton: Skeleton) -> bool:
    """Whether people's annotated areas count; CrowdPose's evaluation takes a part of the box."""
    return kind_of(kind, annotations, skeleton) != "crowdpose"


def pictures_by_part(
    annotations: Mapping[str, Any], crowding: Mapping[int | str, float]
) -> dict[tuple[str, str], list[int | str]]:
    """Image ids of every part of the set: by people a picture, crowd index, hidden joints, and
    CrowdPose's levels where pictures have one; empty parts too."""
    people = people_by_picture(annotations)
    groups: dict[tuple[str, str], list[int | str]] = {
        (by, part): [] for by, parts_of in _PARTS.items() for _, part in parts_of
    }
    for image in (entry["id"] for entry in annotations["images"]):
        if image not in people:
            continue
        hidden = np.concatenate([np.array(p["keypoints"][2::3]) for p in people[image]])
        values = {
            "people a picture": len(people[image]),
            "crowd index": crowding.get(image, 0.0),
            "hidden joints": float((hidden == 1).sum() / max((hidden > 0).sum(), 1)),
        }
        for by, value in values.items():
            part = next(name for limit, name in reversed(_PARTS[by]) if value >= limit)
            groups[by, part].append(image)
    for name, images in by_crowding(annotations["images"]).items():
        groups["CrowdPose level", name] = images
    return groups


def _row(by: str, part: str, table: Matches, images: Sequence[int | str]) -> Part:
    wanted = set(images)
    truths = sum(
        int(t) for image, t in zip(table.images, table.truths, strict=True) if image in wanted
    )
    low, high = table.interval(images=images) if truths else (-1.0, -1.0)
    return {
        "by": by, "part": part, "pictures": len(wanted), "people": truths,
        "AP": table.only(images), "low": low, "high": high,
    }  # fmt: skip


def write(
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
        metrics: the evaluator's figures.
        rows: see :func:`parts`.
        errors: see :func:`joint_errors`.
        worst: file names of the worst pictures with their wrong joints.
    """
    joints = by_joint(errors, skeleton)
    _write_csv(folder / "keypoint_errors.csv", errors)
    _draw(folder / "report.png", title, rows, joints)
    lines = [f"# {title}", "", "![](report.png)", ""]
    lines += [
        "## Figures",
        "",
        *table([{name: shown(value) for name, value in metrics.items()}]),
        "",
    ]
    lines += ["## Average precision of parts", ""]
    lines += table([
        {"by": r["by"], "part": r["part"], "pictures": r["pictures"], "people": r["people"],
         "AP": shown(r["AP"]), "95 %": f"{shown(r['low'])} to {shown(r['high'])}"}
        for r in rows
    ])  # fmt: skip
    lines += ["", "Intervals: bootstrap over pictures, 300 draws.", "", "## Joints", ""]
    lines += table([
        {k: f"{100 * v:.1f} %" if k in (*KINDS, "right") else f"{v:.1f}" if isinstance(v, float)
         else v for k, v in row.items()}
        for row in joints
    ])  # fmt: skip
    lines += [
        "", "good: OKS of the joint from 0.85; jitter from 0.5; inversion: on another joint of the",
        "same person; swap: on another's; miss: on nobody's; absent: not found. right: good or",
        "jitter. Every joint stands in `keypoint_errors.csv`.", "", "## Worst pictures", "",
        "Drawn in `worst.jpg`: what is annotated beside what was found.", "",
        *table([{"file": name, "wrong joints": f"{count:.0f}"} for name, count in worst]), "",
    ]  # fmt: skip
    with whole(folder / "report.md") as partial:
        partial.write_text("\n".join(lines))


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a Markdown table; columns are the keys of all rows in order of appearance."""
    if not rows:
        return ["(nothing)"]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    body = ["| " + " | ".join(str(row.get(c, "")) for c in columns) + " |" for row in rows]
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *body]


def _write_csv(path: Path, errors: Sequence[JointError]) -> None:
    with whole(path) as partial, partial.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([
            "image", "person", "joint", "truth_x", "truth_y", "found_x", "found_y", "distance_px",
            "distance_sigmas", "kind",
        ])  # fmt: skip
        for e in errors:
            found = ("", "") if e.found is None else (f"{e.found[0]:.2f}", f"{e.found[1]:.2f}")
            far = ("", "") if e.found is None else (f"{e.distance:.2f}", f"{e.sigmas:.3f}")
            table.writerow([
                e.image, e.person, e.joint, f"{e.truth[0]:.2f}", f"{e.truth[1]:.2f}", *found, *far,
                e.kind,
            ])  # fmt: skip


def _draw(
    path: Path, title: str, rows: Sequence[Part], joints: Sequence[Mapping[str, Any]]
) -> None:
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
    for kind, colour in zip(KINDS, _COLOURS, strict=True):
        share = 100 * np.array([row[kind] for row in joints])
        right.barh(places, share, left=start, color=colour, label=kind)
        start += share
    right.set_yticks(places, [row["joint"] for row in joints])
    right.set_xlim(0, 100)
    right.set_xlabel("annotated joints, %")
    right.legend(ncols=6, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    with whole(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
    plt.close(figure)
