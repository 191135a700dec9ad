"""Many images: reading, network and decoding at the same time, with the results in order.

One thread makes the jobs (a video's frames, say), others load and preprocess images or postprocess
the network's outputs; OpenCV, PyAV, NumPy and torch release the interpreter while they compute.
The network runs in the caller's thread (:func:`run`), or in a thread of its own while the caller
draws and writes results (:func:`run_in_background`). Images whose inputs have the same size go
through the network together. The results do not depend on the number of threads.
"""

from __future__ import annotations

import queue
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import repeat
from typing import Any, TypeVar

import cv2

from ..errors import UserError, lack_of
from ..io.pixels import ImageLike, is_single, keep_pixels, to_pixels
from ..poses import Poses
from .predictor import BoxesLike, Maps, Predictor, Preprocessed, Scene
from .stats import InferenceStats

Job = TypeVar("Job")
Result = tuple[Poses, Maps]
_END = object()
_PATIENCE = 2.0
"""Seconds that a job which is being made has to end in."""


def run(
    predictor: Predictor,
    jobs: Iterable[Job],
    load: Callable[[Job], Scene],
    stats: InferenceStats | None = None,
) -> Generator[tuple[Job, Result | UserError], None, None]:
    """Predict the image of every job, in the order of the jobs.

    Only a few images are in memory at a time, however many jobs there are.

    Args:
        predictor: makes the predictions.
        jobs: what to load images by; requested as needed.
        load: job → image, with boxes where they are known. A ``UserError`` that it or the
            predictor raises takes the place of the job's result; any other exception ends the run.
        stats: counts times and what limits dropped.
    """
    run = _Run(predictor, load, stats or InferenceStats())
    batch_size, workers = predictor.batch_size, predictor.workers
    with (
        closing(_prefetch(jobs, batch_size)) as coming,
        ThreadPoolExecutor(workers) as readers,
        ThreadPoolExecutor(workers) as decoders,
    ):
        yield from run.results(coming, readers, decoders)


def run_in_background(
    predictor: Predictor,
    jobs: Iterable[Job],
    load: Callable[[Job], Scene],
    stats: InferenceStats | None = None,
) -> Generator[tuple[Job, Result | UserError], None, None]:
    """Like :func:`run`, in a thread of its own that is one batch ahead of the caller."""
    return _prefetch(run(predictor, jobs, load, stats), predictor.batch_size)


class _Slot:
    """An entry in the queue of results."""

    def __init__(self) -> None:
        self.bucket: object = None
        self.error: UserError | None = None
        self.future: Future[Result] | None = None

    @property
    def waits_for_network(self) -> bool:
        return self.error is None and self.future is None

    @property
    def is_done(self) -> bool:
        return self.error is not None or (self.future is not None and self.future.done())

    def result(self) -> Result | UserError:
        if self.error is not None:
            return self.error
        assert self.future is not None
        try:
            return self.future.result()
        except UserError as error:  # boxes of impossible sizes, say
            return error


class _Run:
    """The state of one :func:`run`: images being read, images in buckets, results."""

    def __init__(
        self, predictor: Predictor, load: Callable[[Any], Scene], stats: InferenceStats
    ) -> None:
        self._predictor, self._load, self._stats = predictor, load, stats
        self._reading: deque[tuple[Any, Future[Preprocessed]]] = deque()
        self._results: deque[tuple[Any, _Slot]] = deque()
        self._buckets: dict[object, list[tuple[Preprocessed, _Slot]]] = defaultdict(list)

    def results(
        self, jobs: Iterator[Any], readers: ThreadPoolExecutor, decoders: ThreadPoolExecutor
    ) -> Iterator[tuple[Any, Result | UserError]]:
        """Jobs with their results, in order."""
        batch_size, workers = self._predictor.batch_size, self._predictor.workers
        read_ahead, window = 2 * batch_size + 2 * workers, 4 * batch_size
        results = self._results
        failure: Exception | None = None
        try:
            while True:
                while len(self._reading) < read_ahead and failure is None:
                    try:
                        if (job := next(jobs, _END)) is _END:
                            break
                    except Exception as error:  # earlier jobs still get their results
                        failure = error
                        break
                    self._reading.append((job, readers.submit(self._preprocess, job)))
                if not self._reading:
                    break
                self._take_one(batch_size, decoders)
                # An image of a rare size must not hold up all others.
                while len(results) > window:
                    if results[0][1].waits_for_network:
                        self._forward(results[0][1].bucket, decoders)
                    yield self._pop()
                while results and results[0][1].is_done:
                    yield self._pop()
            for bucket in list(self._buckets):
                self._forward(bucket, decoders)
            while results:
                yield self._pop()
            if failure is not None:
                raise failure
        finally:
            for _, unread in self._reading:
                unread.cancel()

    def _preprocess(self, job: Any) -> Preprocessed:
        try:
            return self._predictor.preprocess(self._load(job), self._stats)
        except (MemoryError, RuntimeError, cv2.error) as error:
            if lack_of(error) != "memory":
                raise
            raise UserError("there is not enough memory for an image of this size") from error

    def _take_one(self, batch_size: int, decoders: ThreadPoolExecutor) -> None:
        """Move the first image that is read into its bucket; a full bucket goes to the network."""
        job, future = self._reading.popleft()
        slot = _Slot()
        self._results.append((job, slot))
        try:
            prepared = future.result()
        except UserError as error:
            slot.error = error
            return
        slot.bucket = prepared.bucket
        self._buckets[prepared.bucket].append((prepared, slot))
        if len(self._buckets[prepared.bucket]) == batch_size:
            self._forward(prepared.bucket, decoders)

    def _forward(self, bucket: object, decoders: ThreadPoolExecutor) -> None:
        waiting = self._buckets.pop(bucket)
        try:
            views = self._predictor.forward([prepared for prepared, _ in waiting], self._stats)
        except UserError as error:  # a detector cannot take one of them
            if len(waiting) == 1:
                waiting[0][1].error = error
                return
            for one in waiting:
                self._buckets[bucket] = [one]
                self._forward(bucket, decoders)
            return
        for (prepared, slot), own in zip(waiting, views, strict=True):
            slot.future = decoders.submit(self._predictor.postprocess, prepared, own, self._stats)

    def _pop(self) -> tuple[Any, Result | UserError]:
        job, slot = self._results.popleft()
        return job, slot.result()


