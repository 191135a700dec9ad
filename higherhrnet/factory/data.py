"""Config → data sets, and what loads batches of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..config import Config, PoseConfig, TrainSet
from ..datasets import cache
from ..datasets.annotations import read_annotations
from ..datasets.base import PoseDataset
from ..datasets.canonical import skeleton_from_file
from ..datasets.check import find_shared_images
from ..datasets.coco import CocoKeypoints
from ..datasets.combined import (
    ConcatDataset,
    MappedDataset,
    Quota,
    compute_quotas,
    files_of,
    parts_of,
)
from ..datasets.loader import Loader, ShuffledBatches, Views, choose_collate
from ..datasets.paths import find_split
from ..distributed import ProcessGroup, is_main_process
from ..errors import UserError
from ..io.paths import expand_path
from ..joint_names import unpaired_sides
from ..methods.base import Codec, method_of
from ..models.normalization import normalize
from ..plugins import load_object
from ..skeleton import SKELETONS, Skeleton, load_skeleton
from ..training.device_batch import BatchToDevice

_log = logging.getLogger(__name__)
_SYNTHETIC = "higherhrnet.research.synthetic.dataset:build_dataset"


def _sets_of(config: PoseConfig, split: str) -> tuple[TrainSet, ...]:
    """The data sets of ``train``, or the one of ``test``, in the form of these."""
    d = config.DATASET
    return d.train_sets if split == "train" else replace(d, TRAIN=d.TEST).train_sets


def _find_files(entry: TrainSet) -> tuple[Path, Path]:
    root = expand_path(entry.ROOT, "DATASET.ROOT")
    return find_split(root, entry.TRAIN, entry.IMAGE_DIR)


def find_annotations(config: PoseConfig, split: str) -> list[tuple[Path, Path]]:
    """Annotation file and image folder of each set of the config's ``train`` or ``test`` images."""
    return [_find_files(entry) for entry in _sets_of(config, split)]


def find_skeleton(config: PoseConfig, split: str = "train") -> Skeleton:
    """The skeleton that the config names, or that the split's annotation file describes.

    Raises:
        UserError: ``DATASET.SKELETON`` is auto, and the file does not describe any.
    """
    d = config.DATASET
    if d.SKELETON != "auto":
        return load_skeleton(d.SKELETON)
    if d.DATASET != "coco":
        raise UserError("config key 'DATASET.SKELETON': auto needs an annotation file to read")
    return _skeleton_of(_sets_of(config, split)[0])


def find_set_skeletons(config: PoseConfig, split: str) -> list[Skeleton]:
    """Each set's own skeleton, which is usually the config's."""
    return [_skeleton_of(entry) for entry in _sets_of(config, split)]


def _skeleton_of(entry: TrainSet) -> Skeleton:
    if entry.SKELETON != "auto":
        return load_skeleton(entry.SKELETON)
    file, _ = _find_files(entry)
    return skeleton_from_file(read_annotations(file), file, entry.CATEGORIES)


def describe_made_skeleton(config: PoseConfig, skeleton: Skeleton) -> str:
    """What to know of a skeleton that was made from a file; empty for one that was given."""
    if config.DATASET.SKELETON != "auto" or skeleton.name in SKELETONS:
        return ""
    return (
        f"DATASET.SKELETON auto: skeleton '{skeleton.name}' with {len(skeleton)} joints, "
        f"{len(skeleton.bones)} bones and {len(skeleton.flip_pairs)} flip pairs was made from the "
        f"annotation file; its OKS sigmas are {skeleton.sigmas[0]} for every joint, so that AP is "
        "not comparable to others"
    )


def report_findings(config: PoseConfig, **datasets: PoseDataset) -> None:
    """Log what looks wrong with the data sets ``train`` and ``test``, as ``data check`` prints it.

    Only what is known without decoding images; the process of rank 0 speaks.
    """
    if not is_main_process():
        return
    stored = {split: list(files_of(dataset)) for split, dataset in datasets.items()}
    lines = {
        f"'{part.annotation_file}': {finding}": finding.is_problem
        for parts in stored.values()
        for part in parts
        for finding in part.findings
    }
    for part in (part for dataset in datasets.values() for part in parts_of(dataset)):
        if isinstance(part, MappedDataset):
            file = part.dataset.annotation_file
            lines |= {f"'{file}': {finding}": finding.is_problem for finding in part.findings}
    for line, is_problem in lines.items():  # once where TRAIN and TEST are the same file
        _log.log(logging.WARNING if is_problem else logging.INFO, "%s", line)
    skeleton = next(iter(datasets.values())).skeleton
    for line in describe_together(
        config, skeleton, stored.get("train", ()), stored.get("test", ())
    ):
        _log.info("%s", line)


def describe_together(
    config: PoseConfig,
    skeleton: Skeleton,
    train: Sequence[CocoKeypoints],
    test: Sequence[CocoKeypoints],
) -> list[str]:
    """What is to be said of training and test sets together, and of their skeleton."""
    shared = (find_shared_images(one, other) for one in train for other in test)
    lines = (
        *(str(finding) for finding in shared if finding is not None),
        describe_made_skeleton(config, skeleton),
        describe_missing_flip_pairs(config, skeleton),
    )
    return [line for line in lines if line]


