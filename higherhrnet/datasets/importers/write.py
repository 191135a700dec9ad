"""Labels → a folder to train from: images, train.json, val.json, skeleton.yaml, config.yaml."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import yaml

from ...errors import UserError, WriteError
from ...ids import plain_id
from ...io.atomic import atomic_folder, atomic_write, write_json
from ...io.images import read_header, read_image
from ...joint_names import flip_pairs_from_names
from ...poses import is_labeled
from ...skeleton import Skeleton
from ..annotations import check_annotations, read_annotations
from ..canonical import UNKNOWN_SIGMA
from ..findings import refuse_repeated_ids
from .annotators import FEWEST, measure_sigmas
from .labels import Frame, Labels
from .split import split_by_group


@dataclass(frozen=True)
class Written:
    """What an import wrote.

    Attributes:
        skeleton: of the labels.
        counts: images by split.
        notes: sentences on how it was split, on sigmas, and on what was left out.
    """

    skeleton: Skeleton
    counts: dict[str, int]
    notes: list[str]


def write_labels(
    labels: Labels, folder: Path, share: float | None = None, config: str = ""
) -> Written:
    """Write a labeled set, whole or not at all.

    Args:
        labels: the set.
        folder: new or empty.
        share: of the images that are trained on; None keeps the source's splits if it has some,
            else 0.8.
        config: text of ``config.yaml``; none is written if it is empty.

    Raises:
        UserError: the folder holds something, or no image is there.
        WriteError: the disk is full, or the like.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"'{folder}' is not an empty folder; choose another one")
    skeleton, about_skeleton = make_skeleton(labels)
    notes = list(about_skeleton)
    with atomic_folder(folder) as partial:
        frames, left_out = _write_images(labels.frames, partial / "images")
        if not frames:
            raise UserError(
                f"none of {len(labels.frames)} images can be read; the first: {left_out[0]}. Say "
                "where they are with --images"
            )
        if len(frames) < 2:
            missing = (
                f"; {len(left_out)} are left out, the first: {left_out[0]}" if left_out else ""
            )
            raise UserError(
                "it has 1 image: two or more are needed, to train on and to validate" + missing
            )
        if left_out:
            notes.append(f"{len(left_out)} images are left out; the first: {left_out[0]}")
        seen = [r["keypoints"][2::3] for frame in frames for r in frame.people]
        if seen and (never := np.flatnonzero(~np.any(seen, axis=0)).tolist()):
            notes.append(f"never labeled: {', '.join(skeleton.joints[joint] for joint in never)}")
        parts, how = split_frames(frames, share)
        notes.append(how)
        for split, own in parts.items():
            write_json(partial / f"{split}.json", to_coco(own, skeleton, labels.name))
        (partial / "skeleton.yaml").write_text(format_skeleton(skeleton, about_skeleton))
        if config:
            (partial / "config.yaml").write_text(config)
    return Written(skeleton, {split: len(own) for split, own in parts.items()}, notes)


def split_frames(
    frames: Sequence[Frame], share: float | None
) -> tuple[dict[str, list[Frame]], str]:
    """Frames of ``train``, ``val`` and perhaps ``test``, and how they were told apart."""
    given = {frame.split for frame in frames}
    if share is None and {"train", "val"} <= given and "" not in given:
        parts: dict[str, list[Frame]] = {}
        for frame in frames:
            parts.setdefault(frame.split, []).append(frame)
        return parts, "train and val are the source's own"
    train, val, how = split_by_group(
        [frame.group for frame in frames], 0.8 if share is None else share
    )
    return {"train": [frames[i] for i in train], "val": [frames[i] for i in val]}, how


