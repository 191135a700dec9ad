"""Paths as configs write them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import UserError


def expand_path(value: str, key: str) -> Path:
    """A path from the config: ``${VARIABLES}`` filled in, relative to the working folder.

    Raises:
        UserError: a variable is not set.
    """
    unset = [name for name in re.findall(r"\$\{(\w+)\}", value) if name not in os.environ]
    if unset:
        raise UserError(
            f"config key '{key}' is '{value}', but the environment variable {unset[0]} is not set"
        )
    return Path(os.path.expandvars(value)).expanduser()


def expand_weights(value: str, key: str) -> str:
    """Like :func:`expand_path`, for a setting that names weights: addresses stay as they are.

    Raises:
        UserError: a variable is not set.
    """
    return value if "://" in value else str(expand_path(value, key))
