"""What an ablation is to do, read from a YAML file.

```yaml
SETTINGS: {TRAIN.END_EPOCH: 6}        # of all runs
RUNS:            # what is trained, or given as weights
  bottom-up: {CONFIG: configs/mini/higherhrnet_w18_256.yaml, LOSS.PUSH_LOSS_FACTOR: 0.005}
  top-down: {CONFIG: configs/mini/hrnet_w18_256x192.yaml, WEIGHTS: hrnet_w18_mini}
  rates: {CONFIG: configs/mini/higherhrnet_w18_256.yaml, GRID: {TRAIN.LR: [0.001, 0.0003]}}
EVALUATIONS:     # what is evaluated: a run, and settings that differ from its config
  bottom-up: {RUN: bottom-up}
  without flip: {RUN: bottom-up, TEST.FLIP_TEST: false}
COMPARE: [[bottom-up, top-down]]      # pairs of evaluations whose difference is tested
ORACLE_ANALYSIS: [bottom-up]          # evaluations whose errors are attributed to parts
COST: {EVALUATIONS: [bottom-up, top-down], PEOPLE: [1, 5, 20, 50]}
```

A GRID makes a run of every combination of its values, named ``rates TRAIN.LR 0.001`` and so on; an
evaluation of ``rates`` becomes one of each. A plan with SEARCH is another thing; see
:mod:`.search_plan`.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from ...config.library import find_config
from ...errors import UserError
from ...io import yaml as strict_yaml

_KEYS = ("SETTINGS", "RUNS", "EVALUATIONS", "COMPARE", "ORACLE_ANALYSIS", "COST")
_FORMER = {
    "ARMS": "RUNS", "ROWS": "EVALUATIONS", "ARM": "RUN", "AUTOPSY": "ORACLE_ANALYSIS",
    "PICTURES": "IMAGES",
}  # fmt: skip
"""Former key → what it is now."""
_COST_LEAST = {"SIZE": 64, "REPEATS": 1, "IMAGES": 0}
_COST_KEYS = ("EVALUATIONS", "PEOPLE", "DETECTOR", *_COST_LEAST)


@dataclass(frozen=True)
class Run:
    """A network: a config with settings, and weights unless it is to be trained."""

    name: str
    config: str
    settings: tuple[str, ...]
    weights: str = ""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of a run, with settings that differ from its config."""

    name: str
    run: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """What is timed.

    Attributes:
        evaluations: which evaluations; empty for none.
        people: crowds to synthesize, people an image.
        size: side of the synthetic images, pixels.
        repeats: timings of each, of which the median counts.
        images: real images to time as well, the first of the test set; 0 for none.
        detector: weights of a detector, or one of torchvision's, timed beside the top-down
            evaluations.
    """

    evaluations: tuple[str, ...] = ()
    people: tuple[int, ...] = (1, 2, 5, 10, 20, 30, 50)
    size: int = 512
    repeats: int = 5
    images: int = 0
    detector: str = "fcos_w18_person"


@dataclass(frozen=True)
class Plan:
    """The whole experiment; ``compare``, ``oracle_analysis`` and ``cost`` name evaluations."""

    title: str
    runs: tuple[Run, ...]
    evaluations: tuple[Evaluation, ...]
    compare: tuple[tuple[str, str], ...] = ()
    oracle_analysis: tuple[str, ...] = ()
    cost: Cost = Cost()


