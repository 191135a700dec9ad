"""Where AP is lost: boxes, heatmaps, tags and grouping are replaced by ground truth one at a time.

The network looks at every image once; its outputs are then decoded again with one part of them
replaced, and the AP that each replacement gains is what that part costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from ... import geometry
from ...boxes import Boxes
from ...datasets.base import PoseDataset
from ...evaluation.evaluator import CocoEvaluator
from ...evaluation.oks import closeness
from ...inference.predictor import Predictor, Scene
from ...inference.stats import InferenceStats
from ...inference.types import BoxesOf
from ...methods.bottom_up import grouping as tagging
from ...methods.bottom_up.codec import BottomUpCodec
from ...methods.bottom_up.predictor import BottomUpPredictor
from ...methods.heatmaps import Peaks
from ...methods.top_down.predictor import Crops, TopDownPredictor
from ...outputs import Outputs, View, map_outputs, to_host
from ...poses import ABSENT, Poses
from ...structures import KeypointIndices, Sample, map_tensors

_BETWEEN = 10.0
"""Distance of the oracle's tags of two people; 1 already separates."""
_NO_PERSON = -1000.0
_BELONGS = 0.1
"""A peak at least so close (OKS of the joint) to an annotated joint is taken to be it."""
_SAME_BOX = 0.3
"""A box that overlaps an annotated one by less contains no person."""


@dataclass(frozen=True)
class OracleResult:
    """What one replacement gains.

    Attributes:
        replaced: ``nothing``, ``boxes``, ``heatmaps``, ``tags``, ``grouping``, or several.
        AP: 0..1, then.
        gain: over the AP with nothing replaced: what the replaced part costs.
    """

    replaced: str
    AP: float
    gain: float


def oracle_analysis(
    predictor: Predictor,
    dataset: PoseDataset,
    boxes_of: BoxesOf,
    build_evaluator: Callable[[], CocoEvaluator],
) -> list[OracleResult]:
    """AP with each part replaced by ground truth; first with nothing replaced.

    Args:
        predictor: makes the predictions.
        dataset: the images.
        boxes_of: where a top-down predictor gets its boxes; replaced ones are the annotated ones.
        build_evaluator: makes an empty evaluator of the data set.
    """
    variants_of = _VARIANTS[predictor.method]
    evaluators: dict[str, CocoEvaluator] = {}
    indices = tqdm(range(len(dataset)), desc="oracle", unit=" images", mininterval=2.0)
    for index in indices:
        sample = dataset.sample(index)
        for name, poses in variants_of(predictor, sample, boxes_of):
            if name not in evaluators:
                evaluators[name] = build_evaluator()
            evaluators[name].update(sample.id, poses)
    scores = {name: evaluator.summarize()["AP"] for name, evaluator in evaluators.items()}
    return [OracleResult(name, score, score - scores["nothing"]) for name, score in scores.items()]


def _bottom_up(
    predictor: Predictor, sample: Sample, boxes_of: BoxesOf
) -> Iterator[tuple[str, Poses]]:
    assert isinstance(predictor, BottomUpPredictor)
    predictor = replace(predictor, zoom_sizes=())  # what the report says
    codec, augmentation, stats = predictor.codec, predictor.augmentation, InferenceStats()
    prepared = predictor.preprocess(Scene(sample.image), stats)
    (views,) = predictor.forward([prepared], stats)
    views = [replace(view, outputs=map_outputs(view.outputs, to_host)) for view in views]
    shape = prepared.shape
    oracle = [_oracle_view(predictor, sample, view) for view in views]
    variants: dict[str, Sequence[View]] = {
        "nothing": views,
        "heatmaps": [_combine(t, v) for t, v in zip(oracle, views, strict=True)],
        "tags": [_combine(v, t) for t, v in zip(oracle, views, strict=True)],
        "heatmaps and tags": oracle,
    }
    for name, some in variants.items():
        maps = codec.aggregate(some, augmentation.projected_shape(shape))
        to_image = augmentation.to_image(shape, maps.shape)
        yield name, codec.decode(maps, to_image).poses
        if name == "nothing":
            group = _oracle_grouping(codec, sample, geometry.invert(to_image))
            yield "grouping", codec.decode(maps, to_image, group).poses


def _combine(heatmaps: View, tags: View) -> View:
    """Heatmaps of one view, tags of the other."""
    return replace(heatmaps, outputs=Outputs(heatmaps.outputs.heatmaps, tags.outputs.tags))


