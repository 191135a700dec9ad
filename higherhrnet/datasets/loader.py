"""Batches of training views, reproducible whatever the number of workers and processes.

Each view's chance depends on (seed, epoch, picture) alone: the sampler hands both numbers to
the data set, so neither worker processes nor an interruption change what is seen.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from .. import geometry
from ..errors import RunError, UserError
from ..fields import Batch, Marks, Packed
from ..poses import Poses
from .keypoints import Pictures
from .transforms import Transform, moved, warped

Mark = Callable[[Poses, npt.NDArray[np.uint8], bool], Marks]


class Item(NamedTuple):
    """One view on its way into a batch.

    Attributes:
        image: (3, H, W) uint8 view, or the whole picture's bytes for the device to warp, or
            nothing where the device has them.
        start: first byte of the picture in the device's store of all pictures, else 0.
        shape: H, W of the picture.
        affine: (2, 3) float64, view → picture.
        marks, colour, id: as in :class:`Batch`.
    """

    image: torch.Tensor
    start: int
    shape: tuple[int, int]
    affine: torch.Tensor
    marks: Marks
    colour: torch.Tensor
    id: int | str


@dataclass(frozen=True)
class Views(Dataset[Item]):
    """Training views of a picture set, asked for by (epoch, picture).

    Attributes:
        pictures: where the samples come from.
        transform: chooses the views.
        mark: the codec's.
        seed: of all chance.
        on_device: leave the warp to the device.
        starts: first byte of every picture in the device's store, if it holds them all.
        beyond: whether the loss counts beyond the pictures' edges, where nobody is.
    """

    pictures: Pictures
    transform: Transform
    mark: Mark
    seed: int
    on_device: bool = False
    starts: npt.NDArray[np.int64] | None = None
    beyond: bool = False

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        sample = self.pictures.sample(index)
        height, width = sample.image.shape[:2]
        view = self.transform(sample, rng)
        shape, skeleton = self.transform.shape, self.pictures.skeleton
        if self.on_device:
            poses, valid = moved(sample, view.affine, shape, skeleton, self.beyond)
            kept = self.starts is not None
            image = torch.zeros(0) if kept else torch.from_numpy(sample.image).view(-1)
        else:
            seen = warped(sample, view.affine, shape, skeleton, self.beyond)
            poses, valid = seen.poses, seen.valid
            image = torch.from_numpy(seen.image).permute(2, 0, 1)
        return Item(
            image=image,
            start=0 if self.starts is None else int(self.starts[index]),
            shape=(height, width),
            affine=torch.from_numpy(geometry.invert(view.affine)[:2].copy()),
            marks=self.mark(poses, valid, geometry.is_mirrored(view.affine)),
            colour=torch.tensor(view.colour),
            id=sample.id,
        )


def collate(items: list[Item]) -> Batch:
    """Stack views; the people of cells are padded with -1 to the most crowded view."""
    heads = range(len(items[0].marks.cells))
    marks = Marks(
        cells=tuple(
            torch.nn.utils.rnn.pad_sequence(
                [item.marks.cells[h] for item in items], batch_first=True, padding_value=-1
            )
            for h in heads
        ),
        valid=torch.stack([item.marks.valid for item in items]),
    )
    images = torch.stack([item.image for item in items])
    return Batch(images, marks, *_rest(items))


def collate_packed(items: list[Item]) -> Batch:
    """Like :func:`collate`, with whole pictures put one after another."""
    pixels = [item.image for item in items]
    ends = np.cumsum([len(p) for p in pixels])
    return _packed(items, torch.cat(pixels), [0, *ends[:-1].tolist()])


def collate_stored(items: list[Item]) -> Batch:
    """Like :func:`collate_packed`, for pictures that the device holds already."""
    return _packed(items, torch.zeros(0, dtype=torch.uint8), [item.start for item in items])


def _packed(items: list[Item], pixels: torch.Tensor, starts: list[int]) -> Batch:
    blank = [item._replace(image=torch.zeros(0)) for item in items]
    packed = Packed(
        pixels=pixels,
        start=torch.tensor(starts),
        shape=torch.tensor([item.shape for item in items]),
        affine=torch.stack([item.affine for item in items]),
    )
    return collate(blank)._replace(images=packed)


def _rest(items: list[Item]) -> tuple[torch.Tensor, tuple[int | str, ...]]:
    return torch.stack([item.colour for item in items]), tuple(item.id for item in items)


def joining(views: Views) -> Callable[[list[Item]], Batch]:
    """The collate function that suits the views."""
    if not views.on_device:
        return collate
    return collate_packed if views.starts is None else collate_stored


class ShuffledBatches(Sampler[list[tuple[int, int]]]):
    """Lists of (epoch, picture): every picture once an epoch, the last short batch left out.

    An effective batch is cut into ``parts`` parts for each of ``processes`` processes; what all
    processes see together in one step does not depend on how it is cut.

    Set :attr:`epoch` and :attr:`start` (effective batches already done) before iterating.

    Args:
        pictures: how many there are.
        batch: pictures a step, over all parts and processes.
        seed: of the order.
        parts: accumulation steps.
        process, processes: which of how many this is.

    Raises:
        UserError: the batch cannot be cut evenly.
    """

    def __init__(
        self,
        pictures: int,
        batch: int,
        seed: int,
        parts: int = 1,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        cuts = parts * processes
        if batch % cuts:
            raise UserError(
                f"TRAIN.BATCH: {batch} pictures cannot be cut evenly into {parts} parts for "
                f"{processes} processes"
            )
        if pictures < cuts:
            raise UserError(
                f"{pictures} pictures are too few for {parts} parts on {processes} processes"
            )
        self.batch = min(batch, pictures // cuts * cuts)
        self.pictures, self.seed, self.parts = pictures, seed, parts
        self.process, self.processes = process, processes
        self.epoch = 0
        self.start = 0

    @property
    def steps(self) -> int:
        """Effective batches an epoch."""
        return self.pictures // self.batch

    def __len__(self) -> int:
        return (self.steps - self.start) * self.parts

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.pictures)
        for step in range(self.start, self.steps):
            chosen = order[step * self.batch : (step + 1) * self.batch]
            mine = chosen.reshape(self.parts, self.processes, -1)[:, self.process]
            for part in mine:
                yield [(self.epoch, int(picture)) for picture in part]


class WorkerLostError(RunError):
    """A loading process ended by itself, or the system ended it."""


_KILLED = ("exited unexpectedly", "is killed by signal")
"""What torch says of a loading process that is gone."""


@contextmanager
def lost_workers() -> Iterator[None]:
    """Turns the error that torch raises, wherever the program is at that moment, into a sentence.

    Raises:
        WorkerLostError: a loading process was killed.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # who read what is printed has gone
    except (RuntimeError, ConnectionError, EOFError) as error:
        # It may also die in the middle of handing a batch over.
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in _KILLED):
            raise
        raise WorkerLostError(
            "a process that loads pictures was killed, perhaps for want of memory (fewer "
            "TRAIN.WORKERS need less); go on from the last checkpoint with --resume"
        ) from error


