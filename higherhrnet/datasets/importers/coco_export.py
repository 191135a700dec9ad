"""COCO keypoint files, wherever they come from, with their images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...skeleton import SKELETONS, Skeleton
from ..annotations import check_annotations, read_annotations
from ..canonical import canonicalize, skeleton_from_file
from ..findings import refuse_repeated_ids
from .labels import Frame, ImageIndex, Labels, Record

_SPLITS = ("train", "val", "test")
_KEPT = ("keypoints", "bbox", "area", "iscrowd", "segmentation")


def is_coco(loaded: object) -> bool:
    """Whether a JSON file's content is in COCO's format."""
    return isinstance(loaded, dict) and {"images", "annotations"} <= loaded.keys()


def read_coco(
    files: list[Path], images: Path | None = None, skeleton: Skeleton | None = None
) -> Labels:
    """Labels of one or several files of the same keypoints; splits are told by their names.

    Args:
        files: to be read together.
        images: where the images are, if not at the usual places.
        skeleton: of the keypoints, where the files do not name them.

    Raises:
        UserError: the files do not fit each other, list no joints, or list an image twice.
    """
    frames: list[Frame] = []
    notes: list[str] = []
    listed: dict[Path, Path] = {}
    for file in files:
        loaded = read_annotations(file)
        check_annotations(loaded, file)
        refuse_repeated_ids(loaded["images"], file)
        if skeleton is None:
            skeleton = skeleton_from_file(loaded, file, notes=notes)
        notes += [str(finding) for finding in canonicalize(loaded, file, skeleton)]
        split = next((s for s in _SPLITS if s in file.stem.lower()), "")
        own = _read_frames(loaded, find_images(file, images, split), split)
        for frame in own:
            assert isinstance(frame.pixels, Path)
            other = listed.setdefault(frame.pixels.resolve(), file)
            if other != file:
                raise UserError(
                    f"image '{frame.name}' is listed by '{other}' and by '{file}'; name the one "
                    "file that is meant"
                )
        frames += own
    assert skeleton is not None
    if len({frame.name for frame in frames}) < len(frames):  # splits with like file names
        frames = [replace(frame, name=f"{frame.split}/{frame.name}") for frame in frames]
    known = skeleton if skeleton.name in SKELETONS else None
    kinds = {str(record["category"]) for frame in frames for record in frame.people}
    name = skeleton.name if known or len(kinds) == 1 else files[0].stem
    return Labels(name, skeleton.joints, frames, skeleton.bones, skeleton.flip_pairs, known, notes)


def find_images(file: Path, images: Path | None = None, split: str = "") -> ImageIndex:
    """Where the images of an annotation file may lie: in ``images`` if it is given; beside the
    file, or as in COCO's own layout in ``../images``, or below either."""
    here, above = file.parent, file.parent.parent
    if images is not None:
        return ImageIndex(images, here)
    named = [above / "images" / name for name in (split, file.stem) if name]
    wide = [above / "images"] if here.name == "annotations" else [here]
    return ImageIndex(*wide, *named, here, here / "images", above / "images", above)


def _read_frames(loaded: dict[str, Any], index: ImageIndex, split: str) -> list[Frame]:
    names = {c["id"]: str(c.get("name", "object")) for c in loaded.get("categories") or ()}
    people: dict[Any, list[Record]] = {}
    for record in loaded["annotations"]:
        kept = {key: record[key] for key in _KEPT if record.get(key) is not None}
        kept["category"] = names.get(record.get("category_id"), "object")
        people.setdefault(record["image_id"], []).append(kept)
    frames = []
    for image in loaded["images"]:
        name = str(image["file_name"])
        size = int(image.get("height") or 0), int(image.get("width") or 0)
        group = image.get("video_id", "")
        frames.append(
            Frame(
                name.replace("\\", "/").lstrip("./"),
                index.find(name),
                people.get(image["id"], []),
                str(group) if group is not None else "",
                split,
                size=size if all(size) else None,
                as_stored=True,
            )
        )
    return frames
