"""Typed configs: their schemas, how they are read, and how others' are translated."""

from .base import Config
from .reader import as_pairs, override_config, parse_config, read_config, to_yaml
from .schema import BottomUpConfig, PoseConfig, TopDownConfig, TrainSet
from .tasks import (
    ClassifierConfig,
    DetectorConfig,
    ImageDataset,
    ImageSet,
    SegmentationConfig,
)

__all__ = [
    "BottomUpConfig",
    "ClassifierConfig",
    "Config",
    "DetectorConfig",
    "ImageDataset",
    "ImageSet",
    "PoseConfig",
    "SegmentationConfig",
    "TopDownConfig",
    "TrainSet",
    "as_pairs",
    "override_config",
    "parse_config",
    "read_config",
    "to_yaml",
]
