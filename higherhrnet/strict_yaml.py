"""YAML as people mean it: a key that stands twice is a slip, not its last value."""

from __future__ import annotations

from typing import Any

import yaml


def parse(text: str | bytes) -> Any:
    """What YAML text describes; None if it is empty.

    Raises:
        ValueError: it is not YAML, or has a key twice; says what and in which line.
    """
    try:
        return yaml.load(text, _Loader)
    # 2020-13-45 is a plain ValueError to PyYAML.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    problem = f"key '{key.value}' stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)
