"""The page of all settings: ``python -m higherhrnet.config.reference > docs/config.md``."""

from __future__ import annotations

import math
import types
import typing
from dataclasses import fields
from typing import Any

import yaml

from .base import Rule, sections_of
from .migrate import current_names
from .schema import SCHEMAS

_HEAD = """# Settings

<!-- Made by `python -m higherhrnet.config.reference > docs/config.md`; a test keeps it current. -->

A config is a YAML file of sections and keys. `MODEL.NAME` decides which settings there are: each
method has its own. On the command line settings are `KEY VALUE` pairs anywhere, e.g.
`TEST.FLIP_TEST False`; in Python `overrides=["TEST.FLIP_TEST", False]`. Keys have the names of the
original code's `lib/config/default.py` where it has one, and its YAML files can be read as they
are. Defaults are the published protocols on COCO.
"""


def render_reference() -> str:
    """Markdown tables of every setting, one section a method."""
    lines = [_HEAD]
    for name, schema in SCHEMAS.items():
        lines += [f"## `{name}`: {schema.method}", ""]
        for section, kind in sections_of(schema).items():
            hints = typing.get_type_hints(kind)
            lines += [
                f"### {section}", "",
                "| key | type | default | allowed | meaning |", "|---|---|---|---|---|",
            ]  # fmt: skip
            for entry in fields(kind):
                rule: Rule = entry.metadata["rule"]
                default = name if (section, entry.name) == ("MODEL", "NAME") else entry.default
                lines.append(
                    f"| `{section}.{entry.name}` | {_type(hints[entry.name])} | {_value(default)} "
                    f"| {_format_rule(rule)} | {rule.help} |"
                )
            lines.append("")
    lines += [
        "## Former names", "",
        "Configs and checkpoints of version 0.1 are read as they are; these keys have new names.",
        "", "| was | is |", "|---|---|",
        *(f"| `{old}` | `{new}` |" for old, new in sorted(current_names().items())),
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _type(hint: Any) -> str:
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return f"{_type(arguments[0])} or list"
    if not arguments:
        return str(hint.__name__)
    count = "" if Ellipsis in arguments else f"{len(arguments)} "
    return f"list of {count}{arguments[0].__name__}"


def _value(default: Any) -> str:
    plain = list(default) if isinstance(default, tuple) else default
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000).strip()
    return f"`{text.removesuffix('...').strip()}`"


def _format_rule(rule: Rule) -> str:
    if rule.choices:
        return ", ".join(rule.choices)
    parts = []
    if rule.high < math.inf:
        parts.append(f"{'above ' if rule.above else ''}{rule.low:g} to {rule.high:g}")
    elif rule.low > -math.inf:
        parts.append(f"above {rule.low:g}" if rule.above else f"from {rule.low:g}")
    if rule.multiple > 1:
        parts.append(f"multiples of {rule.multiple}")
    if rule.per_output:
        parts.append("one for each output, or one for all")
    return "; ".join(parts)


if __name__ == "__main__":
    print(render_reference(), end="")