def make_skeleton(labels: Labels) -> tuple[Skeleton, list[str]]:
    """The labels' skeleton, and what is to be known of it."""
    if labels.skeleton is not None:
        return labels.skeleton, [f"sigmas are those of skeleton '{labels.skeleton.name}'"]
    notes = []
    pairs = labels.flip_pairs
    if pairs is None:
        try:
            pairs = flip_pairs_from_names(labels.joints)
        except UserError as error:
            pairs = ()
            notes.append(f"no flip pairs: {error}")
    if not labels.bones:
        notes.append("the source has no bones: add some to skeleton.yaml to see limbs drawn")
    sigmas, counts = measure_sigmas(labels.frames, len(labels.joints))
    measured = ~np.isnan(sigmas)
    if measured.any():
        names = [joint for joint, is_so in zip(labels.joints, measured, strict=True) if is_so]
        notes.append(
            f"sigmas of {len(names)} joints are measured, from {int(counts[measured].min())} or "
            f"more pairs of labels by two annotators: {', '.join(names)}"
        )
    if not measured.all():
        why = f"fewer than {FEWEST} labels of a second annotator" if counts.any() else (
            "there is no second annotator"
        )  # fmt: skip
        notes.append(
            f"sigmas of {int((~measured).sum())} joints are {UNKNOWN_SIGMA} ({why}), so that AP is "
            "not comparable to that of others"
        )
    values = np.where(measured, sigmas, UNKNOWN_SIGMA)
    skeleton = Skeleton(
        name=_plain(labels.name),
        joints=labels.joints,
        bones=labels.bones,
        sigmas=tuple(round(float(value), 4) for value in values),
        grouping_order=labels.joints,
        flip_pairs=pairs,
    )
    return skeleton, notes


def format_skeleton(skeleton: Skeleton, notes: Sequence[str] = ()) -> str:
    """The skeleton as YAML, with notes as comments."""
    heading = "".join(f"# {' '.join(note.split())}\n" for note in notes)
    return heading + yaml.safe_dump(
        skeleton.to_dict(), sort_keys=False, default_flow_style=None, allow_unicode=True, width=100
    )


def to_coco(frames: Sequence[Frame], skeleton: Skeleton, name: str) -> dict[str, Any]:
    """Frames in COCO's format; every category has the skeleton's joints."""
    listed = sorted({record.get("category", name) for f in frames for record in f.people})
    ids = {category: number for number, category in enumerate(listed or [name], 1)}
    bones = [[a + 1, b + 1] for a, b in skeleton.limbs]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, frame in enumerate(frames, 1):
        assert frame.size is not None
        height, width = frame.size
        images.append({"id": number, "file_name": frame.name, "height": height, "width": width})
        if frame.group:
            images[-1]["video_id"] = frame.group
        for record in frame.people:
            own = {key: value for key, value in record.items() if key != "category"}
            own |= {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": ids[record.get("category", name)],
                "iscrowd": int(record.get("iscrowd", 0)),
                "num_keypoints": sum(v > 0 for v in record["keypoints"][2::3]),
            }
            if "bbox" not in own and is_labeled(own):
                own["bbox"] = _box_around(own["keypoints"], frame.size)
            if "bbox" in own:
                own.setdefault("area", _area(own["bbox"]))
            annotations.append(own)
    return {
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": number, "name": category, "keypoints": list(skeleton.joints), "skeleton": bones}
            for category, number in ids.items()
        ],
    }


def _area(box: Sequence[float]) -> float:
    """Of a box; at least that of a slim body, a tenth of its length squared."""
    w, h = float(box[2]), float(box[3])
    return max(w * h, 0.1 * max(w, h) ** 2)


def _box_around(keypoints: Sequence[float], size: tuple[int, int]) -> list[float]:
    """x, y, w, h of the labeled joints, within the image."""
    points = np.reshape(keypoints, (-1, 3))
    points = points[points[:, 2] > 0, :2]
    low = np.clip(points.min(axis=0), 0, size[::-1])
    high = np.clip(points.max(axis=0), 0, size[::-1])
    return [round(float(value), 3) for value in (*low, *(high - low))]


def _write_images(frames: Sequence[Frame], folder: Path) -> tuple[list[Frame], list[str]]:
    """Copy or decode every image; returns frames with name and size, and why others are left
    out."""
    written: list[Frame] = []
    left_out: list[str] = []
    names: set[str] = set()
    claims = Counter(frame.pixels for frame in frames if isinstance(frame.pixels, Path))
    for frame in frames:
        if isinstance(frame.pixels, Path) and claims[frame.pixels] > 1:
            # Found by its name alone, in another folder than the labels say: whose is it?
            left_out.append(f"'{frame.pixels}' may be the image of {claims[frame.pixels]} labels")
            continue
        try:
            name, is_turned = _choose_name(frame, names)
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            size = _write_image(frame, target, is_turned)
        except UserError as error:
            left_out.append(str(error))
            continue
        except OSError as error:
            if isinstance(error, WriteError):
                raise
            raise WriteError(f"could not write '{target}': {error.strerror or error}") from error
        names.add(name.lower())
        written.append(replace(frame, name=f"images/{name}", size=frame.size or size))
    return written, left_out


