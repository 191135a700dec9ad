"""Files of other tools and of public reports: read with the right value, or refused in a sentence.

The shared cases are rebuilt from reports; beside each stand inputs as other exporters write them.
"""

import collections
import copy
import functools
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from higherhrnet import load
from higherhrnet.boxes import find_boxes, read_detections
from higherhrnet.cli import main
from higherhrnet.config import parse_config
from higherhrnet.datasets.check import find_problems, find_shared_images
from higherhrnet.datasets.coco import CocoKeypoints
from higherhrnet.datasets.prepare import join
from higherhrnet.errors import UserError
from higherhrnet.evaluation.evaluator import evaluate
from higherhrnet.io.images import decode, decode_annotated
from higherhrnet.io.store import Store
from higherhrnet.joint_names import (
    are_placeholders,
    flip_pairs_from_names,
    match_names,
    unpaired_sides,
)
from higherhrnet.methods.top_down.instances import PersonInstances
from higherhrnet.models.higher_hrnet import HigherHRNet
from higherhrnet.models.pose_hrnet import PoseHRNet
from higherhrnet.models.weights import read_checkpoint
from higherhrnet.poses import REFINED, SEEN, Poses
from higherhrnet.research.synthetic.dataset import SyntheticPeople, write_coco
from higherhrnet.skeleton import COCO, CROWDPOSE, Skeleton, load_skeleton

from .shared import ROOT, SHARED

CASES = SHARED / "cases"
TINY = {"num_modules": (1, 1, 1), "num_blocks": 1}


