"""Where images come from: files, folders, globs, videos, cameras and the network."""

from __future__ import annotations

import glob
import mimetypes
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".jp2"}
)
"""Whether the installed OpenCV reads the last three shows when they are decoded."""
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".vob", ".wmv",
     ".flv", ".3gp", ".mts", ".m2ts", ".ogv", ".mxf"}
)  # fmt: skip
_UNREAD = frozenset(
    {".heic", ".heif", ".jxl", ".jpx", ".j2k", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf",
     ".orf", ".rw2", ".psd", ".exr", ".hdr", ".svg", ".dcm"}
)  # fmt: skip
"""Kinds that many systems' type tables do not list."""
_ADDRESS = re.compile(r"(rtsps?|https?)://", re.IGNORECASE)
_LONGEST_STEM = 220
"""Bytes; names grow by a number, what is drawn and an ending."""
_CAMERA = re.compile(r"camera:(\d{1,3})")


def is_address(name: str) -> bool:
    """Whether an input is an address of the network."""
    return _ADDRESS.match(name) is not None


@dataclass
class Inputs:
    """What the user named, in that order, once each.

    Attributes:
        images: image files.
        videos: video files.
        cameras: numbers of cameras (``camera:0``).
        addresses: of streams and images in the network (``rtsp://``, ``http://``).
        skipped: images and videos in folders, of kinds that are not read (HEIC, raw, …).
    """

    images: list[Path] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)
    cameras: list[int] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)

    @property
    def has_videos(self) -> bool:
        """Whether anything is to be watched frame by frame."""
        return bool(self.videos or self.cameras or self.addresses)


def find_inputs(names: Sequence[str], recursive: bool = False) -> Inputs:
    """Files named by paths, folders and globs, cameras, and addresses.

    Args:
        names: as the user wrote them.
        recursive: look into folders' subfolders, too.

    Raises:
        UserError: an input does not exist, or a folder or glob holds no images or videos.
    """
    found: dict[str, Path] = {}
    cameras: dict[int, None] = {}
    addresses: dict[str, None] = {}
    skipped: dict[Path, None] = {}
    for name in names:
        if camera := _CAMERA.fullmatch(name):
            cameras[int(camera[1])] = None
        elif is_address(name):
            addresses[name] = None
        else:
            for file in _files(name, skipped, recursive):
                found.setdefault(os.path.abspath(file), file)  # noqa: PTH100  links are kept apart
    videos = [path for path in found.values() if path.suffix.lower() in VIDEO_SUFFIXES]
    images = [path for path in found.values() if path.suffix.lower() not in VIDEO_SUFFIXES]
    return Inputs(images, videos, list(cameras), list(addresses), list(skipped))


def _files(name: str, skipped: dict[Path, None], recursive: bool) -> list[Path]:
    """Files that are read; ``skipped`` gets those that are images or videos but of other kinds."""
    path = Path(os.path.expanduser(name))  # noqa: PTH111  which takes unknown users for names
    if path.is_file():
        return [path]  # whatever its name says; reading will tell
    if path.is_dir():
        there = list(path.rglob("*") if recursive else path.iterdir())
        nothing = (
            f"folder '{name}' holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}) and no "
            f"videos ({', '.join(sorted(VIDEO_SUFFIXES))})"
        )
        if not recursive and any(entry.is_dir() for entry in there):
            nothing += "; --recursive looks into its folders"
    elif glob.has_magic(name):
        there = [Path(p) for p in glob.glob(str(path), recursive=True)]  # noqa: PTH207
        nothing = f"nothing that is an image or a video matches '{name}'"
    else:
        raise UserError(f"input '{name}' does not exist")
    files, others = _of_known_kind(there), _of_other_kinds(there)
    if not files:
        raise UserError(nothing + (f", but {describe_skipped(others)}" if others else ""))
    skipped.update(dict.fromkeys(others))
    return files


def _of_other_kinds(files: Sequence[Path]) -> list[Path]:
    """Images and videos that nothing here reads."""
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    others = []
    for file in files:
        suffix = file.suffix.lower()
        kind = mimetypes.guess_type(file.name.lower())[0] or ""
        is_media = kind.startswith(("image/", "video/")) or suffix in _UNREAD
        if is_media and suffix not in known and not file.is_dir():
            others.append(file)
    return sorted(others)


def describe_skipped(files: Sequence[Path]) -> str:
    """A sentence on images and videos that are not read."""
    some = ", ".join(file.name for file in files[:3]) + (", …" if len(files) > 3 else "")
    kinds = ", ".join(sorted({file.suffix.lower() for file in files}))
    are = "1 file is" if len(files) == 1 else f"{len(files)} files are"
    return f"{are} of a kind that is not read ({kinds}): {some}; convert them to JPEG or MP4"


def _of_known_kind(files: Sequence[Path]) -> list[Path]:
    known = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES]
    return sorted(file for file in known if not file.is_dir())


def refuse_overwriting(written: Iterable[Path], read: Iterable[Path]) -> None:
    """See that no output has the place of an input.

    Raises:
        UserError: one has.
    """
    places = {os.path.realpath(path) for path in written}
    for path in read:
        if os.path.realpath(path) in places:
            raise UserError(f"'{path}' is an input and would be overwritten; change --output")


def output_names(files: Sequence[Path | str], suffix: str) -> list[str]:
    """A distinct file name for what is drawn of each input: its stem, cut if it is too long for a
    file system, numbered if taken."""
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        stem = Path(file).stem.replace(":", "_")
        while len(os.fsencode(stem)) > _LONGEST_STEM:
            stem = stem[:-1]
        name, number = f"{stem}_poses{suffix}", 1
        while name in taken:
            number += 1
            name = f"{stem}_{number}_poses{suffix}"
        taken.add(name)
        names.append(name)
    return names
