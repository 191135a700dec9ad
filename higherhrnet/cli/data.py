"""``higherhrnet data``: check, stats, prepare, synthetic."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from ..config import PoseConfig, parse_config, read_config
from ..datasets import stats
from ..datasets.check import find_broken_images, find_problems
from ..datasets.coco import CocoKeypoints
from ..datasets.combined import MappedDataset, parts_of
from ..datasets.prepare import prepare
from ..errors import UserError
from ..factory.data import build_dataset, describe_together, find_skeleton
from ..methods.base import method_of
from ..poses import Poses
from ..structures import Sample
from ..visualization import contact_sheet, save_image
from . import types


def check_data(options: argparse.Namespace) -> int:
    """Look for mistakes in a config's data sets."""
    config = _read_pose_config(options)
    output = options.output or types.default_output(options.config)
    failed = False
    parts: dict[str, list[CocoKeypoints]] = {"train": [], "test": []}
    for split, part in _files_of(config):
        parts[split].append(part)
        counts, problems, remarks = find_problems(
            part, getattr(config.DATASET, "MAX_NUM_PEOPLE", 30)
        )
        if not options.images:
            remarks = [*remarks, "images were not opened; --images decodes all of them"]
        elif (broken := find_broken_images(part, os.cpu_count() or 1)) is not None:
            problems = [*problems, str(broken)]
        print(f"{split}: " + ", ".join(f"{number} {what}" for what, number in counts.items()))
        for problem in problems:
            print(f"higherhrnet: '{part.annotation_file}': {problem}", file=sys.stderr)
        failed |= bool(problems)
        for remark in remarks:
            print(f"  note: {remark}")
        if samples := _choose_samples(part):
            number = f"_{len(parts[split])}" if len(parts[split]) > 1 else ""
            file = output / f"check_{split}{number}.jpg"
            save_image(file, contact_sheet(samples, part.skeleton))
            print(f"  {len(samples)} of them are drawn in {file}")
    if parts["train"]:
        skeleton = parts["train"][0].skeleton
        for line in describe_together(config, skeleton, parts["train"], parts["test"]):
            print(f"  note: {line}")
    return 2 if failed else 0


def stats_data(options: argparse.Namespace) -> int:
    """Print what is in a config's data sets."""
    for split, part in _files_of(_read_pose_config(options)):
        print(f"{split}: {len(part)} images")
        print(stats.format_stats(stats.compute_stats(part.annotations, part.skeleton)))
    return 0


def prepare_data(options: argparse.Namespace) -> int:
    """Download or unpack a public data set."""
    for line in prepare(options.name, options.folder, fetch=not options.offline):
        print(line)
    print(f"{options.name} is complete in {options.folder}")
    return 0


def synthetic_data(options: argparse.Namespace) -> int:
    """Write synthetic people."""
    from ..research.synthetic.dataset import SyntheticPeople, write_coco

    for flag, key in (
        ("images", "SYNTHETIC.TEST_IMAGES"), ("seed", "TRAIN.SEED"), ("size", "SYNTHETIC.SIZE"),
        ("people", "SYNTHETIC.PEOPLE"), ("overlap", "SYNTHETIC.OVERLAP"),
        ("occlusion", "SYNTHETIC.OCCLUSION"),
    ):  # fmt: skip
        try:
            parse_config("", [key, str(getattr(options, flag))])  # which knows the limits
        except UserError as error:
            raise UserError(str(error).replace(f"config key '{key}'", f"--{flag}")) from error
    people = SyntheticPeople(
        count=options.images,
        seed=options.seed,
        size=options.size,
        people=(options.people[0], options.people[1]),
        overlap=options.overlap,
        occlusion=options.occlusion,
    )
    file = write_coco(options.folder, people)
    print(f"{options.images} images with {len(people.annotations['annotations'])} people: {file}")
    return 0


def _read_pose_config(options: argparse.Namespace) -> PoseConfig:
    config = read_config(options.config, options.overrides)
    method_of(config)  # a classifier's images have no people
    assert isinstance(config, PoseConfig)
    return config


def _choose_samples(
    dataset: CocoKeypoints,
) -> list[tuple[npt.NDArray[np.uint8], Poses, npt.NDArray[np.uint8]]]:
    """Ten images with people, spread over the data set; broken ones are left out."""
    chosen: list[Sample] = []
    for index in np.linspace(0, len(dataset) - 1, 40).astype(int):
        with suppress(UserError):
            sample = dataset.sample(int(index))
            if len(sample.poses) and all(sample.id != other.id for other in chosen):
                chosen.append(sample)
        if len(chosen) == 10:
            break
    return [(sample.image, sample.poses, sample.valid) for sample in chosen]


def _files_of(config: PoseConfig) -> Iterator[tuple[str, CocoKeypoints]]:
    """Split and data set of those that are files."""
    skeleton = find_skeleton(config) if config.DATASET.SKELETON == "auto" else None
    for split in ("train", "test"):
        dataset = build_dataset(config, split, skeleton)
        for part in parts_of(dataset):
            if isinstance(part, MappedDataset):
                part.dataset.findings += part.findings
                yield split, part.dataset
            elif isinstance(part, CocoKeypoints):
                yield split, part
            else:
                print(f"{split}: {len(part)} images that are no COCO-format files are left out")
