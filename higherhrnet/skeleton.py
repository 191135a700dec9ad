"""Skeletons: which joints a person (or animal) has, given by name; everything else is derived.

A skeleton is written with joint *names*. Flip pairs come from the words ``left`` and
``right`` in the names unless they are listed, and the flip table, bone indices, grouping order
and colors' sides follow from the names, so that no table of indices can go out of step.

The OKS sigmas are those of the COCO and CrowdPose evaluations (Ronchi & Perona 2017, sec. 3;
Li et al. 2019). The grouping order is that of Newell et al. 2017: head first, then the joints
nearest to the trunk, because early joints found the people that later ones join.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import UserError
from .joint_names import flip_pairs_from_names, match_names, match_some_names

_UPPER = ("nose", "eye", "ear", "head", "neck", "thorax", "shoulder", "elbow", "wrist")


_MOST_JOINTS = 2000
"""More than the densest face mesh has."""


class Side(Enum):
    """Where a joint or a bone lies on the body, seen from the person."""

    LEFT = "left"
    RIGHT = "right"
    CENTER = "center"


_FORMER = {"mirror": "flip_pairs", "colours": "colors"}


@dataclass(frozen=True)
class Skeleton:
    """The K joints of one kind of body.

    Attributes:
        name: what the data set calls it, e.g. ``"coco"``.
        joints: K joint names in the order of the annotation's keypoints.
        bones: pairs of joint names drawn as limbs.
        sigmas: K OKS falloffs, each > 0, in units of the square root of the person's area.
        grouping_order: the K names in the order in which grouping visits them.
        flip_pairs: pairs of joint names that change places in a flipped image; other joints stay
            what they are.
        colors: K RGB colors 0..255 to draw joints with, or none: then by side.
        aliases: pairs (name in annotation files, joint), where files call joints otherwise.

    Raises:
        UserError: a name is repeated or unknown, a count is wrong, or flip pairs are asymmetric.
    """

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[str, str], ...]
    sigmas: tuple[float, ...]
    grouping_order: tuple[str, ...]
    flip_pairs: tuple[tuple[str, str], ...]
    colors: tuple[tuple[int, int, int], ...] = ()
    aliases: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        where = f"skeleton '{self.name}'"
        known = set(self.joints)
        if len(known) != len(self.joints):
            raise UserError(f"{where}: a joint name appears twice in {list(self.joints)}")
        if len(self.joints) > _MOST_JOINTS:
            raise UserError(f"{where}: {len(self.joints)} joints; at most {_MOST_JOINTS} are read")
        if not self.joints:
            raise UserError(f"{where}: it has no joints")
        if len(self.sigmas) != len(self.joints):
            raise UserError(
                f"{where}: {len(self.sigmas)} sigmas were given for {len(self.joints)} joints"
            )
        if any(not 0 < sigma < math.inf for sigma in self.sigmas):
            raise UserError(f"{where}: every sigma must be a finite number greater than 0")
        for what, pairs in (("bone", self.bones), ("flip pair", self.flip_pairs)):
            for pair in pairs:
                unknown = [joint for joint in pair if joint not in known]
                if unknown or len(pair) != 2 or pair[0] == pair[1]:
                    raise UserError(
                        f"{where}: {what} {list(pair)} must name two different joints of it"
                    )
        if self.colors and (
            len(self.colors) != len(self.joints)
            or any(len(c) != 3 or not all(0 <= v <= 255 for v in c) for c in self.colors)
        ):
            raise UserError(f"{where}: colors must be one [R, G, B] of 0..255 for each joint")
        if sorted(self.grouping_order) != sorted(self.joints):
            raise UserError(f"{where}: the grouping order must name every joint exactly once")
        for alias, joint in self.aliases:
            if joint not in known:
                raise UserError(f"{where}: alias '{alias}' is of an unknown joint '{joint}'")
        flipped = [joint for pair in self.flip_pairs for joint in pair]
        if len(set(flipped)) != len(flipped):
            raise UserError(f"{where}: the flip pairs are asymmetric, a joint is in two of them")

    def __len__(self) -> int:
        return len(self.joints)

    def find(self, names: Sequence[str]) -> list[int] | None:
        """For each joint the row in a file's ``names``, however these are spelled; None if they are
        not the same joints."""
        aliases = dict(self.aliases)
        return match_names([aliases.get(name, name) for name in names], self.joints)

    def match(self, names: Sequence[str]) -> list[int]:
        """For each joint the row in ``names`` that means the same, however it is spelled; -1 where
        there is none."""
        aliases = dict(self.aliases)
        return match_some_names([aliases.get(name, name) for name in names], self.joints)

    def index(self, joint: str) -> int:
        """Row of ``joint`` in the annotation; ``UserError`` names an unknown one."""
        if joint not in self.joints:
            raise UserError(f"skeleton '{self.name}' has no joint '{joint}'")
        return self.joints.index(joint)

    @cached_property
    def flip_indices(self) -> npt.NDArray[np.int64]:
        """(K,) ``flip_indices[k]`` is the joint that joint k becomes in a flipped image."""
        table = np.arange(len(self))
        for a, b in self.flip_pairs:
            table[self.index(a)], table[self.index(b)] = self.index(b), self.index(a)
        assert (table[table] == np.arange(len(self))).all()
        return table

    @cached_property
    def order(self) -> tuple[int, ...]:
        """(K,) joint rows in grouping order."""
        return tuple(self.index(joint) for joint in self.grouping_order)

    @cached_property
    def upper(self) -> tuple[bool, ...]:
        """(K,) which joints belong to the upper half of a human body; none of an animal's."""
        if not any("ankle" in joint for joint in self.joints):
            return (False,) * len(self)
        return tuple(any(part in joint for part in _UPPER) for joint in self.joints)

    @cached_property
    def limbs(self) -> tuple[tuple[int, int], ...]:
        """Bones as pairs of joint rows."""
        return tuple((self.index(a), self.index(b)) for a, b in self.bones)

    @cached_property
    def sides(self) -> tuple[Side, ...]:
        """(K,) side of each joint: first of a flip pair left, second right, others center."""
        side = dict.fromkeys(self.joints, Side.CENTER)
        for left, right in self.flip_pairs:
            side[left], side[right] = Side.LEFT, Side.RIGHT
        return tuple(side[joint] for joint in self.joints)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for YAML, JSON and checkpoint metadata."""
        return {
            "name": self.name,
            "joints": list(self.joints),
            "bones": [list(bone) for bone in self.bones],
            "sigmas": list(self.sigmas),
            "grouping_order": list(self.grouping_order),
            "flip_pairs": [list(pair) for pair in self.flip_pairs],
            **({"colors": [list(color) for color in self.colors]} if self.colors else {}),
            **({"aliases": dict(self.aliases)} if self.aliases else {}),
        }

    def to_drawing(self) -> dict[str, Any]:
        """:meth:`to_dict` with the limbs as rows and each joint's side, for drawing elsewhere."""
        limbs, sides = [list(limb) for limb in self.limbs], [side.value for side in self.sides]
        return self.to_dict() | {"limbs": limbs, "sides": sides}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Skeleton:
        """Inverse of :meth:`to_dict`.

        ``grouping_order`` may be left out (joint order), ``flip_pairs`` too (from the names),
        ``colors``, and ``aliases`` (a mapping). Older files write ``mirror`` and ``colours``.
        """
        values = {_FORMER.get(key, key): value for key, value in values.items()}
        required, optional = (
            {"name", "joints", "bones", "sigmas"},
            {"grouping_order", "flip_pairs", "colors", "aliases"},
        )
        name = values.get("name", "?")
        missing = required - values.keys()
        unknown = values.keys() - required - optional
        if missing or unknown:
            problem = f"lacks {sorted(missing)}" if missing else f"has unknown {sorted(unknown)}"
            raise UserError(f"skeleton '{name}' {problem}")
        joints = tuple(str(joint) for joint in values["joints"])
        flip_pairs = values.get("flip_pairs")
        return cls(
            name=str(name),
            joints=joints,
            bones=tuple((str(a), str(b)) for a, b in values["bones"]),
            sigmas=tuple(float(sigma) for sigma in values["sigmas"]),
            grouping_order=tuple(str(joint) for joint in values.get("grouping_order", joints)),
            flip_pairs=flip_pairs_from_names(joints)
            if flip_pairs is None
            else tuple((str(a), str(b)) for a, b in flip_pairs),
            colors=tuple((int(r), int(g), int(b)) for r, g, b in values.get("colors") or ()),
            aliases=tuple((str(a), str(j)) for a, j in (values.get("aliases") or {}).items()),
        )


