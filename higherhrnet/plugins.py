"""Objects by name, ``package.module:name``: how configs name code that the core does not import."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from .errors import UserError


def load_object(path: str, key: str) -> Any:
    """The object that ``package.module:name`` names.

    Args:
        path: the name.
        key: the config key that holds it, for messages.

    Raises:
        UserError: there is no such module, or no such name in it. An error within the module keeps
            its traceback.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise UserError(f"config key '{key}' must be MODULE:NAME, not '{path}'")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # installed scripts leave the current folder out
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise UserError(f"config key '{key}': there is no module '{module}'") from error
    if not hasattr(found, name):
        raise UserError(f"config key '{key}': module '{module}' has no '{name}'")
    return getattr(found, name)
