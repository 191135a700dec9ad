"""Labels of other tools: made files of each format, imported, and read as a data set."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from higherhrnet.cli import main
from higherhrnet.cli.types import LABEL_FORMATS
from higherhrnet.datasets.coco import CocoKeypoints
from higherhrnet.datasets.importers.annotators import measure_sigmas
from higherhrnet.datasets.importers.labels import Frame
from higherhrnet.datasets.importers.sources import FORMATS
from higherhrnet.datasets.importers.split import split_by_group
from higherhrnet.skeleton import load_skeleton

JOINTS = ["nose", "left_eye", "right_eye", "tail"]
BONES = [("nose", "left_eye"), ("nose", "right_eye"), ("nose", "tail")]
SIZE = (120, 160)  # H, W
PEOPLE = {  # image → two animals → joint → x, y, v
    f"video{n // 3}/img{n:03d}.png": [
        {"nose": (20.0 + n, 30.0, 2), "left_eye": (26.0 + n, 24.0, 2),
         "right_eye": (14.0 + n, 24.5, 1), "tail": (60.0, 40.0 + n, 2)},
        {"nose": (100.0, 80.0 + n, 2), "left_eye": (108.0, 74.0, 2), "tail": (140.0, 90.0, 2)},
    ]
    for n in range(6)
}  # fmt: skip


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with the images, each of another gray."""
    for number, name in enumerate(PEOPLE):
        file = tmp_path / "source" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.full((*SIZE, 3), 10 * number, np.uint8))
    return tmp_path / "source"


def check(source: Path, out: Path, *options: str, hidden: bool = True, joints=JOINTS) -> None:
    """Import, and compare every image's people with PEOPLE, by the names of joints and the gray."""
    assert main(["data", "import", str(source), str(out), *options]) == 0
    skeleton = load_skeleton(str(out / "skeleton.yaml"))
    assert sorted(skeleton.joints) == sorted(joints)
    seen = []
    for split in ("train", "val"):
        dataset = CocoKeypoints(out / f"{split}.json", out, skeleton)
        assert dataset.findings == []
        for index in range(len(dataset)):
            sample = dataset.sample(index)
            number = round(float(sample.image.mean()) / 10)
            seen.append(number)
            expected = list(PEOPLE.values())[number]
            assert len(sample.poses) == len(expected)
            order = np.argsort([person["nose"][0] for person in expected])
            found = np.argsort(sample.poses.xy[:, skeleton.index(joints[0])][:, 0])
            for person, row in zip(order, found, strict=True):
                for place, joint in enumerate(JOINTS):
                    k = skeleton.index(joints[place])
                    x, y, v = expected[person].get(joint, (0, 0, 0))
                    assert sample.poses.score[row, k] > 0 if v else sample.poses.score[row, k] == 0
                    if v:
                        np.testing.assert_allclose(sample.poses.xy[row, k], (x, y), atol=0.01)
    assert sorted(seen) == list(range(len(PEOPLE)))
    if hidden:
        records = json.loads((out / "train.json").read_text())["annotations"]
        records += json.loads((out / "val.json").read_text())["annotations"]
        assert {v for r in records for v in r["keypoints"][2::3]} == {0, 1, 2}


def flat(person: dict, joints=JOINTS) -> list:
    return [value for joint in joints for value in person.get(joint, (0, 0, 0))]


def test_formats_are_declared() -> None:
    assert LABEL_FORMATS == FORMATS


