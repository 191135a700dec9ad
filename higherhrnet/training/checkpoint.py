"""Training checkpoints: everything a run needs to go on, written whole or not at all."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from ..io.atomic import atomic_write
from ..models.weights import save_torch

LAST = "last.pth"
_PARTS = {"model", "average", "optimizer", "scaler", "progress"}


def save(folder: Path, values: dict[str, Any]) -> None:
    """Replace the folder's last checkpoint; an error (full disk) leaves the former one.

    Raises:
        OSError: it could not be written; the message names the file.
    """
    save_torch(folder / LAST, {**values, "random": random_state()})


def keep(folder: Path, epoch: int, most: int) -> None:
    """Keep the last checkpoint as ``epoch_0012.pth`` too, and only the ``most`` latest of these.

    A link where the file system has links: the next :func:`save` replaces the name, not the file.
    """
    with atomic_write(folder / f"epoch_{epoch:04d}.pth") as partial:
        try:
            os.link(folder / LAST, partial)
        except OSError:
            shutil.copyfile(folder / LAST, partial)
    for old in sorted(folder.glob("epoch_*.pth"))[:-most]:
        old.unlink()


def load(folder: Path) -> dict[str, Any]:
    """The folder's last checkpoint; random generators are set to where they were.

    Raises:
        UserError: there is none, or it is broken.
    """
    path = folder / LAST
    if not path.is_file():
        raise UserError(f"there is no checkpoint to resume from: '{path}' does not exist")
    try:
        values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # arbitrary bytes make torch's reader raise nearly anything
        raise UserError(f"checkpoint '{path}' cannot be read") from error
    try:
        torch.set_rng_state(values["random"]["torch"])
        if "cuda" in values["random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(values["random"]["cuda"])
        missing = _PARTS - values.keys()
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(f"'{path}' is no checkpoint of a training") from error
    if missing:
        raise UserError(f"'{path}' is no checkpoint of a training: it lacks {sorted(missing)}")
    return values


def random_state() -> dict[str, Any]:
    """State of torch's generators. (Views draw from their own, numbered by epoch and image; on a
    GPU torchvision's Faster R-CNN draws samples.)"""
    states = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def seed_everything(seed: int) -> None:
    """Start Python's, NumPy's and torch's global generators from one number."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  libraries that we call may use the global generator
    torch.manual_seed(seed)
