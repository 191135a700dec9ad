"""What joint names mean, however a tool spells them: words, sides, and which are mirrored.

``left_eye``, ``LEFT-EYE``, ``leftEye``, ``L_Eye``, ``LEye`` (OpenPose), ``eye.L`` (Blender),
``eyeL`` (SLEAP) and ``Left Eye`` (CVAT) are the same joint.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from .errors import UserError

_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[^\W\d_A-Za-z]+")
"""Camel case, capitals and numbers; what stands between words is dropped."""
_SIDES = {"left": "left", "right": "right", "l": "left", "r": "right", "lt": "left", "rt": "right"}
_QUARTERS = {end + side: (end, side) for end in "fhb" for side in "lr"} | {
    side + end: (end, side) for end in "fhb" for side in "lr"
}
"""Four-legged animals' front, hind and back legs: FL, RH and the like."""
_STEMS = frozenset({
    "eye", "ear", "hip", "knee", "kne", "sho", "elb", "wri", "ank", "paw", "hand", "foot", "arm",
    "leg", "shoulder", "elbow", "wrist", "ankle", "hoof", "wing", "fin", "antenna", "whisker",
    "toe", "heel", "thumb", "finger", "cheek", "nostril", "horn", "thigh", "shin",
})  # fmt: skip
"""What may follow a letter without a gap: lsho and rsho are a pair, lip and rip are words."""
_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}
_NUMBERED = re.compile(r"(.*?)[\W_]*(\d+)")


def normalize_name(name: str) -> tuple[str, tuple[str, ...]]:
    """Side (``left``, ``right`` or empty) and the other words in lower case, by which the names of
    different tools are compared."""
    words = [word.lower() for word in _WORDS.findall(name)]
    words = [part for word in words for part in _QUARTERS.get(word, (word,))]
    for spellings in (("left", "right"), ("lt", "rt"), ("l", "r")):  # a letter where no word is
        found = [number for number, word in enumerate(words) if word in spellings]
        if len(found) == 1:
            side = _SIDES[words.pop(found[0])]
            return side, tuple(words)
    return "", tuple(words)


def match_names(source: Sequence[str], target: Sequence[str]) -> list[int] | None:
    """For each name of ``target`` the row in ``source`` that means the same; None if the two do
    not name the same joints."""
    found = match_some_names(source, target)
    return found if sorted(found) == list(range(len(source))) else None


def match_some_names(source: Sequence[str], target: Sequence[str]) -> list[int]:
    """For each name of ``target`` the row in ``source`` that means the same, or -1."""
    rows = {normalize_name(name): row for row, name in enumerate(source)}
    wanted = [normalize_name(name) for name in target]
    if len(rows) != len(source) or len(set(wanted)) != len(wanted):  # only letters tell them apart
        exact = {name: row for row, name in enumerate(source)}
        return [exact.get(name, -1) for name in target]
    return [rows.get(name, -1) for name in wanted]


def reorder_keypoints(values: Sequence[Any], rows: Sequence[int]) -> list[Any]:
    """Flat x, y, v triplets in the order of ``rows``, as :func:`match_names` gives them."""
    return [value for row in rows for value in values[3 * row : 3 * row + 3]]


def are_placeholders(names: Sequence[str]) -> bool:
    """Whether names only count, like ``0``, ``1``, ``2`` or ``point-1``, ``point-2``: they name no
    joints."""
    found = [_NUMBERED.fullmatch(name.strip()) for name in names]
    numbers = [int(match[2]) for match in found if match]
    stems = {match[1] for match in found if match}
    return (
        len(names) > 1
        and len(numbers) == len(names)
        and len(stems) == 1
        and numbers in (list(range(len(names))), list(range(1, len(names) + 1)))
    )


def unpaired_sides(joints: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Joints without a partner whose names differ from another one's by a letter l or r alone."""
    lone = {joint.lower(): joint for joint in joints}
    for pair in pairs:
        for joint in pair:
            lone.pop(joint.lower(), None)
    found = []
    for name, joint in lone.items():
        for at, letter in enumerate(name):
            other = name[:at] + "r" + name[at + 1 :] if letter == "l" else ""
            if other in lone and len(name) > 1:
                found += [joint, lone[other]]
    return found


def flip_pairs_from_names(joints: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs (left, right) of joints whose names differ in the side alone.

    Sides are the words left and right or the letters l and r, apart (``left_eye``, ``L Eye``,
    ``eye.l``, ``LEye``, ``eyeL1``) or, where both partners exist, stuck to a word in lower case
    (``lefteye``, ``earright``, LSP's ``lsho``).

    Raises:
        UserError: a joint with the word left or right has no partner, which would make the flip
            pairs asymmetric.
    """
    groups: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    for joint in joints:
        side, rest = normalize_name(joint)
        if side:
            groups[rest].append((side, joint))
    partner: dict[str, str] = {}
    for rest, group in groups.items():
        sides = dict(group)
        named = bool(rest) or {joint.lower() for _, joint in group} == {"left", "right"}
        # Points that are called A to Z have an L and an R, which are no sides.
        if len(group) == len(sides) == 2 and (named or len(joints) <= 4):
            partner[sides["left"]] = sides["right"]
    paired = {*partner, *partner.values()}
    lone = [joint for joint in joints if joint not in paired]
    counts = Counter(joint.lower() for joint in lone)
    by_name = {joint.lower(): joint for joint in lone if counts[joint.lower()] == 1}
    for name, joint in by_name.items():
        others = [name.replace("left", "right", 1)] if "left" in name else []
        if name.startswith("l") and name[1:] in _STEMS:
            others.append(f"r{name[1:]}")
        if name.endswith("l") and name[:-1] in _STEMS:
            others.append(f"{name[:-1]}r")
        for other in others:
            if other in by_name and by_name[other] not in paired:
                partner[joint] = by_name[other]
                paired |= {joint, by_name[other]}
    for joint in joints:
        words = [word for word in _WORDS.findall(joint) if word.lower() in ("left", "right")]
        if words and joint not in paired:
            other = _OTHER[words[0].lower()]
            other = other.upper() if words[0].isupper() else other
            other = other.capitalize() if words[0].istitle() else other
            raise UserError(
                f"the flip pairs are asymmetric: '{joint}' has no "
                f"'{joint.replace(words[0], other)}'; list the pairs as flip_pairs: "
                "[[LEFT, RIGHT], …]"
            )
    return tuple((joint, partner[joint]) for joint in joints if joint in partner)
