"""Data sets of every kind: read, checked, counted, prepared; and their truth scored as perfect."""

import hashlib
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.io import savemat

from higherhrnet import visualization as show
from higherhrnet.cli import main
from higherhrnet.datasets import mpii, prepare
from higherhrnet.datasets.coco import CocoKeypoints, valid_mask
from higherhrnet.datasets.packed import PackedRecords
from higherhrnet.datasets.paths import find_split
from higherhrnet.datasets.stats import compute_stats, crowd_index
from higherhrnet.errors import UserError
from higherhrnet.evaluation import error_analysis as errors
from higherhrnet.evaluation import report
from higherhrnet.evaluation.evaluator import evaluate
from higherhrnet.io.store import Store
from higherhrnet.poses import Poses, is_labeled
from higherhrnet.research.synthetic.dataset import SyntheticPeople, write_coco
from higherhrnet.skeleton import COCO, Skeleton, load_skeleton

from .shared import ROOT, SHARED

SKELETONS = ROOT / "configs" / "skeletons"
SAMPLES = [
    ("coco/test_coco.json", "coco", 4, 14),
    ("crowdpose/test_crowdpose.json", "crowdpose", 2, 5),
    ("mpii/test_mpii.json", "mpii", 5, 5),
    ("ochuman/test_ochuman.json", "coco", 3, 5),
    ("atrw/test_atrw.json", str(SKELETONS / "atrw.yaml"), 2, 2),
    ("ap10k/test_ap10k.json", str(SKELETONS / "ap10k.yaml"), 2, 2),
    ("animalpose/test_animalpose.json", str(SKELETONS / "animalpose.yaml"), 2, 2),
]


@pytest.mark.data
@pytest.mark.parametrize(("file", "skeleton", "images", "people"), SAMPLES)
def test_real_samples_are_read_and_their_truth_is_perfect(file, skeleton, images, people):
    path = SHARED / "samples" / file
    data = CocoKeypoints(path, path.parent, load_skeleton(skeleton))
    samples = [data.sample(n) for n in range(len(data))]
    assert len(data) == images
    assert len(data.annotations["annotations"]) == people
    records = [record for s in samples for record in s.poses.to_coco(s.id)]
    figures = evaluate(records, data.annotations, data.skeleton)
    assert figures["AP"] == pytest.approx(1.0)
    if "PCKh" in figures:
        assert figures["PCKh"] == figures["PCKh@0.1"] == 1.0
    for sample in samples:
        xy = sample.poses.xy[sample.poses.visibility > 0]
        assert (xy >= -1).all()
        assert (xy <= np.array(sample.image.shape[1::-1])).all()


@pytest.mark.data
@pytest.mark.parametrize("split", ["crowdpose_train", "crowdpose_test"])
def test_crowdpose_mini_truth_is_perfect(split):
    name = split.removeprefix("crowdpose_")
    data = CocoKeypoints(*find_split(SHARED / "crowdpose_mini", name), load_skeleton("crowdpose"))
    records = [r for n in range(len(data)) for r in truth_of(data, n)]
    figures = evaluate(records, data.annotations, data.skeleton)
    assert figures["AP"] == pytest.approx(1.0)
    levels = [figures[f"AP {level}"] for level in ("easy", "medium", "hard")]
    assert all(value == pytest.approx(1.0) or value == -1 for value in levels)


def truth_of(data, index):
    sample = data.sample(index)
    return sample.poses.to_coco(sample.id)


def test_mpii_list_starts_at_one_and_scale_is_of_200_pixels():
    person = {
        "image": "a.jpg", "joints": [[11.0, 21.0]] * 16, "joints_vis": [1] * 15 + [0],
        "center": [101.0, 51.0], "scale": 2.0,
    }  # fmt: skip
    content = mpii.from_list([person, {**person, "image": "b.jpg"}])
    record = content["annotations"][0]
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "b.jpg"]
    assert record["keypoints"][:3] == [10.0, 20.0, 2.0]
    assert record["keypoints"][-3:] == [0.0, 0.0, 0.0]
    assert record["center"] == [100.0, 50.0]
    with pytest.raises(UserError, match="person 1 lacks"):
        mpii.from_list([{"image": "a.jpg"}])


