"""What loading finds in a set: things that were changed, or that cannot be right."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..distributed import is_main_process
from ..errors import UserError
from ..ids import by_plain_id, plain_id
from ..io.store import Store

_log = logging.getLogger(__name__)
_SINGULAR = {
    "people": "person", "annotations": "annotation", "images": "image", "joints": "joint",
    "keypoints": "keypoint", "names": "name",
}  # fmt: skip


class Finding(NamedTuple):
    """One kind of thing that was found in a set.

    Attributes:
        what: a plural and what is the matter with these, behind the count in a sentence.
        examples: ids or names, all of them.
        remedy: what is done about it, or is to be done.
        is_problem: training or evaluation would be spoiled.
    """

    what: str
    examples: Sequence[Any]
    remedy: str = ""
    is_problem: bool = False

    def __str__(self) -> str:
        noun, _, rest = self.what.partition(" ")
        if len(self.examples) == 1:
            noun = _SINGULAR.get(noun, noun)
        shown = ", ".join(str(example) for example in self.examples[:5])
        more = ", …" if len(self.examples) > 5 else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{len(self.examples)} {noun} {rest}: {shown}{more}{remedy}"


def only_found(*findings: Finding) -> list[Finding]:
    """Those that have examples."""
    return [finding for finding in findings if finding.examples]


def match_ids(loaded: dict[str, Any]) -> list[Finding]:
    """Give every annotation the id of its image as the image has it, in place."""
    images = {image["id"] for image in loaded["images"]}
    stray = [a for a in loaded["annotations"] if a["image_id"] not in images]
    matched, orphans = [], []
    if stray:
        meant = by_plain_id(images)
        by_file = {image["file_name"]: image["id"] for image in loaded["images"]}
        for record in stray:
            named = record["image_id"]
            image = meant.get(plain_id(named), by_file.get(named))
            if image is None:
                orphans.append(record.get("id"))
            else:
                record["image_id"] = image
                matched.append(record.get("id"))
    return only_found(
        Finding(
            "annotations with an image_id that is text where the image's id is a number, or the "
            "other way round",
            matched,
            "they were matched",
        ),
        Finding("annotations of images that are not listed", orphans, is_problem=True),
    )


def log_findings(file: Path, findings: Sequence[Finding]) -> None:
    """Tell what was found in a file, once a training."""
    if is_main_process():
        for finding in findings:
            level = logging.WARNING if finding.is_problem else logging.INFO
            _log.log(level, "'%s': %s", file, finding)


def refuse_repeated_ids(images: Sequence[dict[str, Any]], file: Path) -> None:
    """That every image has an id of its own.

    Raises:
        UserError: one has not.
    """
    listed: set[int | str] = set()
    for image in images:
        if image["id"] in listed:
            raise UserError(f"'{file}' lists image id {image['id']} twice")
        listed.add(image["id"])


def missing_files(images: Sequence[dict[str, Any]], store: Store) -> list[Finding]:
    """The images that have no file."""
    missing = store.missing([str(image["file_name"]) for image in images])
    where = f"looked for below '{store.path}' (DATASET.ROOT, DATASET.IMAGE_DIR)"
    return only_found(Finding("images without a file", missing, where, is_problem=True))
