"""Poses → what other tools take: tables, JSON, label files, pictures in notebooks."""

from __future__ import annotations

import json
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import drawing
from ..errors import UserError
from ..skeleton import Skeleton
from .poses import ABSENT, REFINED, Poses

Array = npt.NDArray[np.float64]
_LONGEST_TABLE = 20
"""People in a notebook's table."""


def to_dataframe(poses: Poses, skeleton: Skeleton | None = None) -> Any:
    """See :meth:`Poses.to_dataframe`."""
    pandas = _require("pandas", "pandas")
    columns = ("person", "track", "person_score", "joint", "x", "y", "score", "refined")
    return pandas.DataFrame(poses.to_rows(skeleton), columns=list(columns))


def to_json(poses: Poses, skeleton: Skeleton | None = None) -> str:
    """See :meth:`Poses.to_json`."""
    joints = poses.require_skeleton(skeleton).joints
    people = []
    for person, score in enumerate(poses.person_score):
        entry: dict[str, Any] = {
            "score": round(float(score), 4),
            "box": poses.boxes[person].round(2).tolist(),
            "keypoints": {
                joint: [
                    *poses.xy[person, k].round(3).tolist(),
                    round(float(poses.score[person, k]), 4),
                ]
                for k, joint in enumerate(joints)
                if poses.visibility[person, k] > ABSENT
            },
        }
        if poses.track[person] >= 0:
            entry["track"] = int(poses.track[person])
        people.append(entry)
    return json.dumps({"joints": list(joints), "people": people}, allow_nan=False)


def to_yolo(
    poses: Poses, shape: tuple[int, int], category: int = 0, boxes: Array | None = None
) -> str:
    """See :meth:`Poses.to_yolo`."""
    height, width = shape[:2]
    lines = []
    for person, (x, y, w, h) in enumerate(poses.boxes if boxes is None else boxes):
        numbers = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
        words = [str(category), *(f"{value:.6f}" for value in numbers)]
        for k, (px, py) in enumerate(poses.xy[person]):
            words += [f"{px / width:.6f}", f"{py / height:.6f}", str(poses.visibility[person, k])]
        lines.append(" ".join(words) + "\n")
    return "".join(lines)


