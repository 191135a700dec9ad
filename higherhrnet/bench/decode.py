"""How long it takes from the network's answers to people, beside the published way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch

from .. import geometry
from ..codecs import tags as tagging
from ..codecs.bottom_up import BottomUpCodec
from ..fields import Outputs, View
from . import plain
from .table import Row, seconds


def run(
    codec: BottomUpCodec, on: torch.device, crowds: Sequence[int], size: int, repeats: int
) -> list[Row]:
    """Merging two views, finding and grouping peaks, filling in; the same people both ways.

    Args:
        codec: with its test settings.
        on: where the network's answers are.
        crowds: people a picture.
        size: side of the input, pixels.
        repeats: pictures a crowd.
    """
    threads, former = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        return [_row(codec, on, people, size, repeats) for people in crowds]
    finally:
        cv2.setNumThreads(threads)
        torch.set_num_threads(former)


def _row(codec: BottomUpCodec, on: torch.device, people: int, size: int, repeats: int) -> Row:
    shape = (size, size)
    spent = dict.fromkeys(("merge", "peaks", "group", "fill"), 0.0)
    plain_time = published = fast = quick = 0.0
    same = joints = found_people = 0
    solver = replace(codec, grouping=replace(codec.grouping, assign=tagging.solve_strongest))
    for number in range(repeats):
        views = crowd_views(codec, people, size, number, on)
        start = time.perf_counter()
        maps = plain.merge(views, codec.skeleton, shape, codec.aggregate, codec.smooth)
        expected, scores = plain.decode(maps, codec)
        plain_time += time.perf_counter() - start

        def decoded(codec: BottomUpCodec = codec, views: Sequence[View] = views) -> int:
            return len(codec.decode(codec.merge(views, shape), geometry.identity()).poses)

        fast += seconds(decoded, 3)
        quick += seconds(lambda: decoded(solver), 3)
        poses = codec.decode(codec.merge(views, shape), geometry.identity()).poses
        joints += expected.score.size
        if len(poses) == len(scores):
            apart = np.abs(poses.score - expected.score) > 1e-4
            apart |= (np.abs(poses.xy - expected.place) > 1e-3).any(axis=2) & (poses.visibility > 0)
            same += int((~apart).sum())
        found_people += len(poses)
        _stages(solver, views, shape, spent)
    published = plain_time / repeats
    return {
        "people": people,
        "found": found_people / repeats,
        "plain ms": 1000 * published,
        "ms": 1000 * fast / repeats,
        "ratio": published / (fast / repeats),
        "same joints": f"{same} of {joints}",
        "strongest ms": 1000 * quick / repeats,
        "strongest ratio": published / (quick / repeats),
        **{f"{stage} ms": 1000 * total / repeats for stage, total in spent.items()},
    }


def _stages(
    codec: BottomUpCodec, views: Sequence[View], shape: tuple[int, int], spent: dict[str, float]
) -> None:
    on = views[0].outputs.heatmaps[0].device

    def now() -> float:
        if on.type == "cuda":  # which works on after it was told to
            torch.cuda.synchronize(on)
        return time.perf_counter()

    times = [now()]
    maps = codec.merge(views, shape)
    times.append(now())
    peaks = maps.peaks(codec.threshold, codec.most_candidates)
    times.append(now())
    people = tagging.assembled(peaks, codec.group(peaks))
    times.append(now())
    tagging.fill_missing(people, maps)
    times.append(now())
    for stage, taken in zip(spent, np.diff(times), strict=True):
        spent[stage] += float(taken)


def crowd_views(
    codec: BottomUpCodec, people: int, size: int, seed: int, on: torch.device
) -> list[View]:
    """What a network might answer to a crowd, plain and mirrored: blobs with noise, three of ten
    joints missing, tags near each person's own number."""
    rng = np.random.default_rng((seed, people))
    joints = len(codec.skeleton)
    middle = rng.uniform(0.1, 0.9, (people, 1, 2)) * size
    spread = size * 0.5 / max(people, 4) ** 0.5
    xy = np.clip(middle + rng.normal(0, spread / 2, (people, joints, 2)), 0, size - 1)
    heat_of = rng.uniform(0.3, 1.0, (people, joints))
    seen = rng.random((people, joints)) < 0.7
    views = []
    for mirrored in (False, True):
        heatmaps, tags = [], []
        for head in codec.heads:
            side = size // head.stride
            at = xy / head.stride
            if mirrored:
                at = np.stack([side - 1 - at[..., 0], at[..., 1]], axis=-1)
            order = codec.skeleton.flip if mirrored else np.arange(joints)
            y, x = np.mgrid[:side, :side].astype(np.float32)
            maps = rng.random((joints, side, side)).astype(np.float32) * 0.03
            tag = rng.normal(0, 1, (joints, side, side)).astype(np.float32)
            for person, joint in np.argwhere(seen):
                cx, cy = at[person, joint]
                window = (
                    slice(max(int(cy) - 7, 0), int(cy) + 8),
                    slice(max(int(cx) - 7, 0), int(cx) + 8),
                )
                far = (x[window] - cx) ** 2 + (y[window] - cy) ** 2
                channel = int(order[joint])
                blob = heat_of[person, joint] * np.exp(-far / 8)
                np.maximum(maps[channel][window], blob, out=maps[channel][window])
                tag[channel][window][far < 12] = 1.7 * person + rng.normal(0, 0.15)
            heatmaps.append(torch.from_numpy(maps)[None].to(on))
            tags.append(torch.from_numpy(tag[: head.tags])[None].to(on))
        views.append(View(Outputs(tuple(heatmaps), tuple(tags)), 1.0, mirrored))
    return views
