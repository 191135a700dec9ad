"""Looking over an annotated set before hours are spent on it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ..poses import is_labelled
from .keypoints import CocoKeypoints


def check(pictures: CocoKeypoints) -> tuple[dict[str, int], list[str]]:
    """Counts of what is there, and one sentence for each kind of problem.

    Looked for: missing picture files, repeated ids, areas and boxes without extent, joints outside
    the picture, and wrong ``num_keypoints``.
    """
    images = {image["id"]: image for image in pictures.annotations["images"]}
    people = pictures.annotations["annotations"]
    k = len(pictures.skeleton)
    counts = {
        "pictures": len(pictures),
        "people": len(people),
        "with keypoints": sum(map(is_labelled, people)),
        "crowd regions": sum(bool(a.get("iscrowd")) for a in people),
    }
    problems: dict[str, list[Any]] = {
        "pictures without a file": [
            image["file_name"]
            for image in pictures.annotations["images"]
            if not pictures.store.holds(image["file_name"])
        ],
        "annotation ids used twice": _repeated([a.get("id") for a in people]),
        "picture ids used twice": _repeated([i["id"] for i in pictures.annotations["images"]]),
        "people with an area of 0 or less": [
            a.get("id") for a in people if not (a.get("area") or 0) > 0
        ],
        "people with an empty box": [
            a.get("id") for a in people if min((a.get("bbox") or (0, 0, 0, 0))[2:]) <= 0
        ],
        "people with joints outside the picture": [],
        "people whose num_keypoints is wrong": [],
    }
    for person in people:
        joints = np.array(person["keypoints"], dtype=float).reshape(k, 3)
        labelled = joints[joints[:, 2] > 0, :2]
        image = images[person["image_id"]]
        size = (image.get("width", np.inf), image.get("height", np.inf))
        if ((labelled < -1) | (labelled > size)).any():
            problems["people with joints outside the picture"].append(person.get("id"))
        if person.get("num_keypoints", len(labelled)) != len(labelled):
            problems["people whose num_keypoints is wrong"].append(person.get("id"))
    sentences = [
        f"{len(found)} {what}: {', '.join(map(str, found[:5]))}{', …' if len(found) > 5 else ''}"
        for what, found in problems.items()
        if found
    ]
    return counts, sentences


def _repeated(values: list[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]
