"""Where data sets lie on disk."""

from __future__ import annotations

from pathlib import Path


def coco_paths(root: Path, split: str) -> tuple[Path, Path]:
    """Annotation file and image folder of a split in COCO's layout.

    Pictures lie in ``root/images/{split}``, or in ``root/{split}`` as COCO's archives unpack, or
    in the archive itself: either of these with ``.zip`` behind it.
    """
    places = [
        root / folder / f"{split}{ending}" for ending in ("", ".zip") for folder in ("images", "")
    ]
    images = next((place for place in places if place.exists()), places[0])
    return root / "annotations" / f"person_keypoints_{split}.json", images
