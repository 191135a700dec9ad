"""Reading ``.pth`` files of other programs without running what is in them."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UserError

_REFUSED = re.compile(r"GLOBAL ([\w.]+) was not an allowed")
_BLOCKED = re.compile(r"GLOBAL ([\w.]+)")
_MOST_CLASSES = 100
_HARMLESS = frozenset(
    {"getattr", "frozenset", "slice", "range", "complex", "bytearray", "object", "NoneType", "type"}
)
"""Of Python's own names those for which something empty may stand, as for any other."""
_KINDS = "?bBhHiIlLqQefdFDUSO"


class _Unknown:
    """Stands for a class of another program: becomes an empty mapping, and runs nothing."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return OrderedDict()


class _Opaque:
    """Likewise, for objects whose state is no mapping."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Several:
    """Likewise, for objects that are filled like lists."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return []


def load_torch(path: Path) -> Any:
    """What ``torch.save`` wrote, by ``torch.load(weights_only=True)``.

    NumPy's numbers and arrays (the ``perf`` of HRNet's own training) are read as they are. Objects
    of other classes and results of other functions (settings, loss histories) are passed over:
    something empty stands for them. Nothing of what the file names is called. A file that names
    Python's own functions, or modules that reach the system, is refused.

    Raises:
        UserError: it holds what could run code, or is no such file.
    """
    if _is_torchscript(path):
        raise UserError(
            f"'{path}' is a TorchScript program, not weights; save these where it runs: "
            "torch.save(torch.jit.load(FILE).state_dict(), OTHER)"
        )
    failure: Exception | None = None
    for stand_in in (_Unknown, _Opaque, _Several):
        try:
            return _load(path, stand_in)
        except (pickle.UnpicklingError, TypeError, ValueError) as error:
            failure = failure or error
    blocked = _BLOCKED.search(str(failure))
    what = f"a '{blocked[1]}', which could run code" if blocked else "more than tensors"
    raise UserError(
        f"'{path}' is not a readable weights file: it is no torch file, or holds {what}. "
        "If you trust it, save its tensors alone where it was made: "
        "torch.save(checkpoint['state_dict'], FILE)"
    ) from failure


def _load(path: Path, stand_in: type) -> Any:
    unknown: dict[str, Any] = {}
    while True:
        try:
            named = [(stand_in, name) for name in unknown]
            with torch.serialization.safe_globals([*_numpy_globals(), *named]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            found = _REFUSED.search(str(error))
            name = found[1] if found else ""
            if "." not in name and name not in _HARMLESS:
                raise
            name = name if "." in name else f"builtins.{name}"
            if name in unknown or len(unknown) >= _MOST_CLASSES:
                raise
            unknown[name] = stand_in


def _is_torchscript(path: Path) -> bool:
    with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
    return False


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
