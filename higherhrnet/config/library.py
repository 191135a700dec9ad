"""Configs and plans that come with the package, by name from any folder."""

from __future__ import annotations

import difflib
from pathlib import Path

from ..errors import UserError


def bundled_folder() -> Path:
    """The folder ``configs/``: in the package where it was installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def list_configs() -> list[str]:
    """Names of all bundled configs and plans, e.g. ``coco/higherhrnet_w32_512``."""
    folder = bundled_folder()
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")
    )


def find_config(name: str | Path, what: str = "config file") -> Path:
    """A file as it is named, or a bundled one: with or without ``configs/`` and ``.yaml``.

    Raises:
        UserError: there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    if (bundled := find_bundled(path)) is not None:
        return bundled
    short = _short(path)
    close = difflib.get_close_matches(short, list_configs(), n=1, cutoff=0.7)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    raise UserError(f"{what} '{path}' does not exist{hint}")


def find_bundled(path: Path) -> Path | None:
    """The bundled file that a relative path means, if there is one."""
    file = bundled_folder() / f"{_short(path)}.yaml"
    return file if not path.is_absolute() and ".." not in path.parts and file.is_file() else None


def _short(path: Path) -> str:
    """``configs/coco/NAME.yaml`` → ``coco/NAME``."""
    text = path.as_posix().removeprefix("./").removeprefix("configs/")
    return text.removesuffix(".yaml").removesuffix(".yml")
