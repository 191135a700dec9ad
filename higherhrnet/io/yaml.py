"""YAML as people mean it: a key that appears twice is a slip, not its last value."""

from __future__ import annotations

from typing import Any

import yaml

from ..errors import UserError


def parse(text: str | bytes) -> Any:
    """What YAML text describes; None if it is empty.

    Raises:
        UserError: it is not YAML, or has a key twice; says what is wrong, and in which line.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f" in line {mark.line + 1}"
        raise UserError(f"{error.problem}{where}") from error
    # PyYAML's own tags fall over what they do not know, dates over a month 13.
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Here keys are as they were written: nothing is merged yet."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    problem = f"'{key.value}' appears twice"
                    raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
                seen.add((key.tag, key.value))
        return node
