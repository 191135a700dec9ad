"""Batches of training views, reproducible whatever the number of workers and processes.

Each view's random numbers depend on (seed, epoch, image) alone: the sampler hands both numbers to
the data set, so neither worker processes nor an interruption change what is seen.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
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
from ..poses import Poses
from ..structures import Batch, KeypointIndices, PackedImages
from .base import PoseDataset
from .combined import Quota
from .composition import Composition
from .transforms import Transform, warp_annotations, warp_sample, warp_silhouettes

IndexKeypoints = Callable[[Poses, npt.NDArray[np.uint8], bool], KeypointIndices]


class Item(NamedTuple):
    """One view on its way into a batch.

    Attributes:
        image: (3, H, W) uint8 view, or the whole image's bytes for the device to warp, or
            nothing where the device has them.
        start: first byte of the image in the device's store of all images, else 0.
        shape: H, W of the image.
        affine: (2, 3) float64, view → image.
        keypoints, color, id: as in :class:`Batch`.
    """

    image: torch.Tensor
    start: int
    shape: tuple[int, int]
    affine: torch.Tensor
    keypoints: KeypointIndices
    color: torch.Tensor
    id: int | str


@dataclass(frozen=True)
class Views(Dataset[Item]):
    """Training views of a data set, indexed by (epoch, item) or (epoch, item, repetition).

    Attributes:
        dataset: where the samples come from.
        transform: chooses the views.
        index_keypoints: the codec's.
        seed: of all random numbers.
        warp_on_device: leave the warp to the device.
        offsets: first byte of every item's image in the device's store, if it holds them all.
        padding_in_loss: whether the loss counts beyond the images' edges.
        compose: combines several images before a view is chosen; None leaves them alone.
    """

    dataset: PoseDataset
    transform: Transform
    index_keypoints: IndexKeypoints
    seed: int
    warp_on_device: bool = False
    offsets: npt.NDArray[np.int64] | None = None
    padding_in_loss: bool = False
    compose: Composition | None = None

    def __getitem__(self, key: tuple[int, ...]) -> Item:
        index = key[1]
        rng = np.random.default_rng((self.seed, *key))
        sample = self.dataset.sample(index)
        if self.compose is not None:
            sample = self.compose(self.dataset, sample, rng)
        height, width = sample.image.shape[:2]
        view = self.transform(sample, rng)
        shape, skeleton = self.transform.shape, self.dataset.skeleton
        if self.warp_on_device:
            poses, valid = warp_annotations(
                sample, view.affine, shape, skeleton, self.padding_in_loss
            )
            kept = self.offsets is not None
            image = torch.zeros(0) if kept else torch.from_numpy(sample.image).view(-1)
        else:
            seen = warp_sample(sample, view.affine, shape, skeleton, self.padding_in_loss)
            poses, valid = seen.poses, seen.valid
            image = torch.from_numpy(seen.image).permute(2, 0, 1)
        flipped = geometry.is_flipped(view.affine)
        annotated = np.ones(len(skeleton), bool) if sample.annotated is None else sample.annotated
        if flipped:
            annotated = annotated[skeleton.flip_indices]
        keypoints = self.index_keypoints(poses, valid, flipped)
        if sample.silhouettes is not None:
            mask, boxes = warp_silhouettes(sample.silhouettes, view.affine, shape)
            keypoints = keypoints._replace(
                masks=(torch.from_numpy(mask),), boxes=(torch.from_numpy(boxes).float(),)
            )
        return Item(
            image=image,
            start=0 if self.offsets is None else int(self.offsets[index]),
            shape=(height, width),
            affine=torch.from_numpy(geometry.invert(view.affine)[:2].copy()),
            keypoints=keypoints._replace(annotated=torch.from_numpy(annotated.astype(np.uint8))),
            color=torch.tensor(view.color),
            id=sample.id,
        )


def collate_views(items: list[Item]) -> Batch:
    """Stack views; keypoint indices are padded with -1 to the most crowded view."""
    keypoints = _stack([item.keypoints for item in items])
    images = torch.stack([item.image for item in items])
    return Batch(images, keypoints, *_rest(items))


def _stack(values: Sequence[Any]) -> Any:
    """Tensors one above the other, those of fewer rows padded with -1; tuples field by field."""
    first = values[0]
    if isinstance(first, torch.Tensor):
        if all(value.shape == first.shape for value in values):
            return torch.stack(list(values))
        return torch.nn.utils.rnn.pad_sequence(list(values), batch_first=True, padding_value=-1)
    parts = [_stack(part) for part in zip(*values, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)


def collate_packed(items: list[Item]) -> Batch:
    """Like :func:`collate_views`, with whole images put one after another."""
    pixels = [item.image for item in items]
    ends = np.cumsum([len(p) for p in pixels])
    return _pack(items, torch.cat(pixels), [0, *ends[:-1].tolist()])


def collate_stored(items: list[Item]) -> Batch:
    """Like :func:`collate_packed`, for images that the device holds already."""
    return _pack(items, torch.zeros(0, dtype=torch.uint8), [item.start for item in items])


def _pack(items: list[Item], pixels: torch.Tensor, starts: list[int]) -> Batch:
    blank = [item._replace(image=torch.zeros(0)) for item in items]
    packed = PackedImages(
        pixels=pixels,
        start=torch.tensor(starts),
        shape=torch.tensor([item.shape for item in items]),
        affine=torch.stack([item.affine for item in items]),
    )
    return collate_views(blank)._replace(images=packed)


def _rest(items: list[Item]) -> tuple[torch.Tensor, tuple[int | str, ...]]:
    return torch.stack([item.color for item in items]), tuple(item.id for item in items)


def choose_collate(views: Views) -> Callable[[list[Item]], Batch]:
    """The collate function that suits the views."""
    if not views.warp_on_device:
        return collate_views
    return collate_packed if views.offsets is None else collate_stored


Key = tuple[int, ...]
"""(epoch, image); and which repetition it is, for the second time and further ones in an epoch."""


class ShuffledBatches(Sampler[list[Key]]):
    """Lists of (epoch, image): every image once an epoch, the last short batch left out.

    An effective batch is cut into ``micro_batches`` for each of ``processes``; what all processes
    see together in one step does not depend on how it is cut.

    Set :attr:`epoch` and :attr:`start` (effective batches already done) before iterating.

    Args:
        images: how many there are.
        batch_size: images a step, over all micro-batches and processes.
        seed: of the order.
        micro_batches: accumulation steps.
        process, processes: which of how many this is.
        quotas: of the sets that the images consist of, where these are mixed in shares; empty
            shows every image once.

    Raises:
        UserError: the batch cannot be cut evenly.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        seed: int,
        micro_batches: int = 1,
        process: int = 0,
        processes: int = 1,
        quotas: Sequence[Quota] = (),
    ) -> None:
        images = sum(quota.views for quota in quotas) or images
        cuts = micro_batches * processes
        if batch_size % cuts:
            raise UserError(
                f"TRAIN.BATCH_SIZE: {batch_size} images cannot be split evenly into "
                f"{micro_batches} micro-batches for {processes} processes"
            )
        if images < cuts:
            raise UserError(
                f"{images} images are too few for {micro_batches} micro-batches on {processes} "
                "processes"
            )
        self.batch_size = min(batch_size, images // cuts * cuts)
        self.images, self.seed, self.micro_batches = images, seed, micro_batches
        self.process, self.processes = process, processes
        self.quotas = quotas
        self.epoch = 0
        self.start = 0

    @property
    def steps(self) -> int:
        """Effective batches an epoch."""
        return self.images // self.batch_size

    def __len__(self) -> int:
        return (self.steps - self.start) * self.micro_batches

    def __iter__(self) -> Iterator[list[Key]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        shown = draw_items(self.quotas, rng)
        order = rng.permutation(self.images)
        for step in range(self.start, self.steps):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            mine = chosen.reshape(self.micro_batches, self.processes, -1)[:, self.process]
            for micro_batch in mine:
                yield [
                    (self.epoch, int(view)) if not shown else (self.epoch, *shown[view])
                    for view in micro_batch
                ]


def draw_items(quotas: Sequence[Quota], rng: np.random.Generator) -> list[Key]:
    """(item,) or (item, repetition) of an epoch's views: of every set its whole passes, and for the
    remainder items by chance, none twice."""
    shown: list[Key] = []
    first = 0
    for items, views in quotas:
        passes, rest = divmod(views, items)
        some = np.sort(rng.choice(items, rest, replace=False))
        for repetition, chosen in enumerate([*[np.arange(items)] * passes, some]):
            again = (repetition,) if repetition else ()
            shown += [(first + int(item), *again) for item in chosen]
        first += items
    return shown


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
            "a process that loads images was killed, perhaps for want of memory (fewer "
            "TRAIN.WORKERS need less); go on from the last checkpoint with --resume"
        ) from error


class Loader:
    """Iterates over one epoch's batches from any step on.

    Args:
        items: the data set, asked by (epoch, image).
        sampler: which of them form a batch.
        workers: processes; 0 loads in this one.
        collate: items → batch.
    """

    def __init__(
        self,
        items: Dataset[Any],
        sampler: ShuffledBatches,
        workers: int,
        collate: Callable[[list[Any]], Any] = collate_views,
    ) -> None:
        self.items = items
        self.sampler = sampler
        self._loader: DataLoader[Any] = DataLoader(
            items,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_start_worker,
        )

    @property
    def steps(self) -> int:
        """Optimizer steps an epoch."""
        return self.sampler.steps

    @property
    def micro_batches(self) -> int:
        """Batches a step."""
        return self.sampler.micro_batches

    @property
    def batch_size(self) -> int:
        """Images a step, over all micro-batches and processes."""
        return self.sampler.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """``micro_batches`` batches for each of the steps ``start``, ``start + 1``, … of an epoch.

        Raises:
            UserError: an image cannot be read.
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
