"""The config: every setting with its default, read from YAML and ``KEY VALUE`` pairs.

Defaults are the published HigherHRNet-W32 512 protocol on COCO. Only this file and ``build.py``
know config objects; ``configs/*.yaml`` name what differs.
"""

from __future__ import annotations

import contextlib
import difflib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from yacs.config import CfgNode

from . import strict_yaml
from .errors import UserError

_DEFAULTS = {
    "MODEL": {
        "NAME": "higher_hrnet",  # higher_hrnet (bottom-up), pose_hrnet (top-down), classifier
        "WIDTH": 32,  # channels of the highest resolution: 18, 32, 48
        "MODULES": [1, 4, 3],  # exchange modules in stages 2, 3, 4
        "BLOCKS": 4,  # residual blocks a branch
        "FUSION": "nearest",  # upsampling in the exchange: nearest (published), bilinear
        "TAG_HEADS": [True, False],  # one entry a head, 1/4 first: does it predict tags?
        "SHARED_TAG": False,  # one tag map for all joints
        "CONCATENATE": True,  # feed each head's output to the next deconvolution
        "RESIDUAL_BLOCKS": 4,  # after each deconvolution
        "PRETRAINED": "",  # weights file to start from; its trunk must fit
    },
    "DATASET": {
        "KIND": "coco",  # coco (COCO-format keypoints), toy (drawn), folder (one a class)
        "ROOT": "data/coco",
        "TRAIN": "train2017",  # split: annotations/person_keypoints_{split}.json, images/{split}/;
        "TEST": "val2017",  # json/crowdpose_{split}.json, images/; or FILE.json below ROOT
        "IMAGES": "",  # where pictures lie below ROOT, if not there (for FILE.json: beside it)
        "TRAIN_LIMIT": 0,  # use only the first so many pictures; 0 uses all
        "TEST_LIMIT": 0,
        "DRAWN": 0,  # drawn pictures (section TOY) mixed into every epoch of training
        "SKELETON": "coco",  # built-in name or a YAML file
        "IGNORE": True,  # crowds and people without keypoints do not count in the loss
        "INPUT_SIZE": 512,  # training crop, and short side in testing; a multiple of 64
        "CROP": [256, 192],  # top-down: height and width of a person's crop; multiples of 32
        "PADDING": 1.25,  # top-down: growth of a person's box
        "AUGMENT": True,  # False shows every picture whole and always the same
        # Crop side, times the picture's short side; top-down times the box: normal about the
        # middle of the range, with half of it as deviation.
        "SCALE": [0.75, 1.5],
        "ROTATION": 30.0,  # degrees either way; top-down the standard deviation
        "TURNED": 0.6,  # top-down: probability of turning
        "HALF_BODY": 0.3,  # top-down: probability of showing half of a body
        "CENTRE": "picture",  # of bottom-up crops: picture (published), or person: anyone in it
        # What lies beyond a picture's edges, in bottom-up training: ignored (published: a network
        # trained so may see people in black bars), or empty: nobody is there.
        "BEYOND": "ignored",
        "SHIFT": 0.2,  # of the crop side, either way
        "MIRROR": 0.5,  # probability
        "COLOUR": 0.0,  # relative change of brightness, contrast, saturation
        # Keep decoded pictures: none, ram (shared by the workers of a process; torchrun's
        # processes keep their own), device.
        "CACHE": "none",
        "WARP": "host",  # where views are made: host, or device (which then gets whole pictures)
    },
    "TOY": {  # the drawn data set: pictures of shaded figures, made from their number
        "TRAIN_IMAGES": 2000,
        "TEST_IMAGES": 100,
        "SIZE": 256,  # side of a picture, pixels
        "PEOPLE": [1, 4],  # fewest and most in a picture
        "HEIGHT": [0.35, 0.8],  # smallest and largest figure, fraction of the picture
        "OVERLAP": 0.3,  # 0 keeps figures apart, 1 lets them stand anywhere
        "OCCLUSION": 0.2,  # probability that an object hides part of a figure
    },
    "LOSS": {
        "SIGMA": 2,  # of heatmap Gaussians, in cells of every head
        "HEATMAP": [1.0, 1.0],  # factor of each head
        "HARDEST": 0,  # top-down: so many joints of a person count, the worst; 0 all
        "JOINTS": [],  # top-down: a factor for each joint; none weighs all alike
        "PULL": 0.001,
        "PUSH": 0.001,
        "PUSH_KIND": "exp",  # exp (published) or max
    },
    "TRAIN": {
        "EPOCHS": 300,
        "BATCH": 48,  # pictures a step, over all processes and parts
        "MICRO_BATCH": 0,  # pictures at once in a process; 0 all its share of the batch
        "RATE": 0.001,
        "SCHEDULE": "multistep",  # multistep or cosine
        "MILESTONES": [200, 260],
        "FACTOR": 0.1,
        "WARMUP": 0,  # steps
        "EMA": 0.0,  # decay of the average that is validated and kept; 0 for none
        "CLIP": 0.0,  # largest gradient norm; 0 for none
        "OPTIMIZER": "adam",  # adam, or sgd (Nesterov)
        "MOMENTUM": 0.9,  # of sgd
        "WEIGHT_DECAY": 0.0,  # the published 1e-4 was never applied; with it AP fell to 12
        "NORM": "batch",  # batch norms: batch, sync (over GPUs), frozen (as loaded)
        "CHECKPOINTING": False,  # store less and compute again in the backward pass
        "PRECISION": "bf16",  # bf16 (fast), fp32 (published for most models), fp16
        "COMPILE": False,  # torch.compile: minutes to start, then about 1.5 times as fast
        "FREEZE": [],  # module name prefixes that are not trained, e.g. [conv, bn, layer1]
        "UNFREEZE_EPOCH": 0,  # from this epoch on they are trained too; 0 never
        "RATE_FACTORS": [],  # layer-wise learning rates: "PREFIX FACTOR", e.g. [stage2 0.1]
        "VALIDATE_EVERY": 10,  # epochs
        "SAVE_EVERY": 0,  # steps between checkpoints inside an epoch; 0 for none
        "KEEP": 0,  # so many epochs' checkpoints are kept beside the last
        "WORKERS": 4,
        "SEED": 0,
    },
    "TEST": {
        "FLIP": True,
        "SCALES": [1.0],
        "PROJECT": True,  # bring maps to the input size before peaks are sought
        "AGGREGATE": True,  # average the heatmaps of all heads; False uses the finest alone
        "SMOOTH": 0.0,  # bottom-up: Gaussian over the merged heatmaps, its sigma in cells; 0 none
        "THRESHOLD": 0.1,  # heat of a candidate
        "CANDIDATES": 30,  # for each joint
        "TAG_THRESHOLD": 1.0,  # tag distance below which a candidate joins a person
        "ADJUST": True,  # quarter-cell shift
        "REFINE": True,  # fill missing joints
        "ASSIGNMENT": "munkres",  # munkres (published, slow); strongest, nearest (fast)
        "MAX_PEOPLE": 0,  # keep only so many people of a picture, the best; 0 all, as published
        "EVALUATION": "auto",  # auto (as the set is), coco, crowdpose, pckh, accuracy
        "RADIUS": 10.0,  # pixels within which a joint is right for accuracy
        "DISPLAY": 0.8,  # share of people shown in pictures who shall be right; see predict --raw
        "PRECISION": "auto",  # auto (bf16 where the hardware has it), fp32 (exact), bf16, fp16
        "COMPILE": False,  # torch.compile with frozen weights: minutes for each input size
        "CUDA_GRAPHS": False,  # replay recorded GPU work, one recording an input size
        "BATCH": 4,  # pictures of one size that go through the network together
        "BOXES": "truth",  # top-down: truth, a result file, a detector, or bottom-up weights
        "BOX_SCORE": 0.0,  # top-down: least score of a box
        "JITTER": 0.0,  # top-down: how far boxes' edges are moved at random, of their sides
        "CROPS": 64,  # top-down: crops that go through the network together, at most
        "DECODING": "quarter",  # top-down: quarter (published), parabola, dark
        "SHIFT_MIRRORED": True,  # top-down: the mirrored view's maps one cell to the right
        "LEAST_HEAT": 0.2,  # top-down: joints above this count for a person's score
        "SAME": 0.9,  # top-down: likeness (OKS) above which two people are one; 1 keeps all
        "SOFT": False,  # top-down: keep the 20 best, ranked the lower the more alike they are
        "WORKERS": 2,  # threads that read, and threads that decode
    },
}

