"""YAML and ``KEY VALUE`` pairs → a typed config, read through yacs; and back."""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import math
import types
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from ..errors import UserError
from ..io import yaml
from . import migrate
from .base import Config, Rule, rules_of, sections_of
from .library import find_bundled, find_config
from .schema import SCHEMAS

_log = logging.getLogger(__name__)
Pairs = list[tuple[str, Any]]
_OVERRIDES = "the overrides"
_ALIASES = {"DATASET.KIND": "DATASET.DATASET"}
"""Further names of settings, like those beside them: MODEL.HEAD, LOSS.KIND."""
C = typing.TypeVar("C", bound=Config)


def read_config(path: str | Path, overrides: Sequence[Any] = ()) -> Config:
    """Defaults, then a YAML file, then ``KEY, VALUE, …``; checked.

    Files of older versions and the official YAMLs are translated, see
    :mod:`config.migrate`. Paths in the file are relative to it where they exist there, else to the
    working folder.

    Args:
        path: a file, or the name of a bundled one, e.g. ``coco/higherhrnet_w32_512``.
        overrides: what is to differ; paths in them are relative to the working folder.

    Raises:
        UserError: the file is missing or not YAML, a key is unknown or another method's, or a value
            is wrong; the message names it.
    """
    path = find_config(path)
    return parse_config(path.read_bytes(), overrides, source=str(path), folder=path.parent)


