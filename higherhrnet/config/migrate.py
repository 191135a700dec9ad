"""Configs of others: former key names, and the official YAMLs of the original repositories.

Both become pairs of today's keys, and sentences that say what was translated or left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..errors import UserError

Pairs = list[tuple[str, Any]]
_NAMES = {"higher_hrnet": "pose_higher_hrnet", "classifier": "cls_hrnet"}
_BOTTOM_UP, _TOP_DOWN, _CLASSIFIER = "pose_higher_hrnet", "pose_hrnet", "cls_hrnet"


@dataclass(frozen=True)
class _Now:
    """Where a former key went.

    Attributes:
        key: today's.
        only: the models that have it; all if empty. For others the former setting meant nothing.
        value: translates the value.
    """

    key: str
    only: tuple[str, ...] = ()
    value: Callable[[Any], Any] = lambda value: value


def _pose(key: str, value: Callable[[Any], Any] = lambda value: value) -> tuple[_Now, ...]:
    return (_Now(key, (_BOTTOM_UP, _TOP_DOWN), value),)


def _bottom_up(key: str, value: Callable[[Any], Any] = lambda value: value) -> tuple[_Now, ...]:
    return (_Now(key, (_BOTTOM_UP,), value),)


def _top_down(key: str, value: Callable[[Any], Any] = lambda value: value) -> tuple[_Now, ...]:
    return (_Now(key, (_TOP_DOWN,), value),)


def _among(**names: Any) -> Callable[[Any], Any]:
    return lambda value: names.get(str(value), value)


def _bounds(value: Any) -> tuple[float, float]:
    low, high = value  # two of them
    return float(low), float(high)


def _half_range(value: Any) -> float:
    low, high = _bounds(value)
    # The former default, which suited bottom-up training, stands in whole top-down configs too.
    if abs(low + high - 2) > 1e-6 and (low, high) != (0.75, 1.5):
        raise UserError(
            f"config key 'DATASET.SCALE' [{low:g}, {high:g}] is now DATASET.SCALE_FACTOR, which is "
            "symmetric about 1"
        )
    return round((high - low) / 2, 9)


def _negate(value: Any) -> bool:
    return not _boolean(value)


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError
    return value


_ASSIGNMENTS = {
    "strongest": "hungarian_score_tiebreak",
    "nearest": "hungarian_distance_tiebreak",
}
_FORMER: dict[str, tuple[_Now, ...]] = {
    "MODEL.MODULES": (_Now("MODEL.NUM_MODULES"),),
    "MODEL.BLOCKS": (_Now("MODEL.NUM_BLOCKS"),),
    "MODEL.FUSION": (_Now("MODEL.UPSAMPLE_MODE"),),
    "MODEL.TAG_HEADS": _bottom_up("LOSS.WITH_AE_LOSS"),
    "MODEL.SHARED_TAG": _bottom_up("MODEL.TAG_PER_JOINT", _negate),
    "MODEL.CONCATENATE": _bottom_up("MODEL.CAT_OUTPUT"),
    "MODEL.RESIDUAL_BLOCKS": _bottom_up("MODEL.NUM_BASIC_BLOCKS"),
    "DATASET.KIND": _pose("DATASET.DATASET", _among(toy="synthetic")),
    "DATASET.IMAGES": _pose("DATASET.IMAGE_DIR"),
    "DATASET.DRAWN": _pose("DATASET.SYNTHETIC_IMAGES"),
    "DATASET.IGNORE": _bottom_up("DATASET.WITH_MASK"),
    "DATASET.CROP": _top_down("MODEL.IMAGE_SIZE", lambda shape: list(shape)[::-1]),
    "DATASET.PADDING": _top_down("DATASET.BBOX_PADDING"),
    "DATASET.SCALE": (
        _Now("DATASET.MIN_SCALE", (_BOTTOM_UP,), lambda value: _bounds(value)[0]),
        _Now("DATASET.MAX_SCALE", (_BOTTOM_UP,), lambda value: _bounds(value)[1]),
        _Now("DATASET.SCALE_FACTOR", (_TOP_DOWN,), _half_range),
    ),
    "DATASET.ROTATION": (
        *_bottom_up("DATASET.MAX_ROTATION"),
        *_top_down("DATASET.ROT_FACTOR"),
    ),
    "DATASET.TURNED": _top_down("DATASET.ROT_PROB"),
    "DATASET.HALF_BODY": _top_down("DATASET.PROB_HALF_BODY"),
    "DATASET.CENTRE": _bottom_up("DATASET.CROP_CENTER", _among(picture="image")),
    "DATASET.BEYOND": _bottom_up("DATASET.PADDING_IN_LOSS", _among(ignored=False, empty=True)),
    "DATASET.SHIFT": _bottom_up("DATASET.MAX_TRANSLATE", lambda part: round(200 * float(part), 9)),
    "DATASET.MIRROR": _pose("DATASET.FLIP"),
    "DATASET.COLOUR": _pose("DATASET.COLOR_JITTER"),
    **{
        f"TOY.{key}": _pose(f"SYNTHETIC.{key}")
        for key in ("TRAIN_IMAGES", "TEST_IMAGES", "SIZE", "PEOPLE", "HEIGHT", "OVERLAP",
                    "OCCLUSION")
    },
    "LOSS.SIGMA": (*_bottom_up("DATASET.SIGMA"), *_top_down("MODEL.SIGMA")),
    "LOSS.HEATMAP": _bottom_up("LOSS.HEATMAPS_LOSS_FACTOR"),
    "LOSS.HARDEST": _top_down("LOSS.OHKM_TOPK"),
    "LOSS.JOINTS": _top_down("LOSS.JOINT_WEIGHTS"),
    "LOSS.PULL": _bottom_up("LOSS.PULL_LOSS_FACTOR"),
    "LOSS.PUSH": _bottom_up("LOSS.PUSH_LOSS_FACTOR"),
    "LOSS.PUSH_KIND": _bottom_up("LOSS.AE_LOSS_TYPE"),
    **{
        f"TRAIN.{old}": (_Now(f"TRAIN.{new}"),)
        for old, new in {
            "EPOCHS": "END_EPOCH", "BATCH": "BATCH_SIZE", "MICRO_BATCH": "MICRO_BATCH_SIZE",
            "RATE": "LR", "SCHEDULE": "LR_SCHEDULER", "MILESTONES": "LR_STEP",
            "FACTOR": "LR_FACTOR", "RATE_FACTORS": "LR_MULT", "WARMUP": "WARMUP_STEPS",
            "EMA": "EMA_DECAY", "CLIP": "GRAD_CLIP_NORM",
            "CHECKPOINTING": "ACTIVATION_CHECKPOINTING", "KEEP": "KEEP_CHECKPOINTS",
        }.items()
    },
    "TRAIN.NORM": (_Now("TRAIN.BN_MODE", (), _among(batch="train")),),
    "TEST.FLIP": _pose("TEST.FLIP_TEST"),
    "TEST.SCALES": _bottom_up("TEST.SCALE_FACTOR"),
    "TEST.PROJECT": _bottom_up("TEST.PROJECT2IMAGE"),
    "TEST.SMOOTH": _bottom_up("TEST.BLUR_SIGMA"),
    "TEST.THRESHOLD": _bottom_up("TEST.DETECTION_THRESHOLD"),
    "TEST.CANDIDATES": _bottom_up("DATASET.MAX_NUM_PEOPLE"),
    "TEST.ASSIGNMENT": _bottom_up("TEST.ASSIGNMENT", _among(**_ASSIGNMENTS)),
    "TEST.MAX_PEOPLE": _bottom_up("TEST.MAX_DETECTIONS"),
    "TEST.RADIUS": _pose("TEST.ACCURACY_RADIUS"),
    "TEST.DISPLAY": _pose("TEST.DISPLAY_PRECISION"),
    "TEST.BATCH": _pose("TEST.BATCH_SIZE"),
    "TEST.BOXES": _top_down("TEST.BBOX_SOURCE", _among(truth="ground_truth")),
    "TEST.BOX_SCORE": _top_down("TEST.BBOX_THRE"),
    "TEST.JITTER": _top_down("TEST.BBOX_JITTER"),
    "TEST.CROPS": _top_down("TEST.CROPS_PER_BATCH"),
    "TEST.SHIFT_MIRRORED": _top_down("TEST.SHIFT_HEATMAP"),
    "TEST.LEAST_HEAT": _top_down("TEST.IN_VIS_THRE"),
    "TEST.SAME": _top_down("TEST.OKS_THRE"),
    "TEST.SOFT": _top_down("TEST.SOFT_NMS"),
}  # fmt: skip
"""Former key → what it is now; ``TEST.AGGREGATE`` needs the number of outputs, see below."""
_KEPT_FOR = {
    "DATASET.INPUT_SIZE": (_BOTTOM_UP, _CLASSIFIER),
    **dict.fromkeys(("TEST.TAG_THRESHOLD", "TEST.ADJUST", "TEST.REFINE"), (_BOTTOM_UP,)),
    "TEST.DECODING": (_TOP_DOWN,),
    **dict.fromkeys(
        (
            "DATASET.TRAIN_LIMIT", "DATASET.TEST_LIMIT", "DATASET.SKELETON", "DATASET.CACHE",
            "DATASET.WARP", "TEST.EVALUATION", "TEST.PRECISION", "TEST.COMPILE",
            "TEST.CUDA_GRAPHS", "TEST.WORKERS",
        ),
        (_BOTTOM_UP, _TOP_DOWN),
    ),
}  # fmt: skip
"""Keys whose name stayed, but which the one former schema also had for other models."""


def former(
    pairs: Pairs, source: str, before: Sequence[tuple[str, Any]] = ()
) -> tuple[Pairs, list[str]]:
    """Pairs with former key names → pairs with today's, and what to say of it.

    Args:
        before: pairs that these come after, among which the model's name may be.

    Returns:
        the pairs, unchanged if no name in them is a former one.
    """
    values = dict([*before, *pairs])
    name = str(values.get("MODEL.NAME", _BOTTOM_UP))
    is_former = {
        key
        for key, value in pairs
        if (key in _FORMER and key != "TEST.ASSIGNMENT")
        or key == "TEST.AGGREGATE"
        or (key == "TEST.ASSIGNMENT" and str(value) in _ASSIGNMENTS)
        or (key == "MODEL.NAME" and str(value) in _NAMES)
    }
    if not is_former:
        return pairs, []
    name = _NAMES.get(name, name)
    whole = len(pairs) > 60  # a whole former config, as checkpoints carry it
    moved: Pairs = []
    said: dict[str, str] = {}
    for key, value in pairs:
        if key == "MODEL.NAME":
            moved.append((key, name))
        elif key == "TEST.AGGREGATE":
            if name == _BOTTOM_UP:
                heads = values.get(
                    "LOSS.WITH_AE_LOSS", values.get("MODEL.TAG_HEADS", (True, False))
                )
                outputs = len(heads) if isinstance(heads, list | tuple) else 1
                now = _Now("TEST.WITH_HEATMAPS", (), partial(_with_heatmaps, outputs=outputs))
                moved.append((now.key, _translate(key, now, value)))
                said[key] = now.key
        elif key in _FORMER:
            meant = [now for now in _FORMER[key] if not now.only or name in now.only]
            for now in meant:
                moved.append((now.key, _translate(key, now, value)))
                said[key] = now.key
            if not meant and not whole:  # it means nothing for this model, which is then said
                had_it = name in (_BOTTOM_UP, _TOP_DOWN, _CLASSIFIER)
                moved.append((_FORMER[key][0].key if had_it else key, value))
        elif not whole or name in _KEPT_FOR.get(key, (name,)):
            moved.append((key, value))
    renamed = ", ".join(f"{old} is now {new}" for old, new in said.items() if old != new)
    return moved, [f"former key names in {source}: {renamed}"] if renamed else []


def _with_heatmaps(all_outputs: Any, outputs: int) -> list[bool]:
    return [_boolean(all_outputs) or number == outputs - 1 for number in range(outputs)]


def _translate(key: str, now: _Now, value: Any) -> Any:
    try:
        return now.value(value)
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise UserError(f"config key '{key}' (now '{now.key}') cannot be {value!r}") from error


# Official YAMLs


def is_official(loaded: Mapping[str, Any]) -> bool:
    """Whether this is an experiment file of HigherHRNet or HRNet as its authors published it."""
    model = loaded.get("MODEL")
    return isinstance(model, Mapping) and isinstance(model.get("EXTRA"), Mapping)


_ZOO = {
    "hrnet_w32-36af842e.pth": "imagenet/hrnet_w32",
    "hrnet_w48-8ef0771d.pth": "imagenet/hrnet_w48",
    "pose_higher_hrnet_w32_512.pth": "official/higherhrnet_w32_512",
}
_DATASETS = {
    "coco": "coco", "coco_kpt": "coco", "crowd_pose_kpt": "crowdpose", "mpii": "mpii",
}  # fmt: skip
_GPUS_PUBLISHED = 4
_DIFFERENT_JOINTS = (1, 1, 1, 1, 1, 1, 1, 1.2, 1.2, 1.5, 1.5, 1, 1, 1.2, 1.2, 1.5, 1.5)
_SAME_NAME = {
    "DATASET": (
        "SIGMA", "INPUT_SIZE", "MAX_ROTATION", "MIN_SCALE", "MAX_SCALE", "MAX_TRANSLATE",
        "MAX_NUM_PEOPLE", "SCALE_FACTOR", "ROT_FACTOR",
    ),
    "LOSS": (
        "WITH_AE_LOSS", "AE_LOSS_TYPE", "HEATMAPS_LOSS_FACTOR", "PULL_LOSS_FACTOR",
        "PUSH_LOSS_FACTOR",
    ),
    "MODEL": ("NAME", "TAG_PER_JOINT", "IMAGE_SIZE", "SIGMA"),
    "TRAIN": ("END_EPOCH", "LR", "LR_FACTOR", "LR_STEP", "MOMENTUM", "OPTIMIZER"),
    "TEST": (
        "FLIP_TEST", "SCALE_FACTOR", "DETECTION_THRESHOLD", "TAG_THRESHOLD", "PROJECT2IMAGE",
        "ADJUST", "REFINE", "SHIFT_HEATMAP", "SOFT_NMS", "OKS_THRE", "IN_VIS_THRE",
    ),
}  # fmt: skip
_FIXED: dict[str, tuple[Any, ...]] = {
    "DATASET.SCALE_TYPE": ("short",), "DATASET.COLOR_RGB": (True,), "DATASET.DATA_FORMAT": ("jpg",),
    "DATASET.NUM_JOINTS_HALF_BODY": (8,), "LOSS.USE_TARGET_WEIGHT": (True,),
    "MODEL.TARGET_TYPE": ("gaussian",), "MODEL.INIT_WEIGHTS": (True,),
    "MODEL.EXTRA.FINAL_CONV_KERNEL": (1,), "MODEL.EXTRA.STEM_INPLANES": (64,),
    "TEST.NMS_KERNEL": (5,), "TEST.NMS_PADDING": (2,), "TEST.POST_PROCESS": (True,),
    "TRAIN.BEGIN_EPOCH": (0,), "TRAIN.SHUFFLE": (True,), "TRAIN.NESTEROV": (False,),
}  # fmt: skip
"""What is always so here; another value is refused."""


@dataclass
class _Official:
    """An official file while it is read: what is not taken has no counterpart."""

    rest: dict[str, Any]
    pairs: Pairs = field(default_factory=list)

    def take(self, key: str, default: Any = None) -> Any:
        return self.rest.pop(key, default)

    def set(self, key: str, value: Any) -> None:
        self.pairs.append((key, value))


def official(loaded: Mapping[str, Any], source: str) -> tuple[Pairs, list[str]]:
    """An official YAML → pairs of today's keys, and one sentence on what has no counterpart.

    Raises:
        UserError: it asks for something that is not to be had here.
    """
    read = _Official({key: _literal(value) for key, value in flatten(loaded)})
    name = read.rest.get("MODEL.NAME")
    if name not in (_BOTTOM_UP, _TOP_DOWN):
        raise UserError(f"{source} is an official config of another model: MODEL.NAME {name}")
    for key, allowed in _FIXED.items():
        if (value := read.take(key, allowed[0])) not in allowed:
            raise UserError(f"{source}: {key} {value} is not supported, only {allowed[0]}")
    notes = _official_stages(read, source)
    notes += _official_data(read, name)
    notes += _official_training(read, name)
    _official_test(read, name)
    for section, keys in _SAME_NAME.items():
        for key in keys:
            if f"{section}.{key}" in read.rest:
                read.set(f"{section}.{key}", read.take(f"{section}.{key}"))
    if read.rest:
        sections = ("CUDNN", "DEBUG")  # whole sections that are about the original's machinery
        named = {f"{k.partition('.')[0]}.*" if k.startswith(sections) else k for k in read.rest}
        notes.append("without a counterpart here: " + ", ".join(sorted(named)))
    return read.pairs, [f"{source} is an official config; " + "; ".join(notes)]


def _official_stages(read: _Official, source: str) -> list[str]:
    stages: list[dict[str, Any]] = []
    for stage in (2, 3, 4):
        entry = {
            key: read.take(f"MODEL.EXTRA.STAGE{stage}.{key}")
            for key in (
                "NUM_MODULES",
                "NUM_BRANCHES",
                "BLOCK",
                "NUM_BLOCKS",
                "NUM_CHANNELS",
                "FUSE_METHOD",
            )
        }
        stages.append(entry)
    width, blocks = stages[0]["NUM_CHANNELS"][0], stages[0]["NUM_BLOCKS"][0]
    for branches, found in zip((2, 3, 4), stages, strict=True):
        expected = [width * 2**i for i in range(branches)]
        if found["NUM_CHANNELS"] != expected or set(found["NUM_BLOCKS"]) != {blocks}:
            raise UserError(f"{source}: its stages are not those of one HRNet width: {found}")
    read.set("MODEL.WIDTH", width)
    read.set("MODEL.NUM_BLOCKS", blocks)
    read.set("MODEL.NUM_MODULES", [entry["NUM_MODULES"] for entry in stages])
    deconv = "MODEL.EXTRA.DECONV."
    if f"{deconv}NUM_DECONVS" in read.rest:
        read.take(f"{deconv}NUM_DECONVS")
        read.take(f"{deconv}NUM_CHANNELS")
        read.take(f"{deconv}KERNEL_SIZE")
        read.set("MODEL.NUM_BASIC_BLOCKS", read.take(f"{deconv}NUM_BASIC_BLOCKS", 4))
        read.set("MODEL.CAT_OUTPUT", all(read.take(f"{deconv}CAT_OUTPUT", [True])))
    read.take("MODEL.EXTRA.PRETRAINED_LAYERS")  # the backbone is always taken, heads where they fit
    pretrained = str(read.take("MODEL.PRETRAINED", ""))
    read.set("MODEL.PRETRAINED", _ZOO.get(pretrained.rpartition("/")[2], pretrained))
    return []


def _official_data(read: _Official, name: str) -> list[str]:
    kind = str(read.take("DATASET.DATASET", "coco"))
    if kind not in _DATASETS:
        raise UserError(f"an official config's DATASET.DATASET '{kind}' is not known here")
    skeleton = _DATASETS[kind]
    read.set("DATASET.SKELETON", skeleton)
    read.set("DATASET.ROOT", str(read.take("DATASET.ROOT", "data/coco")).rstrip("/"))
    for ours, theirs in (("TRAIN", "TRAIN_SET"), ("TEST", "TEST_SET")):
        split = read.take(f"DATASET.{ours}", read.take(f"DATASET.{theirs}"))
        if split is not None:
            split = f"annotations/{split}.json" if skeleton == "mpii" else str(split)
            read.set(f"DATASET.{ours}", split)
    if skeleton == "mpii":
        read.set("DATASET.IMAGE_DIR", "images")
        read.set("TEST.OKS_THRE", 1.0)  # PCKh scores all people
    if skeleton == "crowdpose" and name == _BOTTOM_UP:
        read.set("DATASET.WITH_MASK", False)  # the original has no masks for CrowdPose
    flip = read.take("DATASET.FLIP", 0.5)
    read.set("DATASET.FLIP", 0.5 if flip is True else float(flip))
    if "DATASET.PROB_HALF_BODY" in read.rest:
        read.set("DATASET.PROB_HALF_BODY", max(float(read.take("DATASET.PROB_HALF_BODY")), 0.0))
    for derived in ("DATASET.DATASET_TEST", "DATASET.NUM_JOINTS", "MODEL.NUM_JOINTS",
                    "DATASET.OUTPUT_SIZE", "MODEL.HEATMAP_SIZE", "LOSS.NUM_STAGES"):  # fmt: skip
        read.take(derived)  # follow from skeleton and sizes
    return []


def _official_training(read: _Official, name: str) -> list[str]:
    notes = []
    each = read.take("TRAIN.IMAGES_PER_GPU", read.take("TRAIN.BATCH_SIZE_PER_GPU"))
    gpus = read.take("GPUS", (0,))
    count = len(gpus) if name == _TOP_DOWN and isinstance(gpus, tuple | list) else _GPUS_PUBLISHED
    if each is not None:
        read.set("TRAIN.BATCH_SIZE", int(each) * count)
        notes.append(
            f"{each} images for each of {count} GPUs, as published, are BATCH_SIZE {each * count}"
        )
    half = bool(read.take("FP16.ENABLED", False))
    read.take("FP16.DYNAMIC_LOSS_SCALE")
    read.set("TRAIN.PRECISION", "fp16" if half else "fp32")
    read.set("TEST.PRECISION", "fp32")
    if read.take("MODEL.SYNC_BN", False):
        read.set("TRAIN.BN_MODE", "sync")
    decay = read.take("TRAIN.WD", 0.0)
    if read.rest.get("TRAIN.OPTIMIZER") == "sgd":
        read.set("TRAIN.WEIGHT_DECAY", decay)
    elif decay:
        notes.append(f"TRAIN.WD {decay} is left out, as the original never passes it to Adam")
    worst = read.take("LOSS.TOPK", 8)
    if read.take("LOSS.USE_OHKM", False):
        read.set("LOSS.OHKM_TOPK", worst)
    if read.take("LOSS.USE_DIFFERENT_JOINTS_WEIGHT", False):
        read.set("LOSS.JOINT_WEIGHTS", list(_DIFFERENT_JOINTS))
    tags = list(read.rest.get("LOSS.WITH_AE_LOSS", ()))
    used = [bool(flag) for flag in read.take("LOSS.WITH_HEATMAPS_LOSS", [True] * len(tags))]
    factors = read.take("LOSS.HEATMAPS_LOSS_FACTOR")
    if factors is not None:
        read.set("LOSS.HEATMAPS_LOSS_FACTOR", [f * u for f, u in zip(factors, used, strict=True)])
    return notes


def _official_test(read: _Official, name: str) -> None:
    if name == _BOTTOM_UP:
        outputs = len(read.rest.get("LOSS.WITH_AE_LOSS", (True, False)))
        read.set("TEST.WITH_HEATMAPS", list(read.take("TEST.WITH_HEATMAPS", [True] * outputs)))
        read.take("TEST.WITH_AE")  # tags are read wherever the loss trains them
        return
    file = read.take("TEST.COCO_BBOX_FILE", "")
    given = read.take("TEST.USE_GT_BBOX", True)
    read.set("TEST.BBOX_SOURCE", "ground_truth" if given or not file else file)
    # The original drops boxes below IMAGE_THRE; it never looks at its BBOX_THRE.
    read.set("TEST.BBOX_THRE", float(read.take("TEST.IMAGE_THRE", 0.0)))


def _literal(value: Any) -> Any:
    """YAML reads ``(True, False)`` as text, which yacs takes for a tuple."""
    if isinstance(value, str) and value.startswith("(") and value.endswith(")"):
        items = [item.strip() for item in value[1:-1].split(",") if item.strip()]
        words = {"True": True, "False": False}
        return tuple(words[i] if i in words else int(i) if i.isdigit() else i for i in items)
    return value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``SECTION.KEY`` and value of every setting in nested mappings."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        elif value is not None or prefix or "." in str(key):  # a section's name alone says nothing
            yield f"{prefix}{key}", value


def current_names() -> dict[str, str]:
    """Former key → today's, the first of them where several took its place."""
    return {old: now[0].key for old, now in _FORMER.items() if now[0].key != old}
