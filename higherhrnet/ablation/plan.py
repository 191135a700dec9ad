"""What an ablation is to do, read from a YAML file.

```yaml
SETTINGS: {TRAIN.EPOCHS: 6}           # of all arms
ARMS:            # what is trained, or given as weights
  bottom-up: {CONFIG: configs/mini/higherhrnet_w18_256.yaml, LOSS.PUSH: 0.005}
  top-down: {CONFIG: configs/mini/hrnet_w18_256x192.yaml, WEIGHTS: hrnet_w18_mini}
ROWS:            # what is evaluated: an arm, and settings that differ from its config
  bottom-up: {ARM: bottom-up}
  without flip: {ARM: bottom-up, TEST.FLIP: false}
COMPARE: [[bottom-up, top-down]]      # pairs of rows whose difference is tested
AUTOPSY: [bottom-up]                  # rows whose causes of loss are sought
COST: {ROWS: [bottom-up, top-down], PEOPLE: [1, 5, 20, 50]}
```
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .. import strict_yaml
from ..errors import UserError

_KEYS = ("SETTINGS", "ARMS", "ROWS", "COMPARE", "AUTOPSY", "COST")
_COST_LEAST = {"SIZE": 64, "REPEATS": 1, "PICTURES": 0}
_COST_KEYS = ("ROWS", "PEOPLE", "DETECTOR", *_COST_LEAST)


@dataclass(frozen=True)
class Arm:
    """A network: a config with settings, and weights unless it is to be trained."""

    name: str
    config: str
    settings: tuple[str, ...]
    weights: str = ""


@dataclass(frozen=True)
class Row:
    """An evaluation of an arm, with settings that differ from its config."""

    name: str
    arm: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """What is timed.

    Attributes:
        rows: which rows; empty for none.
        people: crowds to draw, people a picture.
        size: side of the drawn pictures, pixels.
        repeats: timings of each, of which the median counts.
        pictures: real pictures to time as well, the first of the test set; 0 for none.
        detector: one of torchvision's, timed beside the top-down rows.
    """

    rows: tuple[str, ...] = ()
    people: tuple[int, ...] = (1, 2, 5, 10, 20, 30, 50)
    size: int = 512
    repeats: int = 5
    pictures: int = 0
    detector: str = "fasterrcnn_mobilenet_v3_large_320_fpn"


@dataclass(frozen=True)
class Plan:
    """The whole experiment; names in ``compare``, ``autopsy`` and ``cost`` are those of rows."""

    title: str
    arms: tuple[Arm, ...]
    rows: tuple[Row, ...]
    compare: tuple[tuple[str, str], ...] = ()
    autopsy: tuple[str, ...] = ()
    cost: Cost = Cost()


def read_plan(path: Path) -> Plan:
    """Read and check a plan.

    Raises:
        UserError: the file is missing, or a key, arm or row means nothing; the message names it.
    """
    if not path.is_file():
        raise UserError(f"ablation plan '{path}' does not exist")
    try:
        loaded = strict_yaml.parse(path.read_bytes())
    except UserError as error:
        raise UserError(f"'{path}' is not valid YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise UserError(f"'{path}' is no ablation plan: it needs ARMS and ROWS")
    _known(path, loaded, _KEYS)
    for key, kind in (("SETTINGS", dict), ("ARMS", dict), ("ROWS", dict), ("COST", dict),
                      ("COMPARE", list), ("AUTOPSY", list)):  # fmt: skip
        if loaded.get(key) is not None and not isinstance(loaded[key], kind):
            raise UserError(f"'{path}': {key} must be a {'mapping' if kind is dict else 'list'}")
    if not loaded.get("ARMS") or not loaded.get("ROWS"):
        raise UserError(f"'{path}' is no ablation plan: it needs ARMS and ROWS")
    shared = loaded.get("SETTINGS") or {}
    arms = tuple(_arm(path, str(name), entry, shared) for name, entry in loaded["ARMS"].items())
    rows = tuple(_row(path, str(name), entry, arms) for name, entry in loaded["ROWS"].items())
    cost = dict(loaded.get("COST") or {})
    _known(path, cost, _COST_KEYS)
    compare = loaded.get("COMPARE") or []
    if not all(isinstance(pair, list) and len(set(map(str, pair))) == 2 for pair in compare):
        raise UserError(f"'{path}': COMPARE lists pairs of rows")
    plan = Plan(
        title=path.stem,
        arms=arms,
        rows=rows,
        compare=tuple((str(a), str(b)) for a, b in compare),
        autopsy=tuple(map(str, loaded.get("AUTOPSY") or ())),
        cost=_cost(path, cost),
    )
    names = [row.name for row in rows]
    for name in (*(n for pair in plan.compare for n in pair), *plan.autopsy, *plan.cost.rows):
        if name not in names:
            raise UserError(f"'{path}': there is no row '{name}' among {', '.join(names)}")
    return plan


def _arm(path: Path, name: str, entry: Any, shared: Mapping[str, Any]) -> Arm:
    if not isinstance(entry, dict) or "CONFIG" not in entry:
        raise UserError(f"'{path}': arm '{name}' needs a CONFIG")
    own = {k: v for k, v in entry.items() if k not in ("CONFIG", "WEIGHTS")}
    weights = str(entry.get("WEIGHTS") or "")
    return Arm(name, str(entry["CONFIG"]), _settings({**shared, **own}), weights)


def _row(path: Path, name: str, entry: Any, arms: Sequence[Arm]) -> Row:
    known = [arm.name for arm in arms]
    if not isinstance(entry, dict) or str(entry.get("ARM")) not in known:
        raise UserError(f"'{path}': row '{name}' needs an ARM, one of {', '.join(known)}")
    return Row(name, str(entry["ARM"]), _settings({k: v for k, v in entry.items() if k != "ARM"}))


def _settings(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """``KEY VALUE`` pairs as the command line has them."""
    words: list[str] = []
    for key, value in entry.items():
        text = yaml.safe_dump(value, default_flow_style=True, width=10_000)
        words += [str(key), value if isinstance(value, str) else text.removesuffix("...\n").strip()]
    return tuple(words)


def _cost(path: Path, entry: Mapping[str, Any]) -> Cost:
    values: dict[str, Any] = {}
    for key, value in entry.items():
        least = _COST_LEAST.get(key, 0)
        right = isinstance(value, str)
        if key in ("ROWS", "PEOPLE"):
            kind, right = "a list", isinstance(value, list) and bool(value)
            if key == "PEOPLE":
                kind = "a rising list of whole numbers above 0"
                right = right and all(isinstance(n, int) and n > 0 for n in value)
                right = right and sorted(set(value)) == value
        elif key != "DETECTOR":
            kind = f"a whole number from {least} on"
            right = isinstance(value, int) and value >= least
        else:
            kind = "a detector's name"
        if not right:
            raise UserError(f"'{path}': COST.{key} must be {kind}, not {value!r}")
        if isinstance(value, list):
            values[key.lower()] = tuple(map(str, value) if key == "ROWS" else value)
        else:
            values[key.lower()] = value
    return Cost(**values)


def _known(path: Path, entry: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in entry:
        if key not in keys:
            close = difflib.get_close_matches(str(key), keys, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise UserError(f"unknown key '{key}' in '{path}'{hint}")
