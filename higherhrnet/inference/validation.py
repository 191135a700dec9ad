"""Validation: predict a whole set of annotated images and score the predictions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from ..datasets.base import PoseDataset
from ..distributed import ProcessGroup
from ..errors import UserError
from ..evaluation.evaluator import MAX_DETECTIONS, CocoEvaluator, to_records
from ..poses import Poses
from ..structures import Sample
from . import pipeline
from .predictor import Predictor, Scene
from .stats import InferenceStats
from .types import BoxesOf, Diagnostics


@dataclass(frozen=True)
class Validation:
    """The results of a validation.

    Attributes:
        poses: image id → everything that was predicted there, in the order of the set.
        metrics: the evaluator's.
        diagnostics: further values; see :class:`Diagnostics`.
    """

    poses: dict[int | str, Poses]
    metrics: dict[str, float]
    diagnostics: dict[str, float]

    @property
    def records(self) -> list[dict[str, Any]]:
        """COCO keypoint results."""
        return to_records(self.poses)

    @property
    def detections_beyond_limit(self) -> int:
        """People beyond the 20 an image that COCO's evaluation uses."""
        return sum(max(len(poses) - MAX_DETECTIONS, 0) for poses in self.poses.values())


def validate(
    predictor: Predictor,
    dataset: PoseDataset,
    evaluator: CocoEvaluator,
    boxes_of: BoxesOf = lambda sample: None,
    diagnostics: Diagnostics | None = None,
    group: ProcessGroup | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    stats: InferenceStats | None = None,
) -> Validation:
    """Predict all images and compare with the ground truth.

    Args:
        predictor: makes the predictions.
        dataset: the annotated images.
        evaluator: of the data set; empty.
        boxes_of: where a top-down predictor gets its boxes.
        diagnostics: measures more.
        group: processes that share the images; all get the same results.
        should_stop: asked after every image; when true, the results are of what was done so far.
        stats: counts times and what limits dropped.

    Raises:
        UserError: model and images have different numbers of joints, or an image cannot be read.
    """
    if len(predictor.skeleton) != len(dataset.skeleton):
        raise UserError(
            f"the model predicts {len(predictor.skeleton)} joints, but the images are annotated "
            f"with {len(dataset.skeleton)}"
        )
    group = group or ProcessGroup()
    own = range(group.rank, len(dataset), group.size)
    jobs = (_Job(dataset, index, boxes_of) for index in own)
    progress = tqdm(
        desc="valid", total=len(own), unit=" images", mininterval=2.0, disable=not group.main
    )
    with progress, closing(pipeline.run(predictor, jobs, _Job.load, stats)) as results:
        for job, result in results:
            if isinstance(result, UserError):
                raise result
            poses, maps = result
            evaluator.update(job.sample.id, poses)
            if diagnostics is not None:
                diagnostics.update(predictor, job.sample, maps)
            progress.update()
            if should_stop():
                break
    evaluator.gather(group)
    if diagnostics is not None:
        diagnostics.gather(group)
    measured = {} if diagnostics is None else diagnostics.summarize()
    return Validation(evaluator.poses, evaluator.summarize(), measured)


class _Job:
    """An annotated image, read when a thread gets to it."""

    sample: Sample

    def __init__(self, dataset: PoseDataset, index: int, boxes_of: BoxesOf) -> None:
        self._dataset, self._index, self._boxes_of = dataset, index, boxes_of

    def load(self) -> Scene:
        self.sample = self._dataset.sample(self._index)
        return Scene(self.sample.image, self._boxes_of(self.sample))