def describe_missing_flip_pairs(config: PoseConfig, skeleton: Skeleton) -> str:
    """A sentence if images are flipped but no joint of the skeleton has a partner, or not all that
    look like it; else empty."""
    d = config.DATASET
    flips = (d.AUGMENT and d.FLIP > 0) or config.TEST.FLIP_TEST
    lone = unpaired_sides(skeleton.joints, skeleton.flip_pairs)
    if flips and lone and skeleton.flip_pairs:
        return (
            f"skeleton '{skeleton.name}' has {len(skeleton.flip_pairs)} flip pairs, but not "
            f"{', '.join(lone[:6])}{', …' if len(lone) > 6 else ''}, which look like some: list "
            "all in its YAML file as flip_pairs: [[LEFT, RIGHT], …] if they are"
        )
    if not flips or skeleton.flip_pairs or len(skeleton) < 2:
        return ""
    return (
        f"skeleton '{skeleton.name}' has no flip pairs (left and right joints), but images are "
        "flipped: list them in its YAML file as flip_pairs: [[LEFT, RIGHT], …], or set "
        "DATASET.FLIP 0 and TEST.FLIP_TEST False if sides must not be exchanged"
    )


def build_dataset(config: PoseConfig, split: str, skeleton: Skeleton | None = None) -> PoseDataset:
    """The ``train`` or ``test`` images that the config names.

    Args:
        config: names them.
        split: ``train`` or ``test``.
        skeleton: of files, instead of the config's.

    ``DATASET.DATASET`` is ``coco``, ``synthetic``, or ``MODULE:FUNCTION``, called as
    ``function(config, split)`` and giving a :class:`PoseDataset`.
    """
    d = config.DATASET
    if d.DATASET != "coco":
        path = _SYNTHETIC if d.DATASET == "synthetic" else d.DATASET
        made: PoseDataset = load_object(path, "DATASET.DATASET")(config, split)
        return made
    sets = _sets_of(config, split)
    skeleton = skeleton or find_skeleton(config, split)
    parts = [_build_set(config, split, entry, skeleton, len(sets) > 1) for entry in sets]
    shares = [entry.SHARE for entry in sets]
    if split == "train" and d.SYNTHETIC_IMAGES:
        synthetic = load_object(_SYNTHETIC, "DATASET.SYNTHETIC_IMAGES")
        parts.append(synthetic(config, split, d.SYNTHETIC_IMAGES))
        shares.append(0.0)
    return parts[0] if len(parts) == 1 else ConcatDataset(parts, shares)


def _build_set(
    config: PoseConfig, split: str, entry: TrainSet, skeleton: Skeleton, is_one_of_several: bool
) -> PoseDataset:
    """One set of annotated files with the joints of ``skeleton``."""
    d = config.DATASET
    own = skeleton if entry.SKELETON == d.SKELETON else _skeleton_of(entry)
    annotation_file, image_folder = _find_files(entry)
    files = CocoKeypoints(
        annotation_file,
        image_folder,
        own,
        people_only=split == "train",
        limit=d.TRAIN_LIMIT if split == "train" else d.TEST_LIMIT,
        with_mask=method_of(config).with_mask(config),
        categories=entry.CATEGORIES,
        with_silhouettes=bool(method_of(config).extra_heads(config)),
    )
    # A single set teaches that joints which it never labels are not to be seen, as published.
    return MappedDataset(files, skeleton) if is_one_of_several or own != skeleton else files


def build_sampler(
    config: Config, count: int, group: ProcessGroup, quotas: Sequence[Quota] = ()
) -> ShuffledBatches:
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
    return ShuffledBatches(
        count, t.BATCH_SIZE, t.SEED, micro_batches, group.rank, group.size, quotas
    )


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
    stored = list(files_of(dataset))
    if d.CACHE == "ram":
        for part in stored:
            part.store = cache.MemoryStore(part.files, part.sizes)
    elif d.CACHE == "device":
        if len(stored) != len(parts_of(dataset)):
            raise UserError("config key 'DATASET.CACHE': device holds data sets of files alone")
        sets = [(part.files, part.sizes) for part in stored]
        pixels = cache.load_all(sets, device, max(t.WORKERS, 1))
        starts, _ = cache.offsets([sizes for _, sizes in sets])
        offsets = np.array(
            [of[name] for part, of in zip(stored, starts, strict=True) for name in part.names]
        )
        for part, (files, sizes) in zip(stored, sets, strict=True):
            part.store = cache.SizeStore(files, sizes)
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
        method.build_composition(config),
    )
    to_device = BatchToDevice(device, codec.encode, normalize, method.view_shape(config), pixels)
    quotas = compute_quotas(dataset, image_of_item)
    sampler = build_sampler(config, len(items), group or ProcessGroup(), quotas)
    return Loader(views, sampler, t.WORKERS, choose_collate(views)), to_device
