"""Public data sets into the folders where :mod:`paths` looks: fetched, checked, unpacked."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import UserError, WriteError
from ..io.atomic import write_json
from ..io.download import download, verify
from ..io.store import DAMAGED, Store
from ..joint_names import match_names, reorder_keypoints


@dataclass(frozen=True)
class Archive:
    """A file of a data set.

    Attributes:
        name: as it lies in the folder.
        holds: a file or folder that is there once it is unpacked.
        into: where it is unpacked, below the folder.
        url: where it can be fetched; empty if only by hand.
        md5: of the whole file, where it is known.
    """

    name: str
    holds: str
    into: str = "."
    url: str = ""
    md5: str = ""


@dataclass(frozen=True)
class Recipe:
    """How a data set comes into its folder.

    Attributes:
        archives: its files.
        by_hand: what to do where a file cannot be fetched.
        images: annotation file → how many images it lists.
        folders: annotation file → where these are.
        finish: called with the folder at the end.
    """

    archives: tuple[Archive, ...]
    by_hand: str
    images: dict[str, int]
    folders: dict[str, str] = field(default_factory=dict)
    finish: Callable[[Path], None] = lambda folder: None


def prepare(name: str, folder: Path, fetch: bool = True) -> list[str]:
    """Bring a public set into ``folder``; what is there already is not done again.

    Args:
        name: one of ``RECIPES``.
        folder: the data set's folder.
        fetch: download what is missing; otherwise say what to download.

    Returns:
        what was found, one sentence each.

    Raises:
        UserError: something must be downloaded by hand, or does not match its checksum or count.
        OSError: the network or the disk failed; a download goes on where it stopped next time.
    """
    if name not in RECIPES:
        raise UserError(f"no recipe for '{name}'; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    for archive in recipe.archives:
        done = folder / f".{archive.name}.unpacked"
        if done.exists() or _unpacked_by_hand(folder, archive):
            continue
        file = folder / archive.name
        if not file.is_file():
            if not archive.url or not fetch:
                where = f" from {archive.url}" if archive.url else f". {recipe.by_hand}"
                raise UserError(f"'{file}' is missing; download it by hand{where}")
            download(archive.url, file, partial(verify, checksum=archive.md5))
        else:
            verify(file, archive.md5)
        # Until this is gone, what lies there may be a part: an archive that is damaged in the
        # middle, or a killed process.
        begun = _begun(folder, archive)
        begun.touch()
        unpack(file, folder / archive.into)
        begun.unlink()
        if not (folder / archive.holds).exists():
            raise UserError(f"'{file}' was unpacked, but holds no '{archive.holds}'")
        done.touch()
    recipe.finish(folder)
    return [
        _check_count(folder, file, count, recipe.folders.get(file))
        for file, count in recipe.images.items()
    ]


def _begun(folder: Path, archive: Archive) -> Path:
    return folder / f".{archive.name}.unpacking"


def _unpacked_by_hand(folder: Path, archive: Archive) -> bool:
    """Whether the user has unpacked it on their own: it is there, and the archive is not."""
    begun = _begun(folder, archive).exists()
    return (folder / archive.holds).exists() and not (folder / archive.name).exists() and not begun


def unpack(file: Path, folder: Path) -> None:
    """Unpack a .zip or .tar.gz; anything else is taken as it is.

    Raises:
        UserError: the archive is damaged.
    """
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                archive.extractall(folder)
        elif tarfile.is_tarfile(file):
            with tarfile.open(file) as tar:
                tar.extractall(folder, filter="data")
        elif file.suffix in {".zip", ".gz", ".tar"}:
            raise UserError(
                f"'{file}' is not a readable archive; delete it, fetch it again and try again"
            )
    except WriteError:
        raise
    except (tarfile.TarError, *DAMAGED) as error:
        if isinstance(error, OSError) and error.errno:  # the disk, not the archive
            raise
        raise UserError(
            f"'{file}' is damaged: {error}; delete it, fetch it again and try again"
        ) from error


def _check_count(folder: Path, file: str, expected: int, images: str | None) -> str:
    path = folder / file
    if not path.is_file():
        raise UserError(f"'{path}' is missing")
    names = [str(image.get("file_name")) for image in json.loads(path.read_bytes())["images"]]
    if len(names) != expected:
        raise UserError(f"'{path}' lists {len(names)} images, not {expected}: another version")
    if images is not None and (missing := Store(folder / images).missing(names)):
        raise UserError(
            f"'{folder / images}' lacks {len(missing)} of the {expected} images of '{path}', "
            f"'{missing[0]}' among them; unpack their archive again"
        )
    return f"{file}: {len(names)} images"


def join(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two annotation files of different images as one, with fresh annotation ids; the second's
    keypoints are brought into the first's order by name.

    Raises:
        UserError: they share an image, or name other joints.
    """
    rows = _match_joints(first, second)
    others = second["annotations"]
    if rows is not None:
        others = [
            {**a, "keypoints": reorder_keypoints(a["keypoints"], rows)} if a.get("keypoints") else a
            for a in others
        ]
    both = {image["id"] for image in first["images"]} & {image["id"] for image in second["images"]}
    if both:
        raise UserError(f"both files list image {sorted(both)[0]}; they cannot be joined")
    people = [*first["annotations"], *others]
    return {
        **first,
        "images": [*first["images"], *second["images"]],
        "annotations": [{**record, "id": number} for number, record in enumerate(people, 1)],
    }


