"""What a training image costs on its way from the disk to the network, stage by stage."""

from __future__ import annotations

import pickle
import time
from collections import defaultdict
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from ... import geometry
from ...datasets.coco import CocoKeypoints
from ...datasets.loader import Views, choose_collate
from ...datasets.transforms import warp_annotations
from ...io.images import decode
from ...outputs import Head
from ...training.device_batch import BatchToDevice
from . import reference
from .table import Row

_ON_DEVICE = "on the device: targets, color, normalize"


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
    images: CocoKeypoints,
    views: Views,
    to_device: BatchToDevice,
    heads: tuple[Head, ...],
    count: int,
    batch: int,
) -> list[Row]:
    """Milliseconds an image on one core, and what it then costs on the device.

    Args:
        images: real files.
        views: training views of them, made on the host.
        to_device: what receives them.
        heads: the network's.
        count: images to measure, from a batch to all of them.
        batch: images a batch.
    """
    threads, former = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        return _run(images, views, to_device, heads, count, batch)
    finally:
        cv2.setNumThreads(threads)
        torch.set_num_threads(former)


def _run(
    images: CocoKeypoints,
    views: Views,
    to_device: BatchToDevice,
    heads: tuple[Head, ...],
    count: int,
    batch: int,
) -> list[Row]:
    shape, skeleton = views.transform.shape, images.skeleton
    clock, plain_clock = _Clock(defaultdict(float)), _Clock(defaultdict(float))
    plain_bytes = sent_bytes = 0
    pixels = 0
    for index in range(count):  # read once, so that both ways find the files in memory
        images.files.read(images.names[index])
    for index in range(count):
        rng = np.random.default_rng(index)
        clock.start()
        data = images.files.read(images.names[index])
        clock.lap("read")
        image = decode(data, images.names[index])
        clock.lap("decode")
        sample = images.make_sample(index, image)
        clock.lap("annotations, mask")
        view = views.transform(sample, rng)
        geometry.warp(sample.image, view.affine, shape)
        clock.lap("warp image")
        poses, valid = warp_annotations(sample, view.affine, shape, skeleton)
        clock.lap("warp people, mask")
        views.index_keypoints(poses, valid, geometry.is_flipped(view.affine))
        clock.lap("index keypoints")
        pixels += image.shape[0] * image.shape[1]
        plain_clock.start()
        sample = images.make_sample(index, decode(images.files.read(images.names[index]), ""))
        _, nbytes = reference.item(sample, view.affine, shape[0], heads, skeleton)
        plain_clock.lap("all")
        plain_bytes += nbytes
    collate = choose_collate(views)
    for first in range(0, count - batch + 1, batch):
        items = [views[0, first + i] for i in range(batch)]
        if not first:
            to_device(collate(items))  # what the device does for the first time takes longer
            _wait(to_device.device)
        clock.start()
        batch_of_views = collate(items)
        clock.lap("collate")
        to_device(batch_of_views)
        _wait(to_device.device)
        clock.lap(_ON_DEVICE)
        sent_bytes += len(pickle.dumps(batch_of_views))
    batched = count // batch * batch
    rows: list[Row] = []
    host = 0.0
    for stage, spent in clock.spent.items():
        done = (
            batched if stage in ("collate", "on the device: targets, color, normalize") else count
        )
        milliseconds = 1000 * spent / done
        host += 0 if stage.startswith("on the device") else milliseconds
        rows.append({"stage": stage, "ms": milliseconds, "images/s": 1000 / milliseconds})
    old = 1000 * plain_clock.spent["all"] / count
    rows.append({
        "stage": "host, all", "ms": host, "images/s": 1000 / host,
        "MB": sent_bytes / batched / 1e6, "ratio": old / host,
    })  # fmt: skip
    rows.append({
        "stage": "reference: float targets on the host", "ms": old, "images/s": 1000 / old,
        "MB": plain_bytes / count / 1e6, "ratio": 1.0,
    })  # fmt: skip
    rows.append(
        {"stage": f"(images of {pixels / count / 1e6:.2f} Mpixel, view {shape[1]}x{shape[0]})"}
    )
    return rows


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
