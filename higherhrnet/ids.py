"""Ids of images and categories, which some tools write as text and others as numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any


def plain_id(value: object) -> object:
    """An id without what tells text from a number: ``"007"``, ``"7"`` and 7 are the same."""
    text = str(value).strip()
    return int(text) if text.isdecimal() else text


def by_plain_id(ids: Iterable[Any]) -> dict[object, Any]:
    """Plain id → the id that is meant; ids that cannot be told apart are left out."""
    meant = defaultdict(list)
    for value in ids:
        meant[plain_id(value)].append(value)
    return {plain: values[0] for plain, values in meant.items() if len(values) == 1}