def parse_config(
    text: str | bytes,
    overrides: Sequence[Any] = (),
    source: str = "config",
    quiet: bool = False,
    folder: Path | None = None,
) -> Config:
    """Like :func:`read_config`, from YAML text; values may be YAML or what they mean.

    Args:
        text, overrides, source: the file's content, what differs, and its name for messages.
        quiet: say nothing of keys that were translated, as for a checkpoint's own config.
        folder: where paths in the text are looked for first.
    """
    try:
        loaded = yaml.parse(text) or {}
    except UserError as error:
        raise UserError(f"'{source}' is not valid YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise UserError(f"'{source}' is not a mapping of sections to settings")
    if loaded.keys() & {"RUNS", "ARMS"}:
        raise UserError(f"'{source}' is a plan for higherhrnet ablate, not a config")
    try:
        if migrate.is_official(loaded):
            try:
                pairs, notes = migrate.official(loaded, f"'{source}'")
            except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
                raise UserError(f"'{source}' is not a complete official config") from error
        else:
            pairs, notes = migrate.former(list(migrate.flatten(loaded)), f"'{source}'")
    except RecursionError as error:
        raise UserError(f"'{source}' refers to itself") from error
    for key, number in Counter(key for key, _ in pairs).items():
        if number > 1:
            raise UserError(f"config key '{key}' appears twice in '{source}'")
    more, more_notes = migrate.former(_parse_overrides(overrides), _OVERRIDES, pairs)
    for note in [] if quiet else [*notes, *more_notes]:
        _log.warning("%s", note)
    pairs, more = (_use_main_names(each) for each in (pairs, more))
    pairs = [(key, _find_path(key, value, folder)) for key, value in pairs]
    more = [(key, _find_path(key, value, None)) for key, value in more]
    own = {key for key, _ in more}
    return _build([*pairs, *more], lambda key: _OVERRIDES if key in own else f"'{source}'")


def _use_main_names(pairs: Pairs) -> Pairs:
    return [(_ALIASES.get(key.upper(), key), value) for key, value in pairs]


def _find_path(key: str, value: Any, folder: Path | None) -> Any:
    """A setting that names a file or folder, with the config's folder before it if it is there; a
    bundled skeleton wherever it lies."""
    if isinstance(value, list) and key == "DATASET.TRAIN":
        return [
            {k: _find_path(f"DATASET.{k}", v, folder) for k, v in entry.items()}
            if isinstance(entry, dict)
            else entry
            for entry in value
        ]
    kind = _path_kinds().get(key)
    if kind is None or not isinstance(value, str) or not value or "$" in value:
        return value
    found = None if folder is None else folder / value
    if found is not None and (found.is_dir() if kind == "folder" else found.is_file()):
        return str(found)
    if value.endswith((".yaml", ".yml")) and not Path(value).is_file():
        return str(find_bundled(Path(value)) or value)
    return value


@cache
def _path_kinds() -> dict[str, str]:
    """Settings that may be paths, of any method, and their kind."""
    return {
        f"{section}.{key}": rule.path
        for schema in SCHEMAS.values()
        for section, key, rule in rules_of(schema)
        if rule.path
    }


def as_pairs(overrides: Sequence[Any] | Mapping[str, Any]) -> Sequence[Any]:
    """``KEY, VALUE, …`` of what a caller gave: these, or a dict."""
    if isinstance(overrides, Mapping):
        return [part for pair in overrides.items() for part in pair]
    return overrides


def override_config(config: C, overrides: Sequence[Any]) -> C:
    """A config of the same kind with ``KEY, VALUE, …`` changed.

    Raises:
        UserError: a value is wrong, or makes it another kind of config.
    """
    changed = parse_config(to_yaml(config), overrides)
    if not isinstance(changed, type(config)):
        raise UserError(
            f"config key 'MODEL.NAME': a {config.MODEL.NAME} cannot become a {changed.MODEL.NAME}"
        )
    return changed


def to_yaml(config: Config) -> str:
    """The whole config as YAML; inverse of :func:`parse_config`."""
    text: str = CfgNode(json.loads(json.dumps(asdict(config)))).dump()
    return text


def defaults_of(schema: type[Config]) -> dict[str, Any]:
    """``SECTION.KEY`` → default value of every setting."""
    found = {}
    for section, kind in sections_of(schema).items():
        for entry in fields(kind):
            assert entry.default is not MISSING
            found[f"{section}.{entry.name}"] = entry.default
    return found


def _parse_overrides(overrides: Sequence[Any]) -> Pairs:
    if len(overrides) % 2:
        raise UserError(f"overrides come as KEY VALUE pairs, but '{overrides[-1]}' has no value")
    pairs: Pairs = []
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        try:
            is_text = isinstance(value, str)  # Python callers may give the value itself
            pairs.append((key, yaml.parse(value) if is_text and value else value))
        except UserError as error:
            raise UserError(f"config key '{key}': '{value}' is not valid YAML: {error}") from error
    return pairs


def _build(pairs: Pairs, source_of: Callable[[str], str]) -> Config:
    name = dict(pairs).get("MODEL.NAME", "pose_higher_hrnet")
    if not isinstance(name, str) or name not in SCHEMAS:
        raise UserError(
            f"config key 'MODEL.NAME' must be one of {', '.join(SCHEMAS)}, not '{name}'"
        )
    schema = SCHEMAS[name]
    kinds = sections_of(schema)
    tree = CfgNode({section: {} for section in kinds})
    hints = {section: typing.get_type_hints(kind) for section, kind in kinds.items()}
    rules = {section: _rules(kind) for section, kind in kinds.items()}
    values = {**defaults_of(schema), "MODEL.NAME": name}
    for key, value in [*values.items(), *pairs]:
        if key not in values:
            raise UserError(_unknown(key, values, name, source_of(key)))
        section, entry = key.split(".")
        tree[section][entry] = _coerce(key, value, hints[section][entry], rules[section][entry])
    outputs = len(tree.LOSS.WITH_AE_LOSS) if "LOSS.WITH_AE_LOSS" in values else 1
    for section in kinds:
        for entry, rule in rules[section].items():
            if rule.per_output and len(tree[section][entry]) == 1:  # one stands for all
                tree[section][entry] = tree[section][entry] * outputs
    config = schema(**{section: kind(**tree[section]) for section, kind in kinds.items()})
    config.check()
    return config


def _unknown(key: str, values: Mapping[str, Any], name: str, source: str) -> str:
    """What is wrong with a key: it is another method's, or unknown."""
    for other, schema in SCHEMAS.items():
        if key in defaults_of(schema):
            return (
                f"config key '{key}' in {source} is for {schema.method} models (MODEL.NAME "
                f"{other}) and means nothing for {SCHEMAS[name].method} ones ({name})"
            )
    close = difflib.get_close_matches(key.upper(), values, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"unknown config key '{key}' in {source}{hint}"


def _rules(kind: type[Any]) -> dict[str, Rule]:
    return {entry.name: entry.metadata["rule"] for entry in fields(kind)}


def _coerce(key: str, value: Any, hint: Any, rule: Rule) -> Any:
    """The value as the field's type, within its rule."""
    if isinstance(hint, types.UnionType):  # one, or a list of several
        single, several = typing.get_args(hint)
        if not isinstance(value, list | tuple):
            return _coerce(key, value, single, rule)
        (kind, _) = typing.get_args(several)
        return tuple(_coerce_entry(f"{key}[{n}]", item, kind) for n, item in enumerate(value))
    if isinstance(hint, types.GenericAlias):
        kinds = typing.get_args(hint)
        if (rule.per_output or Ellipsis in kinds) and isinstance(value, int | float):
            value = [value]
        if not isinstance(value, list | tuple):
            raise UserError(f"config key '{key}' must be a list, not {value!r}")
        if Ellipsis not in kinds and len(value) != len(kinds):
            raise UserError(f"config key '{key}' must be a list of {len(kinds)}, not {list(value)}")
        return tuple(_coerce(key, item, kinds[0], rule) for item in value)
    if hint is float and not isinstance(value, bool):
        number = math.nan
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            number = float(value)  # YAML reads 1e-3 (no dot) as text
        if not math.isfinite(number):
            raise UserError(f"config key '{key}' must be a finite number, not {value!r}")
        value = number
    elif hint is str and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    elif type(value) is not hint:
        raise UserError(f"config key '{key}' must be a {hint.__name__}, not {value!r}")
    _check_rule(key, value, rule)
    return value


def _coerce_entry(key: str, value: Any, kind: type[Any]) -> Any:
    """One entry of a list of mappings; text alone is the value of the first field."""
    if isinstance(value, kind):
        return value
    hints, rules = typing.get_type_hints(kind), _rules(kind)
    given = value if isinstance(value, dict) else {next(iter(hints)): value}
    for name in given:
        if name not in hints:
            raise UserError(f"config key '{key}' has no '{name}', only {', '.join(hints)}")
    return kind(**{n: _coerce(f"{key}.{n}", item, hints[n], rules[n]) for n, item in given.items()})


def _check_rule(key: str, value: Any, rule: Rule) -> None:
    if rule.choices and value not in rule.choices:
        raise UserError(
            f"config key '{key}' must be one of {', '.join(rule.choices)}, not '{value}'"
        )
    if isinstance(value, str | bool):
        return
    too_low = value <= rule.low if rule.above else value < rule.low
    if too_low or value > rule.high:
        lowest = f"above {rule.low:g}" if rule.above else f"at least {rule.low:g}"
        bounds = lowest if rule.high == math.inf else f"in {rule.low:g}..{rule.high:g}"
        raise UserError(f"config key '{key}' must be {bounds}, not {value}")
    if rule.multiple > 1 and value % rule.multiple:
        raise UserError(f"config key '{key}' must be a multiple of {rule.multiple}, not {value}")
