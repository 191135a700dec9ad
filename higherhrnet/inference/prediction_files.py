"""What was found, in files: ``predictions.json``, ``results.json`` and ``predictions.csv``.

``predictions.json`` is what pycocotools' ``COCO()`` reads as ground truth, and what training reads:
people with boxes, areas and visibilities; 1 is a joint that refine filled in, 2 one that was found.
``results.json`` is the list that ``COCO.loadRes`` reads: keypoints with scores.

Records go to parts on the disk as they come, so that an hour of video needs no memory, and become
the files at the end. Several processes write parts of their own into the same folder. What a killed
process left of them is read by :func:`read_done`.
"""

from __future__ import annotations

import csv
import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..errors import UserError, WriteError
from ..io.atomic import atomic_write
from ..poses import ABSENT, Poses
from ..skeleton import Skeleton

_TEXT: Any = {"encoding": "utf-8", "errors": "backslashreplace"}  # any file name can be written
NAMES = ("predictions.json", "results.json", "predictions.csv")
_PARTS = ("images", "annotations", "results", "csv")
_RESTORED = "restored"
_OTHERS = "it was predicted by another network or with other settings"
RESTORED_PARTS = f".predictions.{_RESTORED}."
_COLUMNS = (
    "image", "file", "frame", "seconds", "person", "track", "person_score", "joint", "x", "y",
    "score", "refined",
)  # fmt: skip


