"""From files to people: one image after another in float32, then through the pipeline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import UserError
from ...inference import pipeline
from ...inference.engines.torch_engine import TorchEngine
from ...inference.predictor import Predictor, Scene
from ...inference.stats import InferenceStats
from ...io.images import read_image
from ...poses import Poses
from .table import Row


def run(
    predictor: Predictor,
    exact: Predictor,
    images: Sequence[Path],
    batches: Sequence[int],
    workers: Sequence[int],
    few: int = 8,
) -> list[Row]:
    """Rows of batch × workers, against one image after another on the first few images.

    Args:
        predictor: with its test settings.
        exact: the same in float32, neither compiled nor recorded.
        images: files.
        batches: images that go through the network together.
        workers: threads that read, and threads that decode.
        few: how many the first row is measured on.
    """
    some = list(images[:few])
    exact(some[0])
    start = time.perf_counter()
    people = sum(len(exact(path)) for path in some)
    slow = (time.perf_counter() - start) / len(some)
    rows: list[Row] = [
        {"way": "one by one, fp32", "batch": 1, "workers": 0, "images": len(some),
         "people": people, "images/s": 1 / slow, "ratio": 1.0}
    ]  # fmt: skip
    reference: list[Poses] | None = None
    engine = predictor.engine
    is_prepared_by_size = isinstance(engine, TorchEngine) and (
        engine.fixed_batch or engine.device.startswith("cuda")
    )
    for batch in batches:
        for count in workers:
            varied = replace(predictor, batch_size=batch, workers=count)
            # Every size of input once: compiling and recording are not measured.
            list(pipeline.run(varied, images if is_prepared_by_size else some[:1], _read))
            stats = InferenceStats()
            start = time.perf_counter()
            found = [
                result[0]
                for _, result in pipeline.run(varied, images, _read, stats)
                if not isinstance(result, UserError)
            ]
            taken = (time.perf_counter() - start) / len(images)
            reference = reference or found
            rows.append({
                "way": "pipeline", "batch": batch, "workers": count, "images": len(found),
                "people": sum(map(len, found)), "images/s": 1 / taken, "ratio": slow / taken,
                "same as in the first row": _count_same(found, reference),
                **{f"{k} ms": 1000 * v / len(images) for k, v in stats.seconds.items()},
            })  # fmt: skip
    return rows


def _read(path: Path) -> Scene:
    return Scene(read_image(path))


def _count_same(found: Sequence[Poses], reference: Sequence[Poses]) -> str:
    same = sum(
        len(a) == len(b) and np.allclose(a.xy, b.xy, atol=1e-3)
        for a, b in zip(found, reference, strict=True)
    )
    return f"{same} of {len(found)}"
