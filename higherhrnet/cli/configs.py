"""``higherhrnet configs``: list, show and copy the configs that come with the package."""

from __future__ import annotations

import argparse
from itertools import groupby
from pathlib import Path

from ..config import read_config, to_yaml
from ..config.library import find_config, list_configs
from ..errors import UserError
from ..io.atomic import atomic_write


def list_bundled(options: argparse.Namespace) -> int:
    """Print the names, each with the first line of its file's comment."""
    for folder, names in groupby(list_configs(), lambda name: name.rpartition("/")[0]):
        print(f"{folder or '.'}/")
        for name in names:
            first = find_config(name).read_text().splitlines()[0]
            about = first.removeprefix("#").strip() if first.startswith("#") else ""
            print(f"  {name:36s} {about}".rstrip())
    print("higherhrnet train NAME; higherhrnet ablate ablation/…; higherhrnet configs copy NAME")
    return 0


def show_bundled(options: argparse.Namespace) -> int:
    """Print a config as it is written, or with every setting."""
    path = find_config(options.name)
    if options.full or options.overrides:
        print(to_yaml(read_config(path, options.overrides)), end="")
    else:
        print(path.read_text(), end="")
    return 0


def copy_bundled(options: argparse.Namespace) -> int:
    """Copy a config to where it can be changed."""
    path = find_config(options.name)
    target: Path = options.target or Path(path.name)
    if target.is_dir():
        target = target / path.name
    if target.exists():
        raise UserError(f"'{target}' exists already")
    text = path.read_text()
    # Beside the bundled configs, where a copy is not: found by name from any folder.
    text = text.replace("SKELETON: ../skeletons/", "SKELETON: skeletons/")
    with atomic_write(target) as partial:
        partial.write_text(text)
    print(target)
    return 0
