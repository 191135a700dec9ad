"""``higherhrnet data check`` and ``toy``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .. import build
from ..config import read_config
from ..datasets.check import check
from ..datasets.keypoints import CocoKeypoints, Joined
from ..datasets.toy import DrawnPeople, write_coco
from . import arguments


def add(verbs: arguments.Verbs) -> None:
    """Declare the commands."""
    data = verbs.add_parser("data", help="check annotations, draw pictures")
    data_verbs = data.add_subparsers(required=True, metavar="COMMAND")
    checker = data_verbs.add_parser(
        "check", epilog=arguments.TAIL, help="look over a config's data sets"
    )
    checker.add_argument("config", metavar="CONFIG")
    checker.set_defaults(run=_check)
    toy = data_verbs.add_parser("toy", help="write drawn people in COCO's layout")
    toy.add_argument("folder", metavar="DIR", type=Path)
    toy.add_argument("--images", type=int, required=True, metavar="N")
    toy.add_argument("--seed", type=int, default=0)
    toy.add_argument("--size", type=int, default=256, help="side of a picture, pixels")
    toy.add_argument("--people", type=int, nargs=2, default=(1, 4), metavar=("LOW", "HIGH"))
    toy.add_argument("--overlap", type=float, default=0.3, help="0 apart … 1 anywhere")
    toy.add_argument("--occlusion", type=float, default=0.2, help="chance of an object in front")
    toy.set_defaults(run=_toy, settings=False)


def _check(options: argparse.Namespace) -> int:
    config = read_config(options.config, options.overrides)
    failed = False
    for split in ("train", "test"):
        pictures = build.pictures(config, split)
        for part in pictures.parts if isinstance(pictures, Joined) else [pictures]:
            if not isinstance(part, CocoKeypoints):
                print(f"{split}: {len(part)} drawn pictures, nothing to check")
                continue
            counts, problems = check(part)
            print(f"{split}: " + ", ".join(f"{number} {what}" for what, number in counts.items()))
            for problem in problems:
                print(f"higherhrnet: '{part.annotation_file}': {problem}", file=sys.stderr)
            failed |= bool(problems)
    return 2 if failed else 0


def _toy(options: argparse.Namespace) -> int:
    if options.images < 1:
        raise ValueError(f"--images must be at least 1, not {options.images}")
    people = DrawnPeople(
        count=options.images,
        seed=options.seed,
        size=options.size,
        people=tuple(options.people),
        overlap=options.overlap,
        occlusion=options.occlusion,
    )
    file = write_coco(options.folder, people)
    print(f"{options.images} pictures with {len(people.annotations['annotations'])} people: {file}")
    return 0
