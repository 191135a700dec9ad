"""The network's answers to all views of one picture → merged maps (HigherHRNet, sec. 3.4).

Heads are brought to the finest one's resolution and averaged; mirrored views are mirrored back and
their joints exchanged; heatmaps are averaged over views, tags are stacked, and only those of the
scale nearest to 1 are used. Mirrored views are averaged before anything is enlarged: resizing is
linear, so that only rounding differs from the published order, at a fraction of the work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ..constants import constant
from ..fields import View
from ..skeleton import Skeleton
from .heatmaps import smoothed, smoothed_on_device
from .maps import DeviceMaps, HostMaps, Maps
from .search import enlarge, enlarged

Shape = tuple[int, int]
_Array = npt.NDArray[np.float32]
_Stack = tuple[_Array, bool]
"""Maps (C, h, w) of one view, and whether it is mirrored."""


def merged(
    views: Sequence[View],
    skeleton: Skeleton,
    shape: Shape | None = None,
    aggregate: bool = True,
    smooth: float = 0.0,
) -> Maps:
    """Average and stack the network's answers to all views of one picture.

    Args:
        views: answers, largest scale first; all on one device.
        skeleton: the K joints.
        shape: (H, W) to which all maps are projected; None keeps the size of the first view.
        aggregate: average the heatmaps of all heads; otherwise the finest head's are used alone.
        smooth: sigma of a Gaussian over the result's heatmaps, cells; 0 for none.
    """
    tag_scale = min((view.scale for view in views), key=lambda scale: abs(np.log(scale)))
    scales = list(dict.fromkeys(view.scale for view in views))
    by_scale = [[view for view in views if view.scale == scale] for scale in scales]
    for_tags = by_scale[scales.index(tag_scale)]
    shape = shape or _finest(views[0])
    if views[0].outputs.heatmaps[0].device.type == "cpu":
        return _on_host(by_scale, for_tags, skeleton, shape, aggregate, smooth)
    return _on_device(by_scale, for_tags, skeleton, shape, aggregate, smooth)


def _finest(view: View) -> Shape:
    maps = view.outputs.heatmaps[-1]
    return maps.shape[2], maps.shape[3]


def _on_host(
    by_scale: Sequence[Sequence[View]],
    for_tags: Sequence[View],
    skeleton: Skeleton,
    shape: Shape,
    aggregate: bool,
    smooth: float,
) -> HostMaps:
    """Joint by joint, so that what is added up and enlarged is still in the cache."""
    total = np.empty((len(skeleton), *shape), np.float32)
    for number, views in enumerate(by_scale):
        heads = [
            [(_array(view.outputs.heatmaps[h]), view.mirrored) for view in views]
            for h in range(len(views[0].outputs.heatmaps))
        ]
        if not aggregate:
            heads = heads[-1:]
        finest = _finest(views[0])
        for joint, heat in enumerate(total):
            means = [_mean([_upright(maps, joint, skeleton) for maps in head]) for head in heads]
            merged = _mean([_enlarged(mean, finest) for mean in means])
            if number:
                heat += _enlarged(merged, shape)
            else:
                _resize(merged, heat)
    if len(by_scale) > 1:
        total /= len(by_scale)
    if smooth:
        for heat in total:
            heat[...] = smoothed(heat, smooth)
    finest = _finest(for_tags[0])
    stacks = [
        (_array(tag), view.mirrored)
        for view in for_tags
        for tag in view.outputs.tags
        if tag.shape[1]
    ]
    tags = np.empty((len(stacks), len(stacks[0][0]), *finest), np.float32)
    for stack, maps in zip(stacks, tags, strict=True):
        for channel, tag in enumerate(maps):
            _resize(_upright(stack, channel, skeleton), tag)
    return HostMaps(total, tags)


def _array(maps: torch.Tensor) -> _Array:
    array: _Array = maps[0].float().numpy()
    return array


def _upright(maps: _Stack, joint: int, skeleton: Skeleton) -> _Array:
    """One joint's map of the unmirrored picture. One map of tags may serve all joints."""
    array, mirrored = maps
    if not mirrored:
        return array[joint]
    if len(array) == len(skeleton):
        joint = skeleton.flip[joint]
    # cv2.flip is vectorised; a negative stride is not.
    return np.asarray(cv2.flip(array[joint], 1), np.float32)


def _enlarged(heat: _Array, shape: Shape) -> _Array:
    return enlarged(heat[None], shape)[0]


def _resize(heat: _Array, into: _Array) -> None:
    enlarge(heat[None], into[None])


def _mean(parts: Sequence[_Array]) -> _Array:
    """Mean of equal shapes; the part itself if there is but one."""
    if len(parts) == 1:
        return parts[0]
    total = parts[0] + parts[1]
    for part in parts[2:]:
        total += part
    total /= len(parts)
    return total


def _on_device(
    by_scale: Sequence[Sequence[View]],
    for_tags: Sequence[View],
    skeleton: Skeleton,
    shape: Shape,
    aggregate: bool,
    smooth: float,
) -> DeviceMaps:
    device = by_scale[0][0].outputs.heatmaps[0].device
    flip = constant(tuple(skeleton.flip.tolist()), device, torch.int64)

    def upright(view: View, maps: torch.Tensor) -> torch.Tensor:
        maps = maps.float()
        if not view.mirrored:
            return maps
        return (maps[:, flip] if maps.shape[1] == len(skeleton) else maps).flip(3)

    def resized(maps: torch.Tensor, size: Shape) -> torch.Tensor:
        if tuple(maps.shape[2:]) == size:
            return maps
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)

    def mean(parts: Iterable[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(parts)).mean(dim=0)

    at_scales = []
    for views in by_scale:
        heads = [
            mean(upright(view, view.outputs.heatmaps[h]) for view in views)
            for h in range(len(views[0].outputs.heatmaps))
        ]
        finest = _finest(views[0])
        merged = mean(resized(head, finest) for head in heads) if aggregate else heads[-1]
        at_scales.append(resized(merged, shape))
    tags = [
        resized(upright(view, tag), _finest(view))
        for view in for_tags
        for tag in view.outputs.tags
        if tag.shape[1]
    ]
    total = mean(at_scales)
    return DeviceMaps((smoothed_on_device(total, smooth) if smooth else total)[0], torch.cat(tags))
