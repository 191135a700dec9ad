"""``higherhrnet predict-dataset``."""

from __future__ import annotations

import argparse
import sys
import time

from ..distributed import is_main_process
from ..factory.predict_dataset import predict_dataset
from .messages import count


def predict_many(options: argparse.Namespace) -> int:
    """Predict very many images into Parquet files."""
    begun = time.perf_counter()
    totals = predict_dataset(
        options.sources,
        options.output,
        weights=options.weights,
        device=options.device,
        overrides=options.overrides,
        preset=options.preset,
        unit_size=options.unit_size,
        ray=options.ray,
        workers=options.workers,
    )
    if is_main_process():
        seconds = time.perf_counter() - begun
        before = f" ({totals.skipped} were there before)" if totals.skipped else ""
        print(
            f"{totals.people} people in {count(totals.images, 'image')}{before}, "
            f"{totals.images / seconds:.1f} images/s; {totals.errors} damaged; "
            f"{count(totals.units, 'Parquet file')} in {options.output}"
        )
        if totals.failed:
            print(
                f"higherhrnet: {totals.failed} images or archives could not be read now; the same "
                "command tries them again",
                file=sys.stderr,
            )
    return 1 if totals.failed else 0
