"""Where test material lies: a part in the repository, the rest in a folder that may be absent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("HIGHERHRNET_SHARED", ROOT.parent / "shared"))
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(),
    reason="HIGHERHRNET_SHARED is unset and ../shared is absent: no real images or weights",
)


def golden_file(name: str) -> Path:
    """A golden file from the repository, else from the shared folder, else skip."""
    for folder in (ROOT / "tests" / "golden", SHARED / "golden"):
        if (folder / name).is_file():
            return folder / name
    pytest.skip(
        f"golden {name} is not in the repository, and HIGHERHRNET_SHARED is unset",
        allow_module_level=True,
    )


def golden_arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(golden_file(name)) as arrays:
        return dict(arrays)


def golden_json(name: str) -> Any:
    return json.loads(golden_file(name).read_text())
