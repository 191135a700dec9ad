"""What is in an annotated set: people an image, sizes, joints, crowding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..poses import REFINED, SEEN, labeled_joints, people_by_image, visibility_of
from ..skeleton import Skeleton

Record = Mapping[str, Any]
Table = dict[str, dict[str, float]]


def compute_stats(annotations: Mapping[str, Any], skeleton: Skeleton) -> Table:
    """Counts under headings, all by name.

    Returns:
        ``people an image`` (images with so many), ``size`` (people by the square root of their
        area, COCO's limits), ``joints visible`` and ``joints hidden`` (share of people), and
        ``crowding`` (images by crowd index).
    """
    by_image = people_by_image(annotations)
    people = [record for records in by_image.values() for record in records]
    table: Table = {"people an image": {}, "size": {}, "crowding": {}}
    edges = (0, 1, 2, 3, 6, 11, 31)
    counts = np.array([len(by_image.get(i["id"], ())) for i in annotations["images"]])
    for low, high in zip(edges, (*edges[1:], 10**9), strict=True):
        name = str(low) if high == low + 1 else f"{low}-{high - 1}" if high < 10**9 else f"{low}+"
        table["people an image"][name] = int(((counts >= low) & (counts < high)).sum())
    areas = np.array([_area(record) for record in people])
    for name, least, most in (("small", 0, 32), ("medium", 32, 96), ("large", 96, 10**6)):
        table["size"][name] = int(((areas >= least**2) & (areas < most**2)).sum())
    visibility = visibility_of(
        np.array([record["keypoints"] for record in people], float).reshape(
            len(people), len(skeleton), 3
        )
    )
    total = max(len(people), 1)
    table["joints visible"] = dict(
        zip(skeleton.joints, ((visibility == SEEN).sum(0) / total).tolist(), strict=True)
    )
    table["joints hidden"] = dict(
        zip(skeleton.joints, ((visibility == REFINED).sum(0) / total).tolist(), strict=True)
    )
    indices = np.array(list(crowding(annotations).values()))
    for name, low_index, high_index in (
        ("below 0.1", -1.0, 0.1), ("0.1 to 0.2", 0.1, 0.2), ("0.2 to 0.5", 0.2, 0.5),
        ("0.5 to 0.8", 0.5, 0.8), ("0.8 and more", 0.8, 1e9),
    ):  # fmt: skip
        table["crowding"][name] = int(((indices >= low_index) & (indices < high_index)).sum())
    return table


def crowding(annotations: Mapping[str, Any]) -> dict[int | str, float]:
    """Crowd index of every image with people."""
    people = people_by_image(annotations)
    return {image_id: crowd_index(records) for image_id, records in people.items()}


def crowd_index(people: Sequence[Record]) -> float:
    """How much people stand in each other's boxes (Li et al. 2019, eq. 1): the mean over people of
    the others' joints in a person's box, as a fraction of the person's own; 0 for none. (Of
    2,000 published indices of CrowdPose three quarters come out to two decimals.)"""
    if not people:
        return 0.0
    joints = np.array([person["keypoints"] for person in people], float)
    joints = joints.reshape(len(people), -1, 3)
    labeled = labeled_joints(joints)
    own = labeled.sum(axis=1)
    # All labeled joints by x: those of a box's columns are next to each other.
    owner, _ = np.nonzero(labeled)
    xy = joints[labeled][:, :2]
    by_x = np.argsort(xy[:, 0], kind="stable")
    xy, owner = xy[by_x], owner[by_x]
    ratios = []
    for number, person in enumerate(people):
        x, y, w, h = _box(person)
        first, last = (
            np.searchsorted(xy[:, 0], x, "left"),
            np.searchsorted(xy[:, 0], x + w, "right"),
        )
        rows = xy[first:last, 1]
        within = (rows >= y) & (rows <= y + h) & (owner[first:last] != number)
        ratios.append(int(within.sum()) / max(int(own[number]), 1))
    return float(np.mean(ratios))


def format_stats(table: Table) -> str:
    """The table in print."""
    text = []
    for heading, values in table.items():
        shown = ", ".join(
            f"{name} {value:.2f}" if isinstance(value, float) else f"{name}: {value}"
            for name, value in values.items()
        )
        text.append(f"  {heading}: {shown}")
    return "\n".join(text)


def _box(record: Record) -> tuple[float, float, float, float]:
    if record.get("bbox"):
        x, y, w, h = record["bbox"]
        return x, y, w, h
    xy = np.array(record["keypoints"], float).reshape(-1, 3)
    xy = xy[labeled_joints(xy), :2]
    low, high = xy.min(axis=0), xy.max(axis=0)
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


def _area(record: Record) -> float:
    if record.get("area"):
        return float(record["area"])
    _, _, w, h = _box(record)
    return w * h
