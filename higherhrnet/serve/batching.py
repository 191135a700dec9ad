"""Requests of many clients → batches of one network.

Threads of one pool preprocess images, one thread runs the network on whatever images of one size
wait for it, and threads of another pool decode. Nothing waits for a batch to fill: batches form
while the network is busy. At most so many images are in the queue; more are refused at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..inference.predictor import Maps, Predictor, Preprocessed, Scene
from ..inference.stats import InferenceStats
from ..outputs import View
from ..poses import Poses


class QueueFullError(Exception):
    """As many images wait as may."""


@dataclass(frozen=True)
class Answer:
    """What was found in an image.

    Attributes:
        poses: all people.
        shape: (H, W) of the image.
        seconds: spent by stage; ``wait`` is the time in the queue.
        maps: what the network saw, and the predictor that can lay it over the image.
    """

    poses: Poses
    shape: tuple[int, int]
    seconds: dict[str, float]
    maps: tuple[Predictor, Maps]


@dataclass(eq=False)
class _Job:
    predictor: Predictor
    read: Callable[[], npt.NDArray[np.uint8]]
    future: Future[Answer]
    arrived: float
    prepared: Preprocessed | None = None
    stats: InferenceStats = field(default_factory=InferenceStats)

    @property
    def bucket(self) -> object:
        assert self.prepared is not None
        return id(self.predictor), self.prepared.bucket


class BatchQueue:
    """Predicts images that :meth:`submit` takes from any thread.

    Args:
        batch_size: most images that go through the network together.
        workers: threads that preprocess, and as many that decode.
        capacity: images that may wait or be worked on.
        most_pixels: of the network's inputs for one image, all views together.
    """

    def __init__(
        self, batch_size: int, workers: int, capacity: int, most_pixels: int = 1 << 26
    ) -> None:
        self._batch_size, self._capacity, self._most = batch_size, capacity, most_pixels
        self._inside = 0
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._readers = ThreadPoolExecutor(workers, "read")
        self._decoders = ThreadPoolExecutor(workers, "decode")
        self._network = threading.Thread(target=self._run, name="network", daemon=True)
        self._network.start()

    @property
    def inside(self) -> int:
        """Images that wait or are worked on."""
        return self._inside

    def submit(
        self, predictor: Predictor, read: Callable[[], npt.NDArray[np.uint8]]
    ) -> Future[Answer]:
        """Predict an image; cancel the future to give it up while it waits.

        Args:
            predictor: what predicts it; it returns all people.
            read: gives the (H, W, 3) uint8 RGB image, in a thread.

        Raises:
            QueueFullError: too many images are inside.
        """
        with self._changed:
            if self._closed or self._inside >= self._capacity:
                raise QueueFullError
            self._inside += 1
        job = _Job(predictor, read, Future(), time.perf_counter())
        job.future.add_done_callback(self._leave)
        self._readers.submit(self._prepare, job)
        return job.future

    def close(self) -> None:
        """Finish what is inside, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._readers.shutdown()
        with self._changed:
            self._changed.notify_all()
        self._network.join()
        self._decoders.shutdown()

    def _leave(self, _: Future[Answer]) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def _prepare(self, job: _Job) -> None:
        if job.future.cancelled():
            return
        try:
            with job.stats.timed("read"):
                image = job.read()
            job.prepared = job.predictor.preprocess(Scene(image), job.stats)
            if job.prepared.pixels > self._most:
                raise UserError(
                    f"an image of {image.shape[1]}x{image.shape[0]} pixels is too long and narrow "
                    "for this server"
                )
        except Exception as error:  # the client's image, or a bug: the request's answer
            _fail(job, error)
            return
        with self._changed:
            self._waiting.append(job)
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closed and not self._inside:
                        return
                    self._changed.wait()
                batch = self._take()
            if batch:
                self._forward(batch)

    def _take(self) -> list[_Job]:
        """The first job and others that can go with it."""
        self._waiting = deque(job for job in self._waiting if not job.future.cancelled())
        if not self._waiting:
            return []
        bucket = self._waiting[0].bucket
        batch = [job for job in self._waiting if job.bucket == bucket][: self._batch_size]
        self._waiting = deque(job for job in self._waiting if job not in batch)
        return batch

    def _forward(self, batch: list[_Job]) -> None:
        start = time.perf_counter()
        stats = InferenceStats()
        try:
            prepared = [job.prepared for job in batch if job.prepared is not None]
            views = batch[0].predictor.forward(prepared, stats)
            for job, own in zip(batch, views, strict=True):
                inside = sum(job.stats.seconds.values())
                job.stats.seconds["wait"] = start - job.arrived - inside
                for stage, seconds in stats.seconds.items():
                    job.stats.seconds[stage] += seconds
                self._decoders.submit(self._decode, job, own)
        except UserError as error:  # a detector cannot take one of them
            if len(batch) == 1:
                _fail(batch[0], error)
                return
            for job in batch:
                self._forward([job])
        except Exception as error:  # the thread goes on for the others
            for job in batch:
                _fail(job, error)

    def _decode(self, job: _Job, views: list[View]) -> None:
        try:
            assert job.prepared is not None
            poses, maps = job.predictor.postprocess(job.prepared, views, job.stats)
            seconds = dict(job.stats.seconds)
            answer = Answer(poses, job.prepared.shape, seconds, (job.predictor, maps))
        except Exception as error:
            _fail(job, error)
            return
        with suppress(InvalidStateError):  # given up at this moment
            job.future.set_result(answer)


def _fail(job: _Job, error: Exception) -> None:
    with suppress(InvalidStateError):
        job.future.set_exception(error)