class PredictionWriter:
    """A context that collects people; :meth:`finish` writes the files.

    Args:
        folder: where the files go.
        skeleton: names the joints.
        process: number of this process; process 0 finishes.
        processes: how many there are.
        about: what decides the predictions, for ``info``.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        skeleton: Skeleton,
        process: int = 0,
        processes: int = 1,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.people = self.images = 0
        self._skeleton = skeleton
        self._process, self._processes = process, processes
        self._about = json.dumps(dict(about or {}), sort_keys=True)
        self._open = ExitStack()
        self._files: dict[str, TextIO] = {}

    def __enter__(self) -> PredictionWriter:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for part in _PARTS:
                file = self._part(part, self._process).open(
                    "w", newline="", encoding="utf-8", errors="backslashreplace"
                )
                self._files[part] = self._open.enter_context(file)
        except OSError as error:
            raise self._sentence(error) from error
        return self

    def add(
        self,
        number: int,
        name: str,
        shape: tuple[int, int],
        poses: Poses,
        seconds: float | None = None,
        frame: int | None = None,
    ) -> None:
        """People of an image.

        Args:
            number: id of the image, unlike all others.
            name: its file, or the video's.
            shape: (H, W).
            poses: who was found.
            seconds: of a video's frame: its time.
            frame: likewise its number, from 0.
        """
        image: dict[str, Any] = {
            "id": number, "file_name": name, "width": shape[1], "height": shape[0],
        }  # fmt: skip
        if frame is not None:
            image["frame"] = frame
        if seconds is not None:
            image["seconds"] = round(seconds, 4)
        try:
            for person, record in enumerate(poses.to_coco(number)):
                self._files["results"].write(json.dumps(record, allow_nan=False) + "\n")
                line = json.dumps(record | self._describe(poses, person), allow_nan=False)
                self._files["annotations"].write(line + "\n")
            table = csv.DictWriter(self._files["csv"], _COLUMNS)
            for row in poses.to_rows(self._skeleton):
                table.writerow({
                    "image": number, "file": name,
                    "frame": "" if frame is None else frame,
                    "seconds": "" if seconds is None else f"{seconds:.4f}", **row,
                    **{k: f"{row[k]:.4f}" for k in ("x", "y", "score", "person_score")},
                })  # fmt: skip
            # The image comes last: where it is, its people are whole, whenever we are killed.
            for part in _PARTS[1:]:
                self._files[part].flush()
            self._files["images"].write(json.dumps(image) + "\n")
            self._files["images"].flush()
        except OSError as error:
            raise self._sentence(error) from error
        self.people += len(poses)
        self.images += 1

    def _describe(self, poses: Poses, person: int) -> dict[str, Any]:
        """What an annotation has and a result has not, and the joints' scores."""
        box, visibility = poses.boxes[person], poses.visibility[person]
        keypoints = np.concatenate([poses.xy[person], visibility[:, None]], axis=1)
        described: dict[str, Any] = {
            "keypoints": [int(v) if n % 3 == 2 else v for n, v in enumerate(keypoints.ravel())],
            "keypoint_scores": [round(float(value), 4) for value in poses.score[person]],
            "num_keypoints": int((visibility > ABSENT).sum()),
            "bbox": [round(float(value), 2) for value in box],
            "area": round(float(poses.areas[person]), 2),
            "iscrowd": 0,
            "refined": [self._skeleton.joints[j] for j in np.flatnonzero(poses.refined[person])],
        }
        if poses.track[person] >= 0:
            described["track_id"] = int(poses.track[person])
        return described

    def flush(self) -> None:
        """Bring everything to the disk, where process 0 finds it."""
        try:
            self._open.close()
        except OSError as error:
            raise self._sentence(error) from error

    def finish(self) -> None:
        """Write the files, each whole or not at all, from the flushed parts of all processes, in
        the order of the images' numbers."""
        with (
            atomic_write(self.folder / "predictions.json") as partial,
            partial.open("w", **_TEXT) as file,
        ):
            file.write(f'{{"info": {{"settings": {self._about}}},\n')
            count = 0
            for key in ("images", "annotations"):
                file.write('"images": [' if key == "images" else '], "annotations": [')
                separator = "\n"
                for line in self._lines(key):
                    numbered = line
                    if key == "annotations":
                        count += 1
                        numbered = f'{{"id": {count}, {line[1:]}'
                    file.write(separator + numbered.rstrip("\n"))
                    separator = ",\n"
            category = {
                "id": 1,
                "name": "person" if any(self._skeleton.upper) else self._skeleton.name,
                "keypoints": list(self._skeleton.joints),
                "skeleton": [[a + 1, b + 1] for a, b in self._skeleton.limbs],
            }
            file.write(f'], "categories": [{json.dumps(category)}]}}\n')
        with (
            atomic_write(self.folder / "results.json") as partial,
            partial.open("w", **_TEXT) as file,
        ):
            separator = "[\n"
            for line in self._lines("results"):
                file.write(separator + line.rstrip("\n"))
                separator = ",\n"
            file.write("\n]\n" if separator == ",\n" else "[]\n")
        with (
            atomic_write(self.folder / "predictions.csv") as partial,
            partial.open("w", **_TEXT) as file,
        ):
            file.write(",".join(_COLUMNS) + "\n")
            with ExitStack() as stack:
                tables = [csv.reader(part) for part in self._parts(stack, "csv")]
                rows = heapq.merge(*tables, key=lambda row: int(row[0]))
                csv.writer(file, lineterminator="\n").writerows(rows)

    def _lines(self, key: str) -> Iterator[str]:
        number = "id" if key == "images" else "image_id"
        with ExitStack() as stack:
            parts = self._parts(stack, key)
            if len(parts) == 1:
                yield from parts[0]
            else:
                yield from heapq.merge(*parts, key=lambda line: json.loads(line)[number])

    def _parts(self, stack: ExitStack, key: str) -> list[TextIO]:
        """The processes' parts, each in the order of the images' numbers, and what was restored."""
        parts = [self._part(key, process) for process in [*range(self._processes), _RESTORED]]
        return [
            stack.enter_context(part.open(newline="", **_TEXT))
            for number, part in enumerate(parts)
            if number < self._processes or part.is_file()
        ]

    def _part(self, key: str, process: int | str) -> Path:
        return _part(self.folder, key, process)

    def _sentence(self, error: OSError) -> WriteError:
        reason = error.strerror or str(error)
        return WriteError(f"could not write predictions to '{self.folder}': {reason}")

    def __exit__(self, *_: object) -> None:
        try:
            self._open.close()
        finally:
            # Process 0 may still be reading what the others flushed: it removes all parts.
            for process in range(self._processes if self._process == 0 else 0):
                for key in _PARTS:
                    self._part(key, process).unlink(missing_ok=True)
            if self._process == 0:
                for key in _PARTS:
                    self._part(key, _RESTORED).unlink(missing_ok=True)
                _about_part(self.folder).unlink(missing_ok=True)


def _part(folder: Path, key: str, process: int | str) -> Path:
    return folder / f".predictions.{process}.{key}.partial"


def _about_part(folder: Path) -> Path:
    """What decides the predictions of all parts; it stays as long as what was restored."""
    return _part(folder, "about", _RESTORED)


def note_settings(folder: Path, about: Mapping[str, Any]) -> None:
    """Keep what decides the predictions of a run, before it writes any, for :func:`read_done`.

    Raises:
        WriteError: the disk is full, or the like.
    """
    with atomic_write(_about_part(folder)) as partial:
        partial.write_text(json.dumps(dict(about), sort_keys=True), **_TEXT)


@dataclass
class DoneImage:
    """What is known of an image that was predicted before.

    Attributes:
        image: its entry in ``predictions.json``.
        annotations, results: its people in both files.
        rows: its rows in the table.
    """

    image: dict[str, Any]
    annotations: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


