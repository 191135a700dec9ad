"""Batches of training views, reproducible whatever the number of workers.

Each view's chance depends on (seed, epoch, picture) alone: the sampler hands both numbers to
the data set, so neither worker processes nor an interruption change what is seen.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..fields import Batch, Sample, Targets
from .keypoints import Pictures

Encode = Callable[[Sample], Targets]
Transform = Callable[[Sample, np.random.Generator], Sample]


@dataclass(frozen=True)
class Views(Dataset[tuple[torch.Tensor, Targets, int | str]]):
    """Training views of a picture set, asked for by (epoch, picture).

    Attributes:
        pictures: where the samples come from.
        transform: sample → training view.
        encode: the codec's.
        seed: of all chance.
    """

    pictures: Pictures
    transform: Transform
    encode: Encode
    seed: int

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, Targets, int | str]:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        view = self.transform(self.pictures.sample(index), rng)
        image = torch.from_numpy(view.image).permute(2, 0, 1)
        return image, self.encode(view), view.id


class ShuffledBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, picture), every picture once an epoch, the last short batch left out.

    Set :attr:`epoch` and :attr:`start` (batches already done) before iterating.
    """

    def __init__(self, pictures: int, batch: int, seed: int) -> None:
        self.pictures, self.batch, self.seed = pictures, min(batch, pictures), seed
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return self.pictures // self.batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.pictures)
        for i in range(self.start, len(self)):
            chosen = order[i * self.batch : (i + 1) * self.batch]
            yield [(self.epoch, int(picture)) for picture in chosen]


def collate(items: list[tuple[torch.Tensor, Targets, int | str]]) -> Batch:
    """Stack views; the people of joint cells are padded with -1 to the most crowded view."""
    images, targets, ids = zip(*items, strict=True)
    heads = range(len(targets[0].heatmaps))
    stacked = Targets(
        heatmaps=tuple(torch.stack([t.heatmaps[h] for t in targets]) for h in heads),
        weights=tuple(torch.stack([t.weights[h] for t in targets]) for h in heads),
        cells=tuple(
            torch.nn.utils.rnn.pad_sequence(
                [t.cells[h] for t in targets], batch_first=True, padding_value=-1
            )
            for h in heads
        ),
    )
    return Batch(torch.stack(images), stacked, ids)


class Loader:
    """Iterates over one epoch's batches from any batch on.

    Args:
        views: the data set.
        batch: pictures a batch, at most as many as there are.
        workers: processes; 0 loads in this one.
    """

    def __init__(self, views: Views, batch: int, workers: int) -> None:
        self.sampler = ShuffledBatches(len(views.pictures), batch, views.seed)
        self._loader: DataLoader[Any] = DataLoader(
            views,
            batch_sampler=self.sampler,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_start_worker,
        )

    def __len__(self) -> int:
        return len(self.sampler)

    @property
    def batch(self) -> int:
        """Pictures a batch."""
        return self.sampler.batch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches ``start``, ``start + 1``, … of an epoch."""
        self.sampler.epoch, self.sampler.start = epoch, start
        try:
            yield from self._loader
        except ValueError as error:
            # A worker's error arrives with its whole traceback as the message.
            message = str(error).strip().splitlines()[-1]
            raise ValueError(message.removeprefix("ValueError: ")) from error


def _start_worker(worker: int) -> None:
    """Workers share the cores among themselves, and leave Ctrl-C to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
