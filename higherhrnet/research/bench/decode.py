"""How long decoding takes: from the network's outputs to people."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch

from ... import geometry
from ...methods.bottom_up import grouping as tagging
from ...methods.bottom_up.codec import BottomUpCodec
from ...outputs import Outputs, View
from .table import Row, median_seconds


def run(
    codec: BottomUpCodec, device: torch.device, crowds: Sequence[int], size: int, repeats: int
) -> list[Row]:
    """Milliseconds of decoding two views, with each assignment solver, and by stage.

    Args:
        codec: with its test settings.
        device: where the network's outputs are.
        crowds: people an image.
        size: side of the input, pixels.
        repeats: images a crowd.
    """
    threads, former = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        return [_row(codec, device, people, size, repeats) for people in crowds]
    finally:
        cv2.setNumThreads(threads)
        torch.set_num_threads(former)


def _row(codec: BottomUpCodec, device: torch.device, people: int, size: int, repeats: int) -> Row:
    shape = (size, size)
    stages = dict.fromkeys(("aggregate", "peaks", "group", "refine"), 0.0)
    spent = dict.fromkeys(tagging.ASSIGNMENTS, 0.0)
    codecs = {
        name: replace(codec, grouping=replace(codec.grouping, assign=assign))
        for name, assign in tagging.ASSIGNMENTS.items()
    }
    found = 0
    for number in range(repeats):
        views = crowd_views(codec, people, size, number, device)
        for name, varied in codecs.items():

            def decode(codec: BottomUpCodec = varied, views: Sequence[View] = views) -> int:
                return len(codec.decode(codec.aggregate(views, shape), geometry.identity()).poses)

            spent[name] += median_seconds(decode, 3)
        found += decode()
        _stages(codecs["hungarian_score_tiebreak"], views, shape, stages)
    return {
        "people": people,
        "found": found / repeats,
        **{f"{name} ms": 1000 * total / repeats for name, total in spent.items()},
        "ratio": spent["munkres"] / spent["hungarian_score_tiebreak"],
        **{f"{stage} ms": 1000 * total / repeats for stage, total in stages.items()},
    }


def _stages(
    codec: BottomUpCodec, views: Sequence[View], shape: tuple[int, int], spent: dict[str, float]
) -> None:
    device = views[0].outputs.heatmaps[0].device

    def now() -> float:
        if device.type == "cuda":  # whose kernels run asynchronously
            torch.cuda.synchronize(device)
        return time.perf_counter()

    times = [now()]
    maps = codec.aggregate(views, shape)
    times.append(now())
    peaks = maps.peaks(codec.threshold, codec.max_candidates)
    times.append(now())
    people = tagging.assemble_people(peaks, codec.group(peaks, maps.shape))
    times.append(now())
    tagging.fill_missing_joints(people, maps)
    times.append(now())
    for stage, taken in zip(spent, np.diff(times), strict=True):
        spent[stage] += float(taken)


def crowd_views(
    codec: BottomUpCodec, people: int, size: int, seed: int, device: torch.device
) -> list[View]:
    """What a network might predict of a crowd, plain and flipped: blobs with noise, three of ten
    joints missing, tags near each person's own number."""
    rng = np.random.default_rng((seed, people))
    joints = len(codec.skeleton)
    middle = rng.uniform(0.1, 0.9, (people, 1, 2)) * size
    spread = size * 0.5 / max(people, 4) ** 0.5
    xy = np.clip(middle + rng.normal(0, spread / 2, (people, joints, 2)), 0, size - 1)
    score_of = rng.uniform(0.3, 1.0, (people, joints))
    seen = rng.random((people, joints)) < 0.7
    views = []
    for flipped in (False, True):
        heatmaps, tags = [], []
        for head in codec.heads:
            side = size // head.stride
            at = xy / head.stride
            if flipped:
                at = np.stack([side - 1 - at[..., 0], at[..., 1]], axis=-1)
            order = codec.skeleton.flip_indices if flipped else np.arange(joints)
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
                blob = score_of[person, joint] * np.exp(-far / 8)
                np.maximum(maps[channel][window], blob, out=maps[channel][window])
                tag[channel][window][far < 12] = 1.7 * person + rng.normal(0, 0.15)
            heatmaps.append(torch.from_numpy(maps)[None].to(device))
            tags.append(torch.from_numpy(tag[: head.tags])[None].to(device))
        views.append(View(Outputs(tuple(heatmaps), tuple(tags)), 1.0, flipped))
    return views