def coco_file(folder, skeleton=COCO, count=2, **changes):
    """Images of 100x80 with one person each, and an annotation file that is changed by hand."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    images, people = [], []
    for number in range(1, count + 1):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 255, (80, 100, 3), np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "width": 100, "height": 80})
        xy = rng.uniform(10, 70, (len(skeleton), 2))
        keypoints = np.concatenate([xy, np.full((len(skeleton), 1), 2)], 1)
        people.append({
            "id": number, "image_id": number, "category_id": 1, "iscrowd": 0,
            "keypoints": keypoints.ravel().tolist(), "num_keypoints": len(skeleton),
            "bbox": [5, 5, 70, 70], "area": 3000,
        })  # fmt: skip
    category = {"id": 1, "name": "person", "keypoints": list(skeleton.joints)}
    content = {"images": images, "annotations": people, "categories": [category]} | changes
    return content


def read(folder, content, skeleton=COCO, **options):
    file = folder / "a.json"
    file.write_text(json.dumps(content))
    return CocoKeypoints(file, folder, skeleton, **options)


def said(dataset):
    return "\n".join(map(str, dataset.findings))


def reorder(content, names):
    """The keypoints as another exporter lists them."""
    old = content["categories"][0]["keypoints"]
    content["categories"][0]["keypoints"] = list(names)
    rows = [match_names(old, names)[n] for n in range(len(names))]
    for person in content["annotations"]:
        triples = np.reshape(person["keypoints"], (-1, 3))
        person["keypoints"] = triples[rows].ravel().tolist()
    return content


# 1. Keypoints by name


@pytest.mark.data
def test_case_02_joints_in_another_order_are_brought_into_order(tmp_path):
    images = SHARED / "coco_mini" / "images" / "val_mini"
    first, second = (
        CocoKeypoints(CASES / "02_keypoint_order" / f"{name}.json", images, COCO)
        for name in ("coco_order", "alphabetical")
    )
    assert not first.findings
    assert "17 joints of category 'person' in another order" in said(second)
    for number in range(len(first)):
        np.testing.assert_array_equal(first.sample(number).poses.xy, second.sample(number).poses.xy)
    values = []
    for name in ("coco_order", "alphabetical"):
        config = ROOT / "configs" / "mini" / "higherhrnet_w18_256.yaml"
        words = ["valid", config, "--weights", "higherhrnet_w18_mini", "--device", "cpu"]
        words += ["--output", tmp_path / name, "DATASET.ROOT", CASES / "02_keypoint_order"]
        words += ["DATASET.IMAGE_DIR", images, "DATASET.TEST", f"{name}.json"]
        words += ["DATASET.TEST_LIMIT", 6, "TEST.FLIP_TEST", "False", "TEST.SCALE_FACTOR", "[1]"]
        assert main([str(word) for word in words]) == 0
        values.append(json.loads((tmp_path / name / "metrics.json").read_text())["metrics"]["AP"])
    assert values[0] == values[1] > 0.1


@pytest.mark.parametrize(
    ("tool", "spell"),
    [
        ("CVAT", lambda name: name.replace("_", " ").title()),
        ("FiftyOne", lambda name: name.replace("_", "-")),
        ("OpenPose", lambda n: n.replace("left_", "L_").replace("right_", "R_").title()),
        ("Unity Perception", lambda n: "".join(word.title() for word in n.split("_"))),
    ],
)
def test_orders_and_spellings_of_other_exporters(tmp_path, tool, spell):
    content = coco_file(tmp_path)
    right = read(tmp_path, copy.deepcopy(content)).sample(0).poses.xy
    changed = reorder(content, [spell(name) for name in sorted(COCO.joints)])
    np.testing.assert_array_equal(read(tmp_path, changed).sample(0).poses.xy, right)


def test_other_joints_are_refused_with_the_difference(tmp_path):
    content = coco_file(tmp_path)
    content["categories"][0]["keypoints"][0] = "snout"
    with pytest.raises(
        UserError, match=r"only the file has snout; only the skeleton has nose.*aliases.*auto"
    ):
        read(tmp_path, content)
    animal = coco_file(tmp_path, load_skeleton(str(ROOT / "configs" / "skeletons" / "ap10k.yaml")))
    with pytest.raises(UserError, match="not the same by name"):  # 17 joints both
        read(tmp_path, animal)
    crowd = coco_file(tmp_path, CROWDPOSE)  # mmpose's name for CrowdPose's head
    crowd["categories"][0]["keypoints"][12] = "top_head"
    assert not read(tmp_path, crowd, CROWDPOSE).findings


def test_numbers_for_names_name_nothing(tmp_path):
    content = coco_file(tmp_path)
    content["categories"][0]["keypoints"] = [f"new-point-{n}" for n in range(17)]  # Roboflow
    assert "17 keypoints of category 'person' that have numbers for names" in said(
        read(tmp_path, content)
    )
    assert are_placeholders(["1", "2", "3"])
    assert not are_placeholders(["b0", "b1", "f0"])


def test_a_skeleton_is_made_from_the_file(tmp_path, capsys):
    names = ["snout", "L_ear", "R_ear"]
    mouse = Skeleton("mouse", tuple(names), (), (0.1,) * 3, tuple(names), ())
    for bones in ([[1, 2], [1, 3]], [[0, 1], [0, 2]]):  # COCO counts from 1, some from 0
        content = coco_file(tmp_path, mouse)
        content["categories"][0] |= {"name": "mouse", "skeleton": bones}
        (tmp_path / "m.json").write_text(json.dumps(content))
        (tmp_path / "c.yaml").write_text(
            f"DATASET: {{ROOT: {tmp_path}, TRAIN: m.json, TEST: m.json, SKELETON: auto, "
            "INPUT_SIZE: 64}\nMODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1}\n"
            "TRAIN: {END_EPOCH: 1, BATCH_SIZE: 2, WORKERS: 0, PRECISION: fp32}"
        )
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        words = ["train", str(tmp_path / "c.yaml"), "--output", str(tmp_path / "run")]
        assert main([*words, "--device", "cpu"]) == 0
        out = capsys.readouterr().out
        assert "skeleton 'mouse' with 3 joints, 2 bones and 1 flip pairs was made" in out
        assert "sigmas are 0.05" in out
    predictor = load(tmp_path / "run" / "best.safetensors", "cpu")
    assert predictor.skeleton.joints == tuple(names)
    assert predictor.skeleton.bones == (("snout", "L_ear"), ("snout", "R_ear"))
    words = ["valid", str(tmp_path / "c.yaml"), "--weights", str(tmp_path / "run/best.safetensors")]
    assert main([*words, "--output", str(tmp_path / "v"), "--device", "cpu"]) == 0
    content["categories"][0].pop("keypoints")
    (tmp_path / "m.json").write_text(json.dumps(content))
    assert main(["data", "check", str(tmp_path / "c.yaml")]) == 2
    assert "no category lists the names of its keypoints" in capsys.readouterr().err


def test_files_are_joined_by_name(tmp_path):
    first, second = coco_file(tmp_path), coco_file(tmp_path)
    for image, record in zip(second["images"], second["annotations"], strict=True):
        image["id"] += 10
        record["image_id"] += 10
    right = second["annotations"][0]["keypoints"]
    joined = join(first, reorder(second, sorted(COCO.joints)))
    assert joined["annotations"][2]["keypoints"] == right
    second["categories"][0]["keypoints"][0] = "snout"
    with pytest.raises(UserError, match="other joints and cannot be joined"):
        join(first, second)


@pytest.mark.parametrize("category", [0, None, "missing", 1.0])
def test_joints_without_a_listed_category_are_ordered_too(tmp_path, category):
    content = coco_file(tmp_path)
    right = read(tmp_path, copy.deepcopy(content)).sample(0).poses.xy
    changed = reorder(content, sorted(COCO.joints))
    for person in changed["annotations"]:
        person["category_id"] = category
        if category == "missing":
            del person["category_id"]
    np.testing.assert_array_equal(read(tmp_path, changed).sample(0).poses.xy, right)


def test_categories_however_they_are_written(tmp_path):
    names = list(COCO.joints)
    for keypoints in (",".join(names), [{"name": name} for name in names], []):
        listed = [{"name": "person", "keypoints": keypoints} if keypoints else "person"]
        content = coco_file(tmp_path, categories=listed)
        assert len(read(tmp_path, content).sample(0).poses) == 1
    hand = {"id": 2, "name": "hand", "keypoints": [str(n) for n in range(1, 18)]}
    content = coco_file(tmp_path)
    content["categories"].append(hand)  # as many points, which have no names
    content["annotations"][1]["category_id"] = 2
    assert "1 annotation of category 'hand'" in said(read(tmp_path, content))
    content = coco_file(tmp_path)
    content["categories"].append({"id": 5, "name": "ignore"})
    content["annotations"][1] |= {"category_id": 5, "iscrowd": 1, "keypoints": [0] * 51}
    assert read(tmp_path, content).sample(1).valid[10:70, 10:70].sum() == 0


# 2. Visibility


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "skeleton", "count"), [("wholebody133", None, 701), ("pseudo", COCO, 197)]
)
def test_case_01_fractions_are_labeled(file, skeleton, count):
    case = CASES / "01_float_visibility"
    if skeleton is None:
        skeleton = load_skeleton(str(case / "wholebody133.yaml"))
    found = CocoKeypoints(case / f"{file}.json", SHARED / "samples" / "coco", skeleton)
    samples = [found.sample(number) for number in range(len(found))]
    assert sum(int((sample.poses.visibility > 0).sum()) for sample in samples) == count
    assert "with fractions as visibility" in said(found)


@pytest.mark.parametrize(
    ("tool", "values", "labeled", "sentence"),
    [
        ("DeepLabCut, -1 where nobody clicked", [2, -1, -1], 1, "a visibility below 0"),
        ("an RTMPose pseudo-label", [0.31, 0.999, 0.0], 2, "fractions as visibility"),
        ("Human-Art, 3 for what is drawn over", [3, 1, 2], 3, "a visibility above 2"),
    ],
)
def test_visibilities_of_other_tools(tmp_path, tool, values, labeled, sentence):
    content = coco_file(tmp_path)
    for person in content["annotations"]:
        person["keypoints"][2::3] = [*values, *[0] * 14]
    found = read(tmp_path, content)
    poses = found.sample(0).poses
    assert int((poses.visibility > 0).sum()) == labeled
    assert f"2 people with {sentence}" in said(found)
    counts, _, _ = find_problems(found)
    assert counts["with keypoints"] == 2
    perfect = [record for n in (0, 1) for record in found.sample(n).poses.to_coco(n + 1)]
    assert evaluate(perfect, found.annotations, COCO, "coco")["AP"] == pytest.approx(1.0)
    assert (Poses.from_annotations(np.array([[[0, 0, 1], [0, 0, 0.5], [0, 0, 0]]])).visibility
            == [[REFINED, SEEN, 0]]).all()  # fmt: skip


# 3. Results are COCO's


def test_predictions_round_trip_through_pycocotools(tmp_path):
    from pycocotools.coco import COCO as Official
    from pycocotools.cocoeval import COCOeval

    write_coco(tmp_path, SyntheticPeople(3, size=192, people=(2, 2)))
    out = tmp_path / "out"
    words = ["predict", tmp_path / "images" / "synthetic", "--output", out, "--show", "none"]
    assert main([str(word) for word in [*words, "--device", "cpu", "--raw"]]) == 0
    truth = Official(str(out / "predictions.json"))
    content = json.loads((out / "predictions.json").read_text())
    assert len(content["annotations"]) >= 3
    for record in content["annotations"]:
        assert {"iscrowd", "area", "bbox", "num_keypoints", "score"} <= record.keys()
        assert set(record["keypoints"][2::3]) <= {0, 1, 2}
        assert len(record["keypoint_scores"]) == 17
    scored = COCOeval(truth, truth.loadRes(str(out / "results.json")), "keypoints")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    assert scored.stats[0] == pytest.approx(1.0)
    results = Poses.from_coco(json.loads((out / "results.json").read_text()), COCO)
    again = Poses.from_coco(content["annotations"], COCO)
    np.testing.assert_allclose(again.xy, results.xy)
    np.testing.assert_allclose(again.score, results.score, atol=1e-4)
    # as a training set, everybody in it is trained on
    dataset = CocoKeypoints(out / "predictions.json", tmp_path, COCO)
    assert sum(len(dataset.sample(n).poses) for n in range(len(dataset))) == len(again)


# 4. The annotated size and the image's


@pytest.mark.data
def test_case_20_exchanged_sides_are_the_images_own(tmp_path):
    folder, right = CASES / "20_size_swapped_crowdpose", SHARED / "crowdpose_mini"
    for split in ("train", "test"):
        name = f"crowdpose_{split}.json"
        good = CocoKeypoints(right / "json" / name, right / "images", CROWDPOSE)
        bad = CocoKeypoints(folder / name, right / "images", CROWDPOSE)
        assert "with width and height exchanged in the annotations" in said(bad)
        assert len(PersonInstances(good)) == len(PersonInstances(bad))
        for number in range(len(good)):
            np.testing.assert_array_equal(good.boxes(number), bad.boxes(number))


def test_sizes_of_phones_and_of_shrunken_copies(tmp_path):
    pixels = np.zeros((80, 100, 3), np.uint8)
    pixels[:20, :30] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter: a phone held upright
    turned = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
    content = coco_file(tmp_path)
    Image.fromarray(pixels).save(tmp_path / "1.png", "JPEG", exif=exif, quality=95)
    cv2.imwrite(str(tmp_path / "2.png"), cv2.resize(pixels, (50, 40)))  # Roboflow's resize
    for image, size in zip(content["images"], ((80, 100), (100, 80)), strict=True):
        image["width"], image["height"] = size
    found = read(tmp_path, content)
    assert "1 image that are annotated as EXIF turns them" in said(found)
    assert "1 image of another size than annotated, but of the same ratio" in said(found)
    assert np.abs(found.sample(0).image.astype(int) - turned).mean() < 5
    assert found.sample(1).image.shape == (80, 100, 3)
    stored = coco_file(tmp_path / "b")  # as COCO means them: pixels as stored
    Image.fromarray(pixels).save(tmp_path / "b" / "1.png", "JPEG", exif=exif)
    found = read(tmp_path / "b", stored)
    assert found.sample(0).image.shape == (80, 100, 3)
    assert any("that are annotated as stored" in line for line in find_problems(found).remarks)


def test_a_size_that_fits_nothing_is_named(tmp_path, capsys):
    content = coco_file(tmp_path)
    content["images"][1] |= {"width": 640, "height": 300}
    found = read(tmp_path, content)
    assert "1 image of another size and ratio than annotated: 2.png" in said(found)
    with pytest.raises(UserError, match=r"2.png' has 100x80 pixels.*says 640x300"):
        found.sample(1)
    data = (tmp_path / "1.png").read_bytes()
    assert decode_annotated(data, "1.png", (100, 80)).shape == (80, 100, 3)  # exchanged
    assert decode_annotated(data, "1.png", None).shape == (80, 100, 3)


# 5. Areas and boxes


@pytest.mark.data
def test_case_03_people_in_a_line_have_an_area():
    folder = CASES / "03_flat_skeleton_area0"
    needle = load_skeleton(str(folder / "needle.yaml"))
    for name, sentence in (
        ("a", "8 people with an area of 0 or less"), ("b", ""), ("c", "8 people without area"),
    ):  # fmt: skip
        found = CocoKeypoints(folder / f"{name}.json", folder / "pictures", needle)
        assert sentence in said(found)
        assert len(PersonInstances(found)) == 8
        records = [r for n in range(8) for r in found.sample(n).poses.to_coco(n + 1)]
        for record in records:
            record["keypoints"][0] += 1.2  # as far off as the trained network is
        assert evaluate(records, found.annotations, needle, "coco")["AP"] > 0.5, name


@pytest.mark.parametrize(
    ("tool", "change", "sentence"),
    [
        ("SLEAP, one visible node", {"bbox": [40, 40, 0, 0], "area": 0}, "1 person with one joint"),
        ("Label Studio, no box", {"bbox": None, "area": None}, "2 people without box"),
        ("LabelMe, area of a line", {"bbox": [5, 5, 70, 70], "area": -0.0}, "an area of 0 or less"),
    ],
)
def test_areas_of_other_tools(tmp_path, tool, change, sentence):
    content = coco_file(tmp_path)
    for person in content["annotations"]:
        person |= change
    if "SLEAP" in tool:
        content["annotations"][0]["keypoints"] = [40.0, 40.0, 2, *[0] * 48]
    found = read(tmp_path, content)
    assert sentence in said(found)
    records = [r for n in range(2) for r in found.sample(n).poses.to_coco(n + 1)]
    for record in records:
        record["keypoints"][0::3] = [x + 0.1 for x in record["keypoints"][0::3]]
    assert evaluate(records, found.annotations, COCO, "coco")["AP"] == pytest.approx(1.0)


def test_what_cannot_be_right_is_a_problem(tmp_path):
    normalized = coco_file(tmp_path)
    for person in normalized["annotations"]:
        person["keypoints"] = [
            v / 100 if n % 3 < 2 else v for n, v in enumerate(person["keypoints"])
        ]
    found = read(tmp_path, normalized)
    assert any(f.is_problem and "fractions of the image" in str(f) for f in found.findings)
    uncounted = coco_file(tmp_path)  # LabelMe converters
    for person in uncounted["annotations"]:
        person["num_keypoints"] = 0
    found = read(tmp_path, uncounted)
    assert any(f.is_problem and "num_keypoints is 0" in str(f) for f in found.findings)
    origin = coco_file(tmp_path)
    origin["annotations"][0]["keypoints"][:3] = [0, 0, 2]
    assert (
        "1 person with labeled joints at (0, 0)"
        in find_problems(read(tmp_path, origin)).problems[0]
    )
    (tmp_path / "2.png").write_bytes(b"\0\0\0\x18ftypheic")
    found = find_problems(read(tmp_path, coco_file_again(tmp_path)))
    assert any("1 image that cannot be read: 2.png" in line for line in found.problems)


def coco_file_again(folder):
    """The annotations of :func:`coco_file` without writing the images anew."""
    return json.loads((folder / "a.json").read_text()) | {"info": {}}


# 6. Categories


@pytest.mark.data
def test_case_08_a_ball_is_background():
    folder = CASES / "08_second_category_boxes"
    found = CocoKeypoints(folder / "two.json", folder / "pictures", COCO)
    assert "6 annotations of category 'ball'" in said(found)
    assert found.sample(0).valid[80:120, 80:120].mean() == 1.0
    assert find_problems(found).counts["without (ignored)"] == 0
    rng, records = np.random.default_rng(0), []
    for number in range(6):
        image_id = found.annotations["images"][number]["id"]
        records += found.sample(number).poses.to_coco(image_id)
        xy = np.concatenate([rng.uniform(85, 115, (17, 2)), np.ones((17, 1))], 1)
        records.append({"image_id": image_id, "category_id": 1, "score": 2.0,
                        "keypoints": xy.ravel().tolist()})  # fmt: skip
    ap = evaluate(records, found.annotations, COCO, "coco")["AP"]
    assert ap == pytest.approx(0.5385, abs=5e-5)  # pycocotools for the category person


def test_categories_of_other_tools(tmp_path):
    person = {"id": 1, "name": "person", "keypoints": list(COCO.joints)}
    roboflow = coco_file(tmp_path, categories=[{"id": 0, "name": "people"}, person])
    found = read(tmp_path, roboflow)
    assert not found.findings
    assert len(found.sample(0).poses) == 1
    from_zero = coco_file(tmp_path, categories=[person | {"id": "0"}])  # FiftyOne, ids as text
    for record in from_zero["annotations"]:
        record["category_id"] = 0
    assert len(read(tmp_path, from_zero).sample(0).poses) == 1
    species = coco_file(tmp_path, categories=[person, person | {"id": 7, "name": "bison"}])
    species["annotations"][1]["category_id"] = 7  # AP-10K: one skeleton, many kinds
    found = read(tmp_path, species)
    assert len(found.sample(1).poses) == 1
    found = read(tmp_path, species, categories=["bison"])
    assert [len(found.sample(n).poses) for n in (0, 1)] == [0, 1]
    with pytest.raises(UserError, match=r"CATEGORIES.*no category 'cat', only person, bison"):
        read(tmp_path, species, categories=["cat"])
    hand = {"id": 2, "name": "hand", "keypoints": ["wrist", "thumb"]}
    two = coco_file(tmp_path, categories=[person, hand])  # CVAT: two skeletons in a project
    two["annotations"][1] |= {"category_id": 2, "keypoints": [1, 1, 2, 3, 3, 2]}
    assert "1 annotation of category 'hand'" in said(read(tmp_path, two))
    with pytest.raises(UserError, match=r"several categories with keypoints.*DATASET.CATEGORIES"):
        read(tmp_path, two, CROWDPOSE)


def test_boxes_by_name_and_from_zero(tmp_path):
    write_coco(tmp_path, SyntheticPeople(2, size=64))
    content = json.loads((tmp_path / "annotations/person_keypoints_synthetic.json").read_text())
    content["categories"].append({"id": 9, "name": "ball"})
    ball = content["annotations"][0] | {"category_id": 9, "bbox": [0, 0, 1, 1]}
    content["annotations"].append(ball)
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    found = read_detections(tmp_path / "boxes.json")  # annotations: by file name
    first = content["images"][0]
    mine = [a for a in content["annotations"] if a["image_id"] == first["id"]]
    assert len(find_boxes(found, "no id", f"elsewhere/{first['file_name']}")) == len(mine) - 1
    zero = [{"image_id": "007", "bbox": [0, 0, 5, 5], "score": 0.5, "category_id": 0}]
    (tmp_path / "boxes.json").write_text(json.dumps([*zero, zero[0] | {"category_id": 1}]))
    assert len(find_boxes(read_detections(tmp_path / "boxes.json"), "007", "x.jpg")) == 1


def test_boxes_mean_the_pixels_that_their_file_annotates(tmp_path):
    """A phone's photo and a halved copy are seen as the annotator saw them."""
    from higherhrnet.inference.draw_predictions import _ImageJob

    content = coco_file(tmp_path)
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    boxes = read_detections(tmp_path / "boxes.json")
    whole = cv2.imread(str(tmp_path / "1.png"))
    cv2.imwrite(str(tmp_path / "1.png"), cv2.resize(whole, (50, 40)))
    job = _ImageJob(1, tmp_path / "1.png", "x.jpg", boxes=find_boxes(boxes, "1", "1.png"))
    assert job.load().image.shape == (80, 100, 3)


