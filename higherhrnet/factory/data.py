"""Config → data sets, and what loads batches of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..config import Config, PoseConfig
from ..datasets import cache
from ..datasets.base import ConcatDataset, PoseDataset
from ..datasets.coco import CocoKeypoints
from ..datasets.loader import Loader, ShuffledBatches, Views, choose_collate
from ..datasets.paths import find_split
from ..distributed import ProcessGroup
from ..errors import UserError
from ..io.paths import expand_path
from ..methods.base import Codec, method_of
from ..models.normalization import normalize
from ..plugins import load_object
from ..skeleton import load_skeleton
from ..training.device_batch import BatchToDevice

_SYNTHETIC = "higherhrnet.research.synthetic.dataset:build_dataset"


def find_annotations(config: PoseConfig, split: str) -> tuple[Path, Path]:
    """Annotation file and image folder of the config's ``train`` or ``test`` images."""
    d = config.DATASET
    root = expand_path(d.ROOT, "DATASET.ROOT")
    return find_split(root, d.TRAIN if split == "train" else d.TEST, d.IMAGE_DIR)


def build_dataset(config: PoseConfig, split: str) -> PoseDataset:
    """The ``train`` or ``test`` images that the config names.

    ``DATASET.DATASET`` is ``coco``, ``synthetic``, or ``MODULE:FUNCTION``, called as
    ``function(config, split)`` and giving a :class:`PoseDataset`.
    """
    d = config.DATASET
    if d.DATASET != "coco":
        path = _SYNTHETIC if d.DATASET == "synthetic" else d.DATASET
        made: PoseDataset = load_object(path, "DATASET.DATASET")(config, split)
        return made
    annotation_file, image_folder = find_annotations(config, split)
    real = CocoKeypoints(
        annotation_file,
        image_folder,
        load_skeleton(config.DATASET.SKELETON),
        people_only=split == "train",
        limit=d.TRAIN_LIMIT if split == "train" else d.TEST_LIMIT,
        with_mask=method_of(config).with_mask(config),
    )
    if split == "test" or not d.SYNTHETIC_IMAGES:
        return real
    synthetic = load_object(_SYNTHETIC, "DATASET.SYNTHETIC_IMAGES")
    return ConcatDataset((real, synthetic(config, split, d.SYNTHETIC_IMAGES)))


def build_sampler(config: Config, count: int, group: ProcessGroup) -> ShuffledBatches:
    """Cuts the effective batch into micro-batches and among processes.

    Raises:
        UserError: ``TRAIN.BATCH_SIZE`` is no multiple of processes times
            ``TRAIN.MICRO_BATCH_SIZE``.
    """
    t = config.TRAIN
    micro_batches = 1
    if t.MICRO_BATCH_SIZE:
        at_once = t.MICRO_BATCH_SIZE * group.size
        if t.BATCH_SIZE % at_once:
            raise UserError(
                f"config key 'TRAIN.BATCH_SIZE' must be a multiple of {group.size} process(es) "
                f"times TRAIN.MICRO_BATCH_SIZE {t.MICRO_BATCH_SIZE}, not {t.BATCH_SIZE}"
            )
        micro_batches = t.BATCH_SIZE // at_once
    return ShuffledBatches(count, t.BATCH_SIZE, t.SEED, micro_batches, group.rank, group.size)


def build_loader(
    config: PoseConfig,
    dataset: PoseDataset,
    codec: Codec,
    device: torch.device,
    group: ProcessGroup | None = None,
) -> tuple[Loader, BatchToDevice]:
    """What loads training batches, and what receives them on the device."""
    d, t, method = config.DATASET, config.TRAIN, method_of(config)
    pixels = offsets = None
    parts = dataset.parts if isinstance(dataset, ConcatDataset) else [dataset]
    stored = [part for part in parts if isinstance(part, CocoKeypoints)]
    if d.CACHE == "ram":
        for part in stored:
            part.store = cache.MemoryStore(part.files, part.sizes)
    elif d.CACHE == "device":
        if len(parts) != 1 or not stored:
            raise UserError("config key 'DATASET.CACHE': device holds one data set of files")
        pixels = cache.load_all(stored[0].files, stored[0].sizes, device, max(t.WORKERS, 1))
        first, _ = cache.offsets(stored[0].sizes)
        offsets = np.array([first[name] for name in stored[0].names])
        stored[0].store = cache.SizeStore(stored[0].files, stored[0].sizes)
    items, image_of_item = method.training_items(dataset)
    offsets = offsets if offsets is None else offsets[image_of_item]
    warp_on_device = d.WARP == "device" or offsets is not None
    if warp_on_device and device.type == "mps":  # it has no float64, in which affines are computed
        raise UserError("config keys 'DATASET.WARP' and 'DATASET.CACHE': device needs CUDA")
    views = Views(
        items,
        method.build_transform(config, dataset.skeleton),
        codec.index_keypoints,
        t.SEED,
        warp_on_device,
        offsets,
        method.padding_in_loss(config),
    )
    to_device = BatchToDevice(device, codec.encode, normalize, method.view_shape(config), pixels)
    sampler = build_sampler(config, len(items), group or ProcessGroup())
    return Loader(views, sampler, t.WORKERS, choose_collate(views)), to_device
