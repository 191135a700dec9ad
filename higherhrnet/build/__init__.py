"""The one place where config becomes objects."""

from ..config import Config, parse_config, read_config, to_yaml, varied
from .checkpoints import BUNDLED, config_of, find_weights, fusion_of, open_weights, skeleton_of
from .fairness import other_pictures, unlike
from .inference import (
    BoxesOf,
    Evaluate,
    bottom_up_boxes,
    boxes,
    detector,
    display_point,
    evaluation,
    load,
    point_of,
    predictor,
    validate,
    with_weights,
)
from .input import input_path
from .parts import (
    codec,
    device,
    expand_path,
    is_top_down,
    model,
    pictures,
    skeleton,
    split_files,
    view_shape,
)
from .pretraining import pretrain
from .training import bare_trainer, train

__all__ = [
    "BUNDLED",
    "BoxesOf",
    "Config",
    "Evaluate",
    "bare_trainer",
    "bottom_up_boxes",
    "boxes",
    "codec",
    "config_of",
    "detector",
    "device",
    "display_point",
    "evaluation",
    "expand_path",
    "find_weights",
    "fusion_of",
    "input_path",
    "is_top_down",
    "load",
    "model",
    "open_weights",
    "other_pictures",
    "parse_config",
    "pictures",
    "point_of",
    "predictor",
    "pretrain",
    "read_config",
    "skeleton",
    "skeleton_of",
    "split_files",
    "to_yaml",
    "train",
    "unlike",
    "validate",
    "varied",
    "view_shape",
    "with_weights",
]