def test_boxes_of_people_only(tmp_path):
    content = coco_file(tmp_path)
    content["categories"].append({"id": 2, "name": "ball"})
    content["annotations"] = [
        {"id": 1, "image_id": "1", "category_id": "2", "bbox": [0, 0, 9, 9]},
        content["annotations"][1] | {"bbox": None, "category_id": "1"},
        content["annotations"][1] | {"image_id": 99},
    ]
    (tmp_path / "b.json").write_text(json.dumps(content))
    found = read_detections(tmp_path / "b.json")
    assert find_boxes(found, 1, "1.png") is None
    assert len(find_boxes(found, 2, "2.png")) == 1  # drawn around the joints
    one = {"image_id": "000000000139", "bbox": [0, 0, 9, 9], "score": 1, "category_id": "1"}
    listed = [one, one | {"image_id": "photo_a", "category_id": 18}]
    (tmp_path / "b.json").write_text(json.dumps(listed))
    found = read_detections(tmp_path / "b.json")
    assert len(find_boxes(found, 139, "x.jpg")) == 1
    listed[1]["category_id"] = 1
    (tmp_path / "b.json").write_text(json.dumps(listed))
    assert len(find_boxes(read_detections(tmp_path / "b.json"), 7, "in/photo_a.jpg")) == 1


