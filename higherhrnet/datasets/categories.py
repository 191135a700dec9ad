"""The categories of a COCO-format file by name, for boxes and masks of any classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..ids import plain_id

_PERSON = [{"id": 1, "name": "person"}]
"""What files without categories are about."""


def find_categories(
    loaded: Mapping[str, Any], file: Path, classes: Sequence[str], field: str
) -> dict[str, Any]:
    """Class name → category id, in the order of the classes.

    Category ids of the annotations become numbers where they are written as text.

    Args:
        loaded: the file's content; its annotations are changed.
        file: its name, for messages.
        classes: names that are wanted; empty takes all that have annotations with ``field``.
        field: ``bbox`` or ``segmentation``.

    Raises:
        UserError: a category is not one, a name stands for several, or a wanted one is not there.
    """
    listed = loaded.get("categories") or _PERSON
    if not isinstance(listed, list):
        raise UserError(f"'{file}': categories must be a list")
    by_name: dict[str, Any] = {}
    for category in listed:
        if not isinstance(category, dict) or not {"id", "name"} <= category.keys():
            raise UserError(f"'{file}': a category needs 'id' and 'name', unlike {category!r}")
        name = str(category["name"])
        if name in by_name:
            raise UserError(f"'{file}' has two categories named '{name}'")
        by_name[name] = plain_id(category["id"])
    used = set()
    for record in loaded["annotations"]:
        number = record.get("category_id", 1)
        if not isinstance(number, int | str):
            raise UserError(
                f"'{file}': annotation {record.get('id')}: 'category_id' cannot be {number!r}"
            )
        record["category_id"] = plain_id(number)
        if record.get(field):
            used.add(record["category_id"])
    if repeated := [name for name in classes if list(classes).count(name) > 1]:
        raise UserError(f"config key 'DATASET.CLASSES' names '{repeated[0]}' twice")
    wanted = classes or [name for name, number in by_name.items() if number in used]
    if unknown := [name for name in wanted if name not in by_name]:
        raise UserError(
            f"'{file}' has no category '{unknown[0]}', only {', '.join(list(by_name)[:10])} "
            "(DATASET.CLASSES)"
        )
    return {name: by_name[name] for name in wanted}


def annotated_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """(H, W) as annotated, or None."""
    height, width = image.get("height"), image.get("width")
    return (int(height), int(width)) if height and width else None
