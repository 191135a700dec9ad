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
    if len(text) > _LONGEST:
        raise UserError(f"it is longer than {_LONGEST // 10**6} MB")
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f" in line {mark.line + 1}"
        raise UserError(f"{error.problem}{where}") from error
    # PyYAML's own tags fall over what they do not know, dates over a month 13.
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(" ".join(str(error).split())) from error


_LONGEST = 4_000_000
"""Characters; the longest config, of a plan with a hundred runs, has 20,000."""
_MOST_NODES = 200_000
"""Values after aliases are followed: a few lines of aliases can mean billions."""


class _Loader(yaml.SafeLoader):
    def get_single_node(self) -> Any:
        """The document, if it is no bomb."""
        root = super().get_single_node()
        if root is not None and _count_nodes(root, {}) > _MOST_NODES:
            raise yaml.YAMLError(f"its aliases stand for more than {_MOST_NODES} values")
        return root

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


def _count_nodes(node: Any, known: dict[int, int]) -> int:
    """Values below a node, those behind aliases as often as they are meant."""
    if id(node) in known:
        if not known[id(node)]:
            raise yaml.YAMLError("an alias refers to itself")
        return known[id(node)]
    known[id(node)] = 0
    count = 1
    if isinstance(node, yaml.MappingNode):
        count += sum(_count_nodes(a, known) + _count_nodes(b, known) for a, b in node.value)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_count_nodes(item, known) for item in node.value)
    known[id(node)] = count
    return count