def read_plan(path: Path) -> Plan:
    """Read and check a plan.

    Raises:
        UserError: the file is missing, or a key, run or evaluation is unknown.
    """
    path = find_config(path, "ablation plan")
    try:
        loaded = strict_yaml.parse(path.read_bytes())
    except UserError as error:
        raise UserError(f"'{path}' is not valid YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise UserError(f"'{path}' is no ablation plan: it needs RUNS and EVALUATIONS")
    if "MODEL" in loaded:
        raise UserError(f"'{path}' is a config, not a plan")
    loaded = {_FORMER.get(key, key): value for key, value in loaded.items()}
    check_keys(path, loaded, _KEYS)
    for key, kind in (("SETTINGS", dict), ("RUNS", dict), ("EVALUATIONS", dict), ("COST", dict),
                      ("COMPARE", list), ("ORACLE_ANALYSIS", list)):  # fmt: skip
        if loaded.get(key) is not None and not isinstance(loaded[key], kind):
            raise UserError(f"'{path}': {key} must be a {'mapping' if kind is dict else 'list'}")
    if not loaded.get("RUNS") or not loaded.get("EVALUATIONS"):
        raise UserError(f"'{path}' is no ablation plan: it needs RUNS and EVALUATIONS")
    shared = loaded.get("SETTINGS") or {}
    expanded = {
        str(name): _expand_grid(path, str(name), entry) for name, entry in loaded["RUNS"].items()
    }
    runs = tuple(
        _run(path, name, entry, shared)
        for several in expanded.values()
        for name, entry in several.items()
    )
    evaluations = tuple(
        evaluation
        for name, entry in loaded["EVALUATIONS"].items()
        for evaluation in _evaluations(path, str(name), entry, expanded)
    )
    for what, found in (("run", runs), ("evaluation", evaluations)):
        twice = [name for name, count in Counter(one.name for one in found).items() if count > 1]
        if twice:
            raise UserError(f"'{path}' has the {what} '{twice[0]}' twice")
    cost = {_FORMER.get(key, key): value for key, value in (loaded.get("COST") or {}).items()}
    check_keys(path, cost, _COST_KEYS)
    compare = loaded.get("COMPARE") or []
    if not all(
        isinstance(pair, list) and len(pair) == len(set(map(str, pair))) == 2 for pair in compare
    ):
        raise UserError(f"'{path}': COMPARE lists pairs of evaluations")
    plan = Plan(
        title=path.stem,
        runs=runs,
        evaluations=evaluations,
        compare=tuple((str(a), str(b)) for a, b in compare),
        oracle_analysis=tuple(map(str, loaded.get("ORACLE_ANALYSIS") or ())),
        cost=_cost(path, cost),
    )
    names = [evaluation.name for evaluation in evaluations]
    for name in (
        *(n for pair in plan.compare for n in pair),
        *plan.oracle_analysis,
        *plan.cost.evaluations,
    ):
        if name not in names:
            raise UserError(f"'{path}': there is no evaluation '{name}' among {', '.join(names)}")
    return plan


def _expand_grid(path: Path, name: str, entry: Any) -> dict[str, Any]:
    """The runs of an entry by name: one, or one for each combination of a GRID."""
    if not isinstance(entry, dict) or "GRID" not in entry:
        return {name: entry}
    grid = entry["GRID"]
    if not isinstance(grid, dict) or not all(isinstance(v, list) and v for v in grid.values()):
        raise UserError(f"'{path}': run '{name}': GRID is a mapping of settings to lists of values")
    if entry.get("WEIGHTS"):
        raise UserError(f"'{path}': run '{name}' has WEIGHTS, and a GRID is of trainings")
    if not grid or {"WEIGHTS", "CONFIG"} & grid.keys():
        raise UserError(f"'{path}': run '{name}': GRID lists settings, not {list(grid)}")
    plain = {key: value for key, value in entry.items() if key != "GRID"}
    found = {}
    for values in product(*grid.values()):
        own = dict(zip(grid, values, strict=True))
        words = " ".join(f"{key} {value}" for key, value in own.items())
        found[f"{name} {words}"] = {**plain, **own}
    return found


def _run(path: Path, name: str, entry: Any, shared: Mapping[str, Any]) -> Run:
    if not isinstance(entry, dict) or "CONFIG" not in entry:
        raise UserError(f"'{path}': run '{name}' needs a CONFIG")
    own = {k: v for k, v in entry.items() if k not in ("CONFIG", "WEIGHTS")}
    weights = str(entry.get("WEIGHTS") or "")
    return Run(name, str(entry["CONFIG"]), to_words({**shared, **own}), weights)


def _evaluations(
    path: Path, name: str, entry: Any, runs: Mapping[str, Mapping[str, Any]]
) -> list[Evaluation]:
    """One, or one for each run of a grid."""
    known = [*runs, *(run for several in runs.values() for run in several if run not in runs)]
    values: dict[str, Any] = {}
    for key, value in entry.items() if isinstance(entry, dict) else ():
        values[_FORMER.get(str(key), str(key))] = value
    run = str(values.pop("RUN", None))
    if run not in known:
        raise UserError(f"'{path}': evaluation '{name}' needs a RUN, one of {', '.join(known)}")
    several = list(runs.get(run, {run: None}))
    if several == [run]:
        return [Evaluation(name, run, to_words(values))]
    return [Evaluation(f"{name}{one.removeprefix(run)}", one, to_words(values)) for one in several]


def to_words(entry: Mapping[str, Any]) -> tuple[str, ...]:
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
        if key in ("EVALUATIONS", "PEOPLE"):
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
            values[key.lower()] = tuple(map(str, value) if key == "EVALUATIONS" else value)
        else:
            values[key.lower()] = value
    return Cost(**values)


def check_keys(path: Path, entry: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Refuse unknown keys, with the nearest known one."""
    for key in entry:
        if key not in keys:
            close = difflib.get_close_matches(str(key), keys, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(keys)}"
            raise UserError(f"unknown key '{key}' in '{path}'{hint}")
