"""Finding mistakes in an annotated data set before training on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError
from ..poses import is_labeled
from .coco import CocoKeypoints, valid_mask


class Findings(NamedTuple):
    """What a look over a set found.

    Attributes:
        counts: of images and people.
        problems: one sentence for each kind of mistake.
        remarks: one for each kind of thing that does no harm, or is meant.
    """

    counts: dict[str, int]
    problems: list[str]
    remarks: list[str]


def find_problems(dataset: CocoKeypoints, most_people: int = 30) -> Findings:
    """Look over a set.

    Looked for: missing image files, repeated ids, areas and boxes without extent, joints outside
    the image, wrong ``num_keypoints``, images with more people than there are candidates for a
    joint, and images that are nearly all ignored.

    Args:
        dataset: the set.
        most_people: people that decoding can tell apart in an image.
    """
    everything = dataset.annotations
    images = {image["id"]: image for image in everything["images"]}
    people = everything["annotations"]
    k = len(dataset.skeleton)
    counts = {
        "images": len(dataset),
        "people": len(people),
        "with keypoints": sum(map(is_labeled, people)),
        "without (ignored)": sum(not is_labeled(a) and not a.get("iscrowd") for a in people),
        "crowd regions": sum(bool(a.get("iscrowd")) for a in people),
    }
    ignored, unreadable = _ignored_shares(everything)
    counts["% of all pixels ignored"] = round(100 * float(np.mean(list(ignored.values()) or [0])))
    in_image = Counter(a["image_id"] for a in people if is_labeled(a))
    problems: dict[str, list[Any]] = {
        "images without a file": [
            image["file_name"]
            for image in everything["images"]
            if not dataset.store.holds(image["file_name"])
        ],
        "annotation ids used twice": _find_repeated([a.get("id") for a in people]),
        "image ids used twice": _find_repeated([i["id"] for i in everything["images"]]),
        "people with an area of 0 or less": [
            a.get("id") for a in people if "area" in a and not (a["area"] or 0) > 0
        ],
        "people with an empty box": [
            a.get("id") for a in people if min((a.get("bbox") or (0, 0, 0, 0))[2:]) <= 0
        ],
        "annotations of images that are not listed": dataset.orphans,
        "people with joints outside the image": [],
        "images whose segmentations cannot be read": unreadable,
    }
    miscounted = (
        "people whose num_keypoints is not the number of their joints (0 leaves them out of AP)"
    )
    remarks: dict[str, list[Any]] = {
        f"images with more than {most_people} people, more than decoding keeps apart": [
            image for image, count in in_image.items() if count > most_people
        ],
        "images ignored to nine tenths or more": [n for n, s in ignored.items() if s >= 0.9],
        miscounted: [],
    }
    for person in people:
        joints = np.array(person["keypoints"], dtype=float).reshape(k, 3)
        labeled = joints[joints[:, 2] > 0, :2]
        image = images[person["image_id"]]
        size = (image.get("width") or np.inf, image.get("height") or np.inf)
        if ((labeled < -1) | (labeled > size)).any():
            problems["people with joints outside the image"].append(person.get("id"))
        if person.get("num_keypoints") not in (None, len(labeled)):
            remarks[miscounted].append(person.get("id"))
    return Findings(counts, _sentences(problems), _sentences(remarks))


def _sentences(found: dict[str, list[Any]]) -> list[str]:
    return [
        f"{len(ids)} {what}: {', '.join(map(str, ids[:5]))}{', …' if len(ids) > 5 else ''}"
        for what, ids in found.items()
        if ids
    ]


def _ignored_shares(annotations: dict[str, Any]) -> tuple[dict[str, float], list[str]]:
    """Share of every image, of known size, that the loss leaves out, and images whose regions
    cannot be read."""
    shares, broken = {}, []
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for record in annotations["annotations"]:
        by_image[record["image_id"]].append(record)
    for image in annotations["images"]:
        records = by_image[image["id"]]
        if all(is_labeled(r) and not r.get("iscrowd") for r in records):
            shares[image["file_name"]] = 0.0
        elif image.get("height") and image.get("width"):
            try:
                mask = valid_mask(records, (int(image["height"]), int(image["width"])))
            except UserError as error:
                broken.append(f"{image['file_name']}: {error}")
            else:
                shares[image["file_name"]] = 1.0 - float(mask.mean())
    return shares, broken


def _find_repeated(values: list[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]
