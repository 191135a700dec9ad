"""Annotation files: reading them, and whether they hold what COCO's format has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..io.images import MAX_PIXELS
from ..poses import is_labeled
from . import mpii

_Kinds = dict[str, tuple[type, ...]]
_IMAGE: _Kinds = {"id": (int, str), "file_name": (str,)}
_NUMBER: tuple[type, ...] = (int, float)
_SIZES: _Kinds = {"width": _NUMBER, "height": _NUMBER, "crowdIndex": _NUMBER}
_PERSON: _Kinds = {"image_id": (int, str)}
_MORE: _Kinds = {
    "id": (int, str, float),
    "area": _NUMBER,
    "num_keypoints": _NUMBER,
    "iscrowd": _NUMBER,
    "segmentation": (list, dict),
}
"""What must be in every image and annotation, and what may be, or may be null."""


_NUMBERS = {int, float}
_LIMITED = ("width", "height", "area", "num_keypoints", "crowdIndex")
MOST = 1e6
"""Pixels; no person is further out."""


def check_annotations(loaded: dict[str, Any], file: Path) -> None:
    """That everything is of the kind that COCO's format has it, before hours are spent on it.

    Raises:
        UserError: something is not; the message names it.
    """
    for what, name, needed, more in (
        ("images", "image", _IMAGE, _SIZES), ("annotations", "annotation", _PERSON, _MORE),
    ):  # fmt: skip
        if not isinstance(loaded[what], list):
            raise UserError(f"'{file}': {what} must be a list")
        is_usual = _is_usual_image if what == "images" else _is_usual_person
        for number, record in enumerate(loaded[what]):
            if is_usual(record):  # nearly all are, and it costs a third
                continue
            if not isinstance(record, dict):
                raise UserError(f"'{file}': {name} number {number} must be a mapping")
            here = f"'{file}': {name} {record.get('id', f'number {number}')}"
            for key, kinds in needed.items():
                if key not in record:
                    raise UserError(f"{here} lacks '{key}'")
                if isinstance(record[key], float) and record[key].is_integer():
                    record[key] = int(record[key])  # as tables with gaps write whole numbers
                if not isinstance(record[key], kinds):
                    raise UserError(f"{here}: '{key}' cannot be {record[key]!r}")
            for key, kinds in more.items():
                value = record.get(key)
                if value is not None and not isinstance(value, kinds):
                    raise UserError(f"{here}: '{key}' cannot be {value!r}")
            if what == "images" and (record.get("width") or record.get("height")):
                _check_size(record, here)
            region = record.get("segmentation")
            if isinstance(region, dict):
                _check_run_lengths(region, here)
            for key in _LIMITED:
                value = record.get(key)
                if value is not None and not -(MOST**2) < value < MOST**2:
                    raise UserError(f"{here}: '{key}' cannot be {value!r}")
            if what == "annotations":
                _check_numbers(record.get("keypoints"), "keypoints", here)
                unlabeled = not record.get("keypoints") or not is_labeled(record)
                if isinstance(region, list) and (unlabeled or record.get("iscrowd")):
                    for ring in region if region and isinstance(region[0], list) else [region]:
                        _check_numbers(ring, "segmentation", here)
                box = record.get("bbox")
                _check_numbers(box, "bbox", here)
                if box and len(box) != 4:
                    raise UserError(f"{here}: 'bbox' must be x, y, width, height, not {box!r}")
                _check_numbers(record.get("center"), "center", here)
                if record.get("center") is not None and len(record["center"]) != 2:
                    raise UserError(f"{here}: 'center' must be x, y, not {record['center']!r}")
                scale = record.get("scale")
                if isinstance(scale, list):
                    raise UserError(f"{here}: 'scale' must be one number (of 200 px), not {scale}")
                _check_numbers(None if scale is None else [scale], "scale", here)


def _check_size(image: dict[str, Any], here: str) -> None:
    """That an annotated size could be an image's; 0 is not known."""
    for key in ("width", "height"):
        side = image.get(key) or 0
        if not 0 <= side < MOST or 0 < side < 1:
            raise UserError(f"{here}: '{key}' cannot be {side!r}")
    pixels = (image.get("width") or 0) * (image.get("height") or 0)
    if pixels > MAX_PIXELS:
        raise UserError(
            f"{here}: it is annotated with {image['width']}x{image['height']} pixels; up to "
            f"{MAX_PIXELS // 10**6} million are read"
        )


