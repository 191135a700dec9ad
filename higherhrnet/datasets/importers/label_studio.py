"""Label Studio's JSON export: keypoints, with rectangles around individuals."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ...errors import UserError
from .labels import Frame, ImageIndex, Labels, Record, VideoFrames, flatten_points, order_names

_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
"""Label Studio puts eight digits before the names of uploaded files."""
_Points = dict[str, tuple[float, float, int]]
_Person = tuple[_Points, list[float] | None, str]


def is_label_studio(loaded: object) -> bool:
    """Whether a JSON file's content is a list of tasks."""
    return bool(
        isinstance(loaded, list)
        and loaded
        and all(isinstance(task, dict) for task in loaded)
        and all("annotations" in task or "completions" in task for task in loaded)
        and any("data" in task or "meta" in task for task in loaded)
        and not any("filename" in task for task in loaded)
    )


def read_label_studio(
    file: Path, tasks: Sequence[dict[str, Any]], images: Path | None = None
) -> Labels:
    """Labels of the tasks; images are found by name beside the file, or in ``images``.

    A task's annotation that is marked as ground truth is taken, else the first; others are second
    opinions. A keypoint belongs to the rectangle that is its parent or that a relation joins it to,
    else to the only one around it.

    Raises:
        UserError: an image cannot be told, or whose keypoint one is.
    """
    index = ImageIndex(images or file.parent, file.parent / "images")
    videos: dict[str, VideoFrames] = {}
    drafts: list[tuple[Any, tuple[int, int] | None, list[list[_Person]]]] = []
    found: list[str] = []
    notes: list[str] = []
    skipped = 0
    for number, task in enumerate(tasks):
        where = f"'{file}': task {task.get('id', number)}"
        entries = task.get("annotations", task.get("completions")) or []
        entries = [e for e in entries if isinstance(e, dict) and not e.get("was_cancelled")]
        entries.sort(key=lambda entry: not entry.get("ground_truth"))
        try:
            people = [_read_people(entry.get("result") or [], where) for entry in entries]
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{where} is not as Label Studio writes it: {error!r}") from error
        if not people:
            skipped += 1
            continue
        found += [name for one in people for points, _, _ in one for name in points]
        regions = [r for entry in entries for r in entry.get("result") or ()]
        image = _find_image(task, index, file, videos, where)
        drafts.append((image, _read_size(regions), people))
    if skipped:
        notes.append(f"{skipped} tasks without an annotation are left out")
    if not found:
        raise UserError(f"'{file}' has no keypoint labels")
    joints = order_names(sorted(set(found), key=found.index))

    def to_records(people: list[_Person]) -> list[Record]:
        return [
            {"keypoints": flatten_points(points, joints), "category": label}
            | ({"bbox": box} if box else {})
            for points, box, label in people
        ]

    frames = [
        Frame(name, pixels, to_records(people[0]), group,
              others=[to_records(other) for other in people[1:]], size=size)
        for (name, pixels, group), size, people in drafts
    ]  # fmt: skip
    labels = {label for _, _, people in drafts for one in people for _, _, label in one}
    return Labels(sorted(labels)[0] if len(labels) == 1 else file.stem, joints, frames, notes=notes)


def _find_image(
    task: dict[str, Any],
    index: ImageIndex,
    file: Path,
    videos: dict[str, VideoFrames],
    where: str,
) -> tuple[str, Path | Callable[[], Any], str]:
    """Name, pixels and video of a task's image."""
    video = (task.get("meta") or {}).get("video")
    if isinstance(video, dict) and "filename" in video:
        name, number = video["filename"], int(video.get("frame_idx", 0))
        if isinstance(name, list):  # a folder of frames
            path = index.find(str(name[number]))
            return f"{path.parent.name}/{path.name}", path, path.parent.name
        path = Path(name) if Path(name).is_absolute() else file.parent / name
        path = path if path.is_file() else file.parent / path.name
        frames = videos.setdefault(str(path), VideoFrames(path))
        return f"{path.stem}/frame_{number:06d}.png", partial(frames.read, number), path.stem
    data = task.get("data") or {}
    texts = [value for value in data.values() if isinstance(value, str) and "." in value]
    preferred = [data[key] for key in ("image", "img", "url") if isinstance(data.get(key), str)]
    if not preferred and len(texts) != 1:
        raise UserError(f"{where} does not say which image it is of (data.image)")
    address = urlsplit((preferred or texts)[0])
    name = unquote(parse_qs(address.query).get("d", [address.path])[0])
    path = index.find(name)
    uploaded = _UPLOADED.fullmatch(Path(name).name)
    if not path.is_file() and uploaded:
        path = index.find(uploaded[1])
    return path.name, path, ""


