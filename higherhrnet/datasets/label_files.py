"""COCO-format predictions → files that labeling tools take, to be corrected and imported again."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt
import yaml

from ..errors import UserError
from ..io.atomic import atomic_folder, atomic_write, write_json
from ..poses import Poses
from ..skeleton import Skeleton
from .annotations import check_annotations, read_annotations
from .canonical import canonicalize, skeleton_from_file
from .importers.coco_export import find_images

Record = dict[str, Any]


def write_label_files(
    predictions: Path, output: Path, tool: str, min_score: float = 0.0, prefix: str = ""
) -> tuple[int, int]:
    """Write people for a labeling tool; returns how many images and people.

    Args:
        predictions: ``predictions.json``, or any COCO file with keypoints. Frames of videos are
            left out: they are no files.
        output: new file; of YOLO a new folder.
        tool: ``coco``, ``label_studio`` or ``yolo``.
        min_score: people scoring less are left out.
        prefix: of image addresses in Label Studio.

    Raises:
        UserError: the file is none, or the output exists.
    """
    if output.exists() and (output.is_file() or any(output.iterdir())):
        raise UserError(f"'{output}' exists already")
    loaded = read_annotations(predictions)
    check_annotations(loaded, predictions)
    skeleton = skeleton_from_file(loaded, predictions)
    canonicalize(loaded, predictions, skeleton)
    images = [image for image in loaded["images"] if "frame" not in image]
    if not images:
        raise UserError(f"'{predictions}' lists no images (frames of videos are no files)")
    unsized = [i["file_name"] for i in images if not i.get("width") or not i.get("height")]
    if unsized:
        raise UserError(f"'{predictions}': image '{unsized[0]}' lacks 'width' or 'height'")
    people: dict[Any, list[Record]] = defaultdict(list)
    for record in loaded["annotations"]:
        score = record.get("score")
        if score is not None and not isinstance(score, (int, float)):
            raise UserError(f"'{predictions}': a person's score is {score!r}, which is no number")
        if (1.0 if score is None else score) >= min_score and not record.get("iscrowd"):
            people[record["image_id"]].append(record)
    if tool == "yolo":
        with atomic_folder(output) as partial:
            _write_yolo(images, people, skeleton, partial, predictions)
    elif tool == "coco":
        _write_coco(images, people, skeleton, output)
    else:
        _write_label_studio(images, people, skeleton, output, prefix)
    return len(images), sum(len(people[image["id"]]) for image in images)


def _check_names(images: Sequence[Record]) -> None:
    """The tool knows images by their names without folders: each may be there once."""
    seen: dict[str, str] = {}
    for image in images:
        name = Path(image["file_name"]).name
        if name in seen:
            raise UserError(
                f"'{seen[name]}' and '{image['file_name']}' have the same file name, by which the "
                "tool could not tell them apart; rename one, or export folder by folder"
            )
        seen[name] = image["file_name"]


def _write_coco(
    images: Sequence[Record],
    people: dict[Any, list[Record]],
    skeleton: Skeleton,
    output: Path,
) -> None:
    """What CVAT's "COCO Keypoints 1.0" and other importers want: whole visibilities, plain file
    names, an empty segmentation, and nothing that COCO has not."""
    _check_names(images)
    kept = ("image_id", "keypoints", "num_keypoints", "bbox", "area")
    annotations: list[Record] = []
    for image in images:
        for record in people[image["id"]]:
            own = {key: record[key] for key in kept if key in record}
            annotations.append(
                {"id": len(annotations) + 1, "category_id": 1, "iscrowd": 0, "segmentation": []}
                | own
            )
    name = "person" if any(skeleton.upper) else skeleton.name
    category = {"id": 1, "name": name, "supercategory": "", "keypoints": list(skeleton.joints)}
    category["skeleton"] = [[a + 1, b + 1] for a, b in skeleton.limbs]
    keys = ("id", "width", "height")
    write_json(
        output,
        {
            "licenses": [],
            "info": {"description": "predicted by higherhrnet, to be corrected"},
            "categories": [category],
            "images": [
                {key: image[key] for key in keys} | {"file_name": Path(image["file_name"]).name}
                for image in images
            ],
            "annotations": annotations,
        },
    )


def _write_label_studio(
    images: Sequence[Record],
    people: dict[Any, list[Record]],
    skeleton: Skeleton,
    output: Path,
    prefix: str,
) -> None:
    """Tasks with predictions, and beside them the labeling interface that these need."""
    if prefix:
        _check_names(images)
    tasks = []
    for image in images:
        poses = Poses.from_coco(people[image["id"]], skeleton)
        boxes = _boxes(people[image["id"]], poses)
        shape = (image["height"], image["width"])
        address = prefix + (Path(image["file_name"]).name if prefix else image["file_name"])
        tasks.append(poses.to_label_studio(shape, address, skeleton, boxes))
    write_json(output, tasks)
    label = quoteattr("person" if any(skeleton.upper) else skeleton.name)
    joints = "".join(f"    <Label value={quoteattr(joint)}/>\n" for joint in skeleton.joints)
    with atomic_write(output.with_suffix(".interface.xml")) as partial:
        partial.write_text(
            '<View>\n  <Image name="image" value="$image"/>\n'
            f'  <RectangleLabels name="box" toName="image">\n    <Label value={label}/>\n'
            "  </RectangleLabels>\n"
            f'  <KeyPointLabels name="keypoint" toName="image">\n{joints}  </KeyPointLabels>\n'
            "</View>\n"
        )


def _boxes(records: Sequence[Record], poses: Poses) -> npt.NDArray[np.float64]:
    """(N, 4) x, y, w, h of the people: as annotated, else around their joints."""
    boxes = poses.boxes.copy()
    for row, record in enumerate(records):
        if record.get("bbox") and min(record["bbox"][2:]) > 0:
            boxes[row] = record["bbox"]
    return boxes


def _write_yolo(
    images: Sequence[Record],
    people: dict[Any, list[Record]],
    skeleton: Skeleton,
    output: Path,
    source: Path,
) -> None:
    index = find_images(source)
    names = [str(image["file_name"]) for image in images]
    files = [index.find(name) for name in names]
    # predict names images as they were given, from the working folder.
    files = [
        Path(name) if not file.is_file() and Path(name).is_file() else file
        for name, file in zip(names, files, strict=True)
    ]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UserError(f"image '{missing[0]}' does not exist")
    taken: set[str] = set()
    for image, file in zip(images, files, strict=True):
        stem, number = file.stem, 1
        while stem.lower() in taken:  # one label file a stem
            number += 1
            stem = f"{file.stem}_{number}"
        taken.add(stem.lower())
        name = stem + file.suffix
        poses = Poses.from_coco(people[image["id"]], skeleton)
        with atomic_write(output / "images" / "train" / name) as partial:
            shutil.copyfile(file, partial)
        with atomic_write(output / "labels" / "train" / f"{stem}.txt") as partial:
            boxes = _boxes(people[image["id"]], poses)
            partial.write_text(poses.to_yolo((image["height"], image["width"]), boxes=boxes))
    values = {
        "train": "images/train",
        "val": "images/train",
        "kpt_shape": [len(skeleton), 3],
        "flip_idx": skeleton.flip_indices.tolist(),
        "names": {0: "person" if any(skeleton.upper) else skeleton.name},
        "kpt_names": {0: list(skeleton.joints)},
        "skeleton": [list(limb) for limb in skeleton.limbs],
    }
    with atomic_write(output / "data.yaml") as partial:
        partial.write_text(yaml.safe_dump(values, sort_keys=False, default_flow_style=None))