def _choose_name(frame: Frame, taken: set[str]) -> tuple[str, bool]:
    """A frame's file name, and whether its image has to be turned: then it is encoded anew, as PNG
    where the suffix is of neither kind that is written here.

    Raises:
        UserError: the image does not exist, or is none.
    """
    if not isinstance(frame.pixels, Path):
        return _free_name(frame.name, taken), False
    if not frame.pixels.is_file():
        raise UserError(f"'{frame.pixels}' does not exist")
    with frame.pixels.open("rb") as file:
        header = read_header(file)
    if header is None:
        raise UserError(f"'{frame.pixels}' is no image that can be read")
    if frame.as_stored or header.orientation == 1:
        return _free_name(frame.name, taken), False
    path = PurePosixPath(frame.name)
    written = path if path.suffix.lower() in _ENCODED else path.with_suffix(".png")
    return _free_name(str(written), taken), True


def _write_image(frame: Frame, target: Path, is_turned: bool) -> tuple[int, int]:
    """Write a frame's image; returns its (H, W) as viewers show it."""
    if not isinstance(frame.pixels, Path):
        image = frame.pixels()
        save_pixels(target, image)
        return image.shape[0], image.shape[1]
    if not is_turned:
        with atomic_write(target) as partial:
            shutil.copyfile(frame.pixels, partial)
        with frame.pixels.open("rb") as file:
            header = read_header(file)
        assert header is not None  # seen when its name was chosen
        return header.size
    # Turned as it was labeled, and without EXIF: so nobody has to guess later.
    image = read_image(frame.pixels)
    save_pixels(target, image)
    return image.shape[0], image.shape[1]


_ENCODED = (".jpg", ".jpeg", ".png")
"""Suffixes that images which are turned keep; others become PNG."""


def save_pixels(target: Path, image: npt.NDArray[np.uint8]) -> None:
    """(H, W, 3) RGB as JPEG of quality 95 or as PNG, by the suffix."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
    found, data = cv2.imencode(target.suffix, np.ascontiguousarray(image[:, :, ::-1]), quality)
    assert found
    with atomic_write(target) as partial:
        partial.write_bytes(data.tobytes())


def _free_name(name: str, taken: set[str]) -> str:
    """A relative path within the folder that no other image has."""
    parts = [p for p in PurePosixPath(name.replace("\\", "/")).parts if p not in ("/", "..", ".")]
    parts = [re.sub(r'[<>:"|?*]', "_", part) for part in parts] or ["image.png"]
    path = PurePosixPath(*parts)
    found, number = path, 1
    while str(found).lower() in taken:
        number += 1
        found = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return str(found)


def _plain(name: str) -> str:
    return re.sub(r"[^\w-]+", "_", name).strip("_") or "animal"


def split_file(file: Path, share: float, names: tuple[Path, Path]) -> str:
    """Split a COCO-format file into two; returns how they were told apart.

    Raises:
        UserError: it is no such file, or there are fewer than two images.
    """
    loaded = read_annotations(file)
    check_annotations(loaded, file)
    images = loaded["images"]
    refuse_repeated_ids(images, file)
    if len(images) < 2:
        raise UserError(f"'{file}' has {len(images)} images; splitting takes two or more")
    groups = ["" if i.get("video_id") is None else str(i["video_id"]) for i in images]
    train, val, how = split_by_group(groups, share)
    for target, rows in zip(names, (train, val), strict=True):
        own = [images[row] for row in rows]
        ids = {plain_id(image["id"]) for image in own}
        people = [a for a in loaded["annotations"] if plain_id(a["image_id"]) in ids]
        write_json(target, loaded | {"images": own, "annotations": people})
    return how
