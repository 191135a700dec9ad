"""Settings on the command line: ``SECTION.KEY VALUE`` anywhere, and what people write instead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..config.migrate import current_names
from ..config.reader import defaults_of
from ..config.schema import SCHEMAS

_KEY = re.compile(r"(MODEL|DATASET|TOY|SYNTHETIC|LOSS|TRAIN|TEST)\.[A-Z_0-9]+")
_ASSIGNMENT = re.compile(r"([A-Za-z]+\.[A-Za-z_0-9]+)=(.*)", re.DOTALL)


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take settings out of the command line, wherever they stand.

    ``TRAIN.LR 0.01`` is the form; ``TRAIN.LR=0.01`` and ``train.lr 0.01`` are understood.

    Returns:
        the other words, and ``KEY, VALUE, …``.
    """
    rest: list[str] = []
    overrides: list[str] = []
    remaining = iter(words)
    for word in remaining:
        found = _ASSIGNMENT.fullmatch(word)
        if found and _is_key(found[1]) and not Path(word).is_file():
            overrides += [found[1].upper(), found[2]]
        elif _is_key(word) and not Path(word).is_file():  # TEST.JPG is an image
            overrides += [word.upper(), *_next(remaining)]
        else:
            rest.append(word)
    return rest, overrides


def check_overrides(overrides: Sequence[str]) -> str:
    """What is wrong with settings before their meaning is; empty if nothing is."""
    for key, value in zip(overrides[::2], overrides[1::2], strict=False):
        if value.startswith("[") and "]" not in value:
            return f"{key}: '{value}' is part of a list; put the whole list in quotes"
    return f"'{overrides[-1]}' has no value" if len(overrides) % 2 else ""


def suggest_setting(option: str) -> str:
    """What to write instead of an unknown option such as ``--epochs``; empty if unknown."""
    name = option.lstrip("-").partition("=")[0].replace("-", "_").upper()
    exact = [key for key in _known_keys() if name in (key, key.partition(".")[2])]
    part = [key for key in _known_keys() if name in key.partition(".")[2].split("_")]
    former = [now for old, now in current_names().items() if old.partition(".")[2] == name]
    found = exact or former or part
    if not found:
        return ""
    keys = list(dict.fromkeys(found))[:3]
    return f"'{option}' is no option; settings are written as {' or '.join(keys)} VALUE"


def _is_key(word: str) -> bool:
    """In capitals anything like a key is one; otherwise it must exist."""
    return bool(_KEY.fullmatch(word)) or (
        bool(_KEY.fullmatch(word.upper()))
        and (word.upper() in _known_keys() or word.upper() in current_names())
    )


def _known_keys() -> list[str]:
    return list(dict.fromkeys(key for schema in SCHEMAS.values() for key in defaults_of(schema)))


def _next(words: Iterator[str]) -> list[str]:
    return [word for _, word in zip(range(1), words, strict=False)]