# 7. Ids and orphans


@pytest.mark.data
def test_case_13_text_ids_are_matched(tmp_path):
    write_coco(tmp_path, SyntheticPeople(4, size=64))
    file = tmp_path / "annotations" / "person_keypoints_synthetic.json"
    right = CocoKeypoints(file, tmp_path / "images" / "synthetic", COCO)
    content = json.loads(file.read_text())
    for record in content["annotations"]:
        record["image_id"] = str(record["image_id"])
    file.write_text(json.dumps(content))
    found = CocoKeypoints(file, tmp_path / "images" / "synthetic", COCO, people_only=True)
    assert len(found) == len(right)
    assert f"{len(content['annotations'])} annotations with an image_id that is text" in said(found)
    assert [a["image_id"] for a in found.annotations["annotations"]] == [
        a["image_id"] for a in right.annotations["annotations"]
    ]


def test_ids_of_other_tools_and_orphans(tmp_path, capsys):
    padded = coco_file(tmp_path)  # COCO's file names as ids
    for image in padded["images"]:
        image["id"] = f"{image['id']:012d}"
    assert len(read(tmp_path, padded).sample(0).poses) == 1
    by_file = coco_file(tmp_path)  # Supervisely and scripts: the image's file name
    for record in by_file["annotations"]:
        record["image_id"] = f"{record['image_id']}.png"
    assert len(read(tmp_path, by_file).sample(1).poses) == 1
    orphans = coco_file(tmp_path)
    orphans["annotations"][0]["image_id"] = 77
    found = read(tmp_path, orphans)
    assert "1 annotation of images that are not listed: 1" in said(found)
    orphans["annotations"][1]["image_id"] = 78
    with pytest.raises(UserError, match=r"of 2 annotations none is left; 2 annotations of images"):
        read(tmp_path, orphans, people_only=True)
    content = coco_file(tmp_path)
    (tmp_path / "2.png").unlink()
    found = read(tmp_path, content)
    assert "1 image without a file: 2.png" in said(found)
    nobody = coco_file(tmp_path, annotations=[])
    with pytest.raises(UserError, match="2 images and 0 annotations"):
        read(tmp_path, nobody, people_only=True)
    unlabeled = coco_file(tmp_path)
    for record in unlabeled["annotations"]:
        record["keypoints"] = [0] * 51
    with pytest.raises(UserError, match="none of its 2 annotations has a labeled joint"):
        read(tmp_path, unlabeled, people_only=True)


