"""``higherhrnet data import``, ``split`` and ``skeleton``: labels of any tool → a training."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from ..config.library import find_bundled, find_config
from ..datasets.importers.sources import read_labels, unpacked
from ..datasets.importers.write import format_skeleton, make_skeleton, split_file, write_labels
from ..datasets.label_files import write_label_files
from ..errors import UserError
from ..io.atomic import atomic_write
from ..skeleton import Skeleton, load_skeleton
from .messages import count

_TEMPLATE = "finetune/own_data"
_FILLED_IN = {
    "ROOT: my/data": "ROOT: .",
    "SKELETON: auto  # or a YAML file; auto takes joints and bones from train.json": (
        "SKELETON: skeleton.yaml"
    ),
}
"""Lines of the template → what they are beside imported labels."""


def import_data(options: argparse.Namespace) -> int:
    """Write images, JSON files, a skeleton and a config from the labels of another tool."""
    with unpacked(options.source) as source:
        skeleton = _read_skeleton(options.skeleton)
        labels = read_labels(source, skeleton, options.images, options.format or "")
        written = write_labels(labels, options.folder, options.split, make_config())
    for note in [*labels.notes, *written.notes]:
        print(f"  note: {note}")
    people = sum(len(frame.people) for frame in labels.frames)
    counts = ", ".join(f"{number} {split}" for split, number in written.counts.items())
    print(
        f"{people} annotations with {len(written.skeleton)} keypoints; images: {counts}; "
        f"in {options.folder}"
    )
    config = shlex.quote(str(options.folder / "config.yaml"))
    output = shlex.quote(f"output/{options.folder.resolve().name}")
    print(
        "next:\n"
        f"  higherhrnet data check {config}\n"
        f"  higherhrnet train {config} --output {output}\n"
        f"  higherhrnet predict YOUR_IMAGES --weights {output}/best.safetensors"
    )
    return 0


def export_data(options: argparse.Namespace) -> int:
    """Write predictions as another tool takes them."""
    images, people = write_label_files(
        options.predictions, options.output, options.to, options.min_score, options.prefix
    )
    print(f"{count(people, 'person', 'people')} in {count(images, 'image')}; {options.output}")
    return 0


def split_data(options: argparse.Namespace) -> int:
    """Split a COCO-format file into one to train on and one to validate on."""
    file: Path = options.file
    folder = options.output or file.parent
    names = folder / f"{file.stem}_train.json", folder / f"{file.stem}_val.json"
    for name in names:
        if name.exists():
            raise UserError(f"'{name}' exists already; choose another --output")
    how = split_file(file, options.split, names)
    print(f"{how}; {names[0]}, {names[1]}")
    return 0


def skeleton_data(options: argparse.Namespace) -> int:
    """Print or write the skeleton that labels describe."""
    with unpacked(options.source) as source:
        labels = read_labels(source, format=options.format or "")
        skeleton, notes = make_skeleton(labels)
    text = format_skeleton(skeleton, notes)
    if options.output is None:
        print(text, end="")
        return 0
    if options.output.exists():
        raise UserError(f"'{options.output}' exists already")
    with atomic_write(options.output) as partial:
        partial.write_text(text)
    print(f"{len(skeleton)} keypoints; {options.output}")
    return 0


def make_config() -> str:
    """The text of a config for the folder that it lies in."""
    text = find_config(_TEMPLATE).read_text()
    for line, filled_in in _FILLED_IN.items():
        assert line in text
        text = text.replace(line, filled_in)
    return text


def _read_skeleton(name: str | None) -> Skeleton | None:
    """A built-in skeleton, a bundled file's or one of the user's own."""
    return None if name is None else load_skeleton(str(find_bundled(Path(name)) or name))
