"""The ablation: plans, cached runs, paired differences, autopsy, costs and the report."""

import json
import os
import time

import numpy as np
import pytest
import torch
import yaml

from higherhrnet import build
from higherhrnet.ablation import autopsy, compare, cost, plan, processes
from higherhrnet.boxes import Boxes
from higherhrnet.cli import main
from higherhrnet.config import parse_config, read_config
from higherhrnet.datasets.toy import DrawnPeople, write_coco
from higherhrnet.errors import UserError
from higherhrnet.evaluation.results import evaluate
from higherhrnet.skeleton import COCO

from .shared import ROOT

PLANS = sorted((ROOT / "configs" / "ablation").glob("*.yaml"))
TINY = """
MODEL: {WIDTH: 4, MODULES: [1, 1, 1], BLOCKS: 1, RESIDUAL_BLOCKS: 1}
DATASET: {KIND: toy, INPUT_SIZE: 64, CROP: [64, 64]}
TOY: {TRAIN_IMAGES: 8, TEST_IMAGES: 4, SIZE: 96}
TRAIN: {EPOCHS: 1, BATCH: 4, PRECISION: fp32, WORKERS: 0}
TEST: {PRECISION: fp32, ASSIGNMENT: strongest}
"""


def perfect(truth, jitter=0.0):
    """The truth as results, every joint moved by up to some pixels."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(len(truth)):
        sample = truth.sample(number)
        for record in sample.poses.to_coco(sample.id):
            moved = np.array(record["keypoints"]).reshape(-1, 3)
            moved[:, :2] += rng.uniform(-jitter, jitter, (17, 2))
            records.append(record | {"keypoints": moved.ravel().tolist()})
    return records


@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.stem)
def test_plans_load_with_all_their_configs(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = plan.read_plan(path)
    head = path.read_text().split("ARMS:")[0]
    assert f"# higherhrnet ablate configs/ablation/{path.name}" in head
    for arm in found.arms:
        config = read_config(arm.config, arm.settings)
        rows = [row for row in found.rows if row.arm == arm.name]
        texts = {build.to_yaml(build.varied(config, row.settings)) for row in rows}
        assert len(texts) == len(rows)  # twins would be refused


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ROW": {}}, "unknown key 'ROW' in .* did you mean 'ROWS'"),
        ({"ROWS": {"a": {"ARM": "none"}}}, "row 'a' needs an ARM, one of one"),
        ({"ARMS": {"one": {}}}, "arm 'one' needs a CONFIG"),
        ({"AUTOPSY": ["b"]}, "there is no row 'b' among a"),
        ({"COMPARE": [["a"]]}, "COMPARE lists pairs of rows"),
        ({"COST": {"PEPLE": [1]}}, "unknown key 'PEPLE'.*did you mean 'PEOPLE'"),
    ],
)
def test_a_wrong_plan_is_one_sentence(tmp_path, change, sentence):
    right = {"ARMS": {"one": {"CONFIG": "x.yaml"}}, "ROWS": {"a": {"ARM": "one"}}}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(right | change))
    with pytest.raises(UserError, match=sentence):
        plan.read_plan(tmp_path / "p.yaml")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_whole_ablation_runs_once_and_reports(tmp_path, processes, capsys):
    (tmp_path / "tiny.yaml").write_text(TINY)
    content = {
        "ARMS": {
            "bottom-up": {"CONFIG": str(tmp_path / "tiny.yaml")},
            "top-down": {"CONFIG": str(tmp_path / "tiny.yaml"), "MODEL.NAME": "pose_hrnet"},
        },
        "ROWS": {
            "bottom-up": {"ARM": "bottom-up"},
            "no flip": {"ARM": "bottom-up", "TEST.FLIP": False},
            "true boxes": {"ARM": "top-down"},
            "jittered boxes": {"ARM": "top-down", "TEST.JITTER": 0.1},
        },
        "COMPARE": [["bottom-up", "true boxes"]],
        "AUTOPSY": ["bottom-up", "jittered boxes"],
        "COST": {"ROWS": ["bottom-up", "true boxes"], "PEOPLE": [1, 3], "SIZE": 96, "REPEATS": 1,
                 "PICTURES": 2, "DETECTOR": ""},
    }  # fmt: skip
    costs = processes == "1"  # timed alone in either case, and slow
    if not costs:
        del content["COST"]
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    words = ["ablate", str(path), "--output", str(tmp_path / "out"), "--device", "cpu"]
    words += ["--processes", processes]
    assert main(words) == 0
    assert "AP" in capsys.readouterr().out
    out = tmp_path / "out"
    found = json.loads((out / "report.json").read_text())
    assert [row["name"] for row in found["rows"]] == list(content["ROWS"])
    assert len({row["hash"] for row in found["rows"]}) == 4
    drawn = {p["people"] for p in found["cost"] if p["pictures"] == "drawn"}
    assert drawn == ({1, 3} if costs else set())
    assert [c["replaced"] for c in found["autopsy"]["jittered boxes"]] == [
        "nothing", "heatmaps", "boxes", "boxes and heatmaps",
    ]  # fmt: skip
    text = (out / "report.md").read_text()
    for name in ("rows.csv", "compare.csv", "autopsy.csv", "cost.csv")[: 4 if costs else 3]:
        assert (out / name).stat().st_size
    for name in ("compare_1.png", "autopsy.png", "cost.png")[: 3 if costs else 2]:
        assert f"![]({name})" in text
        assert (out / name).stat().st_size > 5000
    assert found["rows"][0]["hash"] in text
    assert found["compare"][0]["first row"] == "bottom-up"
    assert found["compare"][0]["people"] > 0
    # A second time nothing is trained or evaluated again.
    times = {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    times |= {file: file.stat().st_mtime_ns for file in (out / "rows").iterdir()}
    assert len(times) == 6
    content["ROWS"]["more"] = {"ARM": "top-down", "TEST.DECODING": "dark"}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    assert main([*words[:-2], "--processes", "1"]) == 0
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())
    assert len(list((out / "rows").iterdir())) == 5


def seen_gpus(number):
    time.sleep(0.5)  # so that no process does everything
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_processes_take_turns_with_the_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    said = []
    found = processes.all_of(seen_gpus, range(6), 3, ["3", "5"], str, said.append)
    assert set(found) == {"3", "5"}
    assert sorted(said) == [f"{number}: done" for number in range(6)]
    assert processes.all_of(seen_gpus, [1], 2, [], str, said.append) == [None]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [processes.gpus(device) for device in ("auto", "cuda:1", "cpu")] == [["0", "1"], [], []]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 7,-1")
    assert processes.gpus("cuda") == ["4", "7"]


def test_other_annotations_are_another_row(tmp_path):
    file = write_coco(tmp_path / "data", DrawnPeople(3, size=96))
    text = "DATASET: {KIND: coco, ROOT: '" + str(tmp_path / "data") + "', TRAIN: toy, TEST: toy}\n"
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(
        yaml.safe_load(TINY) | {"DATASET": yaml.safe_load(text)["DATASET"] | {"INPUT_SIZE": 64}}
    ))  # fmt: skip
    content = {"ARMS": {1: {"CONFIG": str(tmp_path / "tiny.yaml")}}, "ROWS": {64: {"ARM": 1}}}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(content))
    seen = []
    for _ in range(2):
        words = [str(tmp_path / "p.yaml"), "--output", str(tmp_path / "out"), "--device", "cpu"]
        assert main(["ablate", *words]) == 0
        seen.append(json.loads((tmp_path / "out" / "report.json").read_text()))
        annotations = json.loads(file.read_text())
        annotations["images"] = annotations["images"][:2]
        kept = {image["id"] for image in annotations["images"]}
        people = [a for a in annotations["annotations"] if a["image_id"] in kept]
        file.write_text(json.dumps(annotations | {"annotations": people}))
    assert seen[0]["rows"][0]["hash"] != seen[1]["rows"][0]["hash"]
    assert len(list((tmp_path / "out" / "arms").iterdir())) == 2


def test_a_difference_is_as_sure_as_the_pictures_allow():
    truth = DrawnPeople(25, people=(1, 5), size=128)
    right, wrong = perfect(truth), perfect(truth, jitter=6.0)
    parts = compare.compare(right, wrong, truth.annotations, COCO)
    whole = parts[0]
    assert whole.first == pytest.approx(1.0)
    assert whole.second < 0.9
    assert whole.low <= whole.difference <= whole.high
    assert whole.verdict == "first"
    same = compare.compare(right, right, truth.annotations, COCO)[0]
    assert same.difference == same.low == same.high == 0
    assert same.verdict == "undecided"
    (picture, apart), *_ = compare.most_different(right, wrong, truth.annotations, COCO)
    assert apart > 0
    assert any(i["id"] == picture for i in truth.annotations["images"])


def test_the_truth_in_place_of_every_answer_is_perfect():
    """Whatever the network says: true heatmaps and tags, or true boxes and heatmaps, find all."""
    truth = DrawnPeople(6, people=(1, 3), size=256, overlap=0.0, occlusion=0)
    for name in ("higher_hrnet", "pose_hrnet"):
        settings = ["MODEL.NAME", name, "DATASET.INPUT_SIZE", "256", "DATASET.CROP", "[256, 192]"]
        config = parse_config(TINY, settings)
        torch.manual_seed(0)
        network = build.model(config, 17)
        ready = build.predictor(config, network, COCO, torch.device("cpu"))
        causes = autopsy.autopsy(ready, truth, lambda s: Boxes.of(s.boxes), evaluate)
        by_name = {cause.replaced: cause for cause in causes}
        whole = "heatmaps and tags" if name == "higher_hrnet" else "boxes and heatmaps"
        assert by_name[whole].AP > 0.95
        assert by_name["nothing"].AP < 0.2
        assert by_name[whole].gain == by_name[whole].AP - by_name["nothing"].AP


def test_crossover_lies_between_the_crowds_where_it_happens():
    def points(row, times, detector=0.0):
        return [
            cost.Point(row, detector > 0, "drawn", people, time, {}, detector, 0.0, 1)
            for people, time in zip((1, 5, 10), times, strict=True)
        ]

    flat, rising = points("a", (100, 100, 100)), points("b", (20, 80, 140), detector=50)
    assert cost.crossover(flat, rising, False) == pytest.approx(5 + 5 * 20 / 60)
    assert cost.crossover(flat, rising, True) == pytest.approx(1 + 4 * 30 / 60)
    assert cost.crossover(flat, points("c", (1, 2, 3)), False) is None
    assert cost.crossover(flat, points("c", (200, 200, 300)), False) == 0.0


def test_crowds_have_as_many_people_as_they_say():
    for people in (1, 10, 50):
        drawn = cost.crowd(people, 256)
        assert len(drawn.boxes) == people


def test_unequal_arms_are_named():
    one, other = (
        parse_config(TINY, ["TRAIN.EPOCHS", n, "TOY.SIZE", s])
        for n, s in (("1", "90"), ("2", "80"))
    )
    assert build.unlike(one, one) == build.other_pictures(one, one) == []
    assert build.unlike(one, other) == ["TRAIN.EPOCHS 1 and 2"]
    assert build.unlike(one, other, given=True) == []
    assert build.other_pictures(one, other) == ["TOY.SIZE 90 and 80"]
    bilinear = parse_config(TINY, ["MODEL.FUSION", "bilinear", "TRAIN.MILESTONES", "[1]"])
    assert build.unlike(one, bilinear) == [
        "MODEL.FUSION nearest and bilinear", "TRAIN.MILESTONES [200, 260] and [1]",
    ]  # fmt: skip


def test_what_is_wrong_is_said_before_anything_is_trained(tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(TINY)
    right = {
        "ARMS": {"one": {"CONFIG": str(tmp_path / "tiny.yaml")}},
        "ROWS": {"a": {"ARM": "one"}, "b": {"ARM": "one", "TOY.SIZE": 128}},
    }
    wrong = [
        ({"COMPARE": [["a", "b"]]}, "rows 'a' and 'b' see other pictures: TOY.SIZE 96 and 128"),
        ({"COST": {"ROWS": ["a"], "DETECTOR": "yolo"}}, "COST.DETECTOR must be one of fasterrcnn"),
        ({"ROWS": {"a": {"ARM": "one", "TEST.FLOP": 1}}}, "unknown config key 'TEST.FLOP'"),
        (
            {"ARMS": {"one": {"CONFIG": str(tmp_path / "tiny.yaml"), "WEIGHTS": "none.pth"}}},
            "arm 'one': weights file 'none.pth' does not exist",
        ),
        (
            {"ARMS": {"one": {"CONFIG": str(tmp_path / "tiny.yaml"), "WEIGHTS": "hrnet_w18_mini"}}},
            "another model",
        ),
        (
            {
                "ARMS": {
                    "one": {
                        "CONFIG": str(tmp_path / "tiny.yaml"),
                        "MODEL.PRETRAINED": "/nowhere.pth",
                    }
                }
            },
            "arm 'one': MODEL.PRETRAINED '/nowhere.pth' does not exist",
        ),
        (
            {"ROWS": {"a": {"ARM": "one"}, "b": {"ARM": "one"}}},
            "rows 'a' and 'b' have the same settings",
        ),
        ({"COST": {"PEOPLE": 5}}, "COST.PEOPLE must be a rising list"),
        ({"ARMS": []}, "ARMS must be a mapping"),
    ]
    top_down = {"CONFIG": str(tmp_path / "tiny.yaml"), "MODEL.NAME": "pose_hrnet"}
    for boxes, said in (
        ("fastrcnn_typo", "'TEST.BOXES' must be truth, FILE.json, bottom-up weights, or one of"),
        ("nowhere.safetensors", "'TEST.BOXES' must be truth, FILE.json"),
        ("hrnet_w18_mini", "row 'a': TEST.BOXES"),
    ):
        rows = {"a": {"ARM": "one", "TEST.BOXES": boxes}}
        wrong.append(({"ARMS": {"one": top_down}, "ROWS": rows}, said))
    for change, sentence in wrong:
        (tmp_path / "p.yaml").write_text(yaml.safe_dump(right | change))
        words = ["ablate", str(tmp_path / "p.yaml"), "--output", str(tmp_path / "out")]
        assert main([*words, "--device", "cpu"]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