def load_skeleton(name_or_file: str) -> Skeleton:
    """A built-in skeleton by name, or one from a YAML file with the keys of ``to_dict``."""
    if name_or_file in SKELETONS:
        return SKELETONS[name_or_file]
    path = Path(name_or_file)
    if name_or_file == "auto":
        raise UserError(
            "skeleton 'auto' is made from an annotation file, and there is none here; give a name "
            f"({', '.join(SKELETONS)}) or a YAML file"
        )
    if path.suffix not in {".yaml", ".yml"}:
        raise UserError(
            f"skeleton '{name_or_file}' is neither built in ({', '.join(SKELETONS)}) "
            "nor a YAML file"
        )
    if not path.is_file():
        raise UserError(f"skeleton file '{path}' does not exist")
    try:
        from .io import yaml as strict_yaml

        values = strict_yaml.parse(path.read_text())
        if not isinstance(values, dict):
            raise UserError("it is not a mapping of names to values")
        return Skeleton.from_dict(values)
    except (
        UserError, ValueError, TypeError, AttributeError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise UserError(f"skeleton file '{path}': {' '.join(str(error).split())}") from error


_COCO_JOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
_LIMBS = (
    ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"),
    ("left_shoulder", "left_hip"), ("right_shoulder", "right_hip"),
    ("left_shoulder", "left_elbow"), ("right_shoulder", "right_elbow"),
    ("left_elbow", "left_wrist"), ("right_elbow", "right_wrist"),
    ("left_hip", "left_knee"), ("right_hip", "right_knee"),
    ("left_knee", "left_ankle"), ("right_knee", "right_ankle"),
)  # fmt: skip

COCO = Skeleton(
    name="coco",
    joints=_COCO_JOINTS,
    bones=(
        *_LIMBS,
        ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "right_eye"),
        ("left_eye", "left_ear"), ("right_eye", "right_ear"),
        ("left_ear", "left_shoulder"), ("right_ear", "right_shoulder"),
    ),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062,
        0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
    ),
    grouping_order=(
        *_COCO_JOINTS[:7], "left_hip", "right_hip", *_COCO_JOINTS[7:11], *_COCO_JOINTS[13:],
    ),
    flip_pairs=flip_pairs_from_names(_COCO_JOINTS),
)  # fmt: skip

