"""CVAT's XML: "CVAT for images 1.1" and "CVAT for video 1.1".

Skeletons; or points and boxes that share a ``group_id``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ...errors import UserError
from .labels import (
    Bones,
    Frame,
    ImageIndex,
    Labels,
    Record,
    VideoFrames,
    flatten_points,
    order_names,
)

_Points = dict[str, tuple[float, float, int]]
_TAG = re.compile(r"<\w+[^>]*>")
_ATTRIBUTE = re.compile(r'([\w-]+)="([^"]*)"')


def is_cvat(file: Path) -> bool:
    """Whether a file is CVAT's XML."""
    if file.suffix.lower() != ".xml":
        return False
    with file.open("rb") as opened:
        return b"<annotations" in opened.read(4096)


def read_cvat(file: Path, images: Path | None = None) -> Labels:
    """Labels of ``annotations.xml``; images and videos lie beside it, or in ``images``.

    Raises:
        UserError: it is no such XML, or has no points.
    """
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, LookupError) as error:  # LookupError: an unknown encoding
        raise UserError(f"'{file}' is not valid XML: {error}") from error
    if root.tag != "annotations":
        raise UserError(f"'{file}' is not CVAT's XML: it begins with <{root.tag}>")
    index = ImageIndex(images or file.parent, file.parent / "images")
    reader = _Reader(file)
    images_of = list(root.iter("image"))
    frames = [(image.get("name", ""), list(reader.shapes(image))) for image in images_of]
    tracks = root.findall("track")
    try:
        tracked = _by_frame(tracks, reader)
        named = [
            (name, people) for name, shapes in frames for people in [_to_people(shapes, name, file)]
        ]
        moving = {
            number: _to_people(shapes, f"frame {number}", file)
            for number, shapes in tracked.items()
        }
    except (TypeError, ValueError) as error:
        raise UserError(f"'{file}': a shape's numbers cannot be read: {error}") from error
    listed, bones = _read_skeleton(root)
    found = [
        joint for people in [*(p for _, p in named), *moving.values()]
        for points, _, _ in people for joint in points
    ]  # fmt: skip
    if not found:
        raise UserError(f"'{file}' has no skeletons and no points")
    joints = order_names([*listed, *found])

    def to_records(people: list[tuple[_Points, list[float] | None, str]]) -> list[Record]:
        return [
            {"keypoints": flatten_points(points, joints), "category": label}
            | ({"bbox": box} if box else {})
            for points, box, label in people
        ]

    sizes = [(int(image.get("height", 0)), int(image.get("width", 0))) for image in images_of]
    result = [
        Frame(name, index.find(name), to_records(people), size=size if all(size) else None)
        for (name, people), size in zip(named, sizes, strict=True)
    ]
    notes = []
    if moving:
        video = _find_video(root, file, images)
        source = VideoFrames(video)
        result += [
            Frame(
                f"{video.stem}/frame_{number:06d}.png",
                partial(source.read, number),
                to_records(people),
                video.stem,
            )
            for number, people in sorted(moving.items())
        ]
        notes.append(f"{len(moving)} key frames of '{video.name}'; interpolated ones are left out")
    labels = {
        label for people in [*(p for _, p in named), *moving.values()] for _, _, label in people
    }
    return Labels(
        sorted(labels)[0] if len(labels) == 1 else file.stem, joints, result, bones, notes=notes
    )


class _Reader:
    """Shapes of an element: (kind, label, group, points, box, is a key frame)."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def shapes(self, parent: Element) -> Iterator[tuple[str, int, _Points, list[float] | None]]:
        for shape in parent:
            if shape.get("outside") == "1":
                continue
            label = shape.get("label") or parent.get("label") or ""
            group = _group(shape, parent)
            if shape.tag == "skeleton":
                points = [
                    _read_point(p) for p in shape.findall("points") if p.get("outside") != "1"
                ]
                yield f"skeleton {label}", group, dict(points), None
            elif shape.tag == "points":
                yield "points", group, dict(_read_points(shape, label)), None
            elif shape.tag == "box":
                x0, y0, x1, y1 = (float(shape.get(key, "")) for key in ("xtl", "ytl", "xbr", "ybr"))
                yield f"box {label}", group, {}, [x0, y0, x1 - x0, y1 - y0]


def _group(shape: Element, parent: Element) -> int:
    return int(shape.get("group_id") or parent.get("group_id") or 0)


def _read_point(shape: Element) -> tuple[str, tuple[float, float, int]]:
    x, y = shape.get("points", "").split(",")
    return shape.get("label", ""), (float(x), float(y), 1 if shape.get("occluded") == "1" else 2)


def _read_points(shape: Element, label: str) -> Iterator[tuple[str, tuple[float, float, int]]]:
    """One point bears its shape's label; of several only the order tells them apart."""
    places = shape.get("points", "").split(";")
    visibility = 1 if shape.get("occluded") == "1" else 2
    for number, place in enumerate(places, 1):
        x, y = place.split(",")
        name = label if len(places) == 1 else str(number)
        yield name, (float(x), float(y), visibility)