def predict_many(
    predictor: Predictor,
    images: Iterable[ImageLike],
    boxes: Iterable[BoxesLike] | None = None,
    on_error: Callable[[int, UserError], object] | None = None,
    channel_order: str = "RGB",
) -> Generator[Poses, None, None]:
    """Poses of many images, in their order: read ahead, and batched as the predictor is set.

    Only a few images are in memory at a time, however many there are; arrays are copied.

    Args:
        predictor: makes the predictions.
        images: files, bytes, arrays, Pillow images or tensors, as the predictor takes them.
        boxes: of the people in each image, for a top-down predictor; see its call.
        on_error: called with the index of an image that cannot be read, and why; its poses are
            then empty and the others follow. Without it the error is raised.
        channel_order: ``RGB``, or ``BGR`` for arrays as OpenCV reads them.

    Raises:
        UserError: ``images`` is one image; or what a call of the predictor would raise for one
            of them, or too few or too many boxes, when it is their turn.
    """
    if is_single(images):
        raise UserError("predict_many takes several images; call the predictor for one")

    def load(job: tuple[Any, Any]) -> Scene:
        image, own = job
        if image is _END or own is _END:
            raise UserError(
                "predict_many wants boxes for each image, and was given "
                + ("fewer" if own is _END else "more")
            )
        return Scene(to_pixels(image, channel_order), predictor.check_boxes(own))

    return _poses(predictor, run(predictor, _pairs(images, boxes), load), on_error)


def _pairs(
    images: Iterable[ImageLike], boxes: Iterable[BoxesLike] | None
) -> Iterator[tuple[Any, Any]]:
    """Images with their boxes; ``_END`` stands for the one of which there are fewer."""
    of_images: Iterator[Any] = repeat(None) if boxes is None else iter(boxes)
    for image in images:
        # Images are read ahead, and callers may fill the same array again.
        yield keep_pixels(image), next(of_images, _END)
    if boxes is not None and next(of_images, _END) is not _END:
        yield _END, None


def _poses(
    predictor: Predictor,
    results: Generator[tuple[Any, Result | UserError], None, None],
    on_error: Callable[[int, UserError], object] | None,
) -> Generator[Poses, None, None]:
    with closing(results) as stream:
        for index, (job, result) in enumerate(stream):
            if not isinstance(result, UserError):
                yield result[0]
            elif on_error is None or any(part is _END for part in job):
                raise result
            else:
                on_error(index, result)
                yield Poses.empty(len(predictor.skeleton))


def _prefetch(jobs: Iterable[Job], most: int) -> Generator[Job, None, None]:
    """The jobs, made by a thread of their own, at most so many before they are requested.

    What making them raises is raised in its turn. Closing ends the thread after the current job,
    and then closes ``jobs`` if that is a generator; a job that does not come, such as the next
    frame of a camera that was unplugged, is not waited for.
    """
    made: queue.Queue[tuple[object, BaseException | None]] = queue.Queue(most)
    closed = threading.Event()

    def put(job: object, error: BaseException | None = None) -> None:
        while not closed.is_set():
            with suppress(queue.Full):
                return made.put((job, error), timeout=0.1)

    def make() -> None:
        try:
            for job in jobs:
                put(job)
                if closed.is_set():
                    break
        except BaseException as error:  # raised again in the caller's thread
            put(_END, error)
        finally:
            if isinstance(jobs, Generator):
                jobs.close()
        put(_END)

    thread = threading.Thread(target=make, name="jobs", daemon=True)
    thread.start()
    try:
        while True:
            job, error = made.get()
            if error is not None:
                raise error
            if job is _END:
                return
            yield job  # type: ignore[misc]
    finally:
        closed.set()
        thread.join(_PATIENCE)
