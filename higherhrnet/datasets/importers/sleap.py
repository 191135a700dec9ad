"""SLEAP files, DeepLabCut projects and AlphaTracker JSON, read by sleap-io."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import UserError
from ...io import yaml
from .labels import IMAGE_SUFFIXES, Frame, Labels, Record, flatten_points

_MISSING = (
    "reading SLEAP, DeepLabCut and AlphaTracker labels needs sleap-io: "
    'pip install "higherhrnet[formats]"'
)


def is_deeplabcut(file: Path) -> bool:
    """Whether a YAML file is the configuration of a DeepLabCut project."""
    if file.name != "config.yaml":
        return False
    try:
        loaded = yaml.parse(file.read_bytes())
    except UserError:
        return False
    return isinstance(loaded, dict) and {"Task", "scorer"} <= loaded.keys()


def is_alphatracker(loaded: object) -> bool:
    """Whether a JSON file's content is a list of AlphaTracker's frames."""
    return bool(
        isinstance(loaded, list)
        and loaded
        and all(isinstance(f, dict) and {"filename", "annotations"} <= f.keys() for f in loaded)
    )


def read_slp(file: Path) -> Labels:
    """Labels of a SLEAP project or package; predictions are left out.

    Raises:
        UserError: it cannot be read, or nothing in it was labeled by a person.
    """
    loaded = _load("load_slp", file)
    labels = _convert(loaded, file)
    predicted = sum(len(frame.predicted_instances) for frame in loaded)
    if predicted:
        labels.notes.append(f"{predicted} predicted instances are left out: nobody labeled them")
    return labels


def read_alphatracker(file: Path) -> Labels:
    """Labels of an AlphaTracker file; its keypoints have numbers for names."""
    return _convert(_load("load_alphatracker", file), file)


def read_deeplabcut(config: Path) -> Labels:
    """Labels of a DeepLabCut project: those of its scorer; of others where they labeled the same.

    Raises:
        UserError: an image that is labeled is missing, or there are no CSV files.
    """
    config = config.absolute()  # the project's own paths are
    _check_deeplabcut(config)
    labels = _convert(_load("load_dlc_project", config), config)
    scorer = yaml.parse(config.read_bytes()).get("scorer")
    seconds: dict[str, list[list[Record]]] = {}
    for file in sorted((config.parent / "labeled-data").glob("*/CollectedData_*.csv")):
        own = file.parent / f"CollectedData_{scorer}.csv"
        if file != own and own.is_file():
            other = _convert(_load("load_dlc", file), file)
            for name, people in _by_file(other, labels.joints):
                seconds.setdefault(name, []).append(people)
    frames = [
        frame if str(frame.pixels) not in seconds
        else Frame(frame.name, frame.pixels, frame.people, frame.group,
                   others=seconds[str(frame.pixels)])
        for frame in labels.frames
    ]  # fmt: skip
    name = str(yaml.parse(config.read_bytes()).get("Task") or labels.name)
    return Labels(name, labels.joints, frames, labels.bones, labels.flip_pairs, None, labels.notes)


def _by_file(labels: Labels, joints: tuple[str, ...]) -> Iterator[tuple[str, list[Record]]]:
    """Image file and people with their keypoints in the order of ``joints``."""
    rows = [labels.joints.index(joint) if joint in labels.joints else -1 for joint in joints]
    nothing = np.zeros(3)
    for frame in labels.frames:
        people = []
        for record in frame.people:
            points = np.reshape(record["keypoints"], (-1, 3))
            ordered = [points[row] if row >= 0 else nothing for row in rows]
            people.append({"keypoints": np.concatenate(ordered).tolist()})
        yield str(frame.pixels), people


def _check_deeplabcut(config: Path) -> None:
    """That every labeled image is there: sleap-io would give labels to other images else."""
    folder = config.parent / "labeled-data"
    files = sorted(folder.glob("*/CollectedData_*.csv"))
    if not files:
        raise UserError(
            f"'{folder}' has no CollectedData_*.csv; DeepLabCut writes it beside the .h5 "
            "(deeplabcut.convertcsv2h5 and its inverse keep both)"
        )
    missing = []
    for file in files:
        with file.open(newline="") as opened:
            for row in csv.reader(opened):
                cells = [cell for cell in row[:3] if cell]
                if not cells or not cells[0].startswith("labeled-data"):
                    continue
                name = (
                    row[2] if cells[0] == "labeled-data" else Path(cells[0].replace("\\", "/")).name
                )
                path = str(file.parent / name)
                if not Path(path).is_file() and path not in missing:
                    missing.append(path)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"'{missing[0]}'{more} is labeled, but does not exist")


def _load(function: str, file: Path) -> Any:
    try:
        import sleap_io
    except ImportError as error:
        raise UserError(_MISSING) from error
    try:
        return getattr(sleap_io, function)(str(file))
    except Exception as error:  # files of other programs make it raise nearly anything
        raise UserError(f"'{file}' cannot be read: {error}") from error


def _convert(loaded: Any, file: Path) -> Labels:
    skeleton = loaded.skeleton if loaded.skeletons else None
    if skeleton is None or not skeleton.nodes:
        raise UserError(f"'{file}' has no keypoints")
    joints = tuple(str(name) for name in skeleton.node_names)
    bones = tuple((edge.source.name, edge.destination.name) for edge in skeleton.edges)
    symmetric = [sorted(node.name for node in pair.nodes) for pair in skeleton.symmetries]
    frames = [
        frame for labeled in loaded if (frame := _convert_frame(labeled, joints, file)) is not None
    ]
    if not frames:
        raise UserError(f"'{file}' has no frame that a person labeled")
    return Labels(
        str(skeleton.name or file.stem), joints, frames, bones,
        tuple(_sides_in_order(a, b) for a, b in symmetric) or None,
    )  # fmt: skip


def _sides_in_order(a: str, b: str) -> tuple[str, str]:
    """Left first, where the names tell."""
    return (b, a) if "right" in a.lower() or "left" in b.lower() else (a, b)


def _convert_frame(labeled: Any, joints: tuple[str, ...], file: Path) -> Frame | None:
    people = []
    for instance in labeled.user_instances:
        points = {}
        for point in instance.points:
            x, y = (float(value) for value in point["xy"])
            if not np.isnan(x + y):
                points[str(point["name"])] = x, y, 2 if point["visible"] else 1
        if points:
            people.append({"keypoints": flatten_points(points, joints)})
    if not people:
        return None
    video, number = labeled.video, int(labeled.frame_idx)
    names = video.filename
    if isinstance(names, list | tuple):
        path = _resolve(Path(names[number]), file)
        return Frame(f"{path.parent.name}/{path.name}", path, people, path.parent.name)
    source = video.source_video.filename if video.source_video is not None else names
    stem = Path(str(source if not isinstance(source, list) else source[0])).stem
    read: Callable[[], npt.NDArray[np.uint8]] = partial(_read_frame, video, number, file)
    if Path(str(names)).suffix.lower() in IMAGE_SUFFIXES:
        return Frame(f"{stem}{Path(names).suffix}", _resolve(Path(names), file), people)
    return Frame(f"{stem}/frame_{number:06d}.png", read, people, stem)


def _resolve(path: Path, file: Path) -> Path:
    """A path that a project names: as it is if it is absolute, else beside the project."""
    places = (path,) if path.is_absolute() else (file.parent / path,)
    return next((p for p in places if p.is_file()), file.parent / path.name)


def _read_frame(video: Any, number: int, file: Path) -> npt.NDArray[np.uint8]:
    """(H, W, 3) RGB of a video or of what a package embeds."""
    try:
        image = np.asarray(video[number])
    except Exception as error:  # as its readers raise nearly anything
        raise UserError(
            f"'{file}': frame {number} of '{video.filename}' cannot be read: {error}"
        ) from error
    if image.ndim == 2 or image.shape[2] == 1:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image[:, :, :3], np.uint8)
