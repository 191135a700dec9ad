"""Annotations as tools write them → as training and evaluation read them.

Ids, categories, the order of joints, visibilities, boxes and areas. What was changed, or cannot be
right, is counted and told as a :class:`Finding`; what cannot be read without a guess is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..ids import by_plain_id, plain_id
from ..joint_names import are_placeholders, flip_pairs_from_names, reorder_keypoints
from ..poses import is_labeled
from ..skeleton import SKELETONS, Skeleton
from .findings import Finding, match_ids, only_found

Record = dict[str, Any]
UNKNOWN_SIGMA = 0.05
"""OKS falloff of joints of which nothing is known, between those of an elbow and an eye."""
_USUAL = {0, 1, 2}
_FROM_BOX = "it is computed from their box or joints"


def canonicalize(
    loaded: dict[str, Any], file: Path, skeleton: Skeleton, categories: Sequence[str] = ()
) -> list[Finding]:
    """Bring a COCO-format file into the form that is worked with, in place.

    Annotations of other categories are removed; joints are brought into the skeleton's order by
    name; boxes and areas without extent are taken away, so that they are made from the joints.

    Args:
        loaded: ``images``, ``annotations`` and, if they are there, ``categories``.
        file: where they come from, for messages.
        skeleton: the K joints that are wanted.
        categories: names of the categories that have them; found by their joints if empty.

    Raises:
        UserError: the categories or their joints do not fit the skeleton.
    """
    found = match_ids(loaded)
    nothing = [0] * 3 * len(skeleton)
    for record in loaded["annotations"]:
        if not record.get("keypoints"):  # a crowd, or a body without joints
            record["keypoints"] = list(nothing)
    found += _keep_categories(loaded, file, skeleton, categories)
    found += _order_joints(loaded, file, skeleton)
    _check_counts(loaded, file, skeleton)
    found += _check_visibility(loaded)
    found += _mend_extents(loaded)
    return found


def skeleton_from_file(
    loaded: Mapping[str, Any],
    file: Path,
    names: Sequence[str] = (),
    notes: list[str] | None = None,
) -> Skeleton:
    """The skeleton that a file's categories describe, with sigmas of 0.05; a built-in one where the
    joints are the same.

    Args:
        loaded, file: the file's content and name.
        names: of the categories that count; all if empty.
        notes: gets a sentence where flip pairs cannot be told from the names; without it that is
            an error.

    Raises:
        UserError: no category lists joints, or several list different ones.
    """
    listed = _categories(loaded, file)
    categories = [c for c in _by_name(listed, names, file) if c.get("keypoints")]
    if not categories:
        raise UserError(
            f"'{file}': no category lists the names of its keypoints, so that no skeleton can be "
            "made from it; give one with DATASET.SKELETON FILE.yaml"
        )
    first = categories[0]
    joints = tuple(str(name) for name in first["keypoints"])
    if any(tuple(map(str, c["keypoints"])) != joints for c in categories):
        raise UserError(
            f"'{file}' has categories with different joints: "
            f"{', '.join(str(c.get('name')) for c in categories)}; choose with DATASET.CATEGORIES"
        )
    for known in SKELETONS.values():
        if known.find(joints) is not None:  # in whatever order: they are matched by name
            return known
    try:
        lines = [[int(joint) for joint in line] for line in first.get("skeleton") or ()]
        pairs = [pair for line in lines for pair in pairwise(line)]  # FiftyOne draws polylines
        start = 0 if any(0 in pair for pair in pairs) else 1  # COCO counts from 1, not all do
        bones = tuple((joints[a - start], joints[b - start]) for a, b in pairs if a != b)
    except (TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"'{file}': 'skeleton' of category '{first.get('name')}' must list pairs of keypoint "
            "numbers"
        ) from error
    flip_pairs: tuple[tuple[str, str], ...] = ()
    try:
        flip_pairs = flip_pairs_from_names(joints)
    except UserError as error:
        if notes is None:
            raise
        notes.append(f"no flip pairs: {error}")
    return Skeleton(
        name=str(first.get("name") or file.stem),
        joints=joints,
        bones=bones,
        sigmas=(UNKNOWN_SIGMA,) * len(joints),
        grouping_order=joints,
        flip_pairs=flip_pairs,
    )


def _categories(loaded: Mapping[str, Any], file: Path) -> list[Record]:
    """The listed categories, with ids and lists of joint names, however these are written."""
    listed = loaded.get("categories") or []
    if not isinstance(listed, list):
        raise UserError(f"'{file}': categories must be a list")
    found = []
    for number, entry in enumerate(listed, 1):
        category = {"name": entry} if isinstance(entry, str) else entry
        if not isinstance(category, dict):
            raise UserError(f"'{file}': categories must be a list of mappings")
        names = category.get("keypoints") or []
        if isinstance(names, str):
            names = [name.strip() for name in names.split(",")]
        if not isinstance(names, list):
            raise UserError(f"'{file}': 'keypoints' of category number {number} must be a list")
        names = [n.get("name", n) if isinstance(n, dict) else n for n in names]
        own = {"id": number, **category, "keypoints": names}
        if not isinstance(own["id"], int | str):
            raise UserError(f"'{file}': category number {number}: 'id' cannot be {own['id']!r}")
        found.append(own)
    return found


def _by_name(listed: list[Record], names: Sequence[str], file: Path) -> list[Record]:
    """The categories of ``DATASET.CATEGORIES``; all of them if it is empty.

    Raises:
        UserError: the file does not list one.
    """
    known = [str(category.get("name")) for category in listed]
    wrong = [name for name in names if name not in known]
    if wrong:
        raise UserError(
            f"config key 'DATASET.CATEGORIES': '{file}' has no category '{wrong[0]}', only "
            f"{', '.join(known) or 'none'}"
        )
    return [c for c, name in zip(listed, known, strict=True) if not names or name in names]


def _keep_categories(
    loaded: dict[str, Any], file: Path, skeleton: Skeleton, names: Sequence[str]
) -> list[Finding]:
    """Drop what belongs to other categories; categories keep their order."""
    people = loaded["annotations"]
    listed = _categories(loaded, file)
    meant = by_plain_id(category["id"] for category in listed)
    known = {category["id"] for category in listed}
    with_joints, only_crowds = set(), dict.fromkeys(known, True)
    for record in people:
        own = record.get("category_id")
        if own.__class__ is not int:
            if isinstance(own, float) and own.is_integer():
                own = int(own)
            if own is not None and not isinstance(own, int | str):
                raise UserError(
                    f"'{file}': annotation {record.get('id')}: 'category_id' cannot be {own!r}"
                )
            own = meant.get(plain_id(own), own)
        elif own not in known:
            own = meant.get(own, own)
        record["category_id"] = own
        if own not in with_joints and is_labeled(record):
            with_joints.add(own)
        if not record.get("iscrowd"):
            only_crowds[own] = False
    chosen = _choose(listed, with_joints, file, skeleton, names)
    if chosen is None:
        loaded["categories"] = listed
        _adopt(people, listed, {category["id"] for category in listed}, skeleton)
        return []
    loaded["categories"] = [c for c in listed if c["id"] in chosen]
    unlisted = _adopt(people, listed, chosen, skeleton)
    crowds = {number for number, alone in only_crowds.items() if alone and number in known}
    kept = chosen | crowds  # a category of its own for regions to ignore, as some tools have it
    dropped = Counter(r["category_id"] for r in people if r["category_id"] not in kept)
    loaded["annotations"] = [r for r in people if r["category_id"] in kept]
    title = {category["id"]: category.get("name", category["id"]) for category in listed}
    return only_found(
        Finding(
            "annotations without a category, or of one that is not listed",
            unlisted,
            "they have keypoints, and are taken as those of the others",
        ),
        *(
            Finding(
                f"annotations of category '{title.get(category, category)}'",
                [r.get("id") for r in people if r["category_id"] == category],
                f"it is not one of skeleton '{skeleton.name}', and they are background",
            )
            for category in dropped
        ),
    )


def _adopt(
    people: Sequence[Record], listed: Sequence[Record], chosen: set[Any], skeleton: Skeleton
) -> list[Any]:
    """Give people without a listed category that of the others, so that their joints are ordered
    alike; returns their ids."""
    ids = {category["id"] for category in listed}
    if not ids or not chosen & ids:
        chosen.add(None)
        return []
    first = next(category["id"] for category in listed if category["id"] in chosen)
    alone = all(record["category_id"] not in ids for record in people)
    adopted = []
    for record in people:
        if record["category_id"] in ids:
            continue
        if record["category_id"] is None or alone or is_labeled(record):
            if is_labeled(record) and len(record["keypoints"]) == 3 * len(skeleton):
                adopted.append(record.get("id"))
            record["category_id"] = first
    return adopted


def _choose(
    listed: list[Record],
    with_joints: set[Any],
    file: Path,
    skeleton: Skeleton,
    names: Sequence[str],
) -> set[Any] | None:
    """Ids of the categories of the skeleton's people; None for all, listed or not."""
    if names:
        return {category["id"] for category in _by_name(listed, names, file)}
    named = [category for category in listed if category.get("keypoints")]
    if not named:
        # Nobody says which have joints but the annotations; without any all are people to ignore.
        return (with_joints or None) if len(listed) != 1 else None
    joints = [tuple(map(str, category["keypoints"])) for category in named]
    both = list(zip(named, joints, strict=True))
    fitting = {category["id"] for category, own in both if skeleton.find(own) is not None}
    if not fitting:
        fitting = {
            category["id"]
            for category, own in both
            if are_placeholders(own) and len(own) == len(skeleton)
        }
    if not fitting and len(set(joints)) > 1:
        raise UserError(
            f"'{file}' has several categories with keypoints, and none has the joints of skeleton "
            f"'{skeleton.name}': {', '.join(str(c.get('name')) for c in named)}; choose with "
            "DATASET.CATEGORIES, and a skeleton with DATASET.SKELETON"
        )
    return fitting or {category["id"] for category in named}


