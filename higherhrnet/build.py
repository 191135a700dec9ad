"""The one place where config becomes objects."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from . import show, validation
from .codecs import tags as tagging
from .codecs.bottom_up import BottomUpCodec
from .config import Config, parse_config, to_yaml
from .datasets.catalog import coco_paths
from .datasets.keypoints import CocoKeypoints, Joined, Pictures
from .datasets.loader import Loader, Views
from .datasets.toy import DrawnPeople
from .datasets.transforms import CentredView, RandomView
from .evaluation import results
from .fields import Sample
from .files import whole
from .inference.augmented import Protocol
from .inference.predictor import Predictor
from .losses import BottomUpLoss
from .models import weights
from .models.higher_hrnet import HigherHRNet
from .models.pixels import normalise
from .skeleton import SKELETONS, Skeleton, load_skeleton
from .training import checkpoint, loop
from .training.log import Log
from .training.optim import Average, Schedule

BUNDLED = Path(__file__).parent / "weights"
"""Checkpoints that come with the package."""


def expand_path(value: str, key: str) -> Path:
    """A path from the config: ``${VARIABLES}`` filled in, relative to the working folder.

    Raises:
        ValueError: a variable is not set.
    """
    unset = [name for name in re.findall(r"\$\{(\w+)\}", value) if name not in os.environ]
    if unset:
        raise ValueError(
            f"config key '{key}' is '{value}', but the environment variable {unset[0]} is not set"
        )
    return Path(os.path.expandvars(value)).expanduser()


def skeleton(config: Config) -> Skeleton:
    """The data set's skeleton."""
    return load_skeleton(config.DATASET.SKELETON)


def model(config: Config, joints: int) -> HigherHRNet:
    """The network, freshly initialised."""
    m = config.MODEL
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
    )


def codec(config: Config, network: HigherHRNet, joints: Skeleton) -> BottomUpCodec:
    """The codec of the network's heads with the test settings."""
    test = config.TEST
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
    )


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
            raise ValueError(
                f"config key 'DATASET.SKELETON' must be 'coco' for drawn people, not '{d.SKELETON}'"
            )
        return drawn
    root = expand_path(d.ROOT, "DATASET.ROOT")
    annotation_file, image_folder = coco_paths(root, d.TRAIN if split == "train" else d.TEST)
    real = CocoKeypoints(
        annotation_file, image_folder, joints, people_only=split == "train", limit=limit
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
    )


def device(name: str = "auto") -> torch.device:
    """``auto`` takes a GPU where there is one.

    Raises:
        ValueError: the device is unknown or not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}") from error
    return chosen


def predictor(
    config: Config, network: HigherHRNet, joints: Skeleton, on: torch.device
) -> Predictor:
    """A predictor with the config's test protocol."""
    return Predictor(
        model=network.to(on).to(memory_format=torch.channels_last).eval(),
        codec=codec(config, network, joints),
        protocol=Protocol(
            input_size=config.DATASET.INPUT_SIZE,
            scales=tuple(config.TEST.SCALES),
            flip=config.TEST.FLIP,
            project=config.TEST.PROJECT,
        ),
        device=on,
        precision=config.TEST.PRECISION,
    )


def find_weights(name_or_file: str) -> Path:
    """A weights file: a path, or the name of a bundled checkpoint."""
    bundled = BUNDLED / f"{name_or_file}.safetensors"
    if bundled.is_file():
        return bundled
    path = Path(name_or_file)
    if not path.is_file() and not path.suffix:
        names = sorted(file.stem for file in BUNDLED.glob("*.safetensors"))
        raise ValueError(
            f"'{name_or_file}' is neither a bundled checkpoint ({', '.join(names)}) nor a file"
        )
    return path


def config_of(checkpoint_file: weights.Checkpoint, overrides: Sequence[str] = ()) -> Config:
    """The config inside a native checkpoint, else one that fits a foreign file's tensors."""
    source = str(checkpoint_file.path)
    if checkpoint_file.config is not None:
        return parse_config(checkpoint_file.config, overrides, source)
    found = weights.architecture(checkpoint_file.state)
    if found is None or found.kind != "higher_hrnet":
        kind = "no HRNet" if found is None else f"a {found.kind} of width {found.width}"
        raise ValueError(f"'{source}' is a checkpoint of another model: it holds {kind}")
    by_joints: dict[int | None, str] = {len(s): s.name for s in SKELETONS.values()}
    if found.joints not in by_joints and "DATASET.SKELETON" not in overrides:
        raise ValueError(
            f"'{source}' predicts {found.joints} joints, which is no built-in skeleton; "
            "give one with DATASET.SKELETON FILE.yaml"
        )
    guess = {
        "MODEL": {
            "WIDTH": found.width,
            "MODULES": list(found.modules),
            "BLOCKS": found.blocks,
            "TAG_HEADS": list(found.tag_heads),
            "SHARED_TAG": found.shared_tag,
            "CONCATENATE": found.concatenate,
            "RESIDUAL_BLOCKS": found.residual_blocks,
        },
        "LOSS": {"HEATMAP": [1.0] * len(found.tag_heads)},
        "DATASET": {"SKELETON": by_joints.get(found.joints, "coco")},
    }
    return parse_config(json.dumps(guess), overrides, source)


