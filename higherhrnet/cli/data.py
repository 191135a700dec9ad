"""``higherhrnet data check``, ``stats``, ``prepare`` and ``toy``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .. import build, show
from ..config import Config, parse_config, read_config
from ..datasets import stats
from ..datasets.check import check
from ..datasets.keypoints import CocoKeypoints, Joined
from ..datasets.prepare import RECIPES, prepare
from ..datasets.toy import DrawnPeople, write_coco
from ..errors import UserError
from ..fields import Sample
from ..poses import Poses
from . import arguments


def add(verbs: arguments.Verbs) -> None:
    """Declare the commands."""
    data = verbs.add_parser("data", help="check annotations, draw pictures")
    data_verbs = data.add_subparsers(required=True, metavar="COMMAND")
    checker = data_verbs.add_parser(
        "check", epilog=arguments.TAIL, help="look over a config's data sets"
    )
    checker.add_argument("config", metavar="CONFIG")
    checker.add_argument("--output", type=Path, metavar="DIR", help="folder for the contact sheets")
    checker.set_defaults(run=_check)
    counter = data_verbs.add_parser(
        "stats", epilog=arguments.TAIL, help="people, sizes, joints and crowding of a config's sets"
    )
    counter.add_argument("config", metavar="CONFIG")
    counter.set_defaults(run=_stats)
    prepared = data_verbs.add_parser(
        "prepare", help="fetch or unpack a public set into the folder where it is expected"
    )
    prepared.add_argument("name", choices=sorted(RECIPES))
    prepared.add_argument("folder", metavar="DIR", type=Path)
    prepared.add_argument(
        "--offline", action="store_true", help="download nothing; say what to download by hand"
    )
    prepared.set_defaults(run=_prepare, settings=False)
    toy = data_verbs.add_parser("toy", help="write drawn people in COCO's layout")
    toy.add_argument("folder", metavar="DIR", type=Path)
    toy.add_argument("--images", type=int, required=True, metavar="N")
    toy.add_argument("--seed", type=arguments.seed, default=0)
    toy.add_argument("--size", type=int, default=256, help="side of a picture, pixels")
    toy.add_argument("--people", type=int, nargs=2, default=[1, 4], metavar=("LOW", "HIGH"))
    toy.add_argument("--overlap", type=float, default=0.3, help="0 apart … 1 anywhere")
    toy.add_argument("--occlusion", type=float, default=0.2, help="chance of an object in front")
    toy.set_defaults(run=_toy, settings=False)


def _check(options: argparse.Namespace) -> int:
    config = read_config(options.config, options.overrides)
    output = options.output or arguments.default_output(options.config)
    failed = False
    for split, part in _parts(config):
        counts, problems, remarks = check(part, config.TEST.CANDIDATES)
        print(f"{split}: " + ", ".join(f"{number} {what}" for what, number in counts.items()))
        for problem in problems:
            print(f"higherhrnet: '{part.annotation_file}': {problem}", file=sys.stderr)
        failed |= bool(problems)
        for remark in remarks:
            print(f"  by the way: {remark}")
        if sheet := _sheet(part):
            show.save(output / f"check_{split}.jpg", show.contact_sheet(sheet, part.skeleton))
            print(f"  {len(sheet)} of them are drawn in {output / f'check_{split}.jpg'}")
    return 2 if failed else 0


def _sheet(
    pictures: CocoKeypoints,
) -> list[tuple[npt.NDArray[np.uint8], Poses, npt.NDArray[np.uint8]]]:
    """Ten pictures with people, spread over the set; broken ones are left out."""
    chosen: list[Sample] = []
    for index in np.linspace(0, len(pictures) - 1, 40).astype(int):
        with suppress(UserError):
            sample = pictures.sample(int(index))
            if len(sample.poses) and all(sample.id != other.id for other in chosen):
                chosen.append(sample)
        if len(chosen) == 10:
            break
    return [(sample.image, sample.poses, sample.valid) for sample in chosen]


def _stats(options: argparse.Namespace) -> int:
    config = read_config(options.config, options.overrides)
    for split, part in _parts(config):
        print(f"{split}: {len(part)} pictures")
        print(stats.lines(stats.stats(part.annotations, part.skeleton)))
    return 0


def _parts(config: Config) -> Iterator[tuple[str, CocoKeypoints]]:
    """The sets of a config that are files."""
    for split in ("train", "test"):
        pictures = build.pictures(config, split)
        for part in pictures.parts if isinstance(pictures, Joined) else [pictures]:
            if isinstance(part, CocoKeypoints):
                yield split, part
            else:
                print(f"{split}: {len(part)} drawn pictures")


def _prepare(options: argparse.Namespace) -> int:
    for line in prepare(options.name, options.folder, fetch=not options.offline):
        print(line)
    print(f"{options.name} is complete in {options.folder}")
    return 0


def _toy(options: argparse.Namespace) -> int:
    for flag, key in (
        ("images", "TOY.TEST_IMAGES"), ("seed", "TRAIN.SEED"), ("size", "TOY.SIZE"),
        ("people", "TOY.PEOPLE"), ("overlap", "TOY.OVERLAP"), ("occlusion", "TOY.OCCLUSION"),
    ):  # fmt: skip
        try:
            parse_config("", [key, str(getattr(options, flag))])  # which knows the limits
        except UserError as error:
            raise UserError(str(error).replace(f"config key '{key}'", f"--{flag}")) from error
    people = DrawnPeople(
        count=options.images,
        seed=options.seed,
        size=options.size,
        people=(options.people[0], options.people[1]),
        overlap=options.overlap,
        occlusion=options.occlusion,
    )
    file = write_coco(options.folder, people)
    print(f"{options.images} pictures with {len(people.annotations['annotations'])} people: {file}")
    return 0