def test_train_valid_and_check_print_the_same_lines(tmp_path, capsys):
    content = coco_file(tmp_path)
    content["annotations"].append(content["annotations"][0] | {"id": 3, "image_id": 99})
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "c.yaml").write_text(
        f"DATASET: {{ROOT: {tmp_path}, TRAIN: a.json, TEST: a.json, INPUT_SIZE: 64}}\n"
        "MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1}\n"
        "TRAIN: {END_EPOCH: 1, BATCH_SIZE: 2, WORKERS: 0, PRECISION: fp32}"
    )
    line = f"'{tmp_path / 'a.json'}': 1 annotation of images that are not listed: 3"
    run = tmp_path / "run"
    config = str(tmp_path / "c.yaml")
    assert main(["data", "check", config, "--output", str(tmp_path / "o")]) == 2
    checked = capsys.readouterr()
    assert line in checked.err
    assert "2 images that are in both TRAIN and TEST: 1.png, 2.png" in checked.out
    assert main(["train", config, "--output", str(run), "--device", "cpu"]) == 0
    trained = capsys.readouterr()
    assert line in trained.err
    assert "2 images that are in both TRAIN and TEST: 1.png, 2.png" in trained.out
    words = ["--weights", str(run / "best.safetensors"), "--output", str(tmp_path / "v")]
    assert main(["valid", config, *words, "--device", "cpu"]) == 0
    assert line in capsys.readouterr().err


def test_the_same_images_in_two_folders_are_found(tmp_path):
    one = read(tmp_path / "a", coco_file(tmp_path / "a"))
    other = read(tmp_path / "b", coco_file(tmp_path / "b"))
    assert find_shared_images(one, other).examples == ["1.png", "2.png"]
    cv2.imwrite(str(tmp_path / "b" / "1.png"), np.zeros((80, 100, 3), np.uint8))
    assert find_shared_images(one, other).examples == ["2.png"]


# 8. Mirror pairs


