"""What was found in an image as JSON, with maps as PNG images on request."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..poses import Poses
from .batching import Answer

FIELDS = ("keypoints", "bbox", "score", "visibility", "tag", "seconds", "heatmap", "tag_map")
"""What an answer can hold; ``heatmap`` and ``tag_map`` are PNG images in data addresses."""


def describe_answer(answer: Answer, poses: Poses, fields: Collection[str]) -> dict[str, Any]:
    """An answer's JSON: people as COCO's results have them, best first.

    Args:
        answer: of the queue.
        poses: those of its people that are shown.
        fields: of :data:`FIELDS`.
    """
    order = np.argsort(-poses.person_score, kind="stable")
    people = []
    for person, record in enumerate(poses.to_coco(0)):
        entry: dict[str, Any] = {"category_id": record["category_id"]}
        if "keypoints" in fields:
            entry["keypoints"] = [round(value, 3) for value in record["keypoints"]]
        if "bbox" in fields:
            entry["bbox"] = poses.boxes[person].round(2).tolist()
        if "score" in fields:
            entry["score"] = round(record["score"], 4)
        if "visibility" in fields:
            entry["visibility"] = poses.visibility[person].tolist()
        if "tag" in fields:
            entry["tag"] = poses.tag[person].round(4).tolist()
        if poses.track[person] >= 0:
            entry["track"] = int(poses.track[person])
        people.append(entry)
    body: dict[str, Any] = {
        "image": {"width": answer.shape[1], "height": answer.shape[0]},
        "method": answer.maps[0].method,
        "people": [people[person] for person in order],
    }
    if "heatmap" in fields or "tag_map" in fields:
        predictor, maps = answer.maps
        heatmaps, tags = predictor.overlay(maps, answer.shape)
        if "heatmap" in fields:
            body["heatmap"] = _png(np.clip(heatmaps.max(axis=0), 0, 1))
        if "tag_map" in fields and tags is not None:
            body["tag_map"] = _tag_png(heatmaps, tags)
    return body


def _png(values: npt.NDArray[np.float32]) -> str:
    """A map of 0..1 as gray PNG."""
    return _data_address(np.asarray(np.rint(255 * values), np.uint8))


def _tag_png(heatmaps: npt.NDArray[np.float32], tags: npt.NDArray[np.float32]) -> str:
    """Tags as colors, each joint's where its heatmap is the highest, as bright as that is."""
    size = (tags.shape[2], tags.shape[1])
    small = np.stack([cv2.resize(heatmap, size) for heatmap in heatmaps])
    joint = small.argmax(axis=0)
    if len(tags) == 1:
        joint = np.zeros_like(joint)
    value = np.take_along_axis(tags, joint[None], axis=0)[0]
    low, high = np.percentile(value, (2, 98))
    hue = np.clip((value - low) / max(high - low, 1e-6), 0, 1)
    bright = np.clip(small.max(axis=0), 0.05, 1)
    hsv = np.stack([170 * hue, np.full_like(hue, 220), 255 * bright], axis=2)
    return _data_address(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR))


def _data_address(image: npt.NDArray[Any]) -> str:
    _, data = cv2.imencode(".png", image)
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


def round_seconds(seconds: Mapping[str, float]) -> dict[str, float]:
    """For JSON."""
    return {stage: round(value, 4) for stage, value in seconds.items()}