def to_label_studio(
    poses: Poses,
    shape: tuple[int, int],
    image: str,
    skeleton: Skeleton | None = None,
    boxes: Array | None = None,
) -> dict[str, Any]:
    """See :meth:`Poses.to_label_studio`."""
    names = poses.require_skeleton(skeleton)
    label = "person" if any(names.upper) else names.name
    height, width = shape[:2]
    result: list[dict[str, Any]] = []

    def region(kind: str, name: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
        tools = {"rectanglelabels": "box", "keypointlabels": "keypoint"}
        return {
            "type": kind,
            "from_name": tools[kind],
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": value | {kind: [name]},
            **more,
        }

    for person, (x, y, w, h) in enumerate(poses.boxes if boxes is None else boxes):
        box = {"x": 100 * x / width, "y": 100 * y / height, "rotation": 0}
        box |= {"width": 100 * w / width, "height": 100 * h / height}
        result.append(region("rectanglelabels", label, box, id=f"p{person}",
                             score=round(float(poses.person_score[person]), 4)))  # fmt: skip
        for k in np.flatnonzero(poses.visibility[person] > ABSENT):
            px, py = poses.xy[person, k]
            point = {"x": 100 * px / width, "y": 100 * py / height, "width": 0.5}
            result.append(region("keypointlabels", names.joints[k], point, id=f"p{person}k{k}",
                                 parentID=f"p{person}",
                                 score=round(float(poses.score[person, k]), 4)))  # fmt: skip
    score = float(poses.person_score.mean()) if len(poses) else 0.0
    prediction = {"model_version": "higherhrnet", "score": round(score, 4), "result": result}
    return {"data": {"image": image}, "predictions": [prediction]}


def to_supervision(poses: Poses) -> Any:
    """See :meth:`Poses.to_supervision`."""
    supervision = _require("supervision", "supervision")
    return supervision.KeyPoints(
        xy=poses.xy.astype(np.float32),
        keypoint_confidence=poses.score.astype(np.float32),
        detection_confidence=poses.person_score.astype(np.float32),
        visible=poses.visibility > ABSENT,
        class_id=np.zeros(len(poses), int),
    )


def to_fiftyone(poses: Poses, shape: tuple[int, int], label: str = "person") -> Any:
    """See :meth:`Poses.to_fiftyone`."""
    fiftyone = _require("fiftyone", "fiftyone")
    sides = np.array([shape[1], shape[0]], float)
    places = np.where(poses.visibility[..., None] > ABSENT, poses.xy / sides, np.nan)
    people = [
        fiftyone.Keypoint(
            label=label,
            points=[tuple(map(float, point)) for point in own],
            confidence=[float(value) for value in poses.score[person]],
        )
        for person, own in enumerate(places)
    ]
    return fiftyone.Keypoints(keypoints=people)


def to_html(poses: Poses) -> str:
    """The people as a drawing in SVG, with a table of their scores."""
    if not len(poses):
        return f"<p>{escape(repr(poses))}</p>"
    present = poses.visibility > ABSENT
    if not present.any():
        return f"<p>{escape(repr(poses))}</p>"
    low, high = poses.xy[present].min(axis=0), poses.xy[present].max(axis=0)
    margin = max(0.05 * float((high - low).max()), 5.0)
    x, y = low - margin
    w, h = high - low + 2 * margin
    stroke = max(w, h) / 150
    height = round(min(360.0, 480 * h / w))
    shapes = [
        part
        for person in np.argsort(poses.person_score)
        for part in _draw(poses, int(person), stroke)
    ]
    rows = "".join(
        f"<tr><td>{person}</td><td>{poses.person_score[person]:.2f}</td>"
        f"<td>{int(present[person].sum())}</td></tr>"
        for person in range(min(len(poses), _LONGEST_TABLE))
    )
    more = f"<p>and {len(poses) - _LONGEST_TABLE} more</p>" if len(poses) > _LONGEST_TABLE else ""
    return (
        f'<p>{escape(repr(poses))}</p><div style="display:flex;gap:1em;align-items:flex-start">'
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{x:.1f} {y:.1f} {w:.1f} {h:.1f}" '
        f'height="{height}" style="background:#1a1a1a;max-width:100%">{"".join(shapes)}</svg>'
        f"<table><tr><th>person</th><th>score</th><th>joints</th></tr>{rows}</table></div>{more}"
    )


def _draw(poses: Poses, person: int, stroke: float) -> list[str]:
    """SVG of one person: limbs in the colors of their sides, filled-in joints hollow."""
    here = poses.visibility[person] > ABSENT
    xy, skeleton = poses.xy[person], poses.skeleton
    shapes = []
    for a, b in skeleton.limbs if skeleton is not None else ():
        if here[a] and here[b]:
            color = _css(drawing.limb_color(skeleton, a, b)) if skeleton is not None else "#fff"
            shapes.append(
                f'<line x1="{xy[a, 0]:.1f}" y1="{xy[a, 1]:.1f}" x2="{xy[b, 0]:.1f}" '
                f'y2="{xy[b, 1]:.1f}" stroke="{color}" stroke-width="{1.4 * stroke:.2f}"/>'
            )
    for k in np.flatnonzero(here):
        color = "#ffffff" if skeleton is None else _css(drawing.joint_color(skeleton, int(k)))
        fill = "none" if poses.visibility[person, k] == REFINED else color
        name = f"joint {k}" if skeleton is None else skeleton.joints[k]
        shapes.append(
            f'<circle cx="{xy[k, 0]:.1f}" cy="{xy[k, 1]:.1f}" r="{1.3 * stroke:.2f}" fill="{fill}" '
            f'stroke="{color}" stroke-width="{0.5 * stroke:.2f}"><title>{escape(name)} '
            f"{poses.score[person, k]:.2f}</title></circle>"
        )
    return shapes


def _css(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _require(module: str, package: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f"this needs {package}: pip install {package}") from error