def read_done(
    folder: Path, joints: Sequence[str], about: Mapping[str, Any] | None = None
) -> dict[str, DoneImage]:
    """Images, by file name, whose people are in a folder: in its files, or in what a killed process
    left of them. Frames of videos are left out: a video is predicted whole or not at all.

    Args:
        joints: of the people that are to come.
        about: what decides the predictions that are to come; None takes all.

    Raises:
        UserError: the folder's files are of another program or damaged, have other joints, or were
            predicted by another network or with other settings.
    """
    done: dict[str, DoneImage] = {}
    wanted = None if about is None else json.loads(json.dumps(dict(about)))
    if all((folder / name).is_file() for name in NAMES):
        try:
            content = json.loads((folder / NAMES[0]).read_bytes())
            found = content["categories"][0].get("keypoints", [])
            if found != list(joints):
                raise ValueError(f"its people have {len(found)} other joints")
            if wanted is not None and (content.get("info") or {}).get("settings") != wanted:
                raise ValueError(_OTHERS)
            results = json.loads((folder / NAMES[1]).read_bytes())
            with (folder / NAMES[2]).open(newline="", **_TEXT) as file:
                rows = list(csv.reader(file))[1:]
            done |= _by_name(content["images"], content["annotations"], results, rows)
            for name, one in done.items():
                if len(one.rows) != sum(person["num_keypoints"] for person in one.annotations):
                    raise ValueError(f"{NAMES[2]} and {NAMES[0]} have other people in '{name}'")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, csv.Error) as error:
            raise UserError(
                f"what is in '{folder}' cannot be gone on with: {error}; choose another --output"
            ) from error
    parts = sorted(folder.glob(_part(Path(), "images", "*").name))
    if parts and wanted is not None:
        left = None
        with suppress(OSError, ValueError):
            left = json.loads(_about_part(folder).read_text(**_TEXT))
        if left != wanted:
            raise UserError(
                f"what a killed run left in '{folder}' cannot be gone on with: {_OTHERS}; choose "
                "another --output"
            )
    for part in parts:
        process = part.name.split(".")[2]
        images, people, results = (_whole_lines(_part(folder, key, process)) for key in _PARTS[:3])
        if any(len(person.get("keypoints", ())) != 3 * len(joints) for person in people):
            raise UserError(
                f"what a killed run left in '{folder}' has other joints; choose another --output"
            )
        with (
            suppress(OSError, ValueError, csv.Error),
            _part(folder, "csv", process).open(newline="", **_TEXT) as file,
        ):
            done |= _by_name(images, people, results, list(csv.reader(file)))
    return done


def _whole_lines(part: Path) -> list[dict[str, Any]]:
    """Records of a part without a last one that was not written to its end."""
    records = []
    with suppress(OSError):
        for line in part.read_text(**_TEXT).splitlines():
            with suppress(ValueError):
                records.append(json.loads(line))
    return records


def _by_name(
    images: Sequence[dict[str, Any]],
    annotations: Sequence[dict[str, Any]],
    results: Sequence[dict[str, Any]],
    rows: Sequence[list[str]],
) -> dict[str, DoneImage]:
    found = {image["id"]: DoneImage(image) for image in images if "frame" not in image}
    for record in annotations:
        if record["image_id"] in found:
            found[record["image_id"]].annotations.append(record)
    for record in results:
        if record["image_id"] in found:
            found[record["image_id"]].results.append(record)
    for row in rows:
        if len(row) == len(_COLUMNS) and int(row[0]) in found:
            found[int(row[0])].rows.append(row)
    return {one.image["file_name"]: one for one in found.values()}


def restore(folder: Path, done: Mapping[int, DoneImage]) -> None:
    """Write what was predicted before as a part of a new run, under the images' new numbers.

    Raises:
        OSError: the disk is full.
    """
    lines: dict[str, list[str]] = {key: [] for key in _PARTS}
    for number, one in sorted(done.items()):
        lines["images"].append(json.dumps({**one.image, "id": number}) + "\n")
        for key, records in (("annotations", one.annotations), ("results", one.results)):
            for record in records:
                own = {k: v for k, v in record.items() if k != "id"}
                lines[key].append(json.dumps({**own, "image_id": number}) + "\n")
        text = StringIO()
        csv.writer(text).writerows([str(number), *row[1:]] for row in one.rows)
        lines["csv"].append(text.getvalue())
    for key in reversed(_PARTS):  # the images last: where they are, their people are whole
        part = _part(folder, key, _RESTORED)
        with atomic_write(part) as partial:
            partial.write_text("".join(lines[key]), newline="", **_TEXT)
