"""What two configs have in common, as far as a comparison depends on it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ...config import PoseConfig

_TEST_IMAGES = ("DATASET", "ROOT", "TEST", "TEST_LIMIT", "IMAGE_DIR", "SKELETON")
_MODEL = ("WIDTH", "NUM_MODULES", "NUM_BLOCKS", "UPSAMPLE_MODE")
_TEST = ("EVALUATION", "ACCURACY_RADIUS", "PRECISION", "FLIP_TEST")
_TRAINING = {
    "MODEL": ("PRETRAINED",),
    "DATASET": ("TRAIN", "TRAIN_LIMIT", "SYNTHETIC_IMAGES", "AUGMENT"),
    "TRAIN": (
        "END_EPOCH", "MINUTES", "NESTEROV", "SEED",
        "FREEZE", "UNFREEZE_EPOCH", "OPTIMIZER", "MOMENTUM", "WEIGHT_DECAY",
        "LR", "LR_MULT", "LR_SCHEDULER", "LR_STEP", "LR_FACTOR", "EMA_DECAY", "BN_MODE",
        "PRECISION",
    ),
}  # fmt: skip


def compare_test_images(one: PoseConfig, other: PoseConfig) -> list[str]:
    """Settings in which the test images of two configs differ, with both values."""
    found = _differences(one.DATASET, other.DATASET, "DATASET", _TEST_IMAGES)
    if one.DATASET.DATASET == "synthetic":
        keys = tuple(entry.name for entry in fields(one.SYNTHETIC))
        found += _differences(one.SYNTHETIC, other.SYNTHETIC, "SYNTHETIC", keys)
        found += _differences(one.TRAIN, other.TRAIN, "TRAIN", ("SEED",))
    return found


def find_unfairness(one: PoseConfig, other: PoseConfig, given: bool = False) -> list[str]:
    """Settings in which two configs differ though a fair comparison of two methods would not.

    Args:
        given: weights were given, so that the configs do not tell how they were trained.
    """
    found = _differences(one.MODEL, other.MODEL, "MODEL", _MODEL)
    found += _differences(one.TEST, other.TEST, "TEST", _TEST)
    for section, keys in () if given else _TRAINING.items():
        found += _differences(getattr(one, section), getattr(other, section), section, keys)
    return found


def _differences(one: Any, other: Any, section: str, keys: tuple[str, ...]) -> list[str]:
    pairs = ((key, getattr(one, key), getattr(other, key)) for key in keys)
    return [f"{section}.{key} {a} and {b}" for key, a, b in pairs if a != b]
