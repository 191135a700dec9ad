"""The network's outputs for all views of one image → aggregated maps (HigherHRNet, sec. 3.4).

Heads are brought to the finest one's resolution and averaged; flipped views are flipped back and
their joints exchanged; heatmaps are averaged over views, tags are stacked, and only those of the
scale nearest to 1 are used. Flipped views are averaged before anything is enlarged: resizing is
linear, so that only rounding differs from the published order, at a fraction of the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ...outputs import View, is_on_host, to_host
from ...skeleton import Skeleton
from ..heatmaps import PUBLISHED, SubPixel, gaussian_blur
from .maps import AggregatedMaps, HostMaps
from .refinement import resize_bilinear, resize_bilinear_into

Shape = tuple[int, int]
_Array = npt.NDArray[np.float32]
_Stack = tuple[_Array, bool]
"""Maps (C, h, w) of one view, and whether it is flipped."""


def aggregate_views(
    views: Sequence[View],
    skeleton: Skeleton,
    shape: Shape | None = None,
    with_heatmaps: Sequence[bool] = (),
    blur_sigma: float = 0.0,
    sub_pixel: SubPixel = PUBLISHED,
) -> AggregatedMaps:
    """Average and stack the network's outputs for all views of one image.

    Args:
        views: the network's outputs, largest scale first; all on one device.
        skeleton: the K joints.
        shape: (H, W) to which all maps are projected; None keeps the size of the first view.
        with_heatmaps: for each output, whether its heatmaps are averaged; all if empty.
        blur_sigma: of a Gaussian over the result's heatmaps, heatmap pixels; 0 for none.
        sub_pixel: how points are read from the result.
    """
    tag_scale = min((view.scale for view in views), key=lambda scale: abs(np.log(scale)))
    scales = list(dict.fromkeys(view.scale for view in views))
    by_scale = [[view for view in views if view.scale == scale] for scale in scales]
    for_tags = by_scale[scales.index(tag_scale)]
    shape = shape or finest_shape(views[0])
    rest = (skeleton, shape, with_heatmaps, blur_sigma, sub_pixel)
    if is_on_host(views[0].outputs.heatmaps[0]):
        return _on_host(by_scale, for_tags, *rest)
    from .device_maps import aggregate_on_device

    return aggregate_on_device(by_scale, for_tags, *rest)


def used_outputs(view: View, with_heatmaps: Sequence[bool]) -> list[int]:
    """Which outputs' heatmaps are averaged."""
    outputs = range(len(view.outputs.heatmaps))
    return [h for h in outputs if not with_heatmaps or with_heatmaps[h]]


def split_tags(view: View, skeleton: Skeleton) -> list[Any]:
    """(1, K or 1, h, w) for each dimension of each output's tags."""
    joints = len(skeleton)
    return [
        maps
        for tag in view.outputs.tags
        if tag.shape[1]
        for maps in _split(tag, joints if tag.shape[1] % joints == 0 else 1)
    ]


def _split(tag: Any, channels: int) -> list[Any]:
    return [tag[:, at : at + channels] for at in range(0, tag.shape[1], channels)]


def finest_shape(view: View) -> Shape:
    maps = view.outputs.heatmaps[-1]
    return maps.shape[2], maps.shape[3]


def _on_host(
    by_scale: Sequence[Sequence[View]],
    for_tags: Sequence[View],
    skeleton: Skeleton,
    shape: Shape,
    with_heatmaps: Sequence[bool],
    blur_sigma: float,
    sub_pixel: SubPixel,
) -> HostMaps:
    """Joint by joint, so that what is added up and enlarged is still in the cache."""
    total = np.empty((len(skeleton), *shape), np.float32)
    for number, views in enumerate(by_scale):
        heads = [
            [(to_host(view.outputs.heatmaps[h])[0], view.flipped) for view in views]
            for h in used_outputs(views[0], with_heatmaps)
        ]
        finest = finest_shape(views[0])
        for joint, heatmap in enumerate(total):
            means = [_mean([_unflip(maps, joint, skeleton) for maps in head]) for head in heads]
            combined = _mean([_enlarge(mean, finest) for mean in means])
            if number:
                heatmap += _enlarge(combined, shape)
            else:
                _resize(combined, heatmap)
    if len(by_scale) > 1:
        total /= len(by_scale)
    if blur_sigma:
        for heatmap in total:
            heatmap[...] = gaussian_blur(heatmap, blur_sigma)
    finest = finest_shape(for_tags[0])
    stacks = [
        (to_host(tag)[0], view.flipped) for view in for_tags for tag in split_tags(view, skeleton)
    ]
    tags = np.empty((len(stacks), len(stacks[0][0]), *finest), np.float32)
    for stack, maps in zip(stacks, tags, strict=True):
        for channel, tag in enumerate(maps):
            _resize(_unflip(stack, channel, skeleton), tag)
    return HostMaps(total, tags, sub_pixel)


def _unflip(maps: _Stack, joint: int, skeleton: Skeleton) -> _Array:
    """One joint's map of the unmirrored image. One map of tags may serve all joints."""
    array, flipped = maps
    if not flipped:
        return array[joint]
    if len(array) == len(skeleton):
        joint = skeleton.flip_indices[joint]
    # cv2.flip is vectorized; a negative stride is not.
    return np.asarray(cv2.flip(array[joint], 1), np.float32)


def _enlarge(heatmap: _Array, shape: Shape) -> _Array:
    return resize_bilinear(heatmap[None], shape)[0]


def _resize(heatmap: _Array, into: _Array) -> None:
    resize_bilinear_into(heatmap[None], into[None])


def _mean(parts: Sequence[_Array]) -> _Array:
    """Mean of equal shapes; the part itself if there is but one."""
    if len(parts) == 1:
        return parts[0]
    total = parts[0] + parts[1]
    for part in parts[2:]:
        total += part
    total /= len(parts)
    return total
