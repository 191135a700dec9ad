"""Poses of very many images as Parquet: one file a unit, written whole or not at all.

A row is an image: ``image`` (its name), ``height``, ``width``, ``error`` (what is damaged in it),
and lists with one entry a person: ``person_score``, ``bbox`` (x, y, w, h), ``keypoints`` (3 K
numbers x, y, score) and ``visibility`` (K: 0 absent, 1 filled in, 2 found). The schema's metadata
has the skeleton and what predicted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from ..io.atomic import atomic_write
from ..poses import Poses
from ..skeleton import Skeleton
from .image_sources import stored_name

_ARCHIVE = "archive"
Row = dict[str, Any]


class Done(NamedTuple):
    """What a folder has already.

    Attributes:
        images: their names.
        archives: tar archives that were read to their end.
    """

    images: frozenset[str]
    archives: frozenset[str]


def require_pyarrow() -> Any:
    """The package, or a sentence on how to install it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError('Parquet files need pyarrow: pip install "higherhrnet[dataset]"') from error
    return pyarrow


def make_row(name: str, shape: tuple[int, int], poses: Poses) -> Row:
    """A row of an image that was predicted."""
    keypoints = [
        [float(v) for point, score in zip(xy, scores, strict=True) for v in (*point, score)]
        for xy, scores in zip(poses.xy, poses.score, strict=True)
    ]
    return {
        "image": stored_name(name),
        "height": shape[0],
        "width": shape[1],
        "error": None,
        "person_score": [float(score) for score in poses.person_score],
        "bbox": poses.boxes.tolist(),
        "keypoints": keypoints,
        "visibility": poses.visibility.tolist(),
    }


def make_error_row(name: str, error: UserError) -> Row:
    """A row of an image that could not be read."""
    nothing: dict[str, Any] = {"person_score": [], "bbox": [], "keypoints": [], "visibility": []}
    said = stored_name(str(error))
    return {"image": stored_name(name), "height": 0, "width": 0, "error": said, **nothing}


def write_unit(
    folder: Path, name: str, rows: Sequence[Row], about: Mapping[str, str], archive: str = ""
) -> Path:
    """Write the rows of a unit as ``NAME.parquet``.

    Args:
        folder, name: where.
        rows: of :func:`make_row`.
        about: metadata of the run.
        archive: that the unit is, if it is one.

    Raises:
        WriteError: the disk is full, or the like.
    """
    pyarrow = require_pyarrow()
    number, text = pyarrow.float32(), pyarrow.string()
    schema = pyarrow.schema(
        [
            ("image", text), ("height", pyarrow.int32()), ("width", pyarrow.int32()),
            ("error", text), ("person_score", pyarrow.list_(number)),
            ("bbox", pyarrow.list_(pyarrow.list_(number))),
            ("keypoints", pyarrow.list_(pyarrow.list_(number))),
            ("visibility", pyarrow.list_(pyarrow.list_(pyarrow.int8()))),
        ],
        metadata={**about, _ARCHIVE: archive},
    )  # fmt: skip
    file = folder / f"{name}.parquet"
    with atomic_write(file) as partial:
        table = pyarrow.Table.from_pylist(list(rows), schema=schema)
        pyarrow.parquet.write_table(table, partial, compression="zstd")
    return file


def describe(skeleton: Skeleton, settings: Mapping[str, Any]) -> dict[str, str]:
    """Metadata of the files of a run."""
    return {
        "skeleton": json.dumps(skeleton.to_dict()),
        "settings": json.dumps(dict(settings), sort_keys=True),
    }


def read_done(folder: Path, about: Mapping[str, str]) -> Done:
    """What the files of the folder have.

    Raises:
        UserError: a file was predicted by another network or with other settings, or is broken.
    """
    pyarrow = require_pyarrow()
    done: set[str] = set()
    archives: set[str] = set()
    for file in sorted(folder.glob("*.parquet")):
        try:
            opened = pyarrow.parquet.ParquetFile(file)
            metadata = {
                key.decode(): value.decode()
                for key, value in (opened.schema_arrow.metadata or {}).items()
            }
            names = opened.read(columns=["image"]).column("image").to_pylist()
        except (OSError, pyarrow.ArrowException, KeyError) as error:
            raise UserError(f"'{file}' is no file of predictions: {error}") from error
        if any(metadata.get(key) != value for key, value in about.items()):
            raise UserError(
                f"'{file}' was predicted by another network or with other settings; choose another "
                "--output"
            )
        done |= {str(name) for name in names}
        archives |= {metadata[_ARCHIVE]} if metadata.get(_ARCHIVE) else set()
    return Done(frozenset(done), frozenset(archives))


def read_poses(folder: str | Path) -> Iterator[tuple[str, Poses]]:
    """Image names and poses of a folder of Parquet files; damaged images are left out.

    Raises:
        UserError: there is no such folder, or a file is none of predictions.
    """
    pyarrow = require_pyarrow()
    files = sorted(Path(folder).glob("*.parquet"))
    if not files:
        raise UserError(f"folder '{folder}' does not exist, or holds no .parquet files")
    for file in files:
        try:
            opened = pyarrow.parquet.ParquetFile(file)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise UserError(f"'{file}' is no Parquet file, or damaged: {error}") from error
        metadata = opened.schema_arrow.metadata or {}
        if b"skeleton" not in metadata:
            raise UserError(f"'{file}' is no file of predictions")
        skeleton = Skeleton.from_dict(json.loads(metadata[b"skeleton"]))
        for batch in opened.iter_batches():
            for row in batch.to_pylist():
                if row["error"] is None:
                    yield row["image"], _to_poses(row, skeleton)


def _to_poses(row: Row, skeleton: Skeleton) -> Poses:
    records = [
        {
            "keypoints": [v if at % 3 != 2 else seen[at // 3] for at, v in enumerate(own)],
            "keypoint_scores": own[2::3],
            "score": score,
        }
        for own, seen, score in zip(
            row["keypoints"], row["visibility"], row["person_score"], strict=True
        )
    ]
    return replace(Poses.from_coco(records, skeleton), skeleton=skeleton)
