"""Very many images → Parquet files, by one process, by torchrun's, or by Ray's workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..distributed import ProcessGroup, init_distributed
from ..errors import UserError, WriteError
from ..inference import parquet_files, pipeline
from ..inference.image_sources import Unit, UnreadError, list_units
from ..inference.predictor import Predictor, Scene
from ..io.lock import lock_folder
from ..io.pixels import to_pixels
from ..methods.base import method_of
from .checkpoints import config_of, open_network
from .device import choose_device
from .inference import load_predictor
from .presets import preset_overrides
from .provenance import describe_predictor

_log = logging.getLogger(__name__)
_COUNTED = ("units", "images", "people", "errors", "failed")


@dataclass
class Totals:
    """What a run did.

    Attributes:
        units, images, people: that it wrote.
        errors: of the images, those that are damaged.
        failed: images and archives that could not be read now; the next call tries them again.
        skipped: images that were there before.
    """

    units: int = 0
    images: int = 0
    people: int = 0
    errors: int = 0
    failed: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class UnitPredictor:
    """Predicts units; what travels to another process is how to make the predictor.

    Attributes:
        weights, device, overrides, preset: of :func:`load`.
        output: folder of the files.
        about: metadata of the run's files.
    """

    weights: str
    device: str
    overrides: tuple[Any, ...]
    preset: str | None
    output: str
    about: dict[str, str]
    _loaded: list[Predictor] = field(default_factory=list)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_loaded": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def predictor(self) -> Predictor:
        """Loaded once a process."""
        if not self._loaded:
            file = open_network(self.weights)
            self._loaded.append(
                load_predictor(file, self.device, self.overrides, preset=self.preset)
            )
        return self._loaded[0]

    def __call__(self, unit: Unit) -> Totals:
        """Predict a unit and write its file; an archive that breaks off is left for another time.

        Raises:
            WriteError: the disk is full, or the like.
        """
        failed: list[UnreadError] = []
        try:
            rows = list(self._rows(unit, failed))
        except UnreadError as error:
            _log.error("%s", error)
            return Totals(failed=1)
        for unread in failed:
            _log.error("%s", unread)
        if not rows:
            return Totals(failed=len(failed))
        parquet_files.write_unit(
            Path(self.output), unit.name, rows, self.about, archive=unit.archive
        )
        errors = sum(row["error"] is not None for row in rows)
        people = sum(len(row["person_score"]) for row in rows)
        return Totals(1, len(rows), people, errors, len(failed))

    def _rows(self, unit: Unit, failed: list[UnreadError]) -> Iterator[parquet_files.Row]:
        images: dict[int, tuple[int, int]] = {}

        def load(job: tuple[int, str, bytes]) -> Scene:
            number, name, data = job
            try:
                pixels = to_pixels(data)
            except UserError as error:
                raise UserError(str(error).replace("the given bytes", name)) from error
            images[number] = pixels.shape[0], pixels.shape[1]
            return Scene(pixels)

        def jobs() -> Iterator[tuple[int, str, bytes]]:
            for number, (name, data) in enumerate(unit.read()):
                if isinstance(data, UnreadError):
                    failed.append(data)
                else:
                    yield number, name, data

        for (number, name, _), result in pipeline.run(self.predictor, jobs(), load):
            if isinstance(result, UserError):
                yield parquet_files.make_error_row(name, result)
            else:
                yield parquet_files.make_row(name, images.pop(number), result[0])


def predict_dataset(
    sources: str | Path | Iterable[str | Path],
    output: str | Path,
    weights: str = "higherhrnet_w18_mini",
    device: str = "auto",
    overrides: Sequence[Any] = (),
    preset: str | None = None,
    unit_size: int = 256,
    ray: str | None = None,
    workers: int = 0,
) -> Totals:
    """Predict very many images into a folder of Parquet files; see
    :mod:`inference.parquet_files`.

    Images that files of the folder have already are left out: after a kill the same call goes on,
    and nothing is lost or there twice. Broken images are rows with an error.

    Args:
        sources: see :func:`inference.image_sources.list_units`.
        output: the folder.
        weights, device, overrides, preset: see :func:`load`.
        unit_size: images of a file, and of what is lost at most by a kill; tar archives are one
            file each.
        ray: spread over the workers of a Ray cluster at this address; ``local`` starts one here.
            None takes this process, or those of torchrun.
        workers: of Ray; 0 takes one a GPU, or one a CPU core.

    Returns:
        what this call did, over all processes.

    Raises:
        UserError: a source is missing, the folder holds files of another network, or top-down
            weights are named without a detector.
    """
    parquet_files.require_pyarrow()
    if unit_size < 1:
        raise UserError(f"a unit has at least 1 image, not {unit_size}")
    folder, chosen = Path(output).absolute(), choose_device(device)
    settings = str(weights), tuple(overrides), preset, str(folder)
    if ray is not None:
        predict = make_predictor(device, *settings)
        with lock_folder(folder, "dataset prediction"):
            units, skipped = _plan(sources, folder, unit_size, predict.about)
            return _with_ray(predict, units, ray, workers, Totals(skipped=skipped))
    with (
        init_distributed(chosen.type == "cuda") as group,
        lock_folder(folder, "dataset prediction") if group.main else nullcontext(),
    ):
        is_shared = chosen.type == "cuda" and group.size > 1
        predict = make_predictor(f"cuda:{group.local_rank}" if is_shared else device, *settings)
        # One process plans: the others must not see files that are written meanwhile.
        planned = _plan(sources, folder, unit_size, predict.about) if group.main else None
        units, skipped = group.gather(planned)[0] or ([], 0)
        totals = _alone(predict, units, group)
        counts = group.total([getattr(totals, name) for name in _COUNTED])
        return Totals(**dict(zip(_COUNTED, counts, strict=True)), skipped=skipped)


def make_predictor(
    device: str, weights: str, overrides: tuple[Any, ...], preset: str | None, folder: str
) -> UnitPredictor:
    """Checks everything on this machine, before workers start."""
    network = open_network(weights)
    varied = preset_overrides(network, preset)
    method = method_of(config_of(network, [*varied, *overrides]))
    overrides = (*overrides, *method.prediction_overrides(None, overrides))
    config = config_of(network, [*varied, *overrides])
    made = UnitPredictor(weights, device, overrides, preset, folder, {})
    predictor = made.predictor
    if not predictor.finds_people and getattr(predictor, "detector", None) is None:
        raise UserError(
            f"'{weights}' are top-down weights, and TEST.BBOX_SOURCE names no detector: a file of "
            "boxes serves predict alone"
        )
    settings = describe_predictor(network, predictor, config)
    made.about.update(parquet_files.describe(predictor.skeleton, settings))
    return made


def _plan(
    sources: str | Path | Iterable[str | Path], folder: Path, size: int, about: dict[str, str]
) -> tuple[list[Unit], int]:
    """What is left to do, and how many images were done before."""
    done = parquet_files.read_done(folder, about)
    units = list_units(sources, size, done.images | done.archives)
    if done.images:
        _log.info("%d images were predicted before", len(done.images))
    return units, len(done.images)


def _alone(predict: UnitPredictor, units: Sequence[Unit], group: ProcessGroup) -> Totals:
    """This process's share of the units."""
    own = units[group.rank :: group.size]
    return _sum(map(predict, own), len(own), quiet=not group.main)