def test_coco(images: Path, tmp_path: Path) -> None:
    order = ["tail", "right_eye", "nose", "left_eye"]
    loaded = {
        "images": [{"id": n, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
                   for n, name in enumerate(PEOPLE)],
        "annotations": [
            {"id": 10 * n + k, "image_id": n, "category_id": 7, "keypoints": flat(person, order)}
            for n, people in enumerate(PEOPLE.values()) for k, person in enumerate(people)
        ],
        "categories": [{"id": 7, "name": "mouse", "keypoints": order,
                        "skeleton": [[3, 4], [3, 1]]}],
    }  # fmt: skip
    (images / "labels.json").write_text(json.dumps(loaded))
    check(images, tmp_path / "out")
    skeleton = load_skeleton(str(tmp_path / "out" / "skeleton.yaml"))
    assert skeleton.name == "mouse"
    assert skeleton.bones == (("nose", "left_eye"), ("nose", "tail"))
    assert skeleton.flip_pairs == (("left_eye", "right_eye"),)


def cvat_labels() -> str:
    edges = "".join(
        f'<line data-type="edge" data-node-from="{JOINTS.index(a) + 1}" '
        f'data-node-to="{JOINTS.index(b) + 1}"></line>'
        for a, b in BONES
    )
    nodes = "".join(
        f'<circle data-type="element node" data-node-id="{n}" data-label-name="{joint}"></circle>'
        for n, joint in enumerate(JOINTS, 1)
    )
    drawing = (edges + nodes).replace("<", "&lt;").replace(">", "&gt;")
    return f"<label><name>mouse</name><type>skeleton</type><svg>{drawing}</svg></label>"


def cvat_points(person: dict, extra: str = "") -> str:
    return "".join(
        f'<points label="{joint}" {extra} occluded="{int(v == 1)}" outside="0" points="{x},{y}"/>'
        if v else f'<points label="{joint}" {extra} outside="1" occluded="0" points="0,0"/>'
        for joint in reversed(JOINTS) for x, y, v in [person.get(joint, (0, 0, 0))]
    )  # fmt: skip


def test_cvat_skeletons(images: Path, tmp_path: Path) -> None:
    body = "".join(
        f'<image id="{n}" name="{name}" width="{SIZE[1]}" height="{SIZE[0]}">'
        + "".join(f'<skeleton label="mouse">{cvat_points(person)}</skeleton>' for person in people)
        + "</image>"
        for n, (name, people) in enumerate(PEOPLE.items())
    )
    text = (
        f"<annotations><meta><job><labels>{cvat_labels()}</labels></job></meta>{body}</annotations>"
    )
    (images / "annotations.xml").write_text(text)
    check(images, tmp_path / "out")
    skeleton = load_skeleton(str(tmp_path / "out" / "skeleton.yaml"))
    assert skeleton.joints == tuple(JOINTS)
    assert skeleton.bones == tuple(BONES)


def test_cvat_points_in_groups(images: Path, tmp_path: Path, capsys) -> None:
    def body(grouped: bool) -> str:
        return "".join(
            f'<image id="{n}" name="{name}" width="{SIZE[1]}" height="{SIZE[0]}">'
            + "".join(
                cvat_points(person, f'group_id="{k + 1}"' if grouped else "")
                + f'<box label="mouse" xtl="5" ytl="6" xbr="70" ybr="90" group_id="{k + 1}"/>'
                for k, person in enumerate(people)
            )
            + "</image>"
            for n, (name, people) in enumerate(PEOPLE.items())
        )

    (images / "labels.xml").write_text(f"<annotations>{body(True)}</annotations>")
    check(images, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "train.json").read_text())["annotations"][0]["bbox"] == [
        5.0, 6.0, 65.0, 84.0,
    ]  # fmt: skip
    (images / "labels.xml").write_text(f"<annotations>{body(False)}</annotations>")
    assert main(["data", "import", str(images), str(tmp_path / "other")]) == 2
    assert "has the point 'tail' twice and no group_id" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_cvat_video(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(
        str(tmp_path / "film.avi"), cv2.VideoWriter_fourcc(*"FFV1"), 5, SIZE[::-1]
    )
    for number in range(12):
        writer.write(np.full((*SIZE, 3), 10 * (number // 2), np.uint8))
    writer.release()
    tracks = "".join(
        '<track id="0" label="mouse">'
        + "".join(
            f'<skeleton frame="{2 * n}" keyframe="1">{cvat_points(people[k])}</skeleton>'
            f'<skeleton frame="{2 * n + 1}" keyframe="0">{cvat_points(people[k])}</skeleton>'
            for n, people in enumerate(PEOPLE.values())
        )
        + "</track>"
        for k in range(2)
    )
    meta = "<meta><task><source>film.avi</source></task></meta>"
    (tmp_path / "annotations.xml").write_text(f"<annotations>{meta}{tracks}</annotations>")
    check(tmp_path / "annotations.xml", tmp_path / "out")


def label_studio(
    name: str, people: list[dict], link: str, annotator: int = 1, off: float = 0
) -> dict:
    result: list[dict] = []
    for k, person in enumerate(people):
        common = {"original_width": SIZE[1], "original_height": SIZE[0]}
        box = {"x": 40.0 * k, "y": 0, "width": 60, "height": 100, "rectanglelabels": ["mouse"]}
        result.append({"id": f"r{k}", "type": "rectanglelabels", "value": box, **common})
        for joint, (x, y, _) in person.items():
            value = {
                "x": 100 * (x + off) / SIZE[1],
                "y": 100 * y / SIZE[0],
                "keypointlabels": [joint],
            }
            region = {"id": f"{k}{joint}", "type": "keypointlabels", "value": value, **common}
            if link == "parent":
                region["parentID"] = f"r{k}"
            result.append(region)
            if link == "relation":
                ends = {"from_id": f"{k}{joint}", "to_id": f"r{k}"}
                result.append({"type": "relation", "direction": "right", **ends})
    return {"id": annotator, "completed_by": annotator, "result": result}


@pytest.mark.parametrize("link", ["parent", "relation"])
def test_label_studio(images: Path, tmp_path: Path, link: str) -> None:
    tasks = [
        {"id": n, "data": {"image": f"/data/upload/3/0a1b2c3d-{Path(name).name}"},
         "annotations": [{**label_studio(name, [], link), "was_cancelled": True},
                         label_studio(name, people, link)]}
        for n, (name, people) in enumerate(PEOPLE.items())
    ]  # fmt: skip
    (images / "export.json").write_text(json.dumps(tasks))
    check(images, tmp_path / "out", hidden=False)


def test_label_studio_without_owner_is_refused(images: Path, tmp_path: Path, capsys) -> None:
    name, people = next(iter(PEOPLE.items()))
    task = {
        "id": 5,
        "data": {"image": name},
        "annotations": [label_studio(name, people, "", off=10.0)],
    }
    (images / "export.json").write_text(json.dumps([task]))
    assert main(["data", "import", str(images), str(tmp_path / "out")]) == 2
    assert "task 5: keypoint" in (told := capsys.readouterr().err)
    assert "make the individual's rectangle its parent" in told


def test_two_annotators_give_sigmas(images: Path, tmp_path: Path, capsys) -> None:
    tasks = [
        {"id": n, "data": {"image": name},
         "annotations": [label_studio(name, people, "parent"),
                         label_studio(name, people, "parent", 2, off=4.0)]}
        for n, (name, people) in enumerate(PEOPLE.items())
    ]  # fmt: skip
    (images / "export.json").write_text(json.dumps(tasks))
    check(images, tmp_path / "out", hidden=False)
    told = capsys.readouterr().out
    assert "sigmas of 3 joints are measured, from 12 or more pairs" in told
    assert "sigmas of 1 joints are 0.05 (fewer than 10" in told  # right_eye: six pairs
    skeleton = load_skeleton(str(tmp_path / "out" / "skeleton.yaml"))
    # Rectangles of 96 x 120 px, an image's edge cuts the last pixel; 4 px apart.
    area = 95 * 119
    expected = np.sqrt(16 / (2 * area))
    assert skeleton.sigmas[skeleton.index("nose")] == pytest.approx(expected, rel=0.01)
    assert skeleton.sigmas[skeleton.index("right_eye")] == 0.05


def test_sigmas_of_known_noise() -> None:
    generator = np.random.default_rng(0)
    sigma, side, frames = np.array([0.03, 0.1]), 200.0, []
    for _ in range(400):

        def label() -> dict:
            noise = generator.normal(size=(2, 2)) * sigma[:, None] * side / np.sqrt(2)
            points = np.array([[300.0, 300.0], [400.0, 350.0]]) + noise
            flat = np.column_stack([points, [2, 2]]).ravel().tolist()
            return {"keypoints": flat, "bbox": [250, 250, side, side], "area": side**2}

        frames.append(Frame("a", Path("a"), [label()], others=[[label()]], size=(900, 900)))
    measured, counts = measure_sigmas(frames, 2)
    np.testing.assert_allclose(measured, sigma, rtol=0.1)
    assert counts.tolist() == [400, 400]


def write_yolo(images: Path, named: bool) -> Path:
    root = images.parent / "yolo"
    for number, (name, people) in enumerate(PEOPLE.items()):
        split = "val" if number >= 4 else "train"
        target = root / "images" / split / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((images / name).read_bytes())
        lines = []
        for person in people:
            numbers = [f"{x / SIZE[1]:.7f} {y / SIZE[0]:.7f} {v}" for x, y, v in
                       (person.get(joint, (0, 0, 0)) for joint in JOINTS)]  # fmt: skip
            lines.append("0 0.4 0.5 0.2 0.3 " + " ".join(numbers))
        labels = root / "labels" / split / f"{number}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("\n".join(lines) + "\n")
    text = "path: ../datasets/mice\ntrain: images/train\nval: images/val\nkpt_shape: [4, 3]\n"
    text += "flip_idx: [0, 2, 1, 3]\nnames: {0: mouse}\n"
    if named:
        text += f"kpt_names: {{0: [{', '.join(JOINTS)}]}}\n"
    (root / "data.yaml").write_text(text)
    return root


def test_yolo(images: Path, tmp_path: Path) -> None:
    root = write_yolo(images, named=True)
    check(root, tmp_path / "out")
    validated = json.loads((tmp_path / "out" / "val.json").read_text())
    assert len(validated["images"]) == 2  # its own split
    box = validated["annotations"][0]["bbox"]
    np.testing.assert_allclose(box, [0.3 * 160, 0.35 * 120, 0.2 * 160, 0.3 * 120])
    check(root, tmp_path / "half", "--split", "0.5")
    assert len(json.loads((tmp_path / "half" / "val.json").read_text())["images"]) == 3


def test_yolo_without_names(images: Path, tmp_path: Path, capsys) -> None:
    root = write_yolo(images, named=False)
    check(root, tmp_path / "out", joints=[f"keypoint_{n}" for n in range(1, 5)])
    skeleton = load_skeleton(str(tmp_path / "out" / "skeleton.yaml"))
    assert skeleton.flip_pairs == (("keypoint_2", "keypoint_3"),)
    named = tmp_path / "mouse.yaml"
    named.write_text(
        "name: mouse\njoints: [nose, left_eye, right_eye, tail]\nbones: []\n"
        "sigmas: [0.1, 0.1, 0.1, 0.1]\n"
    )
    check(root, tmp_path / "named", "--skeleton", str(named))
    (root / "labels" / "train" / "0.txt").write_text("0 0.4 0.5 0.2 0.3 0.1 0.1 2\n")
    assert main(["data", "import", str(root), str(tmp_path / "bad")]) == 2
    assert "0.txt', line 1, has 8 numbers, not 17" in capsys.readouterr().err


def test_alphatracker(images: Path, tmp_path: Path) -> None:
    pytest.importorskip("sleap_io")
    frames = []
    for name, people in PEOPLE.items():
        entries = []
        for person in people:
            entries.append({"class": "Face", "x": 1, "y": 2, "width": 30, "height": 40})
            entries += [
                {"class": "point", "x": x, "y": y}
                for x, y, _ in (person.get(joint, (np.nan, np.nan, 0)) for joint in JOINTS)
            ]
        frames.append({"filename": name, "class": "image", "annotations": entries})
    (images / "labels.json").write_text(json.dumps(frames))
    check(images, tmp_path / "out", hidden=False, joints=["1", "2", "3", "4"])


def write_deeplabcut(images: Path, scorer: str = "ann", off: float = 0) -> None:
    """CSV files with the images in ``labeled-data``, as DeepLabCut 3 writes them."""
    for video in ("video0", "video1"):
        names = [name for name in PEOPLE if name.startswith(video)]
        folder = images / "labeled-data" / video
        folder.mkdir(parents=True, exist_ok=True)
        order = sorted(JOINTS, reverse=True)
        columns = [(f"m{k}", joint, axis) for k in range(2) for joint in order for axis in "xy"]
        with (folder / f"CollectedData_{scorer}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["scorer", "", "", *[scorer] * len(columns)])
            writer.writerow(["individuals", "", "", *(c[0] for c in columns)])
            writer.writerow(["bodyparts", "", "", *(c[1] for c in columns)])
            writer.writerow(["coords", "", "", *(c[2] for c in columns)])
            for name in names:
                short = Path(name).name
                (folder / short).write_bytes((images / name).read_bytes())
                people = PEOPLE[name]
                cells = []
                for individual, joint, axis in columns:
                    point = people[int(individual[1])].get(joint)
                    value = None if point is None else point["xy".index(axis)]
                    cells.append("" if value is None else value + off * (axis == "x"))
                writer.writerow(["labeled-data", video, short, *cells])
    (images / "config.yaml").write_text(
        "Task: mice\nscorer: ann\nmultianimalproject: true\nindividuals: [m0, m1]\n"
        "multianimalbodyparts: [nose, left_eye, right_eye, tail]\nbodyparts: MULTI!\n"
        "skeleton:\n- [nose, left_eye]\n- [nose, tail]\nvideo_sets: {}\n"
    )


def test_deeplabcut(images: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    pytest.importorskip("sleap_io")
    write_deeplabcut(images)
    write_deeplabcut(images, "bob", off=3.0)
    check(images, tmp_path / "out", hidden=False)
    told = capsys.readouterr().out
    assert "by video: 1 to train on, 1 to validate" in told
    assert "are measured, from 12 or more" in told
    skeleton = load_skeleton(str(tmp_path / "out" / "skeleton.yaml"))
    assert ("nose", "tail") in skeleton.bones
    monkeypatch.chdir(images.parent)  # where a relative path leads
    assert main(["data", "import", images.name, str(tmp_path / "relative")]) == 0
    (images / "labeled-data" / "video0" / "img001.png").unlink()
    assert main(["data", "import", str(images), str(tmp_path / "bad")]) == 2
    assert "img001.png' is labeled, but does not exist" in capsys.readouterr().err


def test_sleap(images: Path, tmp_path: Path) -> None:
    sio = pytest.importorskip("sleap_io")
    skeleton = sio.Skeleton(
        nodes=list(JOINTS), edges=list(BONES), symmetries=[("left_eye", "right_eye")]
    )
    video = sio.Video.from_filename([str(images / name) for name in PEOPLE])
    frames = []
    for number, people in enumerate(PEOPLE.values()):
        instances = []
        for person in people:
            points = np.array([person.get(joint, (np.nan, np.nan, 0)) for joint in JOINTS])
            points[:, 2] = points[:, 2] == 2  # visible
            instances.append(sio.Instance.from_numpy(points, skeleton=skeleton))
        guess = sio.PredictedInstance.from_numpy(np.ones((4, 2)), skeleton=skeleton)
        frames.append(sio.LabeledFrame(video, number, [*instances, guess]))
    labels = sio.Labels(frames, videos=[video], skeletons=[skeleton])
    sio.save_slp(labels, str(tmp_path / "project.slp"))
    check(tmp_path / "project.slp", tmp_path / "out")
    found = load_skeleton(str(tmp_path / "out" / "skeleton.yaml"))
    assert found.bones == tuple(BONES)
    assert found.flip_pairs == (("left_eye", "right_eye"),)
    sio.save_slp(labels, str(tmp_path / "embedded.pkg.slp"), embed=True)
    check(tmp_path / "embedded.pkg.slp", tmp_path / "again")


def test_videos_are_kept_together() -> None:
    groups = ["a"] * 50 + ["b"] * 19 + ["c"] * 31
    train, val, how = split_by_group(groups, 0.8)
    assert {groups[i] for i in val} == {"b"}
    assert len(train) == 81
    assert how == "by video: 2 to train on, 1 to validate"
    train, val, _ = split_by_group([""] * 10, 0.8)
    assert (len(train), len(val)) == (8, 2)
    assert sorted([*train, *val]) == list(range(10))
    # Images of no video are groups of their own, not one.
    train, val, how = split_by_group(["v"] * 10 + [""] * 90, 0.8)
    assert (len(train), len(val)) == (80, 20)
    assert "are images of no video" in how


def test_split_and_skeleton_commands(images: Path, tmp_path: Path, capsys) -> None:
    test_coco(images, tmp_path)
    capsys.readouterr()
    file = images / "labels.json"
    assert main(["data", "split", str(file), "--split", "0.5"]) == 0
    parts = [json.loads((images / f"labels_{s}.json").read_text()) for s in ("train", "val")]
    assert [len(part["images"]) for part in parts] == [3, 3]
    assert [len(part["annotations"]) for part in parts] == [6, 6]
    assert not {i["id"] for i in parts[0]["images"]} & {i["id"] for i in parts[1]["images"]}
    assert main(["data", "split", str(file)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["data", "skeleton", str(file), "--output", str(tmp_path / "s.yaml")]) == 0
    assert load_skeleton(str(tmp_path / "s.yaml")).joints[0] == "tail"


def test_unknown_sources(tmp_path: Path, capsys) -> None:
    (tmp_path / "a.json").write_text("[1, 2]")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for source, words in (
        (tmp_path / "none", "does not exist"),
        (tmp_path / "full", "has no labels of a known tool"),
        (tmp_path / "a.json", "has no labels of a known tool"),
    ):
        assert main(["data", "import", str(source), str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err


def test_out_folder_must_be_empty_and_broken_images_are_told(
    images: Path, tmp_path: Path, capsys
) -> None:
    root = write_yolo(images, named=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    assert main(["data", "import", str(root), str(tmp_path / "out")]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    broken = root / "images" / "train" / "1.png"
    broken.write_bytes(b"no image")
    (root / "labels" / "train" / "1.txt").unlink()
    assert main(["data", "import", str(root), str(tmp_path / "new")]) == 0
    assert "1 images are left out; the first: " in capsys.readouterr().out
    assert len(json.loads((tmp_path / "new" / "train.json").read_text())["images"]) == 3


def test_filled_in_config_trains(images: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    check(write_yolo(images, named=True), tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    small = ["TRAIN.END_EPOCH", "1", "TRAIN.VALIDATE_EVERY", "1", "TRAIN.WORKERS", "0",
             "TRAIN.BATCH_SIZE", "2", "DATASET.INPUT_SIZE", "64"]  # fmt: skip
    assert main(["data", "check", "out/config.yaml"]) == 0
    assert main(["train", "out/config.yaml", "--output", "run", *small]) == 0
    assert (tmp_path / "run" / "best.safetensors").is_file()


def with_exif(file: Path, orientation: int, stored: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(file, exif=exif, quality=100)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_labels_of_turned_photos_lie_where_they_were_drawn(tmp_path, orientation):
    """Tools show photos upright; a square one does not tell by its sides which way it was."""
    upright = np.zeros((64, 64, 3), np.uint8)
    upright[8:16, 40:48] = 255
    back = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
            5: upright.transpose(1, 0, 2), 6: np.rot90(upright),
            7: np.rot90(upright, 2).transpose(1, 0, 2), 8: np.rot90(upright, -1),
            }[orientation]  # fmt: skip
    root = tmp_path / "yolo"
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    for name in "ab":
        with_exif(
            root / "images" / "train" / f"{name}.jpg", orientation, np.ascontiguousarray(back)
        )
        line = f"0 0.5 0.5 0.9 0.9 {44 / 64} {12 / 64} 2 0.1 0.9 2\n"
        (root / "labels" / "train" / f"{name}.txt").write_text(line)
    (root / "data.yaml").write_text("train: images/train\nkpt_shape: [2, 3]\nnames: [dot]\n")
    assert main(["data", "import", str(root), str(tmp_path / "out")]) == 0
    skeleton = load_skeleton(str(tmp_path / "out" / "skeleton.yaml"))
    dataset = CocoKeypoints(tmp_path / "out" / "train.json", tmp_path / "out", skeleton)
    sample = dataset.sample(0)
    x, y = sample.poses.xy[0, 0].astype(int)
    assert sample.image[y, x].min() > 200
    assert dataset.findings == []


def test_turned_photos_of_other_kinds_become_png(tmp_path):
    root = tmp_path / "yolo"
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    for name in ("a%20b", "c"):
        with_exif(root / "images" / "train" / f"{name}.webp", 6, np.zeros((40, 60, 3), np.uint8))
        (root / "labels" / "train" / f"{name}.txt").write_text("0 0.5 0.5 0.9 0.9 0.5 0.5 2\n")
    (root / "data.yaml").write_text("train: images/train\nkpt_shape: [1, 3]\nnames: [dot]\n")
    assert main(["data", "import", str(root), str(tmp_path / "out")]) == 0
    for split in ("train", "val"):
        (image,) = json.loads((tmp_path / "out" / f"{split}.json").read_text())["images"]
        assert cv2.imread(str(tmp_path / "out" / image["file_name"])).shape[:2] == (60, 40)
        assert (image["height"], image["width"]) == (60, 40)


def test_joints_that_nobody_labeled_are_told(images, tmp_path, capsys):
    test_coco(images, tmp_path)
    file = images / "labels.json"
    loaded = json.loads(file.read_text())
    for record in loaded["annotations"]:
        record["keypoints"][:3] = 0, 0, 0  # the tail
    file.write_text(json.dumps(loaded))
    capsys.readouterr()
    assert main(["data", "import", str(file), str(tmp_path / "o")]) == 0
    assert "note: never labeled: tail\n" in capsys.readouterr().out


def test_repeated_image_ids_are_refused(images, tmp_path, capsys):
    test_coco(images, tmp_path)
    file = images / "labels.json"
    loaded = json.loads(file.read_text())
    loaded["images"][1]["id"] = loaded["images"][0]["id"]
    file.write_text(json.dumps(loaded))
    for words in (["import", str(images), str(tmp_path / "o")], ["split", str(file)]):
        assert main(["data", *words]) == 2
        assert "twice" in capsys.readouterr().err


def test_images_are_not_mistaken_for_others_of_their_name(images, tmp_path, monkeypatch, capsys):
    tasks = [
        {"id": n, "data": {"image": f"{folder}/img.png"},
         "annotations": [label_studio(name, PEOPLE[name], "parent")]}
        for n, (folder, name) in enumerate(zip(["cam1", "cam2", "cam3"], PEOPLE, strict=False))
    ]  # fmt: skip
    source = tmp_path / "tasks"
    for folder in ("cam2", "cam3"):
        (source / folder).mkdir(parents=True)
        (source / folder / "img.png").write_bytes((images / next(iter(PEOPLE))).read_bytes())
    (source / "export.json").write_text(json.dumps(tasks))
    (tmp_path / "cam1").mkdir()  # in the working folder, where nobody said to look
    (tmp_path / "cam1" / "img.png").write_bytes(b"another")
    monkeypatch.chdir(tmp_path)
    assert main(["data", "import", "tasks", "out"]) == 2
    assert "'cam1/img.png' may be" in capsys.readouterr().err
    assert not Path("out").exists()
    (source / "cam3" / "img.png").unlink()  # one file, which two or three labels could mean
    assert main(["data", "import", "tasks", "out"]) == 2
    assert "may be the image of 3 labels" in capsys.readouterr().err
    assert not list(tmp_path.glob(".out*"))


def test_an_image_that_two_files_list_is_refused(images, tmp_path, capsys):
    test_coco(images, tmp_path)
    assert main(["data", "split", str(images / "labels.json")]) == 0
    capsys.readouterr()
    assert main(["data", "import", str(images), str(tmp_path / "again")]) == 2
    assert "is listed by" in capsys.readouterr().err


def test_the_size_that_was_labeled_counts(images, tmp_path):
    """Labels of a larger copy of the image: the reader brings both together."""
    for file in images.rglob("*.png"):
        small = cv2.resize(cv2.imread(str(file)), (SIZE[1] // 2, SIZE[0] // 2))
        cv2.imwrite(str(file), small)
    tasks = [
        {"id": n, "data": {"image": name}, "annotations": [label_studio(name, people, "parent")]}
        for n, (name, people) in enumerate(PEOPLE.items())
    ]
    (images / "export.json").write_text(json.dumps(tasks))
    assert main(["data", "import", str(images), str(tmp_path / "out")]) == 0
    skeleton = load_skeleton(str(tmp_path / "out" / "skeleton.yaml"))
    sample = CocoKeypoints(tmp_path / "out" / "train.json", tmp_path / "out", skeleton).sample(0)
    assert sample.image.shape[:2] == SIZE


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.xml", '<annotations><image name="a.png" width="4" height="4.5"><points label="x" '
                  'points="1,1"/></image></annotations>'),
        ("a.xml", '<annotations><image name="a.png" width="4" height="4"><points label="x" '
                  'points="1;2"/></image></annotations>'),
        ("a.xml", '<annotations><image name="a.png" width="4" height="4"><box label="x" '
                  'group_id="q"/></image></annotations>'),
        ("a.json", '[{"data": 3, "annotations": [{"result": [{"type": "keypointlabels"}]}]}]'),
        ("a.json", '[{"data": {}, "annotations": 3}]'),
        ("data.yaml", "kpt_shape: [2, 3]\ntrain: .\nflip_idx: 5\n"),
        ("data.yaml", "kpt_shape: [2, 3]\ntrain: .\nkpt_names: {0: 5}\n"),
        ("data.yaml", "kpt_shape: many\ntrain: .\n"),
    ],
)  # fmt: skip
def test_odd_label_files_get_a_sentence(tmp_path, capsys, name, text):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_text(text)
    cv2.imwrite(str(tmp_path / "in" / "a.png"), np.zeros((4, 4, 3), np.uint8))
    assert main(["data", "import", str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert f"in/{name}'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_many_videos_are_split_as_asked():
    groups = [f"v{n}" for n in range(300) for _ in range(10)]
    train, val, _ = split_by_group(groups, 0.8)
    assert len(val) == 600
    assert not {groups[i] for i in train} & {groups[i] for i in val}


def test_split_keeps_annotations_whose_ids_are_text(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(10)],
        "annotations": [{"id": n, "image_id": str(n), "keypoints": [1, 1, 2]} for n in range(10)],
        "categories": [{"id": 1, "name": "dot", "keypoints": ["dot"]}],
    }))  # fmt: skip
    assert main(["data", "split", str(file)]) == 0
    kept = [json.loads((tmp_path / f"a_{s}.json").read_text()) for s in ("train", "val")]
    assert sum(len(part["annotations"]) for part in kept) == 10
