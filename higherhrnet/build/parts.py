"""From config to the objects that training and inference share."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from ..codecs import tags as tagging
from ..codecs.bottom_up import BottomUpCodec
from ..codecs.top_down import TopDownCodec
from ..config import Config
from ..datasets.catalog import find_split
from ..datasets.keypoints import CocoKeypoints, Joined, Pictures
from ..datasets.toy import DrawnPeople
from ..errors import UserError
from ..models.higher_hrnet import HigherHRNet
from ..models.pose_hrnet import PoseHRNet
from ..skeleton import Skeleton, load_skeleton


def expand_path(value: str, key: str) -> Path:
    """A path from the config: ``${VARIABLES}`` filled in, relative to the working folder.

    Raises:
        UserError: a variable is not set.
    """
    unset = [name for name in re.findall(r"\$\{(\w+)\}", value) if name not in os.environ]
    if unset:
        raise UserError(
            f"config key '{key}' is '{value}', but the environment variable {unset[0]} is not set"
        )
    return Path(os.path.expandvars(value)).expanduser()


def skeleton(config: Config) -> Skeleton:
    """The data set's skeleton."""
    return load_skeleton(config.DATASET.SKELETON)


def is_top_down(config: Config) -> bool:
    """Whether the config looks at one person at a time."""
    return bool(config.MODEL.NAME == "pose_hrnet")


def view_shape(config: Config) -> tuple[int, int]:
    """(H, W) of what the network sees in training: a square of the picture, or a person's crop."""
    d = config.DATASET
    return (d.CROP[0], d.CROP[1]) if is_top_down(config) else (d.INPUT_SIZE, d.INPUT_SIZE)


def model(config: Config, joints: int) -> HigherHRNet | PoseHRNet:
    """The pose network, freshly initialised.

    Raises:
        UserError: the config is one of a classifier.
    """
    m = config.MODEL
    if is_top_down(config):
        return PoseHRNet(
            joints=joints,
            width=m.WIDTH,
            modules=tuple(m.MODULES),
            blocks=m.BLOCKS,
            fusion=m.FUSION,
            recompute=config.TRAIN.CHECKPOINTING,
        )
    if m.NAME != "higher_hrnet":
        raise UserError(f"config key 'MODEL.NAME' is '{m.NAME}', which finds no people")
    return HigherHRNet(
        joints=joints,
        width=m.WIDTH,
        tag_heads=tuple(m.TAG_HEADS),
        shared_tag=m.SHARED_TAG,
        concatenate=m.CONCATENATE,
        residual_blocks=m.RESIDUAL_BLOCKS,
        modules=tuple(m.MODULES),
        blocks=m.BLOCKS,
        fusion=m.FUSION,
        recompute=config.TRAIN.CHECKPOINTING,
    )


def codec(
    config: Config, network: HigherHRNet | PoseHRNet, joints: Skeleton
) -> BottomUpCodec | TopDownCodec:
    """The codec of the network's heads with the test settings."""
    test = config.TEST
    if is_top_down(config):
        return TopDownCodec(
            skeleton=joints,
            heads=network.heads,
            sigma=config.LOSS.SIGMA,
            decoding=test.DECODING,
            shift_mirrored=test.SHIFT_MIRRORED,
            least_heat=test.LEAST_HEAT,
        )
    return BottomUpCodec(
        skeleton=joints,
        heads=network.heads,
        sigma=config.LOSS.SIGMA,
        threshold=test.THRESHOLD,
        most_candidates=test.CANDIDATES,
        grouping=tagging.Grouping(
            tag_threshold=test.TAG_THRESHOLD,
            most_compared=test.CANDIDATES,
            assign=tagging.ASSIGNMENTS[test.ASSIGNMENT],
        ),
        adjust=test.ADJUST,
        refine=test.REFINE,
        aggregate=test.AGGREGATE,
        smooth=test.SMOOTH,
        most_people=test.MAX_PEOPLE,
    )


def split_files(config: Config, split: str) -> tuple[Path, Path]:
    """Annotation file and image folder of the config's ``train`` or ``test`` pictures."""
    d = config.DATASET
    root = expand_path(d.ROOT, "DATASET.ROOT")
    return find_split(root, d.TRAIN if split == "train" else d.TEST, d.IMAGES)


def pictures(config: Config, split: str) -> Pictures:
    """The ``train`` or ``test`` pictures that the config names."""
    d, toy = config.DATASET, config.TOY
    joints = skeleton(config)
    limit = d.TRAIN_LIMIT if split == "train" else d.TEST_LIMIT
    if d.KIND == "toy":
        count = toy.TRAIN_IMAGES if split == "train" else toy.TEST_IMAGES
        # Training and test pictures come from different seeds.
        seed = config.TRAIN.SEED + (0 if split == "train" else 1_000_003)
        drawn = _drawn(config, min(count, limit) if limit else count, seed)
        if joints != drawn.skeleton:
            raise UserError(
                f"config key 'DATASET.SKELETON' must be 'coco' for drawn people, not '{d.SKELETON}'"
            )
        return drawn
    if d.KIND == "folder":
        raise UserError("config key 'DATASET.KIND' is 'folder', where no people are annotated")
    annotation_file, image_folder = split_files(config, split)
    real = CocoKeypoints(
        annotation_file,
        image_folder,
        joints,
        people_only=split == "train",
        limit=limit,
        ignore=d.IGNORE,
    )
    if split == "test" or not d.DRAWN:
        return real
    return Joined((real, _drawn(config, d.DRAWN, config.TRAIN.SEED)))


def _drawn(config: Config, count: int, seed: int) -> DrawnPeople:
    toy = config.TOY
    return DrawnPeople(
        count=count,
        seed=seed,
        size=toy.SIZE,
        people=tuple(toy.PEOPLE),
        height=tuple(toy.HEIGHT),
        overlap=toy.OVERLAP,
        occlusion=toy.OCCLUSION,
        ignore=config.DATASET.IGNORE,
    )


def device(name: str = "auto") -> torch.device:
    """``auto`` takes a GPU where there is one.

    Raises:
        UserError: the device is unknown or not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.zeros(1, device=chosen).cpu()  # some devices (meta) hold nothing
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}") from error
    return chosen