def load(
    name_or_file: str | Path = "higherhrnet_w18_mini",
    device_name: str = "auto",
    overrides: Sequence[str] = (),
) -> Predictor:
    """A predictor from a bundled name or any checkpoint file.

    Args:
        name_or_file: bundled name, native ``.safetensors``, or an official ``.pth``.
        device_name: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        overrides: config ``KEY, VALUE, …`` over those in the checkpoint.

    Raises:
        ValueError: no such file, or not a checkpoint of a bottom-up network.
    """
    file = weights.read(find_weights(str(name_or_file)))
    config = config_of(file, overrides)
    joints = file.skeleton or skeleton(config)
    network = model(config, len(joints))
    weights.load_all(network, file)
    return predictor(config, network, joints, device(device_name))


def validate(
    config: Config, ready: Predictor, truth: Pictures
) -> tuple[list[dict[str, Any]], dict[str, float], int]:
    """Result records, metrics, and people beyond COCO's 20 a picture."""
    if len(ready.skeleton) != len(truth.skeleton):
        raise ValueError(
            f"the model predicts {len(ready.skeleton)} joints, but the pictures are annotated "
            f"with {len(truth.skeleton)}"
        )
    records, beyond = validation.predict_all(lambda sample: ready(sample.image), truth)
    return records, results.evaluate(records, truth.annotations, truth.skeleton), beyond


def train(config: Config, output: Path, device_name: str = "auto", resume: bool = False) -> float:
    """Train what the config says into ``output``; returns the best AP.

    Writes ``last.pth`` (to resume), ``best.safetensors`` (by AP), ``config.yaml``,
    ``log.jsonl`` and ``tensorboard/``.
    """
    if not resume and (output / checkpoint.LAST).exists():
        raise ValueError(
            f"'{output}' already holds a run; go on with --resume or choose another --output"
        )
    t = config.TRAIN
    checkpoint.seed_everything(t.SEED)
    on = device(device_name)
    joints = skeleton(config)
    network = model(config, len(joints))
    if config.MODEL.PRETRAINED:
        path = expand_path(config.MODEL.PRETRAINED, "MODEL.PRETRAINED")
        print(f"{path}: {weights.load_trunk(network, weights.read(path))}")
    encoder = codec(config, network, joints)
    trained, truth = pictures(config, "train"), pictures(config, "test")
    output.mkdir(parents=True, exist_ok=True)
    with whole(output / "config.yaml") as partial:
        partial.write_text(to_yaml(config))
    network.to(on).to(memory_format=torch.channels_last)
    _freeze(network, t.FREEZE)
    parameters = [p for p in network.parameters() if p.requires_grad]
    # A second network validates averaged weights, so that training goes on undisturbed.
    examiner = predictor(config, copy.deepcopy(network), joints, on)
    view = _training_view(config, joints)

    def examine(state: Mapping[str, torch.Tensor], epoch: int) -> dict[str, float]:
        examiner.model.load_state_dict(state)
        _, metrics, _ = validate(config, examiner, truth)
        print(f"epoch {epoch}: AP {100 * metrics['AP']:.2f}")
        sample = truth.sample(epoch % len(truth))
        log.pictures(epoch, _pictures(examiner, sample))
        return metrics

    def keep(state: Mapping[str, torch.Tensor]) -> None:
        weights.write(output / "best.safetensors", state, to_yaml(config), joints)

    with Log(output) as log:
        progress = loop.fit(
            model=network,
            criterion=BottomUpLoss(
                network.heads,
                heatmap_factors=tuple(config.LOSS.HEATMAP),
                pull_factor=config.LOSS.PULL,
                push_factor=config.LOSS.PUSH,
                push_kind=config.LOSS.PUSH_KIND,
            ),
            batches=Loader(Views(trained, view, encoder.encode, t.SEED), t.BATCH, t.WORKERS),
            optimizer=torch.optim.Adam(parameters, lr=t.RATE, fused=True),
            schedule=Schedule(
                t.SCHEDULE, t.RATE, t.EPOCHS, tuple(t.MILESTONES), t.FACTOR, t.WARMUP
            ),
            average=Average(network, t.EMA) if t.EMA else None,
            settings=loop.Settings(t.EPOCHS, on, t.PRECISION, t.CLIP, t.VALIDATE_EVERY, t.COMPILE),
            normalise=normalise,
            validate=examine,
            keep_best=keep,
            folder=output,
            log=log,
            resume=resume,
        )
    return progress.best


def _training_view(config: Config, joints: Skeleton) -> RandomView | CentredView:
    d = config.DATASET
    if not d.AUGMENT:
        return CentredView(joints, d.INPUT_SIZE)
    return RandomView(joints, d.INPUT_SIZE, tuple(d.SCALE), d.ROTATION, d.SHIFT, d.MIRROR, d.COLOUR)


def _freeze(network: nn.Module, prefixes: Sequence[str]) -> None:
    for prefix in prefixes:
        chosen = [p for name, p in network.named_parameters() if name.startswith(prefix)]
        if not chosen:
            raise ValueError(f"config key 'TRAIN.FREEZE': no parameter starts with '{prefix}'")
        for parameter in chosen:
            parameter.requires_grad_(False)


def _pictures(ready: Predictor, sample: Sample) -> dict[str, Any]:
    """What TensorBoard shows of one picture."""
    poses, fields = ready.predict(sample.image)
    return {
        "predictions": show.draw(sample.image, poses, ready.skeleton),
        "annotations": show.draw(sample.image, sample.poses, ready.skeleton),
        "heatmaps": show.heat(sample.image, fields.heatmaps.max(axis=0)),
        "tags": show.heat(sample.image, np.median(fields.tags[..., 0], axis=0)),
    }