class Loader:
    """Iterates over one epoch's batches from any step on.

    Args:
        items: the data set, asked by (epoch, picture).
        sampler: which of them form a batch.
        workers: processes; 0 loads in this one.
        joining: items → batch.
    """

    def __init__(
        self,
        items: Dataset[Any],
        sampler: ShuffledBatches,
        workers: int,
        joining: Callable[[list[Any]], Any] = collate,
    ) -> None:
        self.items = items
        self.sampler = sampler
        self._loader: DataLoader[Any] = DataLoader(
            items,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=joining,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_start_worker,
        )

    @property
    def steps(self) -> int:
        """Optimiser steps an epoch."""
        return self.sampler.steps

    @property
    def parts(self) -> int:
        """Batches a step."""
        return self.sampler.parts

    @property
    def batch(self) -> int:
        """Pictures a step, over all parts and processes."""
        return self.sampler.batch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """``parts`` batches for each of the steps ``start``, ``start + 1``, … of an epoch.

        Raises:
            UserError: a picture cannot be read.
        """
        self.sampler.epoch, self.sampler.start = epoch, start
        try:
            yield from self._loader
        except UserError as error:
            # A worker's error arrives with its whole traceback as the message.
            _, _, message = str(error).rpartition("errors.UserError: ")
            raise UserError(message.strip()) from error

    def close(self) -> None:
        """End the loading processes now.

        Left to the interpreter's shutdown they are terminated in disorder, and torch reports
        each as killed.
        """
        running = self._loader._iterator
        if running is not None and self._loader.num_workers:
            running._shutdown_workers()  # type: ignore[attr-defined]
            self._loader._iterator = None


def _start_worker(worker: int) -> None:
    """Workers share the cores among themselves, and leave signals to the main process.

    Terminals, torchrun and clusters send them to the whole group; a worker that obeyed would be
    missed before the main process has saved. Workers end with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
