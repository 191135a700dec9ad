"""MPII Human Pose (Andriluka et al. 2014): its two annotation formats, turned into COCO's.

Coordinates in MPII start at 1; here pixel centers are at whole numbers from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat

from ..errors import UserError
from ..skeleton import MPII

Person = dict[str, Any]
_FILL = 0.53
"""Share of a person's box that is person, as CrowdPose takes it; MPII has no areas."""


def from_list(people: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON that most code uses: one entry a person with ``image``, ``joints`` (16 of x, y),
    ``joints_vis``, ``center`` and ``scale``.

    Raises:
        UserError: an entry lacks one of them.
    """
    images: dict[str, int] = {}
    records = []
    for number, person in enumerate(people, 1):
        missing = {"image", "joints", "joints_vis", "center", "scale"} - person.keys()
        if missing:
            raise UserError(f"MPII person {number} lacks {sorted(missing)}")
        image = images.setdefault(str(person["image"]), len(images) + 1)
        seen = np.array(person["joints_vis"], float).reshape(-1) > 0
        xy = np.array(person["joints"], float).reshape(-1, 2) - 1
        center = np.array(person["center"], float) - 1
        records.append(_record(number, image, xy, seen, center, float(person["scale"])))
        if "head_size" in person:
            records[-1]["head_size"] = float(person["head_size"])
    return _coco(images, records)


def from_mat(path: Path, split: str = "train") -> dict[str, Any]:
    """The official ``mpii_human_pose_v1_u12_1.mat``.

    Args:
        split: ``train`` takes images whose people are annotated, ``test`` the others.

    Raises:
        UserError: the file is not MPII's.
    """
    try:
        release = loadmat(path, struct_as_record=False, squeeze_me=True)["RELEASE"]
        entries = np.atleast_1d(release.annolist)
        training = np.atleast_1d(release.img_train).astype(bool)
    except Exception as error:  # arbitrary bytes make the reader raise nearly anything
        raise UserError(f"'{path}' is not MPII's annotation file: {error}") from error
    images: dict[str, int] = {}
    records: list[Person] = []
    for entry, trained in zip(entries, training, strict=True):
        if trained != (split == "train"):
            continue
        image = images.setdefault(str(entry.image.name), len(images) + 1)
        for person in np.atleast_1d(getattr(entry, "annorect", [])):
            if (record := _from_rectangle(person, len(records) + 1, image)) is not None:
                records.append(record)
    return _coco(images, records)


def _from_rectangle(person: Any, number: int, image: int) -> Person | None:
    """A person of the .mat file; None for one without place and size."""
    place: Any = getattr(person, "objpos", None)
    scale: Any = getattr(person, "scale", [])
    if not hasattr(place, "x") or not np.size(scale):
        return None
    xy, seen = np.zeros((16, 2)), np.zeros(16, bool)
    points = getattr(getattr(person, "annopoints", None), "point", [])
    for point in np.atleast_1d(points):
        joint = int(point.id)
        xy[joint], seen[joint] = (float(point.x) - 1, float(point.y) - 1), True
    center = np.array([float(place.x), float(place.y)]) - 1
    record = _record(number, image, xy, seen, center, float(scale))
    if np.size(getattr(person, "x1", [])):
        corners = np.array([person.x1, person.y1, person.x2, person.y2], float)
        record["head_size"] = 0.6 * float(np.hypot(*(corners[2:] - corners[:2])))
    return record


def _record(
    number: int,
    image: int,
    xy: npt.NDArray[np.float64],
    seen: npt.NDArray[np.bool_],
    center: npt.NDArray[np.float64],
    scale: float,
) -> Person:
    """COCO's record of a person; ``center`` and ``scale`` (of 200 px) stay for top-down use."""
    keypoints = np.concatenate([np.where(seen[:, None], xy, 0), 2.0 * seen[:, None]], axis=1)
    low, high = (xy[seen].min(0), xy[seen].max(0)) if seen.any() else (center, center)
    box = [*low.tolist(), *(high - low).tolist()]
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": int(seen.sum()),
        "bbox": box,
        "area": _FILL * box[2] * box[3],
        "center": center.tolist(),
        "scale": scale,
    }


def _coco(images: Mapping[str, int], records: Sequence[Person]) -> dict[str, Any]:
    category = {"id": 1, "name": "person", "keypoints": list(MPII.joints)}
    return {
        "images": [{"id": number, "file_name": name} for name, number in images.items()],
        "annotations": list(records),
        "categories": [category],
    }
