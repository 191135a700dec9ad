"""The one place where config becomes objects."""

from .inference import (
    config_of,
    find_weights,
    load,
    predictor,
    skeleton_of,
    validate,
)
from .parts import codec, device, expand_path, model, pictures, skeleton
from .training import train

__all__ = [
    "codec",
    "config_of",
    "device",
    "expand_path",
    "find_weights",
    "load",
    "model",
    "pictures",
    "predictor",
    "skeleton",
    "skeleton_of",
    "train",
    "validate",
]
