"""Where pictures come from: files, folders and globs."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def find_pictures(inputs: Sequence[str]) -> list[Path]:
    """Picture files named by paths, folders (not their subfolders) and globs, in order, once each.

    Raises:
        ValueError: an input does not exist, or a folder or glob holds no pictures.
    """
    found: dict[Path, None] = {}
    for name in inputs:
        path = Path(name).expanduser()
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not files:
                raise ValueError(
                    f"folder '{name}' holds no pictures ({', '.join(sorted(SUFFIXES))})"
                )
        elif glob.has_magic(name):
            files = sorted(
                file
                for file in map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207
                if file.suffix.lower() in SUFFIXES
            )
            if not files:
                raise ValueError(f"nothing that is a picture matches '{name}'")
        else:
            raise ValueError(f"input '{name}' does not exist")
        found.update(dict.fromkeys(files))
    return list(found)


def output_names(pictures: Sequence[Path]) -> list[str]:
    """A distinct file name for the drawing of each picture: its stem, numbered if taken."""
    names: list[str] = []
    taken: set[str] = set()
    for picture in pictures:
        name, number = f"{picture.stem}_poses.jpg", 1
        while name in taken:
            number += 1
            name = f"{picture.stem}_{number}_poses.jpg"
        taken.add(name)
        names.append(name)
    return names
