"""``higherhrnet valid``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from .. import build, show
from ..config import Config, read_config
from ..datasets.keypoints import Pictures
from ..datasets.stats import crowding
from ..errors import UserError
from ..evaluation import errors, report, results
from ..evaluation.operating_point import OperatingPoint
from ..files import write_json
from ..models import weights
from ..training.distributed import joined
from ..validation import Validation
from . import arguments


def add(verbs: arguments.Verbs) -> None:
    """Declare the command."""
    valid = verbs.add_parser(
        "valid",
        parents=[arguments.where()],
        epilog=arguments.TAIL,
        help="measure AP on annotated pictures",
    )
    valid.add_argument("config", metavar="CONFIG")
    arguments.add_weights(valid, required=True)
    valid.add_argument(
        "--calibrate",
        action="store_true",
        help="write the operating point for pictures (TEST.DISPLAY) into the weights file",
    )
    valid.add_argument(
        "--report",
        action="store_true",
        help="say what went wrong: report.md, report.png, keypoint_errors.csv, worst.jpg",
    )
    valid.set_defaults(run=_valid)


def _valid(options: argparse.Namespace) -> int:
    config = read_config(options.config, options.overrides)
    output = options.output or arguments.default_output(options.config)
    file = build.open_weights(options.weights)
    if options.calibrate and file.path.resolve().parent == build.BUNDLED.resolve():
        raise UserError(
            f"--calibrate writes into the weights file, but '{file.path}' belongs to the package; "
            "give a copy of it"
        )
    if options.calibrate and (file.config is None or file.path.suffix != ".safetensors"):
        raise UserError(
            f"'{file.path}' cannot hold an operating point; convert it first: higherhrnet weights "
            f"convert {file.path} {file.path.with_suffix('')}_native.safetensors"
        )
    joints = build.skeleton(config)
    network, loaded = build.with_weights(config, file, joints)
    on = build.device(options.device)
    with joined(on.type == "cuda") as group:
        if group.main:
            print(f"{file.path}: {loaded}")
        if on.type == "cuda" and group.size > 1:
            on = torch.device("cuda", group.local_rank)
        predictor = build.predictor(config, network, joints, on)
        truth = build.pictures(config, "test")
        found = build.validate(
            predictor,
            truth,
            group,
            evaluate=build.evaluation(config),
            boxes_of=build.boxes(config, truth),
        )
        dropped = group.total([*predictor.dropped.values()])
        if not group.main:
            return 0
    point = build.display_point(found, truth, config.TEST.DISPLAY)
    _write(output, config, options.weights, found, len(truth), dropped, point)
    _say(found, len(truth), config)
    print(f"  dropped: {_costs(config, dropped, found.beyond)}")
    print(f"  for pictures: {point}")
    if options.calibrate:
        weights.rewrite_display(file.path, point.to_dict())
        print(f"the operating point for pictures is in {file.path} now")
    if options.report:
        title = f"{options.weights} on {config.DATASET.TEST}"
        _report(output, title, found, truth, config.TEST.EVALUATION, point)
        print(f"report.md, report.png, keypoint_errors.csv and worst.jpg in {output}")
    print(f"results.json and metrics.json in {output}")
    return 0


def _report(
    output: Path,
    title: str,
    found: Validation,
    truth: Pictures,
    kind: str,
    point: OperatingPoint,
) -> None:
    annotations, skeleton = truth.annotations, truth.skeleton
    records = found.records
    rows = report.parts(records, annotations, skeleton, crowding(annotations), kind)
    wrong = errors.joint_errors(records, annotations, skeleton)
    worst = errors.worst(records, wrong, 20)
    number = {image["id"]: n for n, image in enumerate(annotations["images"])}
    names = {image["id"]: str(image["file_name"]) for image in annotations["images"]}
    pairs = []
    for image_id, _ in worst:
        sample = truth.sample(number[image_id])
        sure = point.apply(found.found[image_id], skeleton)
        pairs += [(sample.image, sample.poses, sample.valid), (sample.image, sure, sample.valid)]
    if pairs:
        show.save(output / "worst.jpg", show.contact_sheet(pairs, skeleton, columns=6))
    listed = [(names[image_id], count) for image_id, count in worst]
    report.write(output, title, found.metrics, rows, wrong, listed, skeleton)


def _write(
    output: Path,
    config: Config,
    name: str,
    found: Validation,
    pictures: int,
    dropped: Sequence[int],
    point: OperatingPoint,
) -> None:
    records = found.records
    write_json(output / "results.json", records)
    write_json(
        output / "metrics.json",
        {
            "metrics": found.metrics,
            "health": found.health,
            "protocol": _protocol(config),
            "weights": name,
            "pictures": pictures,
            "people": len(records),
            "candidates_dropped": dropped[0],
            "people_dropped": dropped[1],
            "people_too_alike": dropped[2],
            "people_beyond_20_a_picture": found.beyond,
            "display": point.to_dict(),
        },
    )


def _say(found: Validation, pictures: int, config: Config) -> None:
    print(f"{pictures} pictures, {len(found.records)} people found; protocol:")
    print("  " + ", ".join(f"{name} {value}" for name, value in _protocol(config).items()))
    print(results.table(found.metrics))
    if "tags/separability" in found.health:
        print(
            "  tags: {tags/within:.2f} within a person, {tags/between:.2f} between people, "
            "separability {tags/separability:.3f}, true joints grouped right "
            "{tags/grouped_right:.3f}".format_map(found.health)
        )


def _costs(config: Config, dropped: Sequence[int], beyond: int) -> str:
    """What limits cost, in words."""
    candidates, people, alike = dropped
    parts = [f"{candidates} candidates beyond {config.TEST.CANDIDATES} of a joint"]
    if config.MODEL.NAME == "pose_hrnet":
        parts = [f"{alike} people too like others (TEST.SAME {config.TEST.SAME:g})"]
    elif config.TEST.MAX_PEOPLE:
        parts.append(f"{people} people beyond {config.TEST.MAX_PEOPLE} a picture")
    parts.append(f"{beyond} people beyond the 20 a picture that COCO's evaluation looks at")
    return ", ".join(parts)


def _protocol(config: Config) -> dict[str, object]:
    """The settings that produced a figure."""
    test = config.TEST
    if config.MODEL.NAME == "pose_hrnet":
        return {
            "size": f"{config.DATASET.CROP[1]}x{config.DATASET.CROP[0]}",
            "boxes": test.BOXES,
            "jitter": test.JITTER,
            "flip": test.FLIP,
            "decoding": test.DECODING,
            "padding": config.DATASET.PADDING,
            "least box score": test.BOX_SCORE,
            "least heat": test.LEAST_HEAT,
            "same": test.SAME,
            "soft": test.SOFT,
            "shift mirrored": test.SHIFT_MIRRORED,
            "evaluation": test.EVALUATION,
            "precision": test.PRECISION,
        }
    return {
        "size": config.DATASET.INPUT_SIZE,
        "flip": test.FLIP,
        "scales": list(test.SCALES),
        "project": test.PROJECT,
        "aggregate": test.AGGREGATE,
        "smooth": test.SMOOTH,
        "adjust": test.ADJUST,
        "refine": test.REFINE,
        "threshold": test.THRESHOLD,
        "tag threshold": test.TAG_THRESHOLD,
        "candidates": test.CANDIDATES,
        "assignment": test.ASSIGNMENT,
        "precision": test.PRECISION,
    }
