"""From config to what loads batches, and what receives them on the device."""

from __future__ import annotations

import numpy as np
import torch

from ..codecs.bottom_up import BottomUpCodec
from ..codecs.top_down import TopDownCodec
from ..config import Config
from ..datasets import cache
from ..datasets.keypoints import CocoKeypoints, Joined, Pictures
from ..datasets.loader import Loader, ShuffledBatches, Views, joining
from ..datasets.persons import Persons
from ..datasets.transforms import BoxView, CentredView, PersonView, RandomView, Transform
from ..errors import UserError
from ..models.pixels import normalise
from ..skeleton import Skeleton
from ..training.distributed import Group
from ..training.feed import Feed
from .parts import is_top_down, view_shape


def sampler(config: Config, count: int, group: Group) -> ShuffledBatches:
    """Cuts the effective batch into parts and among processes.

    Raises:
        UserError: ``TRAIN.BATCH`` is no multiple of processes times ``TRAIN.MICRO_BATCH``.
    """
    t = config.TRAIN
    parts = 1
    if t.MICRO_BATCH:
        cut = t.MICRO_BATCH * group.size
        if t.BATCH % cut:
            raise UserError(
                f"config key 'TRAIN.BATCH' must be a multiple of {group.size} process(es) times "
                f"TRAIN.MICRO_BATCH {t.MICRO_BATCH}, not {t.BATCH}"
            )
        parts = t.BATCH // cut
    return ShuffledBatches(count, t.BATCH, t.SEED, parts, group.rank, group.size)


def input_path(
    config: Config,
    trained: Pictures,
    coder: BottomUpCodec | TopDownCodec,
    on: torch.device,
    group: Group | None = None,
) -> tuple[Loader, Feed]:
    """What loads batches, and what receives them on the device."""
    d, t = config.DATASET, config.TRAIN
    pixels = starts = None
    parts = trained.parts if isinstance(trained, Joined) else [trained]
    stored = [part for part in parts if isinstance(part, CocoKeypoints)]
    if d.CACHE == "ram":
        for part in stored:
            part.store = cache.MemoryStore(part.files, part.sizes)
    elif d.CACHE == "device":
        if len(parts) != 1 or not stored:
            raise UserError("config key 'DATASET.CACHE': device holds files, not drawn pictures")
        pixels = cache.load_all(stored[0].files, stored[0].sizes, on, max(t.WORKERS, 1))
        first, _ = cache.offsets(stored[0].sizes)
        starts = np.array([first[name] for name in stored[0].names])
        stored[0].store = cache.SizeStore(stored[0].files, stored[0].sizes)
    if is_top_down(config):
        trained = Persons(trained)
        starts = starts if starts is None else starts[trained.picture]
    view = _view(config, trained.skeleton)
    warps_there = d.WARP == "device" or starts is not None
    if warps_there and on.type == "mps":  # it has no float64, in which affines are computed
        raise UserError("config keys 'DATASET.WARP' and 'DATASET.CACHE': device needs CUDA")
    views = Views(
        trained, view, coder.mark, t.SEED, warps_there, starts, config.DATASET.BEYOND == "empty"
    )
    feed = Feed(on, coder.encode, normalise, view.shape, pixels)
    parts_of = sampler(config, len(trained), group or Group())
    return Loader(views, parts_of, t.WORKERS, joining(views)), feed


def _view(config: Config, joints: Skeleton) -> Transform:
    d = config.DATASET
    if is_top_down(config):
        shape = view_shape(config)
        if not d.AUGMENT:
            return BoxView(shape, d.PADDING)
        return PersonView(
            shape,
            joints.upper,
            scale=(d.SCALE[0], d.SCALE[1]),
            rotation=d.ROTATION,
            turned=d.TURNED,
            half_body=d.HALF_BODY,
            mirror=d.MIRROR,
            colour=d.COLOUR,
            padding=d.PADDING,
        )
    if not d.AUGMENT:
        return CentredView(d.INPUT_SIZE)
    return RandomView(
        d.INPUT_SIZE,
        scale=(d.SCALE[0], d.SCALE[1]),
        rotation=d.ROTATION,
        shift=d.SHIFT,
        mirror=d.MIRROR,
        colour=d.COLOUR,
        centre=d.CENTRE,
    )