@pytest.mark.parametrize(
    ("tool", "names"),
    [
        ("OpenPose", ["Nose", "LShoulder", "RShoulder", "MidHip"]),
        ("Leeds, MPII's MATLAB", ["lsho", "rsho", "neck"]),
        ("SLEAP", ["thorax", "forelegL1", "forelegR1"]),
        ("Blender", ["spine", "hand.L", "hand.R"]),
        ("Blender, numbered", ["spine.001", "finger.L.001", "finger.R.001"]),
        ("Mixamo", ["mixamorig:Hips", "mixamorig:LeftArm", "mixamorig:RightArm"]),
        ("Kinect", ["Head", "HandTipLeft", "HandTipRight"]),
        ("CVAT", ["nose", "left-ear", "right-ear"]),
        ("DeepLabCut", ["snout", "leftear", "rightear"]),
        ("Animal-Pose", ["Nose", "L_EarBase", "R_EarBase"]),
        ("Human3.6M", ["Pelvis", "LHip", "RHip"]),
        ("capital words", ["NOSE", "LEFT_EYE", "RIGHT_EYE"]),
        ("spaces", ["nose", "l ankle", "r ankle"]),
    ],
)
def test_mirror_pairs_of_other_tools(tool, names):
    pairs = flip_pairs_from_names(names)
    assert pairs == (tuple(names[1:3]),) or pairs == (tuple(names[:2]),)


def test_words_that_begin_with_l_and_r_are_no_pairs():
    names = [
        "tail",
        "leg",
        "rump",
        "lip",
        "rip",
        "lamp",
        "ramp",
        "l5",
        "l4",
        "ball",
        "lear",
        "rear",
    ]
    assert flip_pairs_from_names(names) in ((), (("lear", "rear"),))
    assert flip_pairs_from_names([chr(letter) for letter in range(ord("A"), ord("S"))]) == ()
    paws = ["nose", "left_ear", "right_ear", "FL_paw", "FR_paw", "HL_paw", "HR_paw"]
    assert len(flip_pairs_from_names(paws)) == 3
    glued = ["leftear", "rightear", "frontleftpaw", "frontrightpaw", "eye_lt", "eye_rt"]
    assert len(flip_pairs_from_names(glued)) == 3
    some = ["left_ear", "right_ear", "xl1", "xr1"]
    assert unpaired_sides(some, flip_pairs_from_names(some)) == ["xl1", "xr1"]
    with pytest.raises(UserError, match="'left_eye' has no 'right_eye'; list the pairs"):
        flip_pairs_from_names(["left_eye", "nose"])


def test_no_pair_gets_a_sentence(tmp_path, capsys):
    names = ("tip", "end")
    needle = Skeleton("needle", names, (), (0.1,) * 2, names, ())
    (tmp_path / "s.yaml").write_text("{name: needle, joints: [tip, end], bones: [], "
                                     "sigmas: [0.1, 0.1]}")  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(coco_file(tmp_path, needle)))
    config = (
        f"DATASET: {{ROOT: {tmp_path}, TRAIN: a.json, TEST: a.json, SKELETON: {tmp_path}/s.yaml"
    )
    for more, told in (("", True), (", FLIP: 0}\nTEST: {FLIP_TEST: False", False)):
        (tmp_path / "c.yaml").write_text(f"{config}{more}}}")
        main(["data", "check", str(tmp_path / "c.yaml"), "--output", str(tmp_path / "o")])
        sentence = "skeleton 'needle' has no flip pairs"
        assert (sentence in capsys.readouterr().out) is told


# 9. Checkpoints


@pytest.fixture(scope="module")
def top_down():
    torch.manual_seed(0)
    return PoseHRNet(17, 4, **TINY).state_dict()


class HistoryBuffer:
    """As mmengine keeps losses: a class that a reader does not have, with its methods in a dict,
    which torch pickles as calls of getattr."""

    def __init__(self):
        self.values = np.arange(3.0)

    def __getstate__(self):
        return {**vars(self), "statistics_methods": {"min": HistoryBuffer.min}}

    def min(self):
        return self.values.min()


def save(path, value, monkeypatch=None):
    torch.save(value, path)
    return path