_CROWDPOSE_JOINTS = (
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    "head", "neck",
)  # fmt: skip

CROWDPOSE = Skeleton(
    name="crowdpose",
    joints=_CROWDPOSE_JOINTS,
    bones=(("head", "neck"), ("neck", "left_shoulder"), ("neck", "right_shoulder"), *_LIMBS),
    sigmas=(
        0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
        0.079, 0.079,
    ),
    # The published model groups CrowdPose by the first fourteen entries of the COCO order that
    # fall inside fourteen joints; with these names that is arms, ankles, head, then the legs.
    grouping_order=(
        *_CROWDPOSE_JOINTS[:7], *_CROWDPOSE_JOINTS[11:13], *_CROWDPOSE_JOINTS[7:11], "neck",
    ),
    flip_pairs=flip_pairs_from_names(_CROWDPOSE_JOINTS),
    aliases=(("top_head", "head"),),
)  # fmt: skip

_MPII_JOINTS = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle",
    "pelvis", "thorax", "upper_neck", "head_top",
    "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist",
)  # fmt: skip

MPII = Skeleton(
    name="mpii",
    joints=_MPII_JOINTS,
    bones=(
        *(bone for bone in _LIMBS if bone not in (_LIMBS[0], _LIMBS[2], _LIMBS[3])),
        ("head_top", "upper_neck"), ("upper_neck", "thorax"), ("thorax", "pelvis"),
        ("thorax", "left_shoulder"), ("thorax", "right_shoulder"),
        ("pelvis", "left_hip"), ("pelvis", "right_hip"),
    ),
    # MPII has no OKS of its own: COCO's, and CrowdPose's for the head.
    sigmas=(
        0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.107, 0.079, 0.079, 0.079,
        0.062, 0.072, 0.079, 0.079, 0.072, 0.062,
    ),
    grouping_order=(
        "head_top", "upper_neck", "thorax", "left_shoulder", "right_shoulder", "pelvis",
        "left_hip", "right_hip", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
        "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    flip_pairs=flip_pairs_from_names(_MPII_JOINTS),
)  # fmt: skip

SKELETONS: dict[str, Skeleton] = {s.name: s for s in (COCO, CROWDPOSE, MPII)}