def _sum(done: Iterable[Totals], count: int, quiet: bool, skipped: int = 0) -> Totals:
    totals = Totals(skipped=skipped)
    with tqdm(total=count, unit=" units", mininterval=1.0, disable=quiet or count < 2) as bar:
        for one in done:
            totals.units += one.units
            totals.images += one.images
            totals.people += one.people
            totals.errors += one.errors
            totals.failed += one.failed
            bar.update()
            bar.set_postfix(images=totals.images)
    return totals


def _with_ray(
    predict: UnitPredictor, units: Sequence[Unit], address: str, workers: int, totals: Totals
) -> Totals:
    """Ray Data's workers; a unit whose worker dies is given to another one."""
    try:
        ray: Any = import_module("ray")
        import_module("ray.data")
    except ImportError as error:
        raise UserError('this needs Ray: pip install "higherhrnet[ray]"') from error
    if not units:
        return totals
    started = not ray.is_initialized()
    if started:
        ray.init(
            address=None if address == "local" else address,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        resources: dict[str, float] = ray.cluster_resources()
        on_gpus = resources.get("GPU", 0) > 0 and predict.device != "cpu"
        count = workers or int(resources.get("GPU" if on_gpus else "CPU", 1))
        count = min(count, len(units))
        rows = [{"unit": unit} for unit in units]
        found = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _RayWorker,
            fn_constructor_args=(predict,),
            batch_size=1,
            concurrency=count,
            num_cpus=0 if on_gpus else 1,
            num_gpus=1 if on_gpus else 0,
        )
        done = (Totals(**_plain(row)) for row in found.iter_rows())
        return _sum(done, len(units), quiet=False, skipped=totals.skipped)
    except ray.exceptions.RayTaskError as error:  # what a worker raised, with its traceback
        if isinstance(error.cause, UserError | WriteError):
            raise error.cause from error
        raise
    finally:
        if started:
            ray.shutdown()


class _RayWorker:
    """One of Ray's actors: units → totals."""

    def __init__(self, predict: UnitPredictor) -> None:
        self._predict: Callable[[Unit], Totals] = predict

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        done = [self._predict(unit) for unit in batch["unit"]]
        return {name: [getattr(one, name) for one in done] for name in _COUNTED}


def _plain(row: dict[str, Any]) -> dict[str, int]:
    return {name: int(value) for name, value in row.items()}
