"""From config and weights to predictors and their figures."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, repeat, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .. import geometry
from ..boxes import Boxes, read_detections
from ..codecs.maps import DeviceMaps, HostMaps, Maps
from ..codecs.top_down import TopDownCodec
from ..config import Config
from ..datasets.keypoints import Pictures
from ..errors import UserError
from ..evaluation import results
from ..evaluation.operating_point import OperatingPoint, calibrate
from ..evaluation.tag_health import TagMeter
from ..fields import Sample
from ..inference import pipeline
from ..inference.augmented import Protocol
from ..inference.bottom_up import BottomUp
from ..inference.detectors import TORCHVISION, BottomUpDetector, torchvision_detector
from ..inference.predictor import Scene
from ..inference.top_down import Detector, TopDown
from ..models import published, weights
from ..models.higher_hrnet import HigherHRNet
from ..models.pose_hrnet import PoseHRNet
from ..poses import ABSENT, Poses
from ..skeleton import Skeleton
from ..training.distributed import Group
from ..validation import Validation, predict_all, records_of
from . import parts
from .checkpoints import config_of, find_weights, fusion_of, open_weights
from .parts import codec, expand_path, is_top_down, model, skeleton

BoxesOf = Callable[[Sample], Boxes | None]
Evaluate = Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any], Skeleton], dict[str, float]]


def predictor(
    config: Config, network: HigherHRNet | PoseHRNet, joints: Skeleton, on: torch.device
) -> BottomUp | TopDown:
    """A predictor with the config's test protocol, a top-down one with the config's detector."""
    d, test = config.DATASET, config.TEST
    coder = codec(config, network, joints)
    shared: dict[str, Any] = {
        "model": network.to(on).to(memory_format=torch.channels_last).eval(),
        "skeleton": joints,
        "device": on,
        "precision": test.PRECISION,
        "compiled": test.COMPILE,
        "graphs": test.CUDA_GRAPHS,
        "batch": test.BATCH,
        "workers": test.WORKERS,
    }
    if isinstance(coder, TopDownCodec):
        return TopDown(
            **shared,
            codec=coder,
            view=(d.CROP[0], d.CROP[1]),
            padding=d.PADDING,
            flip=test.FLIP,
            crops=test.CROPS,
            detector=detector(config, on),
            box_score=test.BOX_SCORE,
            same=test.SAME,
            soft=test.SOFT,
        )
    protocol = Protocol(
        input_size=d.INPUT_SIZE, scales=tuple(test.SCALES), flip=test.FLIP, project=test.PROJECT
    )
    return BottomUp(**shared, codec=coder, protocol=protocol)


def load(
    name_or_file: str | Path = "higherhrnet_w18_mini",
    device: str = "auto",
    overrides: Sequence[Any] = (),
    raw: bool = False,
) -> BottomUp | TopDown:
    """A predictor from a bundled name or any checkpoint file.

    Args:
        name_or_file: bundled name, native ``.safetensors``, or an official ``.pth``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        overrides: config ``KEY, VALUE, …`` over those in the checkpoint, e.g. ``["TEST.FLIP",
            False]``; values as YAML text or as what they mean.
        raw: show everybody, as benchmarks want it, instead of the people of the checkpoint's
            operating point for pictures.

    Raises:
        UserError: no such file, or not a checkpoint of a pose network.
    """
    file = open_weights(str(name_or_file))
    config = config_of(file, overrides)
    joints = file.skeleton or skeleton(config)
    if "DATASET.SKELETON" in overrides and skeleton(config).joints != joints.joints:
        raise UserError(
            f"'{file.path}' predicts the joints of skeleton '{joints.name}', which config key "
            f"'DATASET.SKELETON' {config.DATASET.SKELETON} contradicts"
        )
    _same_fusion(file, config)
    network = model(config, len(joints))
    weights.load_all(network, file)
    on = parts.device(device)
    ready = predictor(config, network, joints, on)
    ready.point = None if raw else point_of(file)
    return ready


def point_of(file: weights.Checkpoint) -> OperatingPoint:
    """A checkpoint's operating point for pictures; the default if it was never calibrated.

    Raises:
        UserError: its limits are of another version.
    """
    try:
        return OperatingPoint(**(file.display or {}))
    except TypeError as error:
        raise UserError(f"'{file.path}' has an operating point with unknown limits") from error


def with_weights(
    config: Config, file: weights.Checkpoint, joints: Skeleton
) -> tuple[HigherHRNet | PoseHRNet, weights.LoadReport]:
    """The config's network with a file's weights.

    Raises:
        UserError: they are of another model, also in what no tensor's shape shows.
    """
    _same_fusion(file, config)
    network = model(config, len(joints))
    return network, weights.load_all(network, file, joints)


def _same_fusion(file: weights.Checkpoint, config: Config) -> None:
    own, wanted = fusion_of(file) or config.MODEL.FUSION, config.MODEL.FUSION
    if own != wanted:
        raise UserError(
            f"'{file.path}' was trained with MODEL.FUSION {own}, but the config has {wanted}"
        )


def detector(config: Config, on: torch.device) -> Detector | None:
    """What the config wants to find boxes with; None where they come with the pictures.

    Raises:
        UserError: the detector's weights cannot be fetched, or the name means nothing.
    """
    name = str(config.TEST.BOXES)
    if bottom_up_boxes(config) is None:
        return torchvision_detector(name, on) if name in TORCHVISION else None
    people = load(name, str(on), ["TEST.PRECISION", config.TEST.PRECISION], raw=True)
    if isinstance(people, TopDown):
        raise UserError(f"config key 'TEST.BOXES': '{name}' is top-down and needs boxes itself")
    people.point = OperatingPoint(person=0.1, joint=0.0, filled=0.0, duplicate=1.0)
    return BottomUpDetector(people)


def bottom_up_boxes(config: Config) -> Path | None:
    """The weights file that the config wants to find boxes with, if it is that.

    Raises:
        UserError: the name means nothing, or is that of no file.
    """
    name = str(config.TEST.BOXES)
    if name == "truth" or name.endswith(".json") or name in TORCHVISION:
        return None
    try:
        file = find_weights(name)
        if not file.is_file():
            raise UserError(f"weights file '{file}' does not exist")
        return file
    except UserError as error:
        if name in published.PUBLISHED:
            raise
        raise UserError(
            f"config key 'TEST.BOXES' must be truth, FILE.json, bottom-up weights, or one of "
            f"{', '.join(TORCHVISION)}, not '{name}'"
        ) from error


def boxes(config: Config, truth: Pictures) -> BoxesOf:
    """Where the boxes of a set's pictures come from: annotated picture → boxes, None to detect.

    Raises:
        UserError: the box file is missing or lists none of the pictures, or they have no
            annotated people to take boxes from.
    """
    if not is_top_down(config):
        return lambda sample: None
    name, jitter = str(config.TEST.BOXES), config.TEST.JITTER
    if jitter and name != "truth":
        raise UserError(f"config key 'TEST.JITTER' moves true boxes, not those of '{name}'")
    if name == "truth":
        if not any(len(truth.boxes(number)) for number in range(len(truth))):
            raise UserError(
                "config key 'TEST.BOXES' is truth, but nobody is annotated in these pictures; "
                "name a box file or a detector"
            )

        def true(sample: Sample) -> Boxes:
            found = Boxes.of(sample.boxes)
            # Each picture's own chance: the same whatever process gets it.
            number = zlib.crc32(str(sample.id).encode())
            return found.usable().jittered(jitter, np.random.default_rng(number))

        return true
    if name.endswith(".json"):
        listed = read_detections(expand_path(name, "TEST.BOXES"))
        if listed.keys().isdisjoint(image["id"] for image in truth.annotations["images"]):
            raise UserError(f"box file '{name}' lists none of the test pictures by their image ids")
        return lambda sample: listed.get(sample.id, Boxes.of([]))
    return lambda sample: None


def validate(
    ready: BottomUp | TopDown,
    truth: Pictures,
    group: Group | None = None,
    stopped: Callable[[], bool] = lambda: False,
    evaluate: Evaluate = results.evaluate,
    boxes_of: BoxesOf = lambda sample: Boxes.of(sample.boxes),
) -> Validation:
    """Predict all pictures and compare with the truth.

    Args:
        ready: who predicts.
        truth: the pictures with their people.
        group: processes that share the pictures among themselves; all get the same answer.
        stopped: asked after every picture; when true, the answer holds what was done so far.
        evaluate: (records, annotations, skeleton) → figures; see :func:`evaluation`.
        boxes_of: where a top-down predictor looks; see :func:`boxes`. The true boxes by default.

    Raises:
        UserError: model and pictures are of different numbers of joints.
    """
    if len(ready.skeleton) != len(truth.skeleton):
        raise UserError(
            f"the model predicts {len(ready.skeleton)} joints, but the pictures are annotated "
            f"with {len(truth.skeleton)}"
        )
    group = group or Group()
    meter = TagMeter(truth.skeleton.joints)

    mine_of = range(group.rank, len(truth), group.size)

    def found_in() -> Generator[tuple[Sample, Poses], None, None]:
        samples = map(_Whole, repeat(truth), mine_of, repeat(boxes_of))
        for whole, found in pipeline.run(ready, samples, _Whole.load):
            if isinstance(found, UserError):
                raise found
            poses, maps = found
            if isinstance(ready, BottomUp) and isinstance(maps, HostMaps | DeviceMaps):
                _measure(meter, ready, whole.sample, maps)
            yield whole.sample, poses

    with closing(found_in()) as stream:
        mine = predict_all(stream, len(mine_of), quiet=not group.main, stopped=stopped)
    shares: list[list[tuple[int | str, Poses]]] = []
    total = TagMeter(truth.skeleton.joints)
    for share, sums in group.gather((list(mine.items()), dict(meter.sums))):
        shares.append(share)
        total.merge(sums)
    # In the order of the set again, so that ties fall as they do in one process.
    turns = chain.from_iterable(zip_longest(*shares))
    everybody = dict(one for one in turns if one is not None)
    metrics = evaluate(records_of(everybody), truth.annotations, truth.skeleton)
    return Validation(everybody, metrics, total.means())


def evaluation(config: Config) -> Evaluate:
    """The config's way to score results."""
    test = config.TEST
    return partial(results.evaluate, kind=test.EVALUATION, radius=test.RADIUS)


