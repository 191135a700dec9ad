"""The one place where config becomes objects."""

from ..config import Config, varied
from .inference import (
    boxes,
    config_of,
    detector,
    display_point,
    evaluation,
    find_weights,
    load,
    predictor,
    skeleton_of,
    validate,
)
from .parts import codec, device, expand_path, model, pictures, skeleton, view_shape
from .pretraining import pretrain
from .training import bare_trainer, input_path, train

__all__ = [
    "Config",
    "bare_trainer",
    "boxes",
    "codec",
    "config_of",
    "detector",
    "device",
    "display_point",
    "evaluation",
    "expand_path",
    "find_weights",
    "input_path",
    "load",
    "model",
    "pictures",
    "predictor",
    "pretrain",
    "skeleton",
    "skeleton_of",
    "train",
    "validate",
    "varied",
    "view_shape",
]
