"""Which tool wrote a file or folder, and its labels."""

from __future__ import annotations

import json
import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError
from ...skeleton import SKELETONS, Skeleton
from . import sleap
from .coco_export import is_coco, read_coco
from .cvat import is_cvat, read_cvat
from .label_studio import is_label_studio, read_label_studio
from .labels import Labels
from .yolo import is_yolo, read_yolo

FORMATS = ("coco", "cvat", "label_studio", "yolo", "deeplabcut", "sleap", "alphatracker")
_SUFFIXES = frozenset({".json", ".xml", ".yaml", ".yml", ".slp"})
_IN_FOLDER = (".", "annotations", "labels")
"""Where files of labels lie below a folder that is imported."""


def read_labels(
    source: Path, skeleton: Skeleton | None = None, images: Path | None = None, format: str = ""
) -> Labels:
    """Labels of a file or folder, whatever tool wrote it.

    Args:
        source: a file of labels, or a folder with one.
        skeleton: brings the joints into its order, by name; names those that are only counted.
        images: where images are, if not beside the labels; a folder or, of CVAT, a video.
        format: one of :data:`FORMATS`; told by the content if empty.

    Raises:
        UserError: nothing is recognized, or the labels are not as their format has them.
    """
    if not source.exists():
        raise UserError(f"'{source}' does not exist")
    if images is not None and not images.exists():
        raise UserError(f"--images: '{images}' does not exist")
    found = _find(source, format)
    labels = _read(found, images, skeleton)
    if not labels.frames:
        raise UserError(f"'{source}' lists no images")
    for frame in labels.frames:
        for record in frame.people:
            numbers = (*record["keypoints"], *record.get("bbox", ()))
            if not np.isfinite(numbers).all():
                raise UserError(f"'{source}': image '{frame.name}' has points that are no numbers")
    if skeleton is None and labels.skeleton is None:  # people, with known bones and sigmas
        skeleton = next((s for s in SKELETONS.values() if s.find(labels.joints) is not None), None)
    return labels if skeleton is None else labels.rename(skeleton)


@contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """The source, or what a zip archive holds in a folder that is removed again.

    Raises:
        UserError: the archive cannot be read.
    """
    if source.suffix.lower() != ".zip" or not source.is_file():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="higherhrnet-") as folder:
        try:
            with zipfile.ZipFile(source) as archive:
                archive.extractall(folder)  # which keeps names within the folder
        except (
            zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError,
            RuntimeError,
        ) as error:  # fmt: skip
            raise UserError(f"archive '{source}' cannot be read: {error}") from error
        except OSError as error:
            if error.errno is not None:  # of the disk
                raise
            raise UserError(f"archive '{source}' cannot be read: {error}") from error
        inside = [path for path in Path(folder).iterdir() if not path.name.startswith("__MACOSX")]
        yield inside[0] if len(inside) == 1 and inside[0].is_dir() else Path(folder)


def _find(source: Path, wanted: str) -> dict[str, list[Path]]:
    """One format and the files of it."""
    found: dict[str, list[Path]] = {}
    for file in _candidates(source):
        kind = wanted if wanted and source.is_file() else _recognize(file)
        if kind and kind in (wanted or kind):
            found.setdefault(kind, []).append(file)
    if not found:
        what = f"{wanted} labels" if wanted else "labels of a known tool"
        raise UserError(f"'{source}' has no {what}; known are {', '.join(FORMATS)}")
    if len(found) > 1:
        raise UserError(
            f"'{source}' has labels of several tools ({', '.join(found)}); choose with --format"
        )
    (kind, files), = found.items()  # fmt: skip
    if len(files) > 1 and kind != "coco":
        raise UserError(f"'{source}' has several {kind} files; name one: {files[0]}, {files[1]}")
    return found


def _candidates(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    folders = [source / name for name in _IN_FOLDER]
    files = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    return [path for path in files if path.suffix.lower() in _SUFFIXES and path.is_file()]


def _recognize(file: Path) -> str:
    if file.suffix.lower() == ".slp":
        return "sleap"
    if is_cvat(file):
        return "cvat"
    if is_yolo(file):
        return "yolo"
    if sleap.is_deeplabcut(file):
        return "deeplabcut"
    if file.suffix.lower() != ".json":
        return ""
    loaded = _load_json(file)
    if is_label_studio(loaded):
        return "label_studio"
    if sleap.is_alphatracker(loaded):
        return "alphatracker"
    return "coco" if is_coco(loaded) else ""


def _load_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{file}' is not valid JSON: {error}") from error
    except OSError as error:
        raise UserError(f"could not read '{file}': {error.strerror}") from error


def _read(found: dict[str, list[Path]], images: Path | None, skeleton: Skeleton | None) -> Labels:
    """By the format's reader; whatever it stumbles over is a fault of the file."""
    ((kind, files),) = found.items()
    try:
        return _read_as(kind, files, images, skeleton)
    except (
        KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError,
        OverflowError,
    ) as error:  # fmt: skip
        raise UserError(
            f"'{files[0]}' is not as {kind} labels are written: {type(error).__name__}: "
            f"{' '.join(str(error).split())}"
        ) from error


def _read_as(
    kind: str, files: list[Path], images: Path | None, skeleton: Skeleton | None
) -> Labels:
    file = files[0]
    if kind == "coco":
        return read_coco(files, images, skeleton)
    if kind == "cvat":
        return read_cvat(file, images)
    if kind == "yolo":
        return read_yolo(file, images)
    if kind == "label_studio":
        return read_label_studio(file, _load_json(file), images)
    readers: dict[str, Callable[[Path], Labels]] = {
        "sleap": sleap.read_slp,
        "deeplabcut": sleap.read_deeplabcut,
        "alphatracker": sleap.read_alphatracker,
    }
    labels = readers[kind](file)
    if not labels.notes and kind == "alphatracker":
        return replace(labels, notes=["AlphaTracker numbers its keypoints; name them (--skeleton)"])
    return labels