def test_mpii_mat(tmp_path):
    points = {"point": [{"id": 9, "x": 11.0, "y": 21.0}, {"id": 0, "x": 31.0, "y": 61.0}]}
    person = {
        "x1": 1.0, "y1": 1.0, "x2": 31.0, "y2": 41.0, "scale": 1.5,
        "objpos": {"x": 21.0, "y": 41.0}, "annopoints": points,
    }  # fmt: skip
    empty = {"scale": np.array([]), "objpos": np.array([])}
    image = {"image": {"name": "a.jpg"}, "annorect": [person, empty]}
    other = {"image": {"name": "b.jpg"}, "annorect": [person]}
    release = {"annolist": [image, other], "img_train": np.array([1, 0])}
    savemat(tmp_path / "mpii.mat", {"RELEASE": release})
    content = mpii.from_mat(tmp_path / "mpii.mat")
    assert [image["file_name"] for image in content["images"]] == ["a.jpg"]
    (record,) = content["annotations"]
    assert record["num_keypoints"] == 2
    assert record["keypoints"][27:30] == [10.0, 20.0, 2.0]  # the top of the head
    assert record["head_size"] == pytest.approx(0.6 * 50)
    (tmp_path / "no.mat").write_bytes(b"no")
    with pytest.raises(UserError, match="is not MPII's"):
        mpii.from_mat(tmp_path / "no.mat")


def test_a_test_set_without_annotations_gives_results_for_the_server(tmp_path):
    write_coco(tmp_path, SyntheticPeople(2, size=64))
    file = tmp_path / "annotations" / "person_keypoints_synthetic.json"
    content = json.loads(file.read_text())
    del content["annotations"]
    (tmp_path / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(content))
    (tmp_path / "images" / "synthetic").rename(tmp_path / "images" / "test2017")
    file.unlink()
    config = ROOT / "configs" / "mini" / "higherhrnet_w18_256.yaml"
    words = ["valid", str(config), "--weights", "higherhrnet_w18_mini", "--output", str(tmp_path)]
    words += ["DATASET.ROOT", str(tmp_path), "DATASET.TEST", "test-dev2017"]
    assert main([*words, "DATASET.INPUT_SIZE", "64", "TEST.FLIP_TEST", "False"]) == 0
    assert isinstance(json.loads((tmp_path / "results.json").read_text()), list)


def test_annotated_people_are_not_lost_with_the_crowd_around_them():
    crowd = {"iscrowd": 1, "keypoints": [0] * 51, "bbox": [0, 0, 10, 10]}
    person = {"iscrowd": 0, "keypoints": [5, 5, 2] + [0] * 48, "bbox": [4, 4, 3, 3]}
    assert valid_mask([crowd], (20, 20)).sum() == 300
    assert valid_mask([crowd, person], (20, 20)).sum() == 309
    outlined = {**crowd, "segmentation": [[0, 0, 10, 0, 10, 10, 0, 10]]}
    assert valid_mask([outlined, person], (20, 20)).sum() == 300


def person_at(x, y, count=17, box=None):
    xy = np.full((17, 2), (x, y), float)
    seen = (np.arange(17) < count)[:, None] * 2.0
    keypoints = np.concatenate([xy, seen], 1).ravel().tolist()
    return {"image_id": 1, "keypoints": keypoints, "bbox": box or [x - 5, y - 5, 10, 10]}


def test_crowd_index_is_the_share_of_others_joints():
    assert crowd_index([]) == 0
    assert crowd_index([person_at(0, 0), person_at(50, 50)]) == 0
    # One stands in the other's large box, not the other way round: (17 / 17 + 0) / 2.
    large = person_at(50, 50, box=[-20, -20, 100, 100])
    assert crowd_index([person_at(0, 0), large]) == 0.5
    elsewhere = person_at(50, 50, box=[-5, -5, 10, 10])  # its own joints count wherever they are
    assert crowd_index([person_at(0, 0), elsewhere]) == 0.5
    annotations = {"images": [{"id": 1}, {"id": 2}]}
    annotations["annotations"] = [person_at(0, 0), large, person_at(9, 9, count=0)]
    table = compute_stats(annotations, COCO)
    assert table["people an image"]["0"] == 1
    assert table["people an image"]["2"] == 1
    assert table["joints visible"]["nose"] == 1
    assert table["crowding"]["0.5 to 0.8"] == 1


