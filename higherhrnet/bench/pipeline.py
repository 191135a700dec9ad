"""From files to people: one picture after another the plain way, then through the pipeline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..datasets.pictures import read_picture
from ..errors import UserError
from ..inference import pipeline
from ..inference.bottom_up import BottomUp
from ..inference.predictor import Scene
from ..poses import Poses
from . import plain
from .table import Row


def run(
    predictor: BottomUp,
    pictures: Sequence[Path],
    batches: Sequence[int],
    workers: Sequence[int],
    plain_pictures: int = 8,
) -> list[Row]:
    """Rows of batch × workers, against the plain path on the first few pictures.

    Args:
        predictor: with its test settings.
        pictures: files.
        batches: pictures that go through the network together.
        workers: threads that read, and threads that decode.
        plain_pictures: how many the plain path is measured on; it is slow.
    """
    exact = replace(predictor, precision="fp32", compiled=False, graphs=False)
    some = list(pictures[:plain_pictures])
    plainly(exact, some[0])
    start = time.perf_counter()
    people = sum(plainly(exact, path) for path in some)
    slow = (time.perf_counter() - start) / len(some)
    rows: list[Row] = [
        {"way": "plain", "batch": 1, "workers": 0, "pictures": len(some), "people": people,
         "pictures/s": 1 / slow, "ratio": 1.0}
    ]  # fmt: skip
    reference: list[Poses] | None = None
    for batch in batches:
        for count in workers:
            mine = replace(predictor, batch=batch, workers=count)
            # Every size of input once; compiling and recording are not meant here.
            every = mine.compiled or mine.graphs or mine.device.type == "cuda"
            list(pipeline.run(mine, pictures if every else some[:1], _read))
            mine.seconds.update(dict.fromkeys(mine.seconds, 0.0))
            start = time.perf_counter()
            found = [
                result[0]
                for _, result in pipeline.run(mine, pictures, _read)
                if not isinstance(result, UserError)
            ]
            taken = (time.perf_counter() - start) / len(pictures)
            reference = reference or found
            rows.append({
                "way": "pipeline", "batch": batch, "workers": count, "pictures": len(found),
                "people": sum(map(len, found)), "pictures/s": 1 / taken, "ratio": slow / taken,
                "people as in the first row": _alike(found, reference),
                **{f"{k} ms": 1000 * v / len(pictures) for k, v in mine.seconds.items()},
            })  # fmt: skip
    return rows


@torch.inference_mode()
def plainly(predictor: BottomUp, path: Path) -> int:
    """People of one picture: eager network, published decoding."""
    prepared = predictor.prepare(_read(path))
    (views,) = predictor.answer([prepared])
    shape = predictor.protocol.projected_shape(prepared.shape)
    codec = predictor.codec
    maps = plain.merge(views, predictor.skeleton, shape, codec.aggregate, codec.smooth)
    _, scores = plain.decode(maps, codec)
    return len(scores)


def _read(path: Path) -> Scene:
    return Scene(read_picture(path))


def _alike(found: Sequence[Poses], reference: Sequence[Poses]) -> str:
    same = sum(
        len(a) == len(b) and np.allclose(a.xy, b.xy, atol=1e-3)
        for a, b in zip(found, reference, strict=True)
    )
    return f"{same} of {len(found)}"
