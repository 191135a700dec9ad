"""What every importer gives: images, and people in the order of one list of joints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
import numpy.typing as npt

from ...errors import UserError
from ...io.images import check_size
from ...joint_names import are_placeholders
from ...skeleton import Skeleton

Record = dict[str, Any]
"""An annotation in COCO's format, without ids: ``keypoints`` (3 K numbers) and, where they are
known, ``bbox``, ``area``, ``iscrowd``, ``segmentation`` and ``category``, a name."""
Bones = tuple[tuple[str, str], ...]
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jp2"})


@dataclass(frozen=True)
class Frame:
    """One labeled image.

    Attributes:
        name: relative path that the image gets; unique in its set.
        pixels: the image file, or a function that decodes (H, W, 3) uint8 RGB.
        people: the annotations.
        group: the video that it is from; empty if it is from none.
        split: ``train``, ``val`` or ``test`` where the source has splits.
        others: what other annotators said of the same image.
        size: (H, W) as annotated; None takes the image's own.
        as_stored: labels mean the pixels as stored, as COCO's do; else as viewers show them, turned
            by EXIF.
    """

    name: str
    pixels: Path | Callable[[], npt.NDArray[np.uint8]]
    people: Sequence[Record]
    group: str = ""
    split: str = ""
    others: Sequence[Sequence[Record]] = ()
    size: tuple[int, int] | None = None
    as_stored: bool = False


@dataclass(frozen=True)
class Labels:
    """A labeled set.

    Attributes:
        name: what the animals or people are called.
        joints: K names.
        frames: the images.
        bones: pairs of names; none if the source has none.
        flip_pairs: pairs (left, right), or None: by their names.
        skeleton: the whole skeleton, where it is a known one.
        notes: sentences on what was found, changed or left out.
    """

    name: str
    joints: tuple[str, ...]
    frames: list[Frame]
    bones: Bones = ()
    flip_pairs: Bones | None = None
    skeleton: Skeleton | None = None
    notes: list[str] = field(default_factory=list)

    def rename(self, skeleton: Skeleton) -> Labels:
        """The same with the joints of ``skeleton``, matched by name; by order where the source only
        counts them.

        Raises:
            UserError: they are not the same joints.
        """
        rows = skeleton.find(self.joints)
        if rows is None and len(skeleton) == len(self.joints) and are_placeholders(self.joints):
            rows = list(range(len(skeleton)))
        if rows is None:
            raise UserError(
                f"skeleton '{skeleton.name}' has the joints {', '.join(skeleton.joints)}, but the "
                f"labels have {', '.join(self.joints)}"
            )
        order = np.array(rows)

        def reorder(records: Sequence[Record]) -> list[Record]:
            return [
                record
                | {"keypoints": np.reshape(record["keypoints"], (-1, 3))[order].ravel().tolist()}
                for record in records
            ]

        frames = [
            replace(f, people=reorder(f.people), others=[reorder(other) for other in f.others])
            for f in self.frames
        ]
        return replace(self, joints=skeleton.joints, frames=frames, skeleton=skeleton)


def flatten_points(
    points: dict[str, tuple[float, float, int]], joints: Sequence[str]
) -> list[float]:
    """Points (x, y, visibility) by name → 3 K numbers; joints without one are 0, 0, 0."""
    nothing = (0.0, 0.0, 0)
    return [float(value) for joint in joints for value in points.get(joint, nothing)]


def order_names(found: Sequence[str]) -> tuple[str, ...]:
    """Each name once, in the order in which they appear; numbers by size."""
    names = tuple(dict.fromkeys(found))
    return tuple(sorted(names, key=int)) if all(name.isdecimal() for name in names) else names


class ImageIndex:
    """Finds image files by the names that labels give them.

    Args:
        folders: where to look: at the name below each, then for a file of that name anywhere below
            the first.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, name: str) -> Path:
        """The file; where there is none, the place where it should be.

        Raises:
            UserError: several files have this name, and nothing tells which is meant.
        """
        listed = [each.replace("\\", "/") for each in dict.fromkeys((name, unquote(name)))]
        for name in listed:
            if Path(name).is_absolute() and Path(name).is_file():
                return Path(name)
            for folder in self._folders:
                if (folder / name.lstrip("/")).is_file():
                    return folder / name.lstrip("/")
        found = self._named(Path(name).name)
        if len(found) > 1:  # the one whose folders agree most
            parts = list(reversed(Path(name).parts))
            scores = [_common(parts, list(reversed(path.parts))) for path in found]
            best = [p for p, score in zip(found, scores, strict=True) if score == max(scores)]
            if len(best) > 1:
                raise UserError(f"'{name}' may be '{best[0]}' or '{best[1]}'")
            found = best
        return found[0] if found else self._folders[0] / name.lstrip("/")

    def _named(self, name: str) -> list[Path]:
        if self._by_name is None:
            self._by_name = {}
            for path in sorted(self._folders[0].rglob("*")):
                if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                    self._by_name.setdefault(path.name, []).append(path)
        return self._by_name.get(name, [])


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


class VideoFrames:
    """Single frames of a video file, read in any order.

    Args:
        path: the file.

    Raises:
        UserError: it is missing or no video.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"video '{path}' does not exist")
        self._path = path
        self._capture: Any = None
        self._next = 0

    def read(self, number: int) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB; frames are counted from 0.

        Raises:
            UserError: the video has no such frame.
        """
        if self._capture is None or number < self._next:
            self._capture, self._next = cv2.VideoCapture(str(self._path)), 0
        # Frame by frame: jumping lands on a neighbor in files with a variable rate.
        while self._next < number and self._capture.grab():
            self._next += 1
        found, image = self._capture.read()
        if not found:
            raise UserError(f"video '{self._path}' has no frame {number}")
        self._next += 1
        check_size(image.shape[:2], str(self._path))
        return np.ascontiguousarray(image[:, :, ::-1])