def _match_joints(first: dict[str, Any], second: dict[str, Any]) -> list[int] | None:
    """Rows of the second file's joints in the first one's order; None if they are the same."""
    names: list[list[str]] = [
        next((c["keypoints"] for c in part.get("categories") or () if c.get("keypoints")), [])
        for part in (first, second)
    ]
    if not all(names) or names[0] == names[1]:
        return None
    rows = match_names(names[1], names[0])
    if rows is None:
        raise UserError(
            f"the files name other joints and cannot be joined: {', '.join(names[0])}; "
            f"{', '.join(names[1])}"
        )
    return rows


def _join_crowdpose(folder: Path) -> None:
    joined = folder / "json" / "crowdpose_trainval.json"
    if joined.is_file():
        return
    parts = [folder / "json" / f"crowdpose_{split}.json" for split in ("train", "val")]
    for part in parts:
        if not part.is_file():
            raise UserError(f"'{part}' is missing. {RECIPES['crowdpose'].by_hand}")
    write_json(joined, join(*(json.loads(part.read_bytes()) for part in parts)))


_COCO = "http://images.cocodataset.org"
RECIPES: dict[str, Recipe] = {
    "coco": Recipe(
        archives=(
            Archive(
                "annotations_trainval2017.zip",
                "annotations/person_keypoints_val2017.json",
                url=f"{_COCO}/annotations/annotations_trainval2017.zip",
                md5="f4bbac642086de4f52a3fdda2de5fa2c",
            ),
            Archive(
                "val2017.zip", "val2017",
                url=f"{_COCO}/zips/val2017.zip", md5="442b8da7639aecaf257c1dceb8ba8c80",
            ),
            Archive(
                "train2017.zip", "train2017",
                url=f"{_COCO}/zips/train2017.zip", md5="cced6f7f71b7629ddf16f17bbcfab6b2",
            ),
        ),
        by_hand="COCO's files are linked from https://cocodataset.org/#download",
        images={
            "annotations/person_keypoints_val2017.json": 5000,
            "annotations/person_keypoints_train2017.json": 118287,
        },
        folders={
            "annotations/person_keypoints_val2017.json": "val2017",
            "annotations/person_keypoints_train2017.json": "train2017",
        },
    ),
    "crowdpose": Recipe(
        archives=(Archive("images.zip", "images"),),
        by_hand=(
            "CrowdPose is handed out through Google Drive in a browser: follow "
            "https://github.com/Jeff-sjtu/CrowdPose, put images.zip into this folder and "
            "crowdpose_{train,val,test}.json into its folder json"
        ),
        images={
            "json/crowdpose_train.json": 10000,
            "json/crowdpose_val.json": 2000,
            "json/crowdpose_trainval.json": 12000,
            "json/crowdpose_test.json": 8000,
        },
        folders={"json/crowdpose_trainval.json": "images", "json/crowdpose_test.json": "images"},
        finish=_join_crowdpose,
    ),
    "mpii": Recipe(
        archives=(
            Archive(
                "mpii_human_pose_v1_u12_2.zip",
                "mpii_human_pose_v1_u12_2/mpii_human_pose_v1_u12_1.mat",
                url="https://datasets.d2.mpi-inf.mpg.de/andriluka14cvpr/mpii_human_pose_v1_u12_2.zip",
            ),
            Archive(
                "mpii_human_pose_v1.tar.gz",
                "images",
                url="https://datasets.d2.mpi-inf.mpg.de/andriluka14cvpr/mpii_human_pose_v1.tar.gz",
            ),
        ),
        by_hand="MPII's files are linked from http://human-pose.mpi-inf.mpg.de/#download",
        images={},
    ),
}  # fmt: skip