def test_check_says_what_is_wrong_and_draws_what_is_there(tmp_path, capsys):
    write_coco(tmp_path, SyntheticPeople(5, size=64, people=(2, 3)))
    file = tmp_path / "annotations" / "person_keypoints_synthetic.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["keypoints"][:3] = [900, 900, 2]
    content["annotations"][1]["image_id"] = 77
    content["annotations"].append({
        "id": 999, "image_id": 3, "iscrowd": 1, "keypoints": [0] * 51, "num_keypoints": 0,
        "bbox": [0, 0, 64, 64], "area": 4096,
    })  # fmt: skip
    content["annotations"] = [
        a for a in content["annotations"] if a["image_id"] != 3 or a["id"] == 999
    ]
    file.write_text(json.dumps(content))
    (tmp_path / "c.yaml").write_text(
        f"DATASET: {{ROOT: {tmp_path}, TRAIN: synthetic, TEST: synthetic, INPUT_SIZE: 64}}\n"
        "TEST: {CANDIDATES: 1}"
    )
    assert main(["data", "check", str(tmp_path / "c.yaml"), "--output", str(tmp_path / "o")]) == 2
    said = "".join(capsys.readouterr())
    assert "cannot be read" not in said
    for sentence in (
        "joints outside the image", "not listed: ", "more than 1 people",
        "ignored to nine tenths or more: 000003.png", "1 crowd regions",
    ):  # fmt: skip
        assert sentence in said
    assert (tmp_path / "o" / "check_train.jpg").stat().st_size > 1000
    for image in content["images"]:  # as tables with gaps write whole numbers
        image["width"] = image["height"] = 64.0
    content["annotations"][-1]["segmentation"] = {"counts": "broken", "size": [64, 64]}
    file.write_text(json.dumps(content))
    assert main(["data", "check", str(tmp_path / "c.yaml"), "--output", str(tmp_path / "o")]) == 2
    assert "1 image whose segmentations cannot be read: 0000" in "".join(capsys.readouterr())
    assert main(["data", "stats", str(tmp_path / "c.yaml")]) == 0
    assert "crowding" in capsys.readouterr().out


def test_a_skeleton_file_may_have_colors(tmp_path):
    values = COCO.to_dict() | {"name": "mine", "colors": [[n, 0, 255 - n] for n in range(17)]}
    skeleton = Skeleton.from_dict(values)
    assert Skeleton.from_dict(skeleton.to_dict()) == skeleton
    drawn = (
        SyntheticPeople(1, size=128)
        .sample(0)
        .poses.draw(np.full((128, 128, 3), 128, np.uint8), skeleton)
    )
    assert (drawn == (3, 0, 252)).all(axis=2).any()
    with pytest.raises(UserError, match="one \\[R, G, B\\]"):
        Skeleton.from_dict(values | {"colors": [[1, 2, 3]]})


def shaken(annotations, seed=0):
    rng = np.random.default_rng(seed)
    records = []
    for person in annotations["annotations"]:
        if is_labeled(person) and rng.random() < 0.8:
            keypoints = np.array(person["keypoints"], float).reshape(-1, 3)
            keypoints[:, :2] += rng.normal(0, 3, (17, 2))
            keypoints[:, 2] = 1
            records.append({
                "image_id": person["image_id"], "category_id": 1,
                "keypoints": keypoints.ravel().tolist(), "score": float(rng.random()),
            })  # fmt: skip
    return records