def _read_size(regions: Sequence[dict[str, Any]]) -> tuple[int, int] | None:
    """(H, W) of the image that was labeled."""
    for region in regions:
        if region.get("original_height") and region.get("original_width"):
            return int(region["original_height"]), int(region["original_width"])
    return None


def _read_people(result: Sequence[dict[str, Any]], where: str) -> list[_Person]:
    boxes = {
        region["id"]: _read_box(region)
        for region in result
        if region.get("type") in ("rectanglelabels", "rectangle")
    }
    partners: dict[str, set[str]] = defaultdict(set)
    for region in result:
        if region.get("type") == "relation":
            partners[region["from_id"]].add(region["to_id"])
            partners[region["to_id"]].add(region["from_id"])
    owned: dict[str | None, _Points] = defaultdict(dict)
    for region in result:
        if region.get("type") != "keypointlabels":
            continue
        point = _read_point(region)
        if point is None:
            continue
        name, x, y = point
        owner = _find_owner(region, x, y, boxes, partners, where)
        if name in owned[owner]:
            raise UserError(
                f"{where} has the keypoint '{name}' twice and nothing that tells whose they are: "
                "draw a rectangle around each individual, and make it the keypoints' parent"
            )
        owned[owner][name] = (x, y, 2)
    return [
        (points, None, "object") if owner is None else (points, *boxes[owner])
        for owner, points in owned.items()
    ]


def _find_owner(
    region: dict[str, Any],
    x: float,
    y: float,
    boxes: dict[str, tuple[list[float], str]],
    partners: dict[str, set[str]],
    where: str,
) -> str | None:
    """Id of a keypoint's rectangle; None where there are none."""
    if not boxes:
        return None
    if region.get("parentID") in boxes:
        return str(region["parentID"])
    related = [other for other in partners[region["id"]] if other in boxes]
    if len(related) == 1:
        return related[0]
    around = [
        key for key, ((left, top, w, h), _) in boxes.items()
        if left <= x <= left + w and top <= y <= top + h
    ]  # fmt: skip
    if len(around) == 1 or len(boxes) == 1:
        return (around or list(boxes))[0]
    name = region["value"]["keypointlabels"][0]
    raise UserError(
        f"{where}: keypoint '{name}' lies in {len(around)} rectangles, and nothing tells whose it "
        "is: make the individual's rectangle its parent"
    )


def _read_point(region: dict[str, Any]) -> tuple[str, float, float] | None:
    value = region["value"]
    names = value.get("keypointlabels") or []
    if len(names) != 1:
        raise ValueError(f"a keypoint with {len(names)} labels")
    x = float(value["x"]) * region["original_width"] / 100
    y = float(value["y"]) * region["original_height"] / 100
    return None if math.isnan(x + y) else (str(names[0]), x, y)


def _read_box(region: dict[str, Any]) -> tuple[list[float], str]:
    value, width, height = region["value"], region["original_width"], region["original_height"]
    box = [
        float(value["x"]) * width / 100, float(value["y"]) * height / 100,
        float(value["width"]) * width / 100, float(value["height"]) * height / 100,
    ]  # fmt: skip
    labels = value.get("rectanglelabels") or ["object"]
    return box, str(labels[0])
