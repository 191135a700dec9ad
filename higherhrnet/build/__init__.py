"""The one place where config becomes objects."""

from ..config import Config, parse_config, read_config, to_yaml, varied
from .checkpoints import BUNDLED, config_of, find_weights, open_weights, skeleton_of
from .fairness import other_pictures, unlike
from .inference import (
    BoxesOf,
    Evaluate,
    boxes,
    detector,
    display_point,
    evaluation,
    load,
    predictor,
    validate,
)
from .input import input_path
from .parts import codec, device, expand_path, is_top_down, model, pictures, skeleton, view_shape
from .pretraining import pretrain
from .training import bare_trainer, train

__all__ = [
    "BUNDLED",
    "BoxesOf",
    "Config",
    "Evaluate",
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
    "is_top_down",
    "load",
    "model",
    "open_weights",
    "other_pictures",
    "parse_config",
    "pictures",
    "predictor",
    "pretrain",
    "read_config",
    "skeleton",
    "skeleton_of",
    "to_yaml",
    "train",
    "unlike",
    "validate",
    "varied",
    "view_shape",
]
