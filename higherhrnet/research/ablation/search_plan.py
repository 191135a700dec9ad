"""A plan with SEARCH instead of RUNS, for Optuna.

```yaml
SEARCH:
  CONFIG: finetune/own_data
  SETTINGS: {TRAIN.END_EPOCH: 30, TRAIN.VALIDATE_EVERY: 5}   # of all trials
  SPACE:
    TRAIN.LR: {LOW: 1.0e-4, HIGH: 3.0e-3, LOG: true}
    LOSS.PUSH_LOSS_FACTOR: {LOW: 0.001, HIGH: 0.05, LOG: true}
    DATASET.INPUT_SIZE: [256, 384]                           # a list: one of these
  SAMPLER: tpe            # tpe, random, grid (all combinations; lists alone)
  TRIALS: 20
  PRUNER: median          # median, hyperband, none: by the metric at each validation
```
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...io import yaml as strict_yaml
from .plan import check_keys, to_words

_KEYS = ("CONFIG", "SETTINGS", "SPACE", "SAMPLER", "TRIALS", "PRUNER", "SEED")
SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median", "hyperband", "none")


@dataclass(frozen=True)
class Range:
    """Numbers between two limits, both included.

    Attributes:
        low, high: whole numbers if both are.
        log: as many of each order of magnitude.
    """

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        title: name of the plan.
        config: file or name.
        settings: ``KEY, VALUE, …`` of all trials.
        space: setting → a range, or the values that it may have.
        sampler, pruner: names in :data:`SAMPLERS` and :data:`PRUNERS`.
        trials: how many; of a grid all combinations.
        seed: of the sampler.
    """

    title: str
    config: str
    settings: tuple[str, ...]
    space: Mapping[str, Range | tuple[Any, ...]]
    sampler: str = "tpe"
    trials: int = 20
    pruner: str = "median"
    seed: int = 0


def read_search(path: Path) -> Search | None:
    """The search of a plan; None if the plan is one of RUNS.

    Raises:
        UserError: the file is not YAML, or a key or value is wrong.
    """
    try:
        loaded = strict_yaml.parse(path.read_bytes())
    except UserError as error:
        raise UserError(f"'{path}' is not valid YAML: {error}") from error
    if not isinstance(loaded, dict) or "SEARCH" not in loaded:
        return None
    entry = loaded["SEARCH"]
    if not isinstance(entry, dict) or len(loaded) > 1:
        raise UserError(f"'{path}': SEARCH is a mapping, and stands alone")
    check_keys(path, entry, _KEYS)
    if not isinstance(entry.get("CONFIG"), str) or not isinstance(entry.get("SPACE"), dict):
        raise UserError(f"'{path}': SEARCH needs a CONFIG and a SPACE of settings")
    if not isinstance(entry.get("SETTINGS") or {}, dict):
        raise UserError(f"'{path}': SEARCH.SETTINGS must be a mapping")
    if not entry["SPACE"]:
        raise UserError(f"'{path}': SEARCH.SPACE names no setting")
    space = {str(key): _read_space(path, str(key), v) for key, v in entry["SPACE"].items()}
    for key, known in (("SAMPLER", SAMPLERS), ("PRUNER", PRUNERS)):
        if entry.get(key, known[0]) not in known:
            raise UserError(f"'{path}': SEARCH.{key} is one of {', '.join(known)}")
    sampler = entry.get("SAMPLER", SAMPLERS[0])
    if sampler == "grid" and any(isinstance(values, Range) for values in space.values()):
        raise UserError(f"'{path}': a grid takes lists of values, and no LOW and HIGH")
    trials = entry.get("TRIALS", 20)
    if sampler == "grid":
        trials = math.prod(len(v) for v in space.values() if not isinstance(v, Range))
    if not isinstance(trials, int) or trials < 1:
        raise UserError(f"'{path}': SEARCH.TRIALS must be a whole number from 1 on, not {trials!r}")
    seed = entry.get("SEED", 0)
    if not isinstance(seed, int):
        raise UserError(f"'{path}': SEARCH.SEED must be a whole number, not {seed!r}")
    return Search(
        path.stem, entry["CONFIG"], to_words(entry.get("SETTINGS") or {}), space, sampler, trials,
        entry.get("PRUNER", PRUNERS[0]), seed,
    )  # fmt: skip


def _number(value: Any) -> Any:
    """YAML reads 1e-4 (no dot) as text."""
    with suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


def _read_space(path: Path, key: str, value: Any) -> Range | tuple[Any, ...]:
    if isinstance(value, list) and value:
        return tuple(value)
    if isinstance(value, dict):
        check_keys(path, value, ("LOW", "HIGH", "LOG"))
        low, high = (_number(value.get(end)) for end in ("LOW", "HIGH"))
        log = value.get("LOG", False)
        if (
            isinstance(low, int | float)
            and isinstance(high, int | float)
            and isinstance(log, bool)
            and low < high
            and (low > 0 or not log)
        ):
            return Range(low, high, log)
    raise UserError(
        f"'{path}': SPACE.{key} is a list of values, or {{LOW, HIGH}} with LOW below HIGH (above 0 "
        f"with LOG), not {value!r}"
    )
