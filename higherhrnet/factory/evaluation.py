"""Config → validation: predictions of a data set, and their metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile

from ..config import PoseConfig
from ..datasets.base import PoseDataset
from ..distributed import ProcessGroup
from ..evaluation.evaluator import CocoEvaluator
from ..inference.predictor import Predictor
from ..inference.stats import InferenceStats
from ..inference.types import BoxesOf
from ..inference.validation import Validation, validate
from ..methods.base import method_of


def build_evaluator(config: PoseConfig, dataset: PoseDataset) -> CocoEvaluator:
    """Scores predictions of a data set in the config's way."""
    return CocoEvaluator(dataset, config.TEST.EVALUATION, config.TEST.ACCURACY_RADIUS)


def run_validation(
    config: PoseConfig,
    predictor: Predictor,
    dataset: PoseDataset,
    boxes_of: BoxesOf | None = None,
    group: ProcessGroup | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    stats: InferenceStats | None = None,
) -> Validation:
    """Predict a whole data set and measure what the config says.

    Args:
        config: says how to evaluate and what else to measure.
        predictor: with the config's test protocol.
        dataset: the annotated images.
        boxes_of: where boxes come from; the config's source by default.
        group, should_stop, stats: see :func:`inference.validation.validate`.
    """
    method, group = method_of(config), group or ProcessGroup()
    result = validate(
        predictor,
        dataset,
        build_evaluator(config, dataset),
        boxes_of or method.build_boxes(config, dataset),
        method.build_diagnostics(config, dataset.skeleton),
        group,
        should_stop,
        stats,
    )
    if not method.extra_heads(config):
        return result
    own = range(group.rank, len(dataset), group.size)
    indices = takewhile(lambda index: not should_stop(), own)
    parts = group.gather(method.evaluate_extra_heads(predictor, dataset, indices))
    measured = method.summarize_extra_heads(parts, dataset.annotations)
    return replace(result, diagnostics=result.diagnostics | measured)
