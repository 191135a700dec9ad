"""Where data sets lie on disk."""

from __future__ import annotations

from pathlib import Path

_ANNOTATIONS = (
    "annotations/person_keypoints_{}.json",
    "json/crowdpose_{}.json",
    "annotations/image_info_{}.json",
)
"""COCO's and CrowdPose's official names, and those of COCO's test sets, below the folder."""


def find_split(
    root: Path, split: str, images: str = "", prefers: str = "person_keypoints"
) -> tuple[Path, Path]:
    """Annotation file and image folder of a split.

    Images lie in ``root/images/{split}``, in ``root/{split}`` as COCO's archives unpack, in the
    archive itself (either of these with ``.zip`` behind it), or all in ``root/images``.

    Args:
        root: the data set's folder.
        split: a name like ``val2017``, or an annotation file ``FILE.json`` below ``root``.
        images: image folder or archive below ``root``, where it is none of the above.
        prefers: how the file's name begins that is looked for first, as ``instances``.

    Returns:
        both paths; where nothing is found, those of COCO's layout.
    """
    if split.endswith((".json", ".mat")):
        annotations = root / split
        folder = root / images if images else annotations.parent
        return annotations, folder
    named = [root / pattern.format(split) for pattern in _ANNOTATIONS]
    preferred = root / "annotations" / f"{prefers}_{split}.json"
    if preferred.is_file():
        named.insert(0, preferred)
    annotations = next((path for path in named if path.is_file()), named[0])
    places = [
        root / folder / f"{split}{ending}" for ending in ("", ".zip") for folder in ("images", "")
    ]
    if split.startswith("test-"):  # test-dev2017 is a part of test2017
        places += [root / folder / f"test{split[-4:]}" for folder in ("images", "")]
    if images:
        places = [root / images]
    elif annotations.parent.name == "json":
        places += [root / "images", root / "images.zip"]
    return annotations, next((place for place in places if place.exists()), places[0])
