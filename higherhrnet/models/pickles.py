"""Reading ``.pth`` files of other programs without running what is in them."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UserError

_REFUSED = re.compile(r"GLOBAL ([\w.]+) was not an allowed")
_BLOCKED = re.compile(r"GLOBAL ([\w.]+)")
_MOST_CLASSES = 100
_KINDS = "?bBhHiIlLqQefdFDUSO"


class _Unknown:
    """Stands for a class of another program: becomes an empty mapping, and runs nothing."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return OrderedDict()


def load_torch(path: Path) -> Any:
    """What ``torch.save`` wrote, by ``torch.load(weights_only=True)``.

    NumPy's numbers and arrays (the ``perf`` of HRNet's own training) are read as they are. Objects
    of other classes (settings, loss histories) are passed over. Nothing of what is in the file is
    called: a function, or a class of a module that reaches the system, is refused.

    Raises:
        UserError: it holds what could run code, or is no such file.
    """
    unknown: dict[str, Any] = {}
    while True:
        try:
            named = [(_Unknown, name) for name in unknown]
            with torch.serialization.safe_globals([*_numpy_globals(), *named]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            found = _REFUSED.search(str(error))
            name = found[1] if found else ""
            if "." in name and name not in unknown and len(unknown) < _MOST_CLASSES:
                unknown[name] = _Unknown
                continue
            blocked = _BLOCKED.search(str(error))
            what = f"a '{blocked[1]}', which could run code" if blocked else "more than tensors"
            raise UserError(
                f"'{path}' is not a readable weights file: it is no torch file, or holds {what}. "
                "If you trust it, save its tensors alone where it was made: "
                "torch.save(checkpoint['state_dict'], FILE)"
            ) from error


def _numpy_globals() -> list[Any]:
    """Classes that NumPy's numbers and arrays are made of, under the names of versions 1 and 2."""
    multiarray = (np._core if hasattr(np, "_core") else np.core).multiarray
    functions = [
        (getattr(multiarray, name), f"numpy.{core}.multiarray.{name}")
        for name in ("scalar", "_reconstruct")
        for core in ("core", "_core")
    ]
    kinds = {type(np.dtype(kind)) for kind in _KINDS}
    return [np.ndarray, np.dtype, *kinds, *functions, list, set, dict, tuple, int, float, str, bool]
