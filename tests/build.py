"""Objects of a config, as tests want them."""

from __future__ import annotations

from typing import Any

from higherhrnet.config import PoseConfig
from higherhrnet.methods.base import method_of
from higherhrnet.skeleton import Skeleton


def build_model(config: PoseConfig, joints: int) -> Any:
    """The config's network."""
    return method_of(config).build_model(config, joints)


def build_codec(config: PoseConfig, model: Any, skeleton: Skeleton) -> Any:
    """The config's codec."""
    return method_of(config).build_codec(config, model.heads, skeleton)
