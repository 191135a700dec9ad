"""Typed configs: their schemas, how they are read, and how others' are translated."""

from .reader import override_config, parse_config, read_config, to_yaml
from .schema import BottomUpConfig, ClassifierConfig, Config, PoseConfig, TopDownConfig, TrainSet

__all__ = [
    "BottomUpConfig",
    "ClassifierConfig",
    "Config",
    "PoseConfig",
    "TopDownConfig",
    "TrainSet",
    "override_config",
    "parse_config",
    "read_config",
    "to_yaml",
]
