"""Ultralytics YOLO-pose folders: ``data.yaml``, ``images/``, ``labels/``.

A line of a label file is ``class x y w h`` and K times ``x y`` or ``x y visibility``, as fractions
of the image's sides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...io import yaml
from ...io.images import read_header
from .labels import IMAGE_SUFFIXES, Bones, Frame, Labels, Record

_SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}


def is_yolo(file: Path) -> bool:
    """Whether a YAML file describes a YOLO-pose set."""
    if file.suffix.lower() not in (".yaml", ".yml"):
        return False
    try:
        loaded = yaml.parse(file.read_bytes())
    except UserError:
        return False
    return isinstance(loaded, dict) and "kpt_shape" in loaded


def read_yolo(file: Path, images: Path | None = None) -> Labels:
    """Labels of the set that a ``data.yaml`` describes.

    Raises:
        UserError: a folder is missing, or a line is not as the format has it.
    """
    values = yaml.parse(file.read_bytes())
    try:
        count, numbers = (int(value) for value in values["kpt_shape"])
        assert count > 0
        assert numbers in (2, 3)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(
            f"'{file}': kpt_shape must be [keypoints, 2 or 3], not {values['kpt_shape']!r}"
        ) from error
    joints = _read_names(values, count, file)
    classes = values.get("names") or {}
    classes = dict(enumerate(classes)) if isinstance(classes, list) else classes
    root = images or _find_root(file, str(values.get("path") or ""))
    frames: list[Frame] = []
    seen: set[Path] = set()  # sets without images to validate on name the same folder twice
    without = 0
    for key, split in _SPLITS.items():
        for image in _list_images(root, values.get(key), file, key):
            if image in seen:
                continue
            seen.add(image)
            labels = _label_file(image)
            if not labels.is_file():
                without += 1
            people = list(_read_lines(labels, image, count, numbers, classes))
            frames.append(Frame(_name_below(image, root), image, people, split=split))
    if not frames:
        raise UserError(f"'{file}' names no folder with images below '{root}'")
    names = {record["category"] for frame in frames for record in frame.people}
    notes = [f"{without} images without a label file count as empty"] if without else []
    return Labels(
        sorted(names)[0] if len(names) == 1 else file.parent.resolve().name,
        joints,
        frames,
        _read_bones(values, joints),
        _read_flip_pairs(values.get("flip_idx"), joints, file),
        notes=notes,
    )


def _read_names(values: dict[str, Any], count: int, file: Path) -> tuple[str, ...]:
    """Keypoint names (``kpt_names``, one list or one a class), or numbers."""
    names = values.get("kpt_names") or values.get("keypoint_names") or values.get("node_names")
    if isinstance(names, dict):
        lists = [tuple(map(str, own)) for own in names.values()]
        if len(set(lists)) > 1:
            raise UserError(f"'{file}': its classes have different keypoints")
        names = lists[0]
    if names is None:
        return tuple(f"keypoint_{number}" for number in range(1, count + 1))
    if len(names) != count:
        raise UserError(f"'{file}': {len(names)} names for {count} keypoints")
    return tuple(map(str, names))


def _read_bones(values: dict[str, Any], joints: tuple[str, ...]) -> Bones:
    pairs = values.get("skeleton") or []
    within = all(len(p) == 2 and all(0 <= int(end) < len(joints) for end in p) for p in pairs)
    return tuple((joints[int(a)], joints[int(b)]) for a, b in pairs) if within else ()


def _read_flip_pairs(indices: Any, joints: tuple[str, ...], file: Path) -> Bones | None:
    if indices is None:
        return None
    count = len(joints)
    if sorted(indices) != list(range(count)) or any(indices[indices[k]] != k for k in range(count)):
        raise UserError(f"'{file}': flip_idx {indices} is no exchange of {count} keypoints")
    return tuple((joints[k], joints[other]) for k, other in enumerate(indices) if k < other)


def _find_root(file: Path, named: str) -> Path:
    """``path`` of the YAML, if it is there; else the YAML's own folder."""
    for root in (file.parent / named, Path(named), file.parent / Path(named).name):
        if named and root.is_dir():
            return root
    return file.parent


def _list_images(root: Path, value: Any, file: Path, key: str) -> Iterator[Path]:
    for entry in value if isinstance(value, list) else [value] if value else []:
        place = root / str(entry)
        if not place.exists():  # Roboflow writes ../train/images beside train/
            place = root / str(entry).removeprefix("../")
        if place.suffix == ".txt" and place.is_file():
            for line in place.read_text().split("\n"):
                if line.strip():
                    yield root / line.strip()
        elif place.is_dir():
            yield from sorted(p for p in place.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        else:
            raise UserError(f"'{file}': {key}: '{place}' does not exist")


def _label_file(image: Path) -> Path:
    """The last ``images`` in the path becomes ``labels``."""
    parts = list(image.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == "images":
            parts[at] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _name_below(image: Path, root: Path) -> str:
    parts = image.relative_to(root).parts if image.is_relative_to(root) else image.parts[-2:]
    return "/".join(part for part in parts if part != "images")


def _read_lines(
    labels: Path, image: Path, count: int, numbers: int, classes: dict[Any, Any]
) -> Iterator[Record]:
    lines = labels.read_text().split("\n") if labels.is_file() else []
    size = None
    for at, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if size is None:
            size = _size_of(image)
        width, height = size
        try:
            kind, *values = (float(value) for value in line.split())
        except ValueError as error:
            raise UserError(f"'{labels}', line {at}, has something that is no number") from error
        if len(values) != 4 + count * numbers or not all(map(math.isfinite, values)):
            raise UserError(
                f"'{labels}', line {at}, has {len(values) + 1} numbers, not "
                f"{5 + count * numbers} for {count} keypoints of {numbers}"
            )
        if any(not -1 <= value <= 2 for value in values[:4]):
            raise UserError(f"'{labels}', line {at}: a box must be in fractions of the image")
        x, y, w, h = values[:4]
        points: list[float] = []
        for start in range(4, len(values), numbers):
            px, py = values[start] * width, values[start + 1] * height
            visible = values[start + 2] if numbers == 3 else 2.0 * bool(px or py)
            points += [px, py, min(max(round(visible), 1), 2)] if visible > 0 else [0.0, 0.0, 0]
        yield {
            "keypoints": points,
            "bbox": [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height],
            "category": str(classes.get(int(kind), int(kind))),
        }


def _size_of(image: Path) -> tuple[int, int]:
    """(W, H) as Ultralytics sees the image: turned as EXIF says."""
    try:
        with image.open("rb") as file:
            header = read_header(file)
    except OSError as error:
        raise UserError(f"could not read '{image}': {error.strerror}") from error
    if header is None:
        raise UserError(f"'{image}' is no image that can be read")
    height, width = header.upright
    return width, height
