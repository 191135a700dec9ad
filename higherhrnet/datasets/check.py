"""Looking over an annotated set before hours are spent on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError
from ..poses import is_labelled
from .keypoints import CocoKeypoints, valid_mask


class Findings(NamedTuple):
    """What a look over a set found.

    Attributes:
        counts: of pictures and people.
        problems: one sentence for each kind of mistake.
        remarks: one for each kind of thing that does no harm, or is meant.
    """

    counts: dict[str, int]
    problems: list[str]
    remarks: list[str]


def check(pictures: CocoKeypoints, most_people: int = 30) -> Findings:
    """Look over a set.

    Looked for: missing picture files, repeated ids, areas and boxes without extent, joints outside
    the picture, wrong ``num_keypoints``, pictures with more people than there are candidates for a
    joint, and pictures that are nearly all ignored.

    Args:
        pictures: the set.
        most_people: people that decoding can tell apart in a picture.
    """
    everything = pictures.annotations
    images = {image["id"]: image for image in everything["images"]}
    people = everything["annotations"]
    k = len(pictures.skeleton)
    counts = {
        "pictures": len(pictures),
        "people": len(people),
        "with keypoints": sum(map(is_labelled, people)),
        "without (ignored)": sum(not is_labelled(a) and not a.get("iscrowd") for a in people),
        "crowd regions": sum(bool(a.get("iscrowd")) for a in people),
    }
    ignored, unreadable = _ignored(everything)
    counts["% of all pixels ignored"] = round(100 * float(np.mean(list(ignored.values()) or [0])))
    in_picture = Counter(a["image_id"] for a in people if is_labelled(a))
    problems: dict[str, list[Any]] = {
        "pictures without a file": [
            image["file_name"]
            for image in everything["images"]
            if not pictures.store.holds(image["file_name"])
        ],
        "annotation ids used twice": _repeated([a.get("id") for a in people]),
        "picture ids used twice": _repeated([i["id"] for i in everything["images"]]),
        "people with an area of 0 or less": [
            a.get("id") for a in people if "area" in a and not (a["area"] or 0) > 0
        ],
        "people with an empty box": [
            a.get("id") for a in people if min((a.get("bbox") or (0, 0, 0, 0))[2:]) <= 0
        ],
        "annotations of pictures that are not listed": pictures.orphans,
        "people with joints outside the picture": [],
        "pictures whose segmentations cannot be read": unreadable,
    }
    miscounted = (
        "people whose num_keypoints is not the number of their joints (0 leaves them out of AP)"
    )
    remarks: dict[str, list[Any]] = {
        f"pictures with more than {most_people} people, whom decoding cannot tell apart": [
            image for image, count in in_picture.items() if count > most_people
        ],
        "pictures ignored to nine tenths or more": [n for n, s in ignored.items() if s >= 0.9],
        miscounted: [],
    }
    for person in people:
        joints = np.array(person["keypoints"], dtype=float).reshape(k, 3)
        labelled = joints[joints[:, 2] > 0, :2]
        image = images[person["image_id"]]
        size = (image.get("width") or np.inf, image.get("height") or np.inf)
        if ((labelled < -1) | (labelled > size)).any():
            problems["people with joints outside the picture"].append(person.get("id"))
        if person.get("num_keypoints") not in (None, len(labelled)):
            remarks[miscounted].append(person.get("id"))
    return Findings(counts, _sentences(problems), _sentences(remarks))


def _sentences(found: dict[str, list[Any]]) -> list[str]:
    return [
        f"{len(ids)} {what}: {', '.join(map(str, ids[:5]))}{', …' if len(ids) > 5 else ''}"
        for what, ids in found.items()
        if ids
    ]


def _ignored(annotations: dict[str, Any]) -> tuple[dict[str, float], list[str]]:
    """Share of every picture, of known size, that the loss leaves out, and pictures whose regions
    cannot be read."""
    shares, broken = {}, []
    by_picture: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for record in annotations["annotations"]:
        by_picture[record["image_id"]].append(record)
    for image in annotations["images"]:
        records = by_picture[image["id"]]
        if all(is_labelled(r) and not r.get("iscrowd") for r in records):
            shares[image["file_name"]] = 0.0
        elif image.get("height") and image.get("width"):
            try:
                mask = valid_mask(records, (int(image["height"]), int(image["width"])))
            except UserError as error:
                broken.append(f"{image['file_name']}: {error}")
            else:
                shares[image["file_name"]] = 1.0 - float(mask.mean())
    return shares, broken


def _repeated(values: list[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]