def _to_people(
    shapes: list[tuple[str, int, _Points, list[float] | None]], where: str, file: Path
) -> list[tuple[_Points, list[float] | None, str]]:
    """Points, box and label of each person: one a skeleton, one a group of other shapes."""
    people: list[tuple[_Points, list[float] | None, str]] = []
    grouped: dict[int, list[tuple[str, _Points, list[float] | None]]] = defaultdict(list)
    for kind, group, points, box in shapes:
        what, _, label = kind.partition(" ")
        if what == "skeleton":
            people.append((points, None, label))
        elif what == "points" and len(points) > 1:
            people.append((points, None, "object"))
        else:
            grouped[group].append((label, points, box))
    for members in grouped.values():
        points, boxes = {}, [(label, box) for label, _, box in members if box]
        for _, own, _ in members:
            if points.keys() & own.keys():
                name = next(iter(points.keys() & own.keys()))
                raise UserError(
                    f"'{file}': '{where}' has the point '{name}' twice and no group_id that tells "
                    "whose they are: group the points of each animal in CVAT, or label skeletons"
                )
            points |= own
        if not points:  # boxes alone
            continue
        label, box = boxes[0] if len(boxes) == 1 else ("object", None)
        people.append((points, box, label))
    return people


def _by_frame(
    tracks: list[Element], reader: _Reader
) -> dict[int, list[tuple[str, int, _Points, list[float] | None]]]:
    """Shapes by frame, for the frames where an annotator set at least one."""
    found: dict[int, list[tuple[str, int, _Points, list[float] | None]]] = defaultdict(list)
    keys: set[int] = set()
    for track in tracks:
        for shape in track:
            number = int(shape.get("frame", "-1"))
            single = Element(track.tag, track.attrib)
            single.append(shape)
            found[number] += reader.shapes(single)
            marks = [shape.get("keyframe"), *(p.get("keyframe") for p in shape)]
            if "1" in marks:
                keys.add(number)
    return {number: shapes for number, shapes in found.items() if number in keys and shapes}


def _find_video(root: Element, file: Path, images: Path | None) -> Path:
    name = next((e.text for e in root.iter("source") if e.text), None)
    if not name:
        raise UserError(f"'{file}' has tracks, but does not say of which video (<source>)")
    folders = (images, file.parent, file.parent / "images")
    places = [folder / Path(name).name for folder in folders if folder]
    if images and images.is_file():
        places = [images]
    video = next((place for place in places if place.is_file()), None)
    if video is None:
        raise UserError(f"video '{places[0]}' does not exist; say where it is with --images")
    return video


def _read_skeleton(root: Element) -> tuple[list[str], Bones]:
    """Joints in their order and bones, from the labels' definition and its drawing."""
    joints: list[str] = []
    bones: list[tuple[str, str]] = []
    for label in root.iter("label"):
        if label.findtext("type") == "points" and label.findtext("parent"):
            joints.append(label.findtext("name", ""))
    for label in root.iter("label"):
        drawing = label.findtext("svg") or ""
        tags = [dict(_ATTRIBUTE.findall(tag)) for tag in _TAG.findall(drawing)]
        names = {t["data-node-id"]: t["data-label-name"] for t in tags if "data-label-name" in t}
        ordered = [names[n] for n in sorted(names, key=lambda n: (not n.isdecimal(), n.zfill(9)))]
        joints = [*ordered, *(joint for joint in joints if joint not in ordered)]
        for tag in tags:
            a, b = names.get(tag.get("data-node-from", "")), names.get(tag.get("data-node-to", ""))
            if a and b and a != b:
                bones.append((a, b))
    return joints, tuple(dict.fromkeys(bones))
