"""What exported networks say of themselves, in their files' metadata.

Nothing here needs PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...outputs import Head, NetworkSpec
from ...skeleton import Skeleton

METADATA = "higherhrnet"
"""The key under which a file's metadata holds an :class:`ExportInfo` or :class:`TaskExportInfo`."""
_FORMAT = 1


@dataclass(frozen=True)
class ExportInfo:
    """What an exported pose network says of itself.

    Attributes:
        method: ``bottom-up`` or ``top-down``.
        skeleton: whose joints it predicts.
        network: what ``heatmaps`` and ``tags`` are, and what is inside.
        outputs: names of the outputs, in order.
        precision: ``fp32``, ``fp16`` or ``int8``.
        config: YAML of the config with the test settings.
        operating_point: which people are shown; None if never calibrated.
        presets: as in a checkpoint.
        predictors: preset, or ``default`` → the predictor's settings and its operating point,
            for programs that read no config.
        version: of the package that wrote it.
    """

    method: str
    skeleton: Skeleton
    network: NetworkSpec
    outputs: tuple[str, ...]
    precision: str
    config: str
    operating_point: Mapping[str, Any] | None = None
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    predictors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    version: str = ""

    def to_json(self) -> str:
        """For the file's metadata."""
        values = {
            **vars(self),
            "skeleton": self.skeleton.to_dict(),
            "network": asdict(self.network),
            "format": _FORMAT,
        }
        return json.dumps(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExportInfo:
        """Of what :meth:`to_json` wrote, its ``format`` aside.

        Raises:
            ValueError, TypeError, KeyError: it is damaged.
        """
        network = values["network"]
        heads = tuple(Head(**head) for head in network["heads"])
        return cls(
            **dict(values)
            | {
                "skeleton": Skeleton.from_dict(values["skeleton"]),
                "network": NetworkSpec(heads, bool(network["flip"]), _size(network["size"])),
                "outputs": tuple(values["outputs"]),
            }
        )


@dataclass(frozen=True)
class TaskExportInfo:
    """What an exported network without poses says of itself.

    Attributes:
        task: ``segmentation``, ``detection`` or ``classification``.
        classes: names by number.
        is_named: whether these are names that somebody gave, rather than numbers.
        outputs: names of the outputs, in order.
        precision: ``fp32``, ``fp16`` or ``int8``.
        size: (H, W) of the images if it takes but one.
        multiple: H and W are multiples of it.
        config: YAML of the config.
        version: of the package that wrote it.
    """

    task: str
    classes: tuple[str, ...]
    is_named: bool
    outputs: tuple[str, ...]
    precision: str
    size: tuple[int, int] | None
    multiple: int
    config: str
    version: str = ""

    def to_json(self) -> str:
        """For the file's metadata."""
        return json.dumps({**vars(self), "format": _FORMAT})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaskExportInfo:
        """Of what :meth:`to_json` wrote, its ``format`` aside.

        Raises:
            ValueError, TypeError, KeyError: it is damaged.
        """
        return cls(
            **dict(values)
            | {
                "classes": tuple(values["classes"]),
                "outputs": tuple(values["outputs"]),
                "size": _size(values["size"]),
            }
        )


AnyInfo = ExportInfo | TaskExportInfo


def parse_info(path: Path, text: str | None) -> AnyInfo:
    """What a file's metadata say.

    Raises:
        UserError: there are none, they are damaged, or of a newer version.
    """
    if text is None:
        raise UserError(
            f"'{path}' does not say how it is decoded: it was not written by higherhrnet export"
        )
    try:
        values = json.loads(text)
        if values.pop("format") != _FORMAT:
            raise UserError(f"'{path}' was exported by a newer version of this package")
        kind = TaskExportInfo if "task" in values else ExportInfo
        return kind.from_dict(values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"'{path}' is damaged: its description cannot be read: {error}") from error


def _size(size: tuple[int, int] | None) -> tuple[int, int] | None:
    return None if size is None else (int(size[0]), int(size[1]))
