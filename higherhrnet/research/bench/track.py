"""How well people keep their numbers through a synthetic video whose numbers are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError
from ...inference import pipeline
from ...inference.predictor import Predictor, Scene
from ...inference.tracking import OneEuro, Tracker
from ...inference.video_writer import VideoWriter
from ...poses import SEEN, Poses
from ..mot_metrics import count_identities
from ..synthetic.video import Moment, SyntheticVideo
from .table import Row


def run(
    predictor: Predictor, crowds: Sequence[int], seconds: float, seed: int, folder: Path | None
) -> list[Row]:
    """Rows of crowd × way of following.

    Args:
        predictor: at its operating point for images.
        crowds: people in a video.
        seconds: length of a video.
        seed: of the videos.
        folder: where annotated videos go, if they are wanted.
    """
    rows: list[Row] = []
    for people in crowds:
        video = SyntheticVideo(people=people, seconds=seconds, seed=seed)
        moments = list(video)
        found = [
            result[0]
            for _, result in pipeline.run(predictor, moments, lambda moment: Scene(moment.image))
            if not isinstance(result, UserError)
        ]
        skeleton = predictor.skeleton
        ways: dict[str, Tracker] = {
            "OKS": Tracker(skeleton, tag_weight=0.0),
            "OKS and tag": Tracker(skeleton),
            "OKS, tag, smooth": Tracker(skeleton, smoothing=OneEuro()),
        }
        for name, tracker in ways.items():
            followed = [
                tracker.update(poses, moment.time)
                for poses, moment in zip(found, moments, strict=True)
            ]
            frames = list(zip(followed, (m.poses for m in moments), strict=True))
            counts = count_identities(frames, skeleton)
            rows.append({
                "people": people, "way": name, "MOTA": 100 * counts.mota,
                "true": counts.people, "found": counts.found, "wrong": counts.wrong,
                "id switches": counts.switches, "jitter px": _jitter(followed),
            })  # fmt: skip
            if folder is not None and name == "OKS, tag, smooth":
                path = folder / f"synthetic_{people}.mp4"
                _write(path, video, moments, followed, predictor)
    return rows


def _jitter(followed: Sequence[Poses]) -> float:
    """Median second difference of joints over three frames, pixels: 0 for steady motion."""
    places: list[dict[int, Any]] = []
    for poses in followed:
        seen = poses.visibility == SEEN
        places.append({int(t): (poses.xy[n], seen[n]) for n, t in enumerate(poses.track)})
    jumps = [np.zeros(0)]
    for before, now, after in zip(places, places[1:], places[2:], strict=False):
        for track in before.keys() & now.keys() & after.keys():
            (a, in_a), (b, in_b), (c, in_c) = before[track], now[track], after[track]
            jumps.append(np.linalg.norm(a - 2 * b + c, axis=1)[in_a & in_b & in_c])
    values = np.concatenate(jumps)
    return float(np.median(values)) if len(values) else 0.0


def _write(
    path: Path,
    video: SyntheticVideo,
    moments: Sequence[Moment],
    followed: Sequence[Poses],
    predictor: Predictor,
) -> None:
    """What was found, enlarged so that numbers can be read."""
    with VideoWriter(path, Fraction(video.rate)) as writer:
        for moment, poses in zip(moments, followed, strict=True):
            large = np.ascontiguousarray(moment.image.repeat(2, 0).repeat(2, 1))
            doubled = replace(poses, xy=2 * poses.xy + 0.5 * (poses.visibility > 0)[..., None])
            writer.add(doubled.draw(large, predictor.skeleton), moment.time)