def _order_joints(loaded: dict[str, Any], file: Path, skeleton: Skeleton) -> list[Finding]:
    """Keypoints into the skeleton's order by the names that their category lists."""
    categories = [c for c in loaded.get("categories") or () if c.get("keypoints")]
    orders: dict[Any, list[int]] = {}
    found: list[Finding] = []
    counts: dict[Any, int] = {}
    if any(len(c["keypoints"]) != len(skeleton) for c in categories):
        for record in loaded["annotations"]:
            counts.setdefault(record["category_id"], len(record["keypoints"]) // 3)
    for category in categories:
        names = [str(name) for name in category["keypoints"]]
        title = f"category '{category.get('name', category['id'])}'"
        if len(names) != len(skeleton) and counts.get(category["id"]) == len(skeleton):
            found.append(
                Finding(
                    f"names for the {len(skeleton)} keypoints of {title}",
                    names,
                    f"they are not used: the order is that of skeleton '{skeleton.name}'",
                )
            )
            continue
        if len(names) == len(skeleton) and are_placeholders(names):
            if not are_placeholders(skeleton.joints):
                found.append(
                    Finding(
                        f"keypoints of {title} that have numbers for names",
                        names,
                        f"they are taken in the order of skeleton '{skeleton.name}'",
                    )
                )
            continue
        rows = skeleton.find(names)
        if rows is None:
            raise UserError(f"'{file}': {title} {_difference(names, skeleton)}")
        category["keypoints"] = list(skeleton.joints)
        if rows != list(range(len(rows))):
            orders[category["id"]] = rows
            if category.get("skeleton"):
                category["skeleton"] = [[a + 1, b + 1] for a, b in skeleton.limbs]
            found.append(
                Finding(
                    f"joints of {title} in another order than skeleton '{skeleton.name}' has them",
                    names,
                    "they were brought into order by name",
                )
            )
    if orders:
        for record in loaded["annotations"]:
            rows = orders.get(record["category_id"])
            values = record["keypoints"]
            if rows and len(values) == 3 * len(rows):
                record["keypoints"] = reorder_keypoints(values, rows)
    return found


def _difference(names: Sequence[str], skeleton: Skeleton) -> str:
    only_here = [name for name in names if name not in skeleton.joints]
    missing = [name for name in skeleton.joints if name not in names]
    parts = [
        f"{where} {', '.join(some[:6])}{', …' if len(some) > 6 else ''}"
        for where, some in (("only the file has", only_here), ("only the skeleton has", missing))
        if some
    ]
    return (
        f"has {len(names)} joints and skeleton '{skeleton.name}' has {len(skeleton)}, not the same "
        f"by name: {'; '.join(parts) or 'a name appears twice'}. Set DATASET.SKELETON to a YAML "
        "file with these joints (or with aliases: {NAME: JOINT}), or to auto, which makes one of "
        "them"
    )


def _check_counts(loaded: dict[str, Any], file: Path, skeleton: Skeleton) -> None:
    wanted = 3 * len(skeleton)
    for record in loaded["annotations"]:
        if len(record["keypoints"]) != wanted:
            raise UserError(
                f"'{file}': annotation {record.get('id')} has {len(record['keypoints'])} keypoint "
                f"numbers, but skeleton '{skeleton.name}' with {len(skeleton)} joints needs "
                f"{wanted}"
            )


def _check_visibility(loaded: dict[str, Any]) -> list[Finding]:
    """Every v > 0 is labeled (see ``poses.labeled_joints``); what COCO does not have is told."""
    fractions, beyond, negative, uncounted = [], [], [], []
    labeled, largest = 0, 0.0
    for record in loaded["annotations"]:
        values = record["keypoints"][2::3]
        if largest <= 2 and is_labeled(record):
            largest = max(largest, *record["keypoints"][::3], *record["keypoints"][1::3])
            labeled += 1
        if record.get("num_keypoints") == 0 and max(values) > 0:
            uncounted.append(record.get("id"))
        if not _USUAL.issuperset(values):
            unusual = set(values) - _USUAL
            if any(0 < v < 2 for v in unusual):
                fractions.append(record.get("id"))
            if any(v > 2 for v in unusual):
                beyond.append(record.get("id"))
            if any(v < 0 for v in unusual):
                negative.append(record.get("id"))
    return only_found(
        Finding("people with fractions as visibility", fractions, "above 0 is labeled"),
        Finding("people with a visibility above 2", beyond, "it counts as visible"),
        Finding("people with a visibility below 0", negative, "it counts as not labeled"),
        Finding(
            "people with labeled joints whose num_keypoints is 0",
            uncounted,
            "official evaluation, and so AP, leaves them out; take num_keypoints away",
            is_problem=len(uncounted) > len(loaded["annotations"]) / 2,
        ),
        Finding(
            "people of a set whose coordinates are all between 0 and 2",
            [r.get("id") for r in loaded["annotations"]] if labeled and largest <= 2 else [],
            "they are fractions of the image's sides and must be pixels",
            is_problem=True,
        ),
    )


def _mend_extents(loaded: dict[str, Any]) -> list[Finding]:
    """Take away areas and boxes that no body can have. What is missing is made from the joints,
    with the floor of a slim body: see ``evaluation.ground_truth`` and ``boxes.annotated_box``."""
    flat_areas, flat_boxes, no_area, no_box, points = [], [], [], [], []
    # CrowdPose has no areas, and is evaluated by boxes.
    wants_area = not any(image.get("crowdIndex") is not None for image in loaded["images"])
    for record in loaded["annotations"]:
        box, area = record.get("bbox"), record.get("area")
        if area and area > 0 and box and box[2] > 0 and box[3] > 0:
            continue
        if record.get("iscrowd") or record.get("scale") is not None or not is_labeled(record):
            continue
        if not box:
            no_box.append(record.get("id"))
        elif not (box[2] > 0 and box[3] > 0):
            flat_boxes.append(record.get("id"))
            record["bbox"] = box = None
        if area is None and wants_area:
            no_area.append(record.get("id"))
        elif area is not None and not area > 0:
            flat_areas.append(record.get("id"))
            record["area"] = None
        if not box and _is_point(record["keypoints"]):
            points.append(record.get("id"))
    return only_found(
        Finding("people with an area of 0 or less", flat_areas, _FROM_BOX),
        Finding("people with a box without extent", flat_boxes, "it is drawn around their joints"),
        Finding("people without area", no_area, _FROM_BOX),
        Finding("people without box", no_box, "it is drawn around their joints"),
        Finding("people with one joint and no box", points, "top-down training leaves them out"),
    )


def _is_point(keypoints: Sequence[float]) -> bool:
    places = {
        (x, y)
        for x, y, v in zip(keypoints[::3], keypoints[1::3], keypoints[2::3], strict=True)
        if v > 0
    }
    return len(places) < 2
