"""Many pictures: reading, network and decoding at the same time, and in order.

One thread makes the jobs (a video's frames, say), others load pictures and fit them to the network
or decode its answers; OpenCV, PyAV, NumPy and torch let go of the interpreter while they compute.
The network stays in the caller's thread (:func:`run`), or gets one of its own while the caller
draws and writes what came out (:func:`run_aside`).
Pictures whose inputs have the same size go through the network together. What comes out does not
depend on the number of threads.
"""

from __future__ import annotations

import queue
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..datasets.pictures import read_picture
from ..errors import UserError
from ..poses import Poses
from .predictor import BoxesLike, Drawable, Image, Predictor, Prepared, Scene

Job = TypeVar("Job")
Found = tuple[Poses, Drawable]


def run(
    predictor: Predictor,
    jobs: Iterable[Job],
    load: Callable[[Job], Scene],
) -> Generator[tuple[Job, Found | UserError], None, None]:
    """People of every job's picture, in the order of the jobs.

    Only a few pictures are held at a time, however many jobs there are.

    Args:
        predictor: who predicts.
        jobs: what to load pictures by; asked for as needed.
        load: job → picture, with boxes where they are known. A ``UserError`` of it, or of what
            finds boxes, stands in for the result of its job.
    """
    batch, workers = predictor.batch, predictor.workers
    ahead = 2 * batch + 2 * workers
    window = 4 * batch
    with (
        closing(_made_ahead(jobs, batch)) as coming,
        ThreadPoolExecutor(workers) as readers,
        ThreadPoolExecutor(workers) as decoders,
    ):
        reading: deque[tuple[Job, Future[Prepared]]] = deque()
        results: deque[tuple[Job, _Slot]] = deque()
        buckets: dict[object, list[tuple[Prepared, _Slot]]] = defaultdict(list)

        def answer(bucket: object) -> None:
            waiting = buckets.pop(bucket)
            try:
                views = predictor.answer([prepared for prepared, _ in waiting])
            except UserError as error:  # a detector cannot take one of them
                if len(waiting) == 1:
                    waiting[0][1].error = error
                else:
                    for alone in waiting:
                        buckets[bucket] = [alone]
                        answer(bucket)
                return
            for (prepared, slot), mine in zip(waiting, views, strict=True):
                slot.future = decoders.submit(predictor.finish, prepared, mine)

        failure: Exception | None = None
        try:
            while True:
                while len(reading) < ahead and failure is None:
                    try:
                        if (job := next(coming, _END)) is _END:
                            break
                    except Exception as error:  # what was made before it comes out before it
                        failure = error
                        break
                    reading.append((job, readers.submit(_load, predictor, load, job)))  # type: ignore[arg-type]
                if not reading:
                    break
                job, future = reading.popleft()
                slot = _Slot()
                results.append((job, slot))
                try:
                    prepared = future.result()
                except UserError as error:
                    slot.error = error
                else:
                    slot.bucket = prepared.bucket
                    buckets[prepared.bucket].append((prepared, slot))
                    if len(buckets[prepared.bucket]) == batch:
                        answer(prepared.bucket)
                # A rare size must not hold everybody up.
                while len(results) > window:
                    if results[0][1].waits:
                        answer(results[0][1].bucket)
                    yield _done(*results.popleft())
                while results and not results[0][1].waits and results[0][1].ready:
                    yield _done(*results.popleft())
            for bucket in list(buckets):
                answer(bucket)
            while results:
                yield _done(*results.popleft())
            if failure is not None:
                raise failure
        finally:
            for _, unread in reading:
                unread.cancel()


def run_aside(
    predictor: Predictor,
    jobs: Iterable[Job],
    load: Callable[[Job], Scene],
) -> Generator[tuple[Job, Found | UserError], None, None]:
    """Like :func:`run`, in a thread of its own that is one batch ahead of the caller."""
    return _made_ahead(run(predictor, jobs, load), predictor.batch)


