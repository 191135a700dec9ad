"""What settings are made of, and the sections that all configs share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from ..errors import UserError


@dataclass(frozen=True)
class Rule:
    """What a setting may be, and what it means.

    Attributes:
        help: one line.
        choices: the values that are allowed; any if empty.
        low, high: limits, inclusive; ``above`` excludes ``low``.
        multiple: whole numbers must be multiples of it.
        per_output: a list with one entry for each output of the network, 1/4 first; a single entry
            stands for all outputs.
        path: ``file`` or ``folder``: it may be one, relative to the config or the working folder.
    """

    help: str
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    multiple: int = 1
    per_output: bool = False
    path: str = ""


def setting(default: Any, help: str, **rule: Any) -> Any:
    """A dataclass field with its :class:`Rule`."""
    return field(default=default, metadata={"rule": Rule(help, **rule)})


@dataclass(frozen=True)
class ModelSection:
    NAME: str = setting(
        "",
        "pose_higher_hrnet (bottom-up), pose_hrnet (top-down), cls_hrnet (classifier), "
        "seg_hrnet (segmentation), det_hrnet (detector)",
    )
    WIDTH: int = setting(32, "channels of the highest resolution: 18, 32, 48", low=1, high=1024)
    NUM_MODULES: tuple[int, int, int] = setting(
        (1, 4, 3), "exchange modules in stages 2, 3, 4", low=1, high=64
    )
    NUM_BLOCKS: int = setting(4, "residual blocks in each branch", low=1, high=64)
    UPSAMPLE_MODE: str = setting(
        "nearest", "upsampling in the exchange; published: nearest", choices=("nearest", "bilinear")
    )
    PRETRAINED: str = setting(
        "", "weights file or zoo name to start from; its backbone must fit", path="file"
    )


@dataclass(frozen=True)
class TrainSection:
    END_EPOCH: int = setting(300, "epochs of the whole training", low=1)
    MINUTES: float = setting(
        0.0, "time of the whole training instead; rates follow it as they follow epochs", low=0
    )
    BATCH_SIZE: int = setting(48, "images a step, over all processes and micro-batches", low=1)
    MICRO_BATCH_SIZE: int = setting(
        0, "images at once in a process; 0 takes its whole share of the batch", low=0
    )
    LR: float = setting(0.001, "learning rate", low=0)
    LR_SCHEDULER: str = setting(
        "multistep",
        "multistep (published), cosine, or poly (power 0.9)",
        choices=("multistep", "cosine", "poly"),
    )
    LR_STEP: tuple[int, ...] = setting((200, 260), "multistep: epochs that lower the rate", low=0)
    LR_FACTOR: float = setting(0.1, "multistep: factor at each of these epochs", low=0, high=1)
    LR_MULT: tuple[str, ...] = setting(
        (), 'layer-wise factors on the rate: "PREFIX FACTOR", e.g. [stage2 0.1]'
    )
    WARMUP_STEPS: int = setting(0, "steps of linear warm-up", low=0)
    EMA_DECAY: float = setting(
        0.0, "decay of the averaged weights that are validated; 0 for none", low=0, high=0.999999
    )
    GRAD_CLIP_NORM: float = setting(0.0, "largest gradient norm; 0 for none", low=0)
    OPTIMIZER: str = setting("adam", "adam, or sgd", choices=("adam", "sgd"))
    MOMENTUM: float = setting(0.9, "of sgd", low=0, high=0.999999)
    NESTEROV: bool = setting(True, "of sgd, as published for ImageNet")
    WEIGHT_DECAY: float = setting(
        0.0, "L2 weight decay; the published WD of 1e-4 was never passed to Adam", low=0
    )
    BN_MODE: str = setting(
        "train",
        "batch norms: train, sync (over GPUs), frozen (as loaded)",
        choices=("train", "sync", "frozen"),
    )
    ACTIVATION_CHECKPOINTING: bool = setting(
        False, "store less and compute again in the backward pass"
    )
    PRECISION: str = setting(
        "bf16",
        "bf16 (fast), fp32 (published for most models), fp16",
        choices=("bf16", "fp32", "fp16"),
    )
    COMPILE: bool = setting(False, "torch.compile: minutes to start, then about 1.5 times as fast")
    CUDA_GRAPHS: bool = setting(
        False, "with COMPILE, replay forward and backward passes as CUDA graphs"
    )
    FREEZE: tuple[str, ...] = setting(
        (), "prefixes of module names that are not trained, e.g. [conv, bn, layer1]"
    )
    UNFREEZE_EPOCH: int = setting(0, "from this epoch on they are trained too; 0 never", low=0)
    VALIDATE_EVERY: int = setting(10, "epochs between validations", low=1)
    EARLY_STOPPING: int = setting(
        0, "validations without a gain after which training ends; 0 never", low=0
    )
    SAVE_EVERY: int = setting(0, "steps between checkpoints within an epoch; 0 for none", low=0)
    KEEP_CHECKPOINTS: int = setting(0, "checkpoints of epochs that are kept beside the last", low=0)
    WORKERS: int = setting(4, "processes that load images", low=0)
    LOGGERS: tuple[str, ...] = setting(
        ("tensorboard",),
        "beside log.jsonl: tensorboard, wandb, mlflow, trackio, or PACKAGE:NAME",
    )
    SEED: int = setting(0, "of all random numbers", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class Config:
    """Base of all configs: what trainings of any method share."""

    MODEL: ModelSection
    TRAIN: TrainSection

    method: ClassVar[str]
    """What its models do: ``bottom-up``, ``top-down``, ``classification``, ``segmentation`` or
    ``detection``."""

    def check(self) -> None:
        """Find contradictions between settings.

        Raises:
            UserError: two settings do not go together.
        """
        if self.TRAIN.ACTIVATION_CHECKPOINTING and self.TRAIN.COMPILE:
            raise UserError(
                "config keys 'TRAIN.ACTIVATION_CHECKPOINTING' and 'TRAIN.COMPILE' are exclusive"
            )
        if self.TRAIN.CUDA_GRAPHS and not self.TRAIN.COMPILE:
            raise UserError("config key 'TRAIN.CUDA_GRAPHS' needs TRAIN.COMPILE True")


def check_test_scales(scales: Sequence[float]) -> None:
    """That ``TEST.SCALE_FACTOR`` lists scales, each once.

    Raises:
        UserError: it does not.
    """
    if not scales or len(set(scales)) < len(scales):
        raise UserError(
            f"config key 'TEST.SCALE_FACTOR' must list scales, each once, not {list(scales)}"
        )


def sections_of(schema: type[Config]) -> dict[str, type[Any]]:
    """Section name → its dataclass."""
    import typing

    hints = typing.get_type_hints(schema)
    return {entry.name: hints[entry.name] for entry in fields(schema)}


def rules_of(schema: type[Config]) -> Iterator[tuple[str, str, Rule]]:
    """Section, key and rule of every setting."""
    for section, kind in sections_of(schema).items():
        for entry in fields(kind):
            yield section, entry.name, entry.metadata["rule"]
