"""Objects by name, ``package.module:name``: how configs name code that the core does not import."""

from __future__ import annotations

from importlib import import_module
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
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise UserError(f"config key '{key}': there is no module '{module}'") from error
    except (AttributeError, ValueError) as error:
        if name and hasattr(import_module(module), name):
            raise
        raise UserError(f"config key '{key}' must be MODULE:NAME, not '{path}'") from error
