"""A million images from measured parts: what limits ``predict-dataset``, and with how many workers.

Measured on this machine: predicting and writing a unit, loading the network, reading what was done
before, and (with Ray) giving out units. Simulated: workers that ask one scheduler for units, read
from one store, compute, write, and die now and then.
"""

from __future__ import annotations

import heapq
import logging
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import UserError
from ...factory.predict_dataset import UnitPredictor
from ...inference import parquet_files
from ...inference.image_sources import Unit
from .table import Row


@dataclass(frozen=True)
class Parts:
    """What was measured.

    Attributes:
        image: seconds of a worker an image, all stages.
        image_bytes: of a file.
        load: seconds until a new worker predicts.
        dispatch: seconds of the scheduler a unit.
        plan: seconds a unit to read what was done before.
        row_bytes: an image takes in Parquet.
    """

    image: float
    image_bytes: float
    load: float
    dispatch: float
    plan: float
    row_bytes: float


def measure(predict: UnitPredictor, files: Sequence[Path], with_ray: bool) -> Parts:
    """The parts, of units of these images.

    Raises:
        UserError: there are no images, or Ray is not installed.
    """
    if not files:
        raise UserError("bench dataset measures images; none was given")
    # A new process, as a worker that takes another one's place.
    code = "import pickle, sys; pickle.load(sys.stdin.buffer).predictor"
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], input=pickle.dumps(predict), check=True)
    load = time.perf_counter() - begun
    unit = Unit(tuple(map(str, files)))
    predict(Unit(unit.images[:2]))
    begun = time.perf_counter()
    predict(unit)
    image = (time.perf_counter() - begun) / len(files)
    written = Path(predict.output) / f"{unit.name}.parquet"
    row_bytes = written.stat().st_size / len(files)
    begun = time.perf_counter()
    parquet_files.read_done(Path(predict.output), predict.about)
    plan = (time.perf_counter() - begun) / len(list(Path(predict.output).glob("*.parquet")))
    size = sum(file.stat().st_size for file in files) / len(files)
    return Parts(image, size, load, _measure_dispatch() if with_ray else 0.001, plan, row_bytes)


def _measure_dispatch(units: int = 300) -> float:
    """Seconds of Ray a unit that takes no time."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError('this needs Ray: pip install "higherhrnet[ray]"') from error
    ray.init(num_cpus=2, log_to_driver=False, logging_level=logging.ERROR)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False

        def run(count: int) -> float:
            rows = ray.data.from_items([{"n": n} for n in range(count)], override_num_blocks=count)
            begun = time.perf_counter()
            rows.map_batches(lambda batch: batch, batch_size=1).count()
            return time.perf_counter() - begun

        run(10)
        return (run(units) - run(10)) / (units - 10)
    finally:
        ray.shutdown()


def simulate(
    parts: Parts,
    workers: int,
    images: int,
    unit: int,
    store: float,
    failures_per_hour: float,
    seed: int = 0,
) -> Row:
    """One run: images a second, hours, and what most of the time was waited for.

    Args:
        parts: measured.
        workers: of equal speed.
        images: of the whole set.
        unit: images of a unit.
        store: bytes a second that the object store gives to all workers together.
        failures_per_hour: of each worker; its unit is lost, and a new worker loads the network.
        seed: of the failures.
    """
    generator = np.random.default_rng(seed)
    left = -(-images // unit)
    transfer, compute = unit * parts.image_bytes / store, unit * parts.image
    scheduler_free = store_free = 0.0
    waited = {"scheduler": 0.0, "store": 0.0}
    lost, end, deaths = 0.0, 0.0, 0
    ready = [(parts.load, number) for number in range(workers)]
    heapq.heapify(ready)
    while left:
        now, number = heapq.heappop(ready)
        given = max(now, scheduler_free) + parts.dispatch
        scheduler_free = given
        # The store serves one after another as fast as it can; reading is ahead of computing.
        arrived = max(given, store_free) + transfer
        store_free = arrived
        finished = max(arrived, given + compute)
        waited["scheduler"] += given - now
        waited["store"] += max(arrived - given - compute, 0.0)
        death = generator.exponential(3600 / failures_per_hour) if failures_per_hour else np.inf
        if given + death < finished:
            deaths += 1
            lost += death + parts.load
            heapq.heappush(ready, (given + death + parts.load, number))
            continue
        left -= 1
        end = max(end, finished)
        heapq.heappush(ready, (finished, number))
    busy = workers * end
    shares = {name: seconds / busy for name, seconds in waited.items()}
    limit = max(shares, key=lambda name: shares[name])
    return {
        "workers": workers,
        "images/s": images / end,
        "hours": end / 3600,
        "efficiency %": 100 * images * parts.image / busy,
        "limited by": limit if shares[limit] > 0.1 else "the network",
        "waiting %": 100 * sum(shares.values()),
        "lost %": 100 * lost / busy,
        "workers died": deaths,
    }


def run(
    predict: UnitPredictor,
    files: Sequence[Path],
    workers: Sequence[int],
    images: int,
    unit: int,
    store: float,
    failures_per_hour: float,
    with_ray: bool,
) -> Iterator[Row]:
    """Prints what was measured and where it saturates; one row for each number of workers."""
    parts = measure(predict, files, with_ray)
    print(
        f"measured: {1000 * parts.image:.1f} ms and {parts.image_bytes / 1000:.0f} kB an image, "
        f"{parts.load:.1f} s until a new worker predicts, {1000 * parts.dispatch:.2f} ms a unit to "
        f"give out ({'Ray' if with_ray else 'assumed'}), {1000 * parts.plan:.1f} ms a unit to go "
        f"on after a kill, {parts.row_bytes:.0f} bytes an image in Parquet"
    )
    by_store = store / parts.image_bytes
    by_scheduler = unit / parts.dispatch
    print(
        f"saturates at {min(by_store, by_scheduler) * parts.image:.0f} workers: the store gives "
        f"{by_store:.0f} images/s, the scheduler {by_scheduler:.0f}"
    )
    for count in workers:
        yield simulate(parts, count, images, unit, store, failures_per_hour)
