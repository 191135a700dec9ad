"""Finding mistakes in an annotated data set before training on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ..errors import UserError
from ..io.images import fits_annotation
from ..io.store import find_broken
from ..poses import is_labeled, labeled_joints
from .categories import annotated_size
from .coco import (
    AS_STORED,
    EXCHANGED,
    CocoKeypoints,
    size_findings,
    valid_mask,
)
from .findings import Finding

_AT_ORIGIN = "people with labeled joints at (0, 0), the place of those that are not"


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

    Looked for, besides what loading found (``dataset.findings``): missing image files, images of
    other sizes than annotated, repeated ids, joints outside the image, wrong ``num_keypoints``,
    images with more people than there are candidates for a joint, and images that are nearly all
    ignored.

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
        "annotation ids used twice": _find_repeated([a.get("id") for a in people]),
        "image ids used twice": _find_repeated([i["id"] for i in everything["images"]]),
        "people with joints outside the image": [],
        _AT_ORIGIN: [],
        "images whose segmentations cannot be read": unreadable,
    }
    miscounted = "people whose num_keypoints is not the number of their joints"
    remarks: dict[str, list[Any]] = {
        f"images with more than {most_people} people, more than decoding keeps apart": [
            image for image, count in in_image.items() if count > most_people
        ],
        "images ignored to nine tenths or more": [n for n, s in ignored.items() if s >= 0.9],
        miscounted: [],
    }
    for person in people:
        joints = np.array(person["keypoints"], dtype=float).reshape(k, 3)
        labeled = joints[labeled_joints(joints), :2]
        image = images[person["image_id"]]
        size = (image.get("width") or np.inf, image.get("height") or np.inf)
        if len(labeled) and (labeled == 0).all(axis=1).any():
            problems[_AT_ORIGIN].append(person.get("id"))
        if ((labeled < -1) | (labeled > size)).any():
            problems["people with joints outside the image"].append(person.get("id"))
        if person.get("num_keypoints") not in (None, len(labeled)):
            remarks[miscounted].append(person.get("id"))
    sizes = _size_findings(dataset)
    named = {finding.what for finding in sizes}
    loaded = [finding for finding in dataset.findings if finding.what not in named]
    found = [
        *loaded,
        *sizes,
        *(Finding(what, ids, is_problem=True) for what, ids in problems.items() if ids),
        *(Finding(what, ids) for what, ids in remarks.items() if ids),
    ]
    return Findings(
        counts,
        [str(finding) for finding in found if finding.is_problem],
        [str(finding) for finding in found if not finding.is_problem],
    )


def _size_findings(dataset: CocoKeypoints) -> list[Finding]:
    """Of all images, where loading looks at a few; and those that no size tells how to turn."""
    by_fit: dict[str, list[Any]] = defaultdict(list)
    unclear, broken, several = [], [], []
    for image in dataset.annotations["images"]:
        name = str(image["file_name"])
        size, header = annotated_size(image), dataset.files.header(name)
        if header is None:
            if dataset.files.holds(name):
                broken.append(name)
            continue
        if header.frames > 1:
            several.append(name)
        if size is None:
            if header.orientation != 1:
                unclear.append(name)
            continue
        fit = fits_annotation(header, size)
        by_fit[fit].append(image)
        if fit == "same" and header.orientation != 1:
            unclear.append(name)
    # Loading has exchanged the sides of these already.
    exchanged = [finding for finding in dataset.findings if finding.what == EXCHANGED]
    more = (
        Finding(AS_STORED, unclear, "they are not turned, as COCO's are not"),
        Finding("images that cannot be read", broken, is_problem=True),
        Finding("images of several frames or pages", several, "the first is used"),
    )
    return [*exchanged, *size_findings(by_fit), *(f for f in more if f.examples)]


def find_broken_images(dataset: CocoKeypoints, processes: int) -> Finding | None:
    """Decode every image of a set in so many processes; those that cannot be, with the reason."""
    images = dataset.annotations["images"]
    entries = [(str(image["file_name"]), annotated_size(image)) for image in images]
    errors = find_broken(dataset.files, entries, processes)
    broken = [e for e in tqdm(errors, "decode", len(entries), mininterval=1.0) if e]
    return Finding("images that cannot be read", broken, is_problem=True) if broken else None


def find_shared_images(train: CocoKeypoints, test: CocoKeypoints) -> Finding | None:
    """Images that are in both sets: the same files, or files of one name and the same bytes."""
    common = sorted(set(train.names) & set(test.names))
    if train.files.path.resolve() != test.files.path.resolve():
        common = [name for name in common if _same_bytes(train, test, name)]
    if not common:
        return None
    return Finding("images that are in both TRAIN and TEST", common, "AP will look too good")


def _same_bytes(first: CocoKeypoints, second: CocoKeypoints, name: str) -> bool:
    try:
        if first.files.path.is_dir() and second.files.path.is_dir():
            sizes = {(part.files.path / name).stat().st_size for part in (first, second)}
            if len(sizes) > 1:
                return False
        return first.files.read(name) == second.files.read(name)
    except (UserError, OSError):  # one of them is missing, which is told elsewhere
        return False


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