def display_point(found: Validation, truth: Pictures, precision: float) -> OperatingPoint:
    """The operating point for pictures, from a validation; see :func:`calibrate`."""
    return calibrate(found.found, truth.annotations, truth.skeleton, precision)


class _Whole:
    """A picture of a set, read when a thread gets to it."""

    def __init__(self, pictures: Pictures, index: int, boxes_of: BoxesOf) -> None:
        self._pictures, self._index, self._boxes_of = pictures, index, boxes_of
        self.sample: Sample

    def load(self) -> Scene:
        self.sample = self._pictures.sample(self._index)
        return Scene(self.sample.image, self._boxes_of(self.sample))


def _measure(meter: TagMeter, ready: BottomUp, sample: Sample, maps: Maps) -> None:
    """Add what tags and heat are at the sample's true joints."""
    height, width = maps.shape
    shape = (sample.image.shape[0], sample.image.shape[1])
    to_map = geometry.invert(ready.protocol.to_picture(shape, (height, width)))
    poses = sample.poses
    cells = np.rint(geometry.apply(to_map, poses.xy)).astype(np.int64)
    inside = ((cells >= 0) & (cells < (width, height))).all(axis=2)
    present: npt.NDArray[np.bool_] = (poses.visibility > ABSENT) & inside
    cells = np.where(present[..., None], cells, 0)
    people, joints = present.shape
    heat, tags = maps.read(np.tile(np.arange(joints), people), cells.reshape(-1, 2))
    meter.add(
        tags=tags.reshape(people, joints, tags.shape[1]),
        heat=heat.reshape(people, joints),
        present=present,
        groups=ready.codec.group_true(maps, cells, present),
    )