WRAPPERS = {
    "HRNet's own training": lambda s: {
        "epoch": 12, "model": "pose_hrnet", "best_state_dict": s, "perf": np.float64(0.71),
        "state_dict": {f"module.{n}": t for n, t in s.items()}, "optimizer": {"state": {}},
    },
    "torch.compile": lambda s: {f"_orig_mod.{n}": t for n, t in s.items()},
    "compiled in DDP": lambda s: {"model": {f"module._orig_mod.{n}": t for n, t in s.items()}},
    "Lightning": lambda s: {
        "pytorch-lightning_version": "2.4", "hyper_parameters": {"lr": 1e-3},
        "callbacks": {"EarlyStopping": {"best_score": torch.tensor(1.0)}},
        "state_dict": {f"net.{n}": t for n, t in s.items()},
    },
    "AveragedModel": lambda s: {"n_averaged": torch.tensor(3)}
    | {f"module.{n}": t for n, t in s.items()},
    "Lightning with a Hydra partial": lambda s: {
        "hyper_parameters": functools.partial(torch.optim.Adam, lr=1e-3), "state_dict": s,
    },
    "a random state": lambda s: {"state_dict": s, "rng": np.random.RandomState(0)},
    "a deque": lambda s: {"state_dict": s, "losses": collections.deque([1.0, 2.0])},
    "a tuple": lambda s: (s, {"epoch": 3}),
    "nested": lambda s: {"a": {"b": {"c": {"weights": s}}}},
    "mmengine": lambda s: {
        "meta": {"cfg": "model = dict(type='TopdownPoseEstimator')", "epoch": 1},
        "message_hub": {"log_scalars": {"loss": HistoryBuffer()}, "seed": np.int64(3)},
        "state_dict": {
            (f"head.{n}" if n.startswith("final") else f"backbone.{n}"): t for n, t in s.items()
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_wrapped_checkpoints_are_unwrapped(tmp_path, top_down, wrapper, zipped):
    value = WRAPPERS[wrapper](top_down)
    torch.save(value, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "x.pth")
    assert {n for n in found.state if n != "n_averaged"} == set(top_down)
    assert torch.equal(found.state["final_layer.weight"], top_down["final_layer.weight"])
    if zipped:
        config = ["MODEL.NUM_MODULES", "[1, 1, 1]"]
        assert load(tmp_path / "x.pth", "cpu", config).method == "top-down"


@pytest.mark.data
def test_case_05_a_numpy_number_is_no_code():
    file = CASES / "05_numpy_scalar_in_checkpoint" / "checkpoint_numpy.pth"
    assert "final_layer.weight" in read_checkpoint(file).state
    assert main(["weights", "inspect", str(file)]) == 0


def test_averaged_weights_are_preferred_and_named(tmp_path, top_down, caplog):
    other = {name: tensor + 1 for name, tensor in top_down.items()}
    torch.save({"state_dict": other, "state_dict_ema": top_down, "arch": "x"}, tmp_path / "t.pth")
    with caplog.at_level("INFO", "higherhrnet"):
        logger = __import__("logging").getLogger("higherhrnet")
        logger.propagate, before = True, logger.propagate
        found = read_checkpoint(tmp_path / "t.pth")
        logger.propagate = before
    assert torch.equal(found.state["conv1.weight"], top_down["conv1.weight"])
    assert "holds 2 networks; 'state_dict_ema' is read, not 'state_dict'" in caplog.text


def test_mmengine_keeps_its_averaged_weights_as_state_dict(tmp_path, top_down):
    other = {f"module.{name}": tensor + 1 for name, tensor in top_down.items()}
    value = {"message_hub": {}, "ema_state_dict": other, "state_dict": top_down}
    torch.save(value, tmp_path / "m.pth")
    found = read_checkpoint(tmp_path / "m.pth").state
    assert torch.equal(found["conv1.weight"], top_down["conv1.weight"])


def test_ema_pytorch_keeps_both_in_one_mapping(tmp_path, top_down):
    other = {f"online_model.{name}": tensor + 1 for name, tensor in top_down.items()}
    both = other | {f"ema_model.{name}": tensor for name, tensor in top_down.items()}
    for value in ({"ema": both}, {"model": dict(other), "modelEMA": top_down}):
        torch.save(value, tmp_path / "m.pth")
        found = read_checkpoint(tmp_path / "m.pth").state
        assert torch.equal(found["conv1.weight"], top_down["conv1.weight"])


def test_layers_that_are_not_ours_are_not_dropped(tmp_path, top_down):
    state = {(f"head.{n}" if n.startswith("final") else f"backbone.{n}"): t
             for n, t in top_down.items()}  # fmt: skip
    state |= {"head.conv_layers.0.weight": torch.ones(4, 4, 3, 3), "data_preprocessor.mean": t0}
    torch.save({"meta": {"cfg": "TopdownPoseEstimator"}, "state_dict": state}, tmp_path / "m.pth")
    with pytest.raises(UserError, match=r"1 unexpected \(head.conv_layers.0.weight\)"):
        load(tmp_path / "m.pth", "cpu")


t0 = torch.zeros(3)


@pytest.mark.parametrize("joints", [28, 34])
def test_mmposes_one_name_for_two_heads(tmp_path, joints):
    """Without a config in the file the skeleton decides."""
    names = [f"j{n}" for n in range(joints)]
    (tmp_path / "s.yaml").write_text(
        json.dumps({"name": "body", "joints": names, "bones": [], "sigmas": [0.05] * joints})
    )
    state = {(f"keypoint_head.{n}" if n.startswith("final") else f"backbone.{n}"): t
             for n, t in PoseHRNet(joints, 4, **TINY).state_dict().items()}  # fmt: skip
    torch.save({"state_dict": state}, tmp_path / "m.pth")
    predictor = load(tmp_path / "m.pth", "cpu", ["DATASET.SKELETON", str(tmp_path / "s.yaml")])
    assert (predictor.method, len(predictor.skeleton)) == ("top-down", joints)


def test_programs_and_whole_models_are_named(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "t.pt"))
    with pytest.raises(UserError, match=r"is a TorchScript program.*state_dict"):
        read_checkpoint(tmp_path / "t.pt")
    torch.save(PoseHRNet(17, 4, **TINY), tmp_path / "m.pth")
    with pytest.raises(UserError, match=r"whole model.*model.state_dict\(\)"):
        read_checkpoint(tmp_path / "m.pth")


class Evil:
    def __init__(self, function, *words):
        self.function, self.words = function, words

    def __reduce__(self):
        return self.function, self.words


def test_code_in_a_checkpoint_is_refused_by_name_and_not_run(tmp_path, top_down, capsys):
    import os

    for function, name in ((os.system, "system"), (exec, "exec")):
        value = {"state_dict": top_down, "x": Evil(function, f"touch {tmp_path}/ran")}
        torch.save(value, tmp_path / "e.pth")
        with pytest.raises(UserError, match=f"{name}', which could run code.*torch.save"):
            read_checkpoint(tmp_path / "e.pth")
        assert not (tmp_path / "ran").exists()
    value = {"state_dict": top_down, "x": Evil(shutil.rmtree, str(tmp_path))}
    torch.save(value, tmp_path / "e.pth")
    assert read_checkpoint(tmp_path / "e.pth").state  # passed over, not called
    assert (tmp_path / "e.pth").exists()


@pytest.mark.parametrize("joints", [1, 28, 31, 32, 33, 34])
def test_case_10_heads_are_told_apart_by_name(tmp_path, joints):
    names = [f"j{n}" for n in range(joints)]
    (tmp_path / "s.yaml").write_text(
        json.dumps({"name": "body", "joints": names, "bones": [], "sigmas": [0.05] * joints})
    )
    setting = ["DATASET.SKELETON", str(tmp_path / "s.yaml")]
    torch.save(PoseHRNet(joints, 4, **TINY).state_dict(), tmp_path / "t.pth")
    predictor = load(tmp_path / "t.pth", "cpu", setting)
    assert (predictor.method, len(predictor.skeleton)) == ("top-down", joints)
    for tags in (True, False):
        torch.save(
            HigherHRNet(joints, 4, tag_per_joint=tags, **TINY).state_dict(), tmp_path / "b.pth"
        )
        predictor = load(tmp_path / "b.pth", "cpu", setting)
        assert (predictor.method, len(predictor.skeleton)) == ("bottom-up", joints)
        for word in ("t", "b"):
            native, back = tmp_path / f"{word}.safetensors", tmp_path / f"{word}2.pth"
            assert (
                main(["weights", "convert", str(tmp_path / f"{word}.pth"), str(native), *setting])
                == 0
            )
            assert main(["weights", "convert", str(native), str(back), "--to", "official"]) == 0
            assert main(["weights", "inspect", str(back), *setting]) == 0
            again, first = (
                read_checkpoint(back).state,
                read_checkpoint(tmp_path / f"{word}.pth").state,
            )
            assert {n for n in first if "tracked" not in n} <= set(again)
            native.unlink()


# 10. Images and films


def test_deep_images_are_scaled(tmp_path):
    ramp = np.tile(np.linspace(0, 1, 100), (40, 1))
    right = np.rint(255 * ramp)
    for bits in (10, 12, 16):
        gray = np.rint(ramp * (2**bits - 1)).astype(np.uint16)
        for name, image in (("g.png", gray), ("c.png", np.dstack([gray] * 3)),
                            ("c.tif", np.dstack([gray] * 3)), ("g.tif", gray)):  # fmt: skip
            cv2.imwrite(str(tmp_path / name), image)
            read_back = decode((tmp_path / name).read_bytes(), name)
            assert read_back.shape == (40, 100, 3)
            assert np.abs(read_back[..., 0] - right).max() <= 1, (bits, name)
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "f.tif")
    assert np.abs(decode((tmp_path / "f.tif").read_bytes(), "f")[..., 1] - right).max() <= 1
    color = np.zeros((40, 100, 3), np.uint16)
    color[..., 2] = 65535  # red, in OpenCV's order
    cv2.imwrite(str(tmp_path / "r.tif"), color)
    assert decode((tmp_path / "r.tif").read_bytes(), "r")[0, 0].tolist() == [255, 0, 0]


def test_other_deep_files(tmp_path):
    ramp = np.tile(np.linspace(0, 1, 100), (40, 1))
    right = np.rint(255 * ramp)
    for name in ("a.pgm", "a.jp2"):
        cv2.imwrite(str(tmp_path / name), np.rint(ramp * 4095).astype(np.uint16))
        found = decode((tmp_path / name).read_bytes(), name)
        assert np.abs(found[..., 0] - right).max() <= 12, name  # JPEG 2000 is lossy
    Image.fromarray((ramp * 1.02).astype(np.float32)).save(tmp_path / "f.tif")  # overshoot
    assert decode((tmp_path / "f.tif").read_bytes(), "f").max() == 255


def test_avif_is_turned_as_viewers_turn_it(tmp_path):
    pixels = np.zeros((80, 100, 3), np.uint8)
    pixels[:40, :50] = 255
    for orientation in (2, 3, 4, 6, 8):
        for suffix in ("avif", "jpg"):
            exif = Image.Exif()  # writing AVIF takes the orientation out of it
            exif[0x0112] = orientation
            Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif)
        one, other = (decode((tmp_path / f"a.{e}").read_bytes(), e, upright=True)
                      for e in ("avif", "jpg"))  # fmt: skip
        assert one.shape == other.shape
        assert np.abs(one.astype(int) - other).mean() < 5, orientation


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif"])
def test_several_images_in_a_file_are_said_to_be_cut(tmp_path, capsys, suffix):
    frames = [Image.fromarray(np.full((64, 64, 3), value, np.uint8)) for value in (0, 99, 200)]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    words = ["predict", str(tmp_path), "--output", str(tmp_path / "o"), "--device", "cpu"]
    assert main([*words, "DATASET.INPUT_SIZE", "64"]) == 0
    assert f"a{suffix}' holds 3 images, and only the first is read" in capsys.readouterr().out