Config: TypeAlias = CfgNode


def default_config() -> Config:
    """A frozen config of defaults only."""
    return _frozen(CfgNode(_DEFAULTS))


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Defaults, then a YAML file, then ``KEY VALUE`` pairs; validated and frozen.

    Raises:
        UserError: the file is missing or not YAML, a key is unknown, or a value is of the wrong
            kind; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"config file '{path}' does not exist")
    return parse_config(path.read_bytes(), overrides, source=str(path))


def parse_config(
    text: str | bytes, overrides: Sequence[Any] = (), source: str = "config"
) -> Config:
    """Like :func:`read_config`, from YAML text; values may be YAML or what they mean."""
    try:
        loaded = strict_yaml.parse(text) or {}
    except UserError as error:
        raise UserError(f"'{source}' is not valid YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise UserError(f"'{source}' is not a mapping of sections to settings")
    if len(overrides) % 2:
        raise UserError(f"overrides come as KEY VALUE pairs, but '{overrides[-1]}' has no value")
    config = CfgNode(_DEFAULTS)
    try:
        pairs: list[tuple[str, Any]] = list(_flatten(loaded))
    except RecursionError as error:
        raise UserError(f"'{source}' refers to itself") from error
    for key, number in Counter(key for key, _ in pairs).items():
        if number > 1:
            raise UserError(f"config key '{key}' stands twice in '{source}'")
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        try:
            is_text = isinstance(value, str)  # Python callers may give the value itself
            pairs.append((key, strict_yaml.parse(value) if is_text and value else value))
        except UserError as error:
            raise UserError(f"config key '{key}': '{value}' is not valid YAML: {error}") from error
    known = dict(_flatten(_DEFAULTS))
    for key, value in pairs:
        if key not in known:
            close = difflib.get_close_matches(key.upper(), known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise UserError(f"unknown config key '{key}' in '{source}'{hint}")
        section, name = key.split(".")
        config[section][name] = _coerced(key, value, known[key])
    _validate(config)
    return _frozen(config)


def varied(config: Config, overrides: Sequence[str]) -> Config:
    """A config with ``KEY, VALUE`` pairs changed."""
    return parse_config(to_yaml(config), overrides)


def to_yaml(config: Config) -> str:
    """The whole config as YAML; inverse of :func:`parse_config`."""
    text: str = config.dump()
    return text


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif value is None and not prefix and key in _DEFAULTS:
            continue  # a section's name with nothing below it
        else:
            yield f"{prefix}{key}", value


def _coerced(key: str, value: Any, default: Any) -> Any:
    """The value as the default's type; a whole number will do for a decimal one."""
    if isinstance(default, list) and isinstance(value, list | tuple):
        if not default:
            entry: str | float = 1.0 if key in _NUMBERS else ""
            return [_coerced(key, item, entry) for item in value]
        return [_coerced(key, item, default[0]) for item in value]
    if isinstance(default, float) and not isinstance(value, bool):
        # YAML reads 1e-3 (no dot) as text; everybody writes it.
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            number = float(value)
            if math.isfinite(number):
                return number
        raise UserError(f"config key '{key}' must be a finite number, not {value!r}")
    if isinstance(default, str) and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if type(value) is not type(default):
        raise UserError(
            f"config key '{key}' must be a {type(default).__name__} like {default!r}, not {value!r}"
        )
    return value


_NUMBERS = ("LOSS.JOINTS",)
"""Empty by default, and lists of numbers; other empty lists are of names."""

_CHOICES = {
    "MODEL.NAME": ("higher_hrnet", "pose_hrnet", "classifier"),
    "MODEL.FUSION": ("nearest", "bilinear"),
    "DATASET.KIND": ("coco", "toy", "folder"),
    "DATASET.CENTRE": ("picture", "person"),
    "DATASET.BEYOND": ("ignored", "empty"),
    "DATASET.CACHE": ("none", "ram", "device"),
    "DATASET.WARP": ("host", "device"),
    "LOSS.PUSH_KIND": ("exp", "max"),
    "TRAIN.NORM": ("batch", "sync", "frozen"),
    "TRAIN.OPTIMIZER": ("adam", "sgd"),
    "TRAIN.SCHEDULE": ("multistep", "cosine"),
    "TRAIN.PRECISION": ("fp32", "bf16", "fp16"),
    "TEST.PRECISION": ("auto", "fp32", "bf16", "fp16"),
    "TEST.DECODING": ("quarter", "parabola", "dark"),
    "TEST.EVALUATION": ("auto", "coco", "crowdpose", "pckh", "accuracy"),
    "TEST.ASSIGNMENT": ("munkres", "strongest", "nearest"),
}
_AT_LEAST_ONE = (
    "MODEL.WIDTH", "MODEL.BLOCKS", "LOSS.SIGMA", "TRAIN.EPOCHS", "TRAIN.BATCH",
    "TRAIN.VALIDATE_EVERY", "TEST.CANDIDATES", "TEST.BATCH", "TEST.WORKERS",
    "TEST.CROPS",
    "TOY.TRAIN_IMAGES", "TOY.TEST_IMAGES",
)  # fmt: skip


_AT_LEAST_ZERO = (
    "DATASET.TRAIN_LIMIT", "DATASET.TEST_LIMIT", "DATASET.DRAWN", "TRAIN.WORKERS",
    "TRAIN.MICRO_BATCH", "TRAIN.SAVE_EVERY", "TRAIN.KEEP", "TRAIN.UNFREEZE_EPOCH",
    "TEST.MAX_PEOPLE", "LOSS.HARDEST",
)  # fmt: skip


_RANGES = {
    "DATASET.COLOUR": (0, 1), "DATASET.SHIFT": (0, 1), "DATASET.ROTATION": (0, 180),
    "TOY.OVERLAP": (0, 1), "TOY.OCCLUSION": (0, 1), "TOY.SIZE": (16, 8192),
    "LOSS.PULL": (0, math.inf), "LOSS.PUSH": (0, math.inf),
    "TRAIN.RATE": (0, math.inf), "TRAIN.FACTOR": (0, 1), "TRAIN.WARMUP": (0, math.inf),
    "TRAIN.EMA": (0, 0.999999), "TRAIN.CLIP": (0, math.inf), "TRAIN.MOMENTUM": (0, 0.999999),
    "TRAIN.WEIGHT_DECAY": (0, math.inf), "TRAIN.SEED": (0, 2**32 - 1), "TEST.RADIUS": (0, math.inf),
    "MODEL.RESIDUAL_BLOCKS": (0, 64), "MODEL.WIDTH": (1, 1024), "MODEL.BLOCKS": (1, 64),
    "TEST.SMOOTH": (0, 4), "TEST.THRESHOLD": (0, math.inf), "TEST.TAG_THRESHOLD": (0, math.inf),
}  # fmt: skip
"""Lowest and highest values; outside, a run would be ruined without a word."""


def _validate(config: Config) -> None:
    values = dict(_flatten(config))
    for key, choices in _CHOICES.items():
        if values[key] not in choices:
            raise UserError(
                f"config key '{key}' must be one of {', '.join(choices)}, not '{values[key]}'"
            )
    for key in _AT_LEAST_ONE:
        if values[key] < 1:
            raise UserError(f"config key '{key}' must be at least 1, not {values[key]}")
    for key in _AT_LEAST_ZERO:
        if values[key] < 0:
            raise UserError(f"config key '{key}' must be at least 0, not {values[key]}")
    for key, (low, high) in _RANGES.items():
        if not low <= values[key] <= high:
            bounds = f"at least {low}" if high == math.inf else f"in {low}..{high}"
            raise UserError(f"config key '{key}' must be {bounds}, not {values[key]}")
    modules = config.MODEL.MODULES
    if len(modules) != 3 or not all(1 <= count <= 64 for count in modules):
        raise UserError(f"config key 'MODEL.MODULES' must be three counts in 1..64, not {modules}")
    size = config.DATASET.INPUT_SIZE
    multiple = 32 if config.DATASET.KIND == "folder" else 64
    if size < multiple or size % multiple:
        raise UserError(
            f"config key 'DATASET.INPUT_SIZE' must be a multiple of {multiple}, not {size}"
        )
    if len(config.MODEL.TAG_HEADS) > 3:
        raise UserError(
            "config key 'MODEL.TAG_HEADS' has at most three heads, the third at full resolution, "
            f"not {len(config.MODEL.TAG_HEADS)}"
        )
    if min(config.LOSS.HEATMAP, default=0) < 0 or not any(config.LOSS.HEATMAP):
        raise UserError(
            f"config key 'LOSS.HEATMAP' must be factors from 0, not all 0: {config.LOSS.HEATMAP}"
        )
    factors = config.LOSS.JOINTS
    if factors and (min(factors) < 0 or not any(factors)):
        raise UserError(f"config key 'LOSS.JOINTS' must be factors from 0, not all 0: {factors}")
    if min(config.TRAIN.MILESTONES, default=0) < 0:
        raise UserError(
            f"config key 'TRAIN.MILESTONES' lists epochs, not {config.TRAIN.MILESTONES}"
        )
    if not any(config.MODEL.TAG_HEADS):
        raise UserError("config key 'MODEL.TAG_HEADS' must name at least one head with tags")
    crop = config.DATASET.CROP
    if len(crop) != 2 or min(crop) < 32 or crop[0] % 32 or crop[1] % 32:
        raise UserError(
            f"config key 'DATASET.CROP' must be [height, width], multiples of 32, not {crop}"
        )
    for key in ("DATASET.PADDING", "TEST.SAME"):
        if not values[key] > 0:
            raise UserError(f"config key '{key}' must be above 0, not {values[key]}")
    for key in ("DATASET.TURNED", "DATASET.HALF_BODY", "DATASET.MIRROR", "TEST.BOX_SCORE"):
        if not 0 <= values[key] <= 1:
            raise UserError(f"config key '{key}' must lie in 0..1, not at {values[key]}")
    if not 0 <= config.TEST.JITTER <= 0.25:
        raise UserError(
            "config key 'TEST.JITTER' must lie in 0..0.25 of a box's sides, not at "
            f"{config.TEST.JITTER}"
        )
    if len(config.LOSS.HEATMAP) != len(config.MODEL.TAG_HEADS):
        raise UserError(
            f"config key 'LOSS.HEATMAP' has {len(config.LOSS.HEATMAP)} factors, but "
            f"'MODEL.TAG_HEADS' has {len(config.MODEL.TAG_HEADS)} heads"
        )
    if (config.MODEL.NAME == "classifier") != (config.DATASET.KIND == "folder"):
        raise UserError(
            "config keys 'MODEL.NAME' classifier and 'DATASET.KIND' folder go together, not "
            f"'{config.MODEL.NAME}' and '{config.DATASET.KIND}'"
        )
    for key in ("DATASET.TRAIN_LIMIT", "DATASET.TEST_LIMIT"):
        if values[key] and config.MODEL.NAME == "classifier":
            raise UserError(f"config key '{key}' is not for folders of classes")
    if config.TRAIN.CHECKPOINTING and config.TRAIN.COMPILE:
        raise UserError("config keys 'TRAIN.CHECKPOINTING' and 'TRAIN.COMPILE' exclude each other")
    for key in ("DATASET.SCALE", "TOY.PEOPLE", "TOY.HEIGHT"):
        bounds = values[key]
        if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
            raise UserError(f"config key '{key}' must be [lowest, highest], not {bounds}")
    if not 0 < config.TEST.DISPLAY < 1:
        raise UserError(
            f"config key 'TEST.DISPLAY' must lie between 0 and 1, not at {config.TEST.DISPLAY}"
        )
    scales = config.TEST.SCALES
    if not scales or not all(0.05 <= scale <= 64 for scale in scales):
        raise UserError(f"config key 'TEST.SCALES' must list scales in 0.05..64, not {scales}")
    if config.TOY.HEIGHT[1] > 1:
        raise UserError(
            "config key 'TOY.HEIGHT' is a fraction of the picture, at most 1, not "
            f"{config.TOY.HEIGHT[1]}"
        )
    if len(set(config.TEST.SCALES)) < len(config.TEST.SCALES):
        raise UserError(f"config key 'TEST.SCALES' lists a scale twice: {config.TEST.SCALES}")


def _frozen(config: Config) -> Config:
    config.freeze()
    return config
