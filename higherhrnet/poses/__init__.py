"""People of an image: the value, and what other tools take in its place."""

from .poses import (
    ABSENT,
    REFINED,
    SEEN,
    Poses,
    is_labeled,
    labeled_joints,
    people_by_image,
    visibility_of,
)

__all__ = [
    "ABSENT",
    "REFINED",
    "SEEN",
    "Poses",
    "is_labeled",
    "labeled_joints",
    "people_by_image",
    "visibility_of",
]