def test_what_a_folder_holds_and_cannot_be_read_is_named(tmp_path, capsys):
    for name in ("a.HEIC", "b.heic", "c.dng", "notes.txt", "d.jxl"):
        (tmp_path / name).write_bytes(b"x")
    words = ["predict", str(tmp_path), "--output", str(tmp_path / "o"), "--device", "cpu"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "but 4 files are of a kind that is not read (.dng, .heic, .jxl): a.HEIC" in error
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((64, 64, 3), np.uint8))
    assert main([*words, "DATASET.INPUT_SIZE", "64"]) == 0
    assert "4 files are of a kind that is not read" in capsys.readouterr().err


def test_pixels_that_are_not_square_are_shown_right(tmp_path):
    av = pytest.importorskip("av")
    from higherhrnet.inference.video import VideoFile

    for ratio, width in ((16 / 15, 77), (2, 144), (1, 72)):  # PAL, anamorphic, square
        file = tmp_path / f"{width}.mp4"
        with av.open(str(file), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 72, 48, "yuv420p"
            from fractions import Fraction

            stream.codec_context.sample_aspect_ratio = Fraction(ratio).limit_denominator(100)
            for _ in range(3):
                frame = av.VideoFrame.from_ndarray(np.zeros((48, 72, 3), np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        assert {frame.image.shape for frame in VideoFile(file)} == {(48, width, 3)}


def test_strips_get_the_same_sentence(tmp_path):
    from higherhrnet import geometry

    for shape in ((40000, 4, 3), (4, 32767, 3)):
        with pytest.raises(UserError, match="too long to be warped: no side may exceed 32766"):
            geometry.warp(np.zeros(shape, np.uint8), geometry.identity(), (64, 64))


def test_zip_and_folder_tell_the_same_header(tmp_path):
    coco_file(tmp_path / "a")
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path, "a")
    for store in (Store(tmp_path / "a"), Store(tmp_path / "a.zip")):
        assert store.header("1.png").size == (80, 100)
        assert store.header("missing.png") is None


def test_the_best_checkpoint_is_the_last_of_equals():
    from higherhrnet.training.callbacks import BestCheckpoint

    class Trainer:
        class settings:
            metric = "AP"

        class progress:
            best = -np.inf
            since_best = 0

        class group:
            main = True

        weights = None

    kept = []
    best = BestCheckpoint(kept.append)
    for epoch, value in enumerate((0.0, 0.0, 0.3, 0.3, 0.2)):
        Trainer.weights = epoch
        best.on_epoch_end(Trainer, {"AP": value}, [])
    assert kept == [0, 1, 2, 3]
    assert parse_config("").DATASET.CATEGORIES == ()
