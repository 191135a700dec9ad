"""Predictions in, named metrics out: the one evaluation of training, ``valid`` and the ablation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any, Protocol

from ..distributed import ProcessGroup
from ..poses import Poses
from ..skeleton import Skeleton
from .coco import coco_metrics, crowdpose_metrics
from .pck import accuracy_metrics, pckh_metrics

MAX_DETECTIONS = 20
"""COCO's evaluation uses the 20 best detections of an image."""


class AnnotatedDataset(Protocol):
    """What is evaluated against."""

    @property
    def skeleton(self) -> Skeleton:
        """The joints, with their OKS sigmas."""

    @property
    def annotations(self) -> Mapping[str, Any]:
        """The ground truth in COCO format."""


@dataclass
class CocoEvaluator:
    """Collects the poses of images, then scores them as their data set is scored.

    Attributes:
        dataset: the ground truth.
        evaluation: see :func:`evaluate`.
        accuracy_radius: pixels within which a joint is right for ``accuracy``.
        poses: image id → everything that was predicted there.
    """

    dataset: AnnotatedDataset
    evaluation: str = "auto"
    accuracy_radius: float = 10.0
    poses: dict[int | str, Poses] = field(default_factory=dict)

    def update(self, image_id: int | str, poses: Poses) -> None:
        """Add the predictions of one image."""
        self.poses[image_id] = poses

    def gather(self, group: ProcessGroup) -> None:
        """Add what the other processes predicted; all must call.

        Images that process r of n took in turn (r, r + n, …) come into their order again, so that
        equal scores are ranked as in a single process.
        """
        shares = group.gather(list(self.poses.items()))
        in_turn = chain.from_iterable(zip_longest(*shares))
        self.poses = dict(entry for entry in in_turn if entry is not None)

    def summarize(self) -> dict[str, float]:
        """The metrics of everything that was added; see :func:`evaluate`."""
        return evaluate(
            to_records(self.poses),
            self.dataset.annotations,
            self.dataset.skeleton,
            self.evaluation,
            self.accuracy_radius,
        )


def to_records(poses: Mapping[int | str, Poses]) -> list[dict[str, Any]]:
    """COCO keypoint results of poses by image id."""
    return [record for image_id, found in poses.items() for record in found.to_coco(image_id)]


def evaluate(
    records: Sequence[Mapping[str, Any]],
    annotations: Mapping[str, Any],
    skeleton: Skeleton,
    evaluation: str = "auto",
    accuracy_radius: float = 10.0,
) -> dict[str, float]:
    """Score keypoint results the way their data set is scored.

    Args:
        records: results of all images (``Poses.to_coco``); may be empty.
        annotations: the ground truth in COCO format.
        skeleton: gives the OKS sigmas.
        evaluation: ``coco``, ``crowdpose``, ``pckh`` (besides COCO's), ``accuracy`` of single
            joints (besides COCO's), or ``auto``: images with a ``crowdIndex`` are CrowdPose's,
            people with MPII's joints are scored by PCKh too, all else is COCO's.
        accuracy_radius: pixels within which a joint is right for ``accuracy``.

    Returns:
        metrics 0..1, among them :func:`main_metric`'s; -1 where there is nothing to find.
    """
    evaluation = resolve_evaluation(evaluation, annotations, skeleton)
    if evaluation == "crowdpose":
        return crowdpose_metrics(records, annotations, skeleton)
    metrics = coco_metrics(records, annotations, skeleton)
    if evaluation == "pckh":
        metrics |= pckh_metrics(records, annotations, skeleton)
    if evaluation == "accuracy":
        metrics |= accuracy_metrics(records, annotations, skeleton, accuracy_radius)
    return metrics


def resolve_evaluation(evaluation: str, annotations: Mapping[str, Any], skeleton: Skeleton) -> str:
    """The name itself, or what ``auto`` means for these images; see :func:`evaluate`."""
    if evaluation != "auto":
        return evaluation
    if any(image.get("crowdIndex") is not None for image in annotations["images"]):
        return "crowdpose"
    return "pckh" if {"head_top", "upper_neck"} <= set(skeleton.joints) else "coco"


def main_metric(
    annotations: Mapping[str, Any],
    skeleton: Skeleton,
    evaluation: str = "auto",
    finds_people: bool = True,
) -> str:
    """The metric that says which of two networks is better: AP, or PCKh where that is the set's.

    Args:
        annotations, skeleton, evaluation: see :func:`evaluate`.
        finds_people: whether the network finds people by itself. PCKh does not count people who
            are not there, so that such a network is judged by AP.
    """
    if finds_people or resolve_evaluation(evaluation, annotations, skeleton) != "pckh":
        return "AP"
    has_heads = pckh_metrics([], annotations, skeleton)["PCKh"] >= 0
    return "PCKh" if has_heads else "AP"


def format_metrics(metrics: Mapping[str, float]) -> str:
    """The metrics on one line each."""
    width = max(map(len, metrics))
    return "\n".join(f"  {name:{width}s} {format_metric(v):>6s}" for name, v in metrics.items())


def format_metric(value: float) -> str:
    """A share times 100, a count as it is, a dash where there was nothing to find."""
    if isinstance(value, int):
        return str(value)
    return "-" if value < 0 else f"{100 * value:.2f}"