def _check_run_lengths(region: dict[str, Any], here: str) -> None:
    """Masks as run lengths, plain (a list) or compressed (text), of a size (H, W)."""
    if not {"counts", "size"} <= region.keys():
        raise UserError(f"{here}: 'segmentation' lacks 'counts' or 'size'")
    size, counts = region["size"], region["counts"]
    sides = size if isinstance(size, list) and len(size) == 2 else [0]
    if not all(isinstance(side, int) and 0 < side < MOST for side in sides):
        raise UserError(f"{here}: 'size' of its segmentation must be height, width, not {size!r}")
    if isinstance(counts, list):
        if not all(isinstance(run, int) and run >= 0 for run in counts):
            raise UserError(f"{here}: 'counts' of its segmentation must be lengths of 0 or more")
        if sum(counts) != size[0] * size[1]:
            raise UserError(
                f"{here}: 'counts' of its segmentation cover {sum(counts)} pixels, not "
                f"{size[0]}x{size[1]}"
            )
    elif not isinstance(counts, str):
        raise UserError(f"{here}: 'counts' of its segmentation cannot be {type(counts).__name__}")


def _is_usual_image(image: Any) -> bool:
    """Whether an image is as COCO writes it, with nothing to look at further."""
    if image.__class__ is not dict:
        return False
    width, height = image.get("width"), image.get("height")
    return (
        image.get("id").__class__ is int
        and image.get("file_name").__class__ is str
        and width.__class__ is int
        and height.__class__ is int
        and 0 < width < MOST
        and 0 < height < MOST
        and width * height <= MAX_PIXELS
        and "crowdIndex" not in image
    )


def _is_usual_person(record: Any) -> bool:
    """Likewise for a person with joints, polygons and box."""
    if record.__class__ is not dict:
        return False
    get = record.get
    area = get("area")
    return (
        get("id").__class__ is int
        and get("image_id").__class__ is int
        and get("iscrowd") == 0
        and get("num_keypoints").__class__ is int
        and (area.__class__ is float or area.__class__ is int)
        and 0 <= area < MOST**2
        and get("segmentation").__class__ is list
        and "scale" not in record
        and "center" not in record
        and _are_places(get("bbox"), 4)
        and _are_places(get("keypoints"), 0)
        # Those of people with joints are looked at when they are drawn, if ever.
        and (is_labeled(record) or all(_are_places(ring, 0) for ring in record["segmentation"]))
    )


def _are_places(values: Any, count: int) -> bool:
    """Whether it is a list of so many numbers (or any) that may be places in an image."""
    return bool(
        values.__class__ is list
        and values
        and (not count or len(values) == count)
        and _NUMBERS.issuperset(map(type, values))
        # NaN makes the sum one, and may hide others from max and min.
        and -MOST < min(values) <= max(values) < MOST
        and (total := sum(values)) == total
    )


def _check_numbers(value: object, key: str, here: str) -> None:
    if value is None:
        return
    if not isinstance(value, list) or not _NUMBERS.issuperset(map(type, value)):
        raise UserError(f"{here}: '{key}' must be a list of numbers")
    if value and not _are_places(value, 0):
        raise UserError(f"{here}: '{key}' holds a number that is no place in an image")


def read_annotations(path: Path) -> dict[str, Any]:
    """Images, annotations and the rest of a file, COCO's or MPII's, in COCO's format.

    Raises:
        UserError: it is missing or no such file.
    """
    if not path.is_file():
        raise UserError(f"annotation file '{path}' does not exist")
    if path.suffix == ".mat":
        return mpii.from_mat(path)
    try:
        loaded = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"annotation file '{path}' is not valid JSON: {error}") from error
    if isinstance(loaded, list):
        try:
            return mpii.from_list(loaded)
        except (UserError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"annotation file '{path}' is a list, but not one of MPII people: {error}"
            ) from error
    # The people of COCO's test sets are secret.
    if path.name.startswith("image_info") and isinstance(loaded, dict):
        loaded.setdefault("annotations", [])
    missing = {"images", "annotations"} - (loaded.keys() if isinstance(loaded, dict) else set())
    if missing:
        raise UserError(f"annotation file '{path}' lacks {sorted(missing)}")
    found: dict[str, Any] = loaded
    return found
