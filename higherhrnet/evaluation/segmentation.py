"""Mean intersection over union and accuracies of label maps, as PASCAL VOC and Cityscapes have
them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


def count_pixels(
    labels: npt.NDArray[np.uint8], found: npt.NDArray[np.uint8], classes: int, ignored: int
) -> Counts:
    """(C, C) pixels of each annotated class (row) that were predicted as each class (column).

    Args:
        labels: (H, W) annotated class numbers.
        found: (H, W) predicted class numbers.
        classes: C.
        ignored: the label of pixels that do not count.
    """
    counted = labels != ignored
    pairs = labels[counted].astype(np.int64) * classes + found[counted]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def segmentation_metrics(counts: Counts, names: Sequence[str]) -> dict[str, float]:
    """Metrics 0..1 of pixel counts; see :func:`count_pixels`.

    Returns:
        ``mIoU``, ``pixel accuracy``, ``mean accuracy`` (of the classes that are annotated), and
        ``IoU NAME`` of each class. A class that is neither annotated nor predicted has IoU -1 and
        does not count.
    """
    hits = np.diag(counts).astype(float)
    annotated, predicted = counts.sum(axis=1), counts.sum(axis=0)
    union = annotated + predicted - hits
    iou = np.where(union > 0, hits / np.maximum(union, 1), -1.0)
    accuracy = hits[annotated > 0] / annotated[annotated > 0]
    total = int(counts.sum())
    return {
        "mIoU": float(iou[union > 0].mean()) if total else -1.0,
        "pixel accuracy": float(hits.sum() / total) if total else -1.0,
        "mean accuracy": float(accuracy.mean()) if len(accuracy) else -1.0,
        **{f"IoU {name}": float(value) for name, value in zip(names, iou, strict=True)},
    }
