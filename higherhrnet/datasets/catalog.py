"""Where data sets lie on disk."""

from __future__ import annotations

from pathlib import Path


def coco_paths(root: Path, split: str) -> tuple[Path, Path]:
    """Annotation file and image folder of a split in COCO's layout.

    Pictures lie in ``root/images/{split}``, or in ``root/{split}`` as COCO's archives unpack.
    """
    images = root / "images" / split
    if not images.is_dir() and (root / split).is_dir():
        images = root / split
    return root / "annotations" / f"person_keypoints_{split}.json", images
