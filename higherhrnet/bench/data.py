"""What a training picture costs on its way from the disk to the network, stage by stage."""

from __future__ import annotations

import pickle
import time
from collections import defaultdict
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from .. import geometry
from ..datasets.keypoints import CocoKeypoints
from ..datasets.loader import Views, joining
from ..datasets.pictures import decode
from ..datasets.transforms import moved
from ..fields import Head
from ..training.feed import Feed
from . import plain
from .table import Row

_THERE = "on the device: targets, colour, normalise"


@dataclass
class _Clock:
    """Adds up seconds by stage."""

    spent: dict[str, float]
    last: float = 0.0

    def start(self) -> None:
        self.last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.spent[stage] += now - self.last
        self.last = now


def run(
    pictures: CocoKeypoints,
    views: Views,
    feed: Feed,
    heads: tuple[Head, ...],
    count: int,
    batch: int,
) -> list[Row]:
    """Milliseconds a picture on one core, and what it then costs on the device.

    Args:
        pictures: real files.
        views: training views of them, made on the host.
        feed: what receives them.
        heads: the network's.
        count: pictures to measure, from a batch to all of them.
        batch: pictures a batch.
    """
    threads, former = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        return _run(pictures, views, feed, heads, count, batch)
    finally:
        cv2.setNumThreads(threads)
        torch.set_num_threads(former)


def _run(
    pictures: CocoKeypoints,
    views: Views,
    feed: Feed,
    heads: tuple[Head, ...],
    count: int,
    batch: int,
) -> list[Row]:
    shape, skeleton = views.transform.shape, pictures.skeleton
    clock, plain_clock = _Clock(defaultdict(float)), _Clock(defaultdict(float))
    plain_bytes = sent_bytes = 0
    pixels = 0
    for index in range(count):  # read once, so that both ways find the files in memory
        pictures.files.read(pictures.names[index])
    for index in range(count):
        rng = np.random.default_rng(index)
        clock.start()
        data = pictures.files.read(pictures.names[index])
        clock.lap("read")
        image = decode(data, pictures.names[index])
        clock.lap("decode")
        sample = pictures.labelled(index, image)
        clock.lap("annotations, mask")
        view = views.transform(sample, rng)
        geometry.warp(sample.image, view.affine, shape)
        clock.lap("warp picture")
        poses, valid = moved(sample, view.affine, shape, skeleton)
        clock.lap("warp people, mask")
        views.mark(poses, valid, geometry.is_mirrored(view.affine))
        clock.lap("mark joints")
        pixels += image.shape[0] * image.shape[1]
        plain_clock.start()
        sample = pictures.labelled(index, decode(pictures.files.read(pictures.names[index]), ""))
        _, nbytes = plain.item(sample, view.affine, shape[0], heads, skeleton)
        plain_clock.lap("all")
        plain_bytes += nbytes
    join = joining(views)
    for first in range(0, count - batch + 1, batch):
        items = [views[0, first + i] for i in range(batch)]
        if not first:
            feed(join(items))  # what the device does for the first time takes longer
            _wait(feed.device)
        clock.start()
        joined = join(items)
        clock.lap("collate")
        feed(joined)
        _wait(feed.device)
        clock.lap(_THERE)
        sent_bytes += len(pickle.dumps(joined))
    batched = count // batch * batch
    rows: list[Row] = []
    host = 0.0
    for stage, spent in clock.spent.items():
        done = (
            batched if stage in ("collate", "on the device: targets, colour, normalise") else count
        )
        milliseconds = 1000 * spent / done
        host += 0 if stage.startswith("on the device") else milliseconds
        rows.append({"stage": stage, "ms": milliseconds, "pictures/s": 1000 / milliseconds})
    old = 1000 * plain_clock.spent["all"] / count
    rows.append({
        "stage": "host, all", "ms": host, "pictures/s": 1000 / host,
        "MB": sent_bytes / batched / 1e6, "ratio": old / host,
    })  # fmt: skip
    rows.append({
        "stage": "plain: float targets on the host", "ms": old, "pictures/s": 1000 / old,
        "MB": plain_bytes / count / 1e6, "ratio": 1.0,
    })  # fmt: skip
    rows.append(
        {"stage": f"(pictures of {pixels / count / 1e6:.2f} Mpixel, view {shape[1]}x{shape[0]})"}
    )
    return rows


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