def test_joints_are_judged():
    drawn = (
        SyntheticPeople(1, seed=n, size=256, people=(2, 2), overlap=0, occlusion=0)
        for n in range(99)
    )
    annotations = next(
        d.annotations
        for d in drawn
        if [p["num_keypoints"] for p in d.annotations["annotations"]] == [17, 17]
    )
    people = annotations["annotations"]
    found = [dict(p, score=0.9, keypoints=list(p["keypoints"])) for p in people]
    joint = {name: 3 * COCO.index(name) for name in COCO.joints}
    first, second = found[0]["keypoints"], people[1]["keypoints"]
    size = people[0]["area"] ** 0.5
    first[joint["left_hip"]] += 0.2 * size  # 0.93 sigmas: jitter
    for here, there in (("left_wrist", "right_ankle"),):
        first[joint[here] : joint[here] + 2] = people[0]["keypoints"][joint[there] :][:2]
    first[joint["right_wrist"] : joint["right_wrist"] + 2] = second[joint["left_wrist"] :][:2]
    first[joint["nose"] : joint["nose"] + 2] = [-900.0, -900.0]
    first[joint["left_ankle"] + 2] = 0
    wrong = errors.joint_errors(found, annotations, COCO)
    kinds = {e.joint: e.kind for e in wrong if e.person == people[0]["id"]}
    assert kinds["left_hip"] == "jitter"
    assert kinds["left_wrist"] == "inversion"
    assert kinds["right_wrist"] == "swap"
    assert kinds["nose"] == "miss"
    assert kinds["left_ankle"] == "absent"
    assert kinds["right_hip"] == "good"
    assert errors.find_worst(found, wrong, 5) == [(0, 4.0)]
    nobody = errors.joint_errors([], annotations, COCO)
    assert {error.kind for error in nobody} == {"absent"}


def test_the_report_is_written(tmp_path):
    annotations = SyntheticPeople(12, size=128, people=(1, 5), overlap=0.8).annotations
    records = shaken(annotations)
    figures = evaluate(records, annotations, COCO)
    rows = report.evaluate_parts(records, annotations, COCO, {})
    assert rows[0]["AP"] == pytest.approx(figures["AP"], abs=1e-12)
    assert rows[0]["low"] <= rows[0]["AP"] <= rows[0]["high"]
    by_count = [row for row in rows if row["by"] == "people an image"]
    assert sum(row["people"] for row in by_count) == rows[0]["people"]
    wrong = errors.joint_errors(records, annotations, COCO)
    report.write_report(tmp_path, "a test", figures, rows, wrong, [("a.png", 3.0)], COCO)
    text = (tmp_path / "report.md").read_text()
    assert "| left_wrist |" in text
    assert len((tmp_path / "keypoint_errors.csv").read_text().splitlines()) == len(wrong) + 1
    assert (tmp_path / "report.png").read_bytes()[:4] == b"\x89PNG"


def test_valid_writes_a_report(tmp_path):
    write_coco(tmp_path, SyntheticPeople(3, size=64))
    config = ROOT / "configs" / "mini" / "higherhrnet_w18_256.yaml"
    words = ["valid", str(config), "--weights", "higherhrnet_w18_mini", "--report"]
    words += ["--output", str(tmp_path / "o"), "DATASET.ROOT", str(tmp_path)]
    assert main([*words, "DATASET.TEST", "synthetic", "DATASET.INPUT_SIZE", "64"]) == 0
    for name in ("report.md", "report.png", "worst.jpg", "keypoint_errors.csv"):
        assert (tmp_path / "o" / name).is_file()


def test_a_contact_sheet_of_images_of_any_size():
    samples = [
        (np.zeros((40, 90, 3), np.uint8), Poses.empty(17), np.ones((40, 90), np.uint8)),
        (np.zeros((90, 40, 3), np.uint8), Poses.empty(17), np.zeros((90, 40), np.uint8)),
    ]
    sheet = show.contact_sheet(samples, COCO)
    assert (sheet == (255, 0, 200)).all(axis=2).any()


def test_packed_items_come_back_as_they_were():
    items = [{"a": [1, 2]}, "text", None, [], {"b": 1.5}]
    packed = PackedRecords(items)
    assert list(packed) == items
    assert packed[-1] == items[-1]
    assert list(PackedRecords([])) == []
    with pytest.raises(IndexError):
        packed[5]


# Preparing: a small server stands for the hosts.


@pytest.fixture
def server():
    files, asked = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = files.get(self.path)
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            asked.append(start)
            if content is not None and start > len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(404 if content is None else 206 if start else 200)
            body = (content or b"")[start:]
            if start and content:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{running.server_port}", files=files, asked=asked)
    running.shutdown()


def archive_with(tmp_path: Path, name: str, text: str) -> bytes:
    file = tmp_path / "made.zip"
    with zipfile.ZipFile(file, "w") as made:
        made.writestr(name, text)
    return file.read_bytes()