def predict_many(
    predictor: Predictor,
    images: Iterable[Image | str | Path],
    boxes: Iterable[BoxesLike] | None = None,
    broken: Callable[[int, UserError], object] | None = None,
) -> Generator[Poses, None, None]:
    """People of many pictures, in their order: read ahead, and batched as the predictor is set.

    Only a few pictures are held at a time, however many there are; arrays are copied.

    Args:
        predictor: who predicts.
        images: files, or (H, W, 3) uint8 RGB arrays.
        boxes: of the people in each picture, for a top-down predictor; see its call.
        broken: told the place, from 0, of a picture that cannot be read, and why; it then shows
            nobody, and the others follow. Without it the error is raised and ends all.

    Raises:
        UserError: ``images`` is one picture; or what a call of the predictor would raise for one
            of them, or too few or too many boxes, when it is their turn.
    """
    if isinstance(images, str | Path) or (isinstance(images, np.ndarray) and images.ndim == 3):
        raise UserError("predict_many takes several pictures; call the predictor for one")

    def load(job: tuple[Any, Any]) -> Scene:
        image, where = job
        if image is _END or where is _END:
            raise UserError(
                "predict_many wants boxes for each picture, and was given "
                + ("fewer" if where is _END else "more")
            )
        seen = read_picture(image) if isinstance(image, str | Path) else image
        return Scene(seen, predictor.boxes_of(where))

    return _people(predictor, run(predictor, _asked(images, boxes), load), broken)


def _asked(
    images: Iterable[Image | str | Path], boxes: Iterable[BoxesLike] | None
) -> Iterator[tuple[Any, Any]]:
    """Pictures with their boxes; ``_END`` stands where there is only the other one."""
    looked_at: Iterator[Any] = repeat(None) if boxes is None else iter(boxes)
    for image in images:
        # Pictures are read ahead, and callers may fill the same array again.
        yield image.copy() if isinstance(image, np.ndarray) else image, next(looked_at, _END)
    if boxes is not None and next(looked_at, _END) is not _END:
        yield _END, None


def _people(
    predictor: Predictor,
    results: Generator[tuple[Any, Found | UserError], None, None],
    broken: Callable[[int, UserError], object] | None,
) -> Generator[Poses, None, None]:
    with closing(results) as stream:
        for place, (job, found) in enumerate(stream):
            if not isinstance(found, UserError):
                yield found[0]
            elif broken is None or any(part is _END for part in job):
                raise found
            else:
                broken(place, found)
                yield Poses.empty(len(predictor.skeleton))


class _Slot:
    """A place in the queue of results."""

    def __init__(self) -> None:
        self.bucket: object = None
        self.error: UserError | None = None
        self.future: Future[Found] | None = None

    @property
    def waits(self) -> bool:
        """For the network."""
        return self.error is None and self.future is None

    @property
    def ready(self) -> bool:
        return self.error is not None or (self.future is not None and self.future.done())


_END = object()


def _made_ahead(jobs: Iterable[Job], most: int) -> Generator[Job, None, None]:
    """The jobs, made by a thread of their own, at most so many before they are asked for.

    What making them raises comes out in its turn. Closing ends the thread after the job that it is
    at, and then closes ``jobs`` if that is a generator.
    """
    made: queue.Queue[tuple[object, BaseException | None]] = queue.Queue(most)
    ended = threading.Event()

    def put(job: object, error: BaseException | None = None) -> None:
        while not ended.is_set():
            with suppress(queue.Full):
                return made.put((job, error), timeout=0.1)

    def make() -> None:
        try:
            for job in jobs:
                put(job)
                if ended.is_set():
                    break
        except BaseException as error:  # it is the asker's
            put(_END, error)
        finally:
            if isinstance(jobs, Generator):
                jobs.close()
        put(_END)

    maker = threading.Thread(target=make, name="jobs", daemon=True)
    maker.start()
    try:
        while True:
            job, error = made.get()
            if error is not None:
                raise error
            if job is _END:
                return
            yield job  # type: ignore[misc]
    finally:
        ended.set()
        maker.join()


def _load(predictor: Predictor, load: Callable[[Job], Scene], job: Job) -> Prepared:
    try:
        return predictor.prepare(load(job))
    except MemoryError as error:
        raise UserError("there is not enough memory for a picture of this size") from error


def _done(job: Job, slot: _Slot) -> tuple[Job, Found | UserError]:
    if slot.error is not None:
        return job, slot.error
    assert slot.future is not None
    try:
        return job, slot.future.result()
    except UserError as error:  # boxes of impossible sizes, say
        return job, error