def _oracle_view(predictor: BottomUpPredictor, sample: Sample, view: View) -> View:
    """What a perfect network would have predicted of one view."""
    codec, augmentation = predictor.codec, predictor.augmentation
    shape, affine = geometry.fit_view(
        (sample.image.shape[0], sample.image.shape[1]),
        augmentation.input_size, view.scale, min(augmentation.scales),
    )  # fmt: skip
    poses = sample.poses.warp(affine)
    keypoints = codec.index_keypoints(poses, np.ones(shape, np.uint8), flipped=False)
    heatmaps = codec.encode(map_tensors(keypoints, lambda tensor: tensor[None])).heatmaps
    tags = []
    for own in view.outputs.tags:
        size = (own.shape[2], own.shape[3])
        stride = shape[0] // max(size[0], 1)
        tags.append(_nearest_person(poses, stride, size)[None] if own.shape[1] else own)
    outputs = Outputs(tuple(map(to_host, heatmaps)), tuple(tags))
    if view.flipped:
        flip = codec.skeleton.flip_indices

        def flipped(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            return (maps[:, flip] if maps.shape[1] == len(flip) else maps)[..., ::-1]

        outputs = map_outputs(outputs, flipped)
    return replace(view, outputs=outputs)


def _nearest_person(poses: Poses, stride: int, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """(K, h, w) tags: everywhere those of the person whose joint is nearest."""
    joints = poses.xy.shape[1]
    y, x = np.mgrid[: shape[0], : shape[1]]
    tags = np.full((joints, *shape), _NO_PERSON, np.float32)
    present = poses.visibility > ABSENT
    for joint in range(joints):
        people = np.flatnonzero(present[:, joint])
        if len(people):
            at = poses.xy[people, joint] / stride
            distance = (x - at[:, 0, None, None]) ** 2 + (y - at[:, 1, None, None]) ** 2
            tags[joint] = _BETWEEN * people[distance.argmin(axis=0)]
    return tags


def _oracle_grouping(
    codec: BottomUpCodec, sample: Sample, to_map: geometry.Affine
) -> Callable[[Sequence[Peaks]], list[tagging.Member]]:
    """Gives the network's own peaks to the annotated people they belong to, best first; the other
    peaks are grouped among themselves by their tags."""
    poses = sample.poses
    joints_at = geometry.apply(to_map, poses.xy)
    factor = abs(float(np.linalg.det(to_map[:2, :2])))
    area = np.maximum(np.prod(sample.boxes[:, 2:], axis=1) * factor, 1.0)

    def group(peaks: Sequence[Peaks]) -> list[tagging.Member]:
        members: list[tagging.Member] = [{} for _ in range(len(poses))]
        spare: list[list[int]] = [[] for _ in peaks]
        for joint, found in enumerate(peaks):
            sigma = [codec.skeleton.sigmas[joint]]
            for candidate, location in enumerate(found.location):  # best first
                near = closeness(location[None], joints_at[:, [joint]], area, sigma)[:, 0]
                near[poses.visibility[:, joint] == ABSENT] = 0
                near[[joint in member for member in members]] = 0
                if near.max(initial=0) > _BELONGS:
                    members[int(near.argmax())][joint] = candidate
                else:
                    spare[joint].append(candidate)
        left = [
            Peaks(found.xy[rows], found.score[rows], found.location[rows], found.tags[rows])
            for found, rows in zip(peaks, spare, strict=True)
        ]
        others = [
            {joint: spare[joint][candidate] for joint, candidate in member.items()}
            for member in codec.group(left)
        ]
        return [member for member in members if member] + others

    return group


def _top_down(
    predictor: Predictor, sample: Sample, boxes_of: BoxesOf
) -> Iterator[tuple[str, Poses]]:
    assert isinstance(predictor, TopDownPredictor)
    stats = InferenceStats()
    own = boxes_of(sample)
    if own is None:
        assert predictor.detector is not None
        (own,) = predictor.detector([sample.image])
    for boxes, name, name_of_maps in (
        (own, "nothing", "heatmaps"),
        (Boxes.of(sample.boxes), "boxes", "boxes and heatmaps"),
    ):
        prepared = predictor.preprocess(Scene(sample.image, boxes), stats)
        assert isinstance(prepared, Crops)
        (views,) = predictor.forward([prepared], stats)
        yield name, predictor.decode(prepared, views, stats)[0]
        oracle = _oracle_crops(predictor, sample, prepared)
        yield name_of_maps, predictor.decode(prepared, oracle, stats)[0]


def _oracle_crops(predictor: TopDownPredictor, sample: Sample, prepared: Crops) -> list[View]:
    """What a perfect network would have predicted of each crop: the joints of the person whose box
    overlaps the crop's most, or nothing where there is none."""
    codec, shape = predictor.codec, predictor.image_size
    overlap = _overlap(prepared.boxes.xywh, sample.boxes)
    valid = np.ones(shape, np.uint8)
    indices = []
    blank = codec.index_keypoints(Poses.empty(len(codec.skeleton)), valid)
    for row, affine in enumerate(predictor.affines(prepared.boxes, shape)):
        own = torch.full((1, len(codec.skeleton)), -1)
        if overlap.shape[1] and overlap[row].max() >= _SAME_BOX:
            person = sample.poses.select([int(overlap[row].argmax())])
            own = codec.index_keypoints(person.warp(affine), valid).indices[0]
        indices.append(own)
    if not indices:
        stride = codec.heads[0].stride
        empty = torch.zeros(0, len(codec.skeleton), shape[0] // stride, shape[1] // stride)
        return [View(Outputs((empty,), (empty[:, :0],)), 1.0, flipped=False)]
    keypoints = KeypointIndices(
        (torch.stack(indices),), blank.valid.expand(len(indices), *blank.valid.shape)
    )
    heatmaps = codec.encode(keypoints).heatmaps[0]
    return [View(Outputs((heatmaps,), (heatmaps[:, :0],)), 1.0, flipped=False)]


def _overlap(
    boxes: npt.NDArray[np.float64], others: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(N, M) intersection over union of boxes x, y, w, h."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(
        boxes[:, None, :2] + boxes[:, None, 2:], others[None, :, :2] + others[None, :, 2:]
    )
    shared = np.maximum(high - low, 0).prod(axis=2)
    total = boxes[:, 2:].prod(axis=1)[:, None] + others[:, 2:].prod(axis=1) - shared
    return np.asarray(shared / np.maximum(total, 1e-9))


_VARIANTS = {"bottom-up": _bottom_up, "top-down": _top_down}
"""Method → (predictor, sample, boxes_of) → poses by what was replaced."""