def test_a_set_is_fetched_resumed_checked_and_unpacked_once(tmp_path, server, monkeypatch):
    content = archive_with(tmp_path, "annotations/a.json", '{"images": [{"id": 1}]}')
    server.files["/a.zip"] = content
    digest = hashlib.md5(content).hexdigest()
    archive = prepare.Archive("a.zip", "annotations/a.json", url=f"{server.url}/a.zip", md5=digest)
    recipe = prepare.Recipe((archive,), "by hand", {"annotations/a.json": 1})
    monkeypatch.setitem(prepare.RECIPES, "mine", recipe)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.zip.partial").write_bytes(content[:50])  # an earlier try broke off here
    assert prepare.prepare("mine", folder) == ["annotations/a.json: 1 images"]
    assert server.asked == [50]
    assert prepare.prepare("mine", folder) == ["annotations/a.json: 1 images"]
    assert server.asked == [50]


def test_what_is_longer_than_the_servers_file_is_no_part_of_it(tmp_path, server):
    server.files["/a"] = b"x" * 1000
    (tmp_path / "a.partial").write_bytes(b"an error page of a proxy" * 100)
    prepare.download(f"{server.url}/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"x" * 1000
    assert server.asked == [2400, 0]


def test_an_archive_without_what_it_should_hold_stays_wrong(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(archive_with(tmp_path, "else.json", "{}"))
    recipe = prepare.Recipe((prepare.Archive("a.zip", "images"),), "by hand", {})
    monkeypatch.setitem(prepare.RECIPES, "mine", recipe)
    for _ in range(2):
        with pytest.raises(UserError, match="holds no 'images'"):
            prepare.prepare("mine", tmp_path)


def test_a_name_that_two_folders_of_an_archive_have_is_not_guessed(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        for name in ("train/1.jpg", "val/1.jpg", "val/2.jpg"):
            made.writestr(name, name)
    store = Store(tmp_path / "a.zip")
    assert store.read("val/1.jpg") == b"val/1.jpg"
    assert store.read("2.jpg") == b"val/2.jpg"
    with pytest.raises(UserError, match=r"'1\.jpg' is not in"):
        store.read("1.jpg")


def test_a_damaged_download_and_a_wrong_count_get_a_sentence(tmp_path, server, monkeypatch):
    server.files["/a.zip"] = archive_with(tmp_path, "a.json", '{"images": []}')
    archive = prepare.Archive("a.zip", "a.json", url=f"{server.url}/a.zip", md5="0" * 32)
    recipe = prepare.Recipe((archive,), "by hand", {"a.json": 3})
    monkeypatch.setitem(prepare.RECIPES, "mine", recipe)
    with pytest.raises(UserError, match="it is damaged"):
        prepare.prepare("mine", tmp_path / "d")
    assert not list((tmp_path / "d").glob("a.zip*"))  # the next try starts anew
    (tmp_path / "d" / "a.json").write_text('{"images": []}')
    with pytest.raises(UserError, match="lists 0 images, not 3"):
        prepare.prepare("mine", tmp_path / "d")


def test_without_a_network_or_a_host_a_sentence_says_what_to_do(tmp_path, server, capsys):
    with pytest.raises(OSError, match="could not fetch"):
        prepare.download(f"{server.url}/missing.zip", tmp_path / "m.zip")
    assert main(["data", "prepare", "coco", str(tmp_path), "--offline"]) == 2
    assert "download it by hand from http" in capsys.readouterr().err
    assert main(["data", "prepare", "crowdpose", str(tmp_path)]) == 2
    assert "Google Drive" in capsys.readouterr().err


def test_crowdpose_train_and_val_are_joined(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "json").mkdir()
    for number, split in enumerate(("train", "val", "test")):
        content = {
            "images": [{"id": number}], "annotations": [{"id": 5, "image_id": number}],
            "categories": [],
        }  # fmt: skip
        (tmp_path / "json" / f"crowdpose_{split}.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="lists 1 images, not 10000"):
        prepare.prepare("crowdpose", tmp_path)
    joined = json.loads((tmp_path / "json" / "crowdpose_trainval.json").read_text())
    assert [image["id"] for image in joined["images"]] == [0, 1]
    assert [record["id"] for record in joined["annotations"]] == [1, 2]
    with pytest.raises(UserError, match="both files list image 0"):
        prepare.join(joined, joined)
