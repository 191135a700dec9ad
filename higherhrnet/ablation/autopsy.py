"""Where AP is lost: boxes, heatmaps, tags and grouping are replaced by the truth one at a time.

The network looks at every picture once; its answers are then decoded again with one part of them
replaced, and the AP that each replacement gains is what that part costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from .. import build, geometry
from ..boxes import Boxes
from ..codecs import tags as tagging
from ..codecs.bottom_up import BottomUpCodec
from ..codecs.heatmaps import Peaks
from ..datasets.keypoints import Pictures
from ..evaluation.oks import closeness
from ..fields import Marks, Outputs, Sample, View
from ..inference.bottom_up import BottomUp, Whole
from ..inference.predictor import Scene
from ..inference.top_down import Crops, TopDown
from ..poses import ABSENT, Poses
from ..validation import records_of

_BETWEEN = 10.0
"""Distance of true tags of two people; 1 already separates."""
_NOBODY = -1000.0
_BELONGS = 0.1
"""A peak at least so close (OKS of the joint) to a true joint is taken to be it."""
_SAME_BOX = 0.3
"""A box that overlaps a true one by less is around nobody."""


@dataclass(frozen=True)
class Cause:
    """What one replacement gains.

    Attributes:
        replaced: what was the truth: ``nothing``, ``boxes``, ``heatmaps``, ``tags``, ``grouping``,
            or several.
        AP: 0..1, then.
        gain: over the row as it is: the AP that the replaced part costs.
    """

    replaced: str
    AP: float
    gain: float


def autopsy(
    ready: BottomUp | TopDown, truth: Pictures, boxes_of: build.BoxesOf, evaluate: build.Evaluate
) -> list[Cause]:
    """AP with each part replaced by the truth, the row as it is first.

    Args:
        ready: who predicts.
        truth: the pictures.
        boxes_of: where a top-down predictor looks; replaced boxes are the annotated ones.
        evaluate: (records, annotations, skeleton) → figures.
    """
    found: dict[str, dict[int | str, Poses]] = {}
    numbers = tqdm(range(len(truth)), desc="autopsy", unit=" pictures", mininterval=2.0)
    for number in numbers:
        sample = truth.sample(number)
        poses = (
            _bottom_up(ready, sample)
            if isinstance(ready, BottomUp)
            else _top_down(ready, sample, boxes_of)
        )
        for name, people in poses:
            found.setdefault(name, {})[sample.id] = people
    annotations, skeleton = truth.annotations, truth.skeleton
    scores = {
        name: evaluate(records_of(people), annotations, skeleton)["AP"]
        for name, people in found.items()
    }
    return [Cause(name, score, score - scores["nothing"]) for name, score in scores.items()]


def _bottom_up(ready: BottomUp, sample: Sample) -> Iterator[tuple[str, Poses]]:
    codec, protocol = ready.codec, ready.protocol
    prepared = ready.prepare(Scene(sample.image))
    assert isinstance(prepared, Whole)
    (views,) = ready.answer([prepared])
    shape = prepared.shape
    true = [_true_view(ready, sample, view) for view in views]
    variants: dict[str, Sequence[View]] = {
        "nothing": views,
        "heatmaps": [_mixed(t, v) for t, v in zip(true, views, strict=True)],
        "tags": [_mixed(v, t) for t, v in zip(true, views, strict=True)],
        "heatmaps and tags": true,
    }
    with torch.inference_mode():
        for name, some in variants.items():
            maps = codec.merge(some, protocol.projected_shape(shape))
            to_picture = protocol.to_picture(shape, maps.shape)
            yield name, codec.decode(maps, to_picture).poses
            if name == "nothing":
                true_groups = _true_grouping(codec, sample, geometry.invert(to_picture))
                yield "grouping", codec.decode(maps, to_picture, true_groups).poses


def _mixed(heat: View, tags: View) -> View:
    """Heatmaps of one answer, tags of the other."""
    return replace(heat, outputs=Outputs(heat.outputs.heatmaps, tags.outputs.tags))


def _true_view(ready: BottomUp, sample: Sample, view: View) -> View:
    """What a perfect network would have answered to one view."""
    codec, scales = ready.codec, ready.protocol.scales
    shape, affine = geometry.fit_view(
        (sample.image.shape[0], sample.image.shape[1]),
        ready.protocol.input_size, view.scale, min(scales),
    )  # fmt: skip
    poses = sample.poses.warp(affine)
    marks = codec.mark(poses, np.ones(shape, np.uint8), mirrored=False)
    alone = Marks(tuple(cells[None] for cells in marks.cells), marks.valid[None])
    heatmaps = codec.encode(alone).heatmaps
    tags = []
    for head, own in zip(codec.heads, view.outputs.tags, strict=True):
        size = (own.shape[2], own.shape[3])
        tags.append(_nearest_person(poses, head.stride, size)[None] if own.shape[1] else own)
    outputs = Outputs(tuple(heatmaps), tuple(tags))
    if view.mirrored:
        flip = torch.from_numpy(codec.skeleton.flip)

        def mirrored(maps: torch.Tensor) -> torch.Tensor:
            return (maps[:, flip] if maps.shape[1] == len(flip) else maps).flip(3)

        outputs = Outputs(
            tuple(map(mirrored, outputs.heatmaps)), tuple(map(mirrored, outputs.tags))
        )
    device = view.outputs.heatmaps[0].device
    return replace(
        view,
        outputs=Outputs(
            tuple(m.to(device) for m in outputs.heatmaps), tuple(t.to(device) for t in outputs.tags)
        ),
    )


def _nearest_person(poses: Poses, stride: int, shape: tuple[int, int]) -> torch.Tensor:
    """(K, h, w) tags: everywhere those of the person whose joint is nearest."""
    joints = poses.xy.shape[1]
    y, x = np.mgrid[: shape[0], : shape[1]]
    tags = np.full((joints, *shape), _NOBODY, np.float32)
    present = poses.visibility > ABSENT
    for joint in range(joints):
        people = np.flatnonzero(present[:, joint])
        if len(people):
            at = poses.xy[people, joint] / stride
            apart = (x - at[:, 0, None, None]) ** 2 + (y - at[:, 1, None, None]) ** 2
            tags[joint] = _BETWEEN * people[apart.argmin(axis=0)]
    return torch.from_numpy(tags)


def _true_grouping(
    codec: BottomUpCodec, sample: Sample, to_map: geometry.Affine
) -> Callable[[Sequence[Peaks]], list[tagging.Member]]:
    """Puts the network's own peaks to the true people they belong to, the hottest first; peaks of
    nobody are grouped among themselves by their tags, as ever."""
    poses = sample.poses
    joints_at = geometry.apply(to_map, poses.xy)
    factor = abs(float(np.linalg.det(to_map[:2, :2])))
    area = np.maximum(np.prod(sample.boxes[:, 2:], axis=1) * factor, 1.0)

    def grouped(peaks: Sequence[Peaks]) -> list[tagging.Member]:
        members: list[tagging.Member] = [{} for _ in range(len(poses))]
        spare: list[list[int]] = [[] for _ in peaks]
        for joint, found in enumerate(peaks):
            sigma = [codec.skeleton.sigmas[joint]]
            for candidate, place in enumerate(found.place):  # the hottest first
                near = closeness(place[None], joints_at[:, [joint]], area, sigma)[:, 0]
                near[poses.visibility[:, joint] == ABSENT] = 0
                near[[joint in member for member in members]] = 0
                if near.max(initial=0) > _BELONGS:
                    members[int(near.argmax())][joint] = candidate
                else:
                    spare[joint].append(candidate)
        left = [
            Peaks(found.xy[rows], found.score[rows], found.place[rows], found.tags[rows])
            for found, rows in zip(peaks, spare, strict=True)
        ]
        strangers = [
            {joint: spare[joint][candidate] for joint, candidate in member.items()}
            for member in codec.group(left)
        ]
        return [member for member in members if member] + strangers

    return grouped


def _top_down(
    ready: TopDown, sample: Sample, boxes_of: build.BoxesOf
) -> Iterator[tuple[str, Poses]]:
    own = boxes_of(sample)
    if own is None:
        assert ready.detector is not None
        (own,) = ready.detector([sample.image])
    for boxes, name, name_of_maps in (
        (own, "nothing", "heatmaps"),
        (Boxes.of(sample.boxes), "boxes", "boxes and heatmaps"),
    ):
        prepared = ready.prepare(Scene(sample.image, boxes))
        assert isinstance(prepared, Crops)
        (views,) = ready.answer([prepared])
        yield name, ready.decoded(prepared, views)[0]
        yield name_of_maps, ready.decoded(prepared, _true_crops(ready, sample, prepared))[0]


def _true_crops(ready: TopDown, sample: Sample, prepared: Crops) -> list[View]:
    """What a perfect network would have answered to each crop: the joints of the person whose box
    overlaps the crop's most, or nothing where there is nobody."""
    codec = ready.codec
    overlap = _overlap(prepared.boxes.xywh, sample.boxes)
    valid = np.ones(ready.view, np.uint8)
    cells = []
    nobody = Poses.empty(len(codec.skeleton))
    blank = codec.mark(nobody, valid)
    for row, affine in enumerate(ready.affines(prepared.boxes, ready.view)):
        cell = torch.full((1, len(codec.skeleton)), -1)
        if overlap.shape[1] and overlap[row].max() >= _SAME_BOX:
            person = sample.poses.select([int(overlap[row].argmax())])
            cell = codec.mark(person.warp(affine), valid).cells[0]
        cells.append(cell)
    if not cells:
        stride = codec.heads[0].stride
        empty = torch.zeros(
            0, len(codec.skeleton), ready.view[0] // stride, ready.view[1] // stride
        )
        return [View(Outputs((empty,), (empty[:, :0],)), 1.0, mirrored=False)]
    marks = Marks((torch.stack(cells),), blank.valid.expand(len(cells), *blank.valid.shape))
    heatmaps = codec.encode(marks).heatmaps[0]
    return [View(Outputs((heatmaps,), (heatmaps[:, :0],)), 1.0, mirrored=False)]


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
