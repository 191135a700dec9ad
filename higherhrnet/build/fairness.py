"""What two configs have in common, as far as a comparison asks for it."""

from __future__ import annotations

from typing import Any

from ..config import Config

_PICTURES = ("KIND", "ROOT", "TEST", "TEST_LIMIT", "IMAGES", "SKELETON")
_MODEL = ("WIDTH", "MODULES", "BLOCKS", "FUSION")
_TRAINING = {
    "MODEL": ("PRETRAINED",),
    "DATASET": ("TRAIN", "TRAIN_LIMIT", "DRAWN"),
    "TRAIN": (
        "EPOCHS",
        "SEED",
        "FREEZE",
        "UNFREEZE_EPOCH",
        "OPTIMIZER",
        "MOMENTUM",
        "WEIGHT_DECAY",
        "RATE",
        "RATE_FACTORS",
        "SCHEDULE",
        "MILESTONES",
        "FACTOR",
        "EMA",
        "NORM",
        "PRECISION",
    ),
}


def other_pictures(one: Config, other: Config) -> list[str]:
    """Settings in which the test pictures of two configs differ, with both values."""
    found = _apart(one.DATASET, other.DATASET, "DATASET", _PICTURES)
    if one.DATASET.KIND == "toy":
        found += _apart(one.TOY, other.TOY, "TOY", tuple(one.TOY))
        found += _apart(one.TRAIN, other.TRAIN, "TRAIN", ("SEED",))
    return found


def unlike(one: Config, other: Config, given: bool = False) -> list[str]:
    """Settings in which two configs differ though a fair comparison of two modes would not.

    Args:
        given: weights were given, so that what the configs say of training is not how they came
            to be.
    """
    found = _apart(one.MODEL, other.MODEL, "MODEL", _MODEL)
    found += _apart(one.TEST, other.TEST, "TEST", ("EVALUATION", "RADIUS", "PRECISION", "FLIP"))
    for section, keys in () if given else _TRAINING.items():
        found += _apart(one[section], other[section], section, keys)
    return found


def _apart(one: Any, other: Any, section: str, keys: tuple[str, ...]) -> list[str]:
    return [f"{section}.{k} {one[k]} and {other[k]}" for k in keys if one[k] != other[k]]
