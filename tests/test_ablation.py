"""The ablation: plans, cached runs, paired differences, autopsy, costs and the report."""

import json
import logging
import os
import time

import numpy as np
import pytest
import torch
import yaml

from higherhrnet.boxes import Boxes
from higherhrnet.cli import main
from higherhrnet.config import override_config, parse_config, read_config, to_yaml
from higherhrnet.errors import UserError
from higherhrnet.evaluation.evaluator import CocoEvaluator
from higherhrnet.factory.inference import build_torch_predictor
from higherhrnet.research.ablation import compare, cost, plan, processes
from higherhrnet.research.ablation.fairness import compare_test_images, find_unfairness
from higherhrnet.research.ablation.oracle_analysis import oracle_analysis
from higherhrnet.research.synthetic.dataset import SyntheticPeople, write_coco
from higherhrnet.skeleton import COCO
from tests.build import build_model

from .shared import ROOT

PLANS = [
    path
    for path in sorted((ROOT / "configs" / "ablation").glob("*.yaml"))
    if not path.name.startswith("search_")  # test_search_settings.py
]
TINY = """
MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, NUM_BASIC_BLOCKS: 1}
DATASET: {DATASET: synthetic, INPUT_SIZE: 64}
SYNTHETIC: {TRAIN_IMAGES: 8, TEST_IMAGES: 4, SIZE: 96}
TRAIN: {END_EPOCH: 1, BATCH_SIZE: 4, PRECISION: fp32, WORKERS: 0}
TEST: {PRECISION: fp32, ASSIGNMENT: hungarian_score_tiebreak}
"""
TOP_DOWN = """
MODEL: {NAME: pose_hrnet, WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, IMAGE_SIZE: [64, 64]}
DATASET: {DATASET: synthetic}
SYNTHETIC: {TRAIN_IMAGES: 8, TEST_IMAGES: 4, SIZE: 96}
TRAIN: {END_EPOCH: 1, BATCH_SIZE: 4, PRECISION: fp32, WORKERS: 0, LR_STEP: [200, 260]}
TEST: {PRECISION: fp32}
"""


def perfect(ground_truth, jitter=0.0):
    """The truth as results, every joint moved by up to some pixels."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(len(ground_truth)):
        sample = ground_truth.sample(number)
        for record in sample.poses.to_coco(sample.id):
            moved = np.array(record["keypoints"]).reshape(-1, 3)
            moved[:, :2] += rng.uniform(-jitter, jitter, (17, 2))
            records.append(record | {"keypoints": moved.ravel().tolist()})
    return records


@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.stem)
def test_plans_load_with_all_their_configs(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = plan.read_plan(path)
    head = path.read_text().split("RUNS:")[0]
    assert f"# higherhrnet ablate configs/ablation/{path.name}" in head
    for run in found.runs:
        config = read_config(run.config, run.settings)
        evaluations = [e for e in found.evaluations if e.run == run.name]
        texts = {to_yaml(override_config(config, e.settings)) for e in evaluations}
        assert len(texts) == len(evaluations)  # twins would be refused


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"RUN": {}}, "unknown key 'RUN' in .* did you mean 'RUNS'"),
        ({"EVALUATIONS": {"a": {"RUN": "no"}}}, "evaluation 'a' needs a RUN, one of one"),
        ({"RUNS": {"one": {}}}, "run 'one' needs a CONFIG"),
        ({"ORACLE_ANALYSIS": ["b"]}, "there is no evaluation 'b' among a"),
        ({"COMPARE": [["a", "b", "a"]]}, "COMPARE lists pairs of evaluations"),
        ({"XYZ": 1}, "unknown key 'XYZ' in .* known are SETTINGS, RUNS"),
        ({"COMPARE": [["a"]]}, "COMPARE lists pairs of evaluations"),
        ({"COST": {"PEPLE": [1]}}, "unknown key 'PEPLE'.*did you mean 'PEOPLE'"),
    ],
)
def test_a_wrong_plan_is_one_sentence(tmp_path, change, sentence):
    right = {"RUNS": {"one": {"CONFIG": "x.yaml"}}, "EVALUATIONS": {"a": {"RUN": "one"}}}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(right | change))
    with pytest.raises(UserError, match=sentence):
        plan.read_plan(tmp_path / "p.yaml")


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_whole_ablation_runs_once_and_reports(tmp_path, processes, capsys):
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "top_down.yaml").write_text(TOP_DOWN)
    content = {
        "RUNS": {
            "bottom-up": {"CONFIG": str(tmp_path / "tiny.yaml")},
            "top-down": {"CONFIG": str(tmp_path / "top_down.yaml")},
        },
        "EVALUATIONS": {
            "bottom-up": {"RUN": "bottom-up"},
            "no flip": {"RUN": "bottom-up", "TEST.FLIP_TEST": False},
            "true boxes": {"RUN": "top-down"},
            "jittered boxes": {"RUN": "top-down", "TEST.BBOX_JITTER": 0.1},
        },
        "COMPARE": [["bottom-up", "true boxes"]],
        "ORACLE_ANALYSIS": ["bottom-up", "jittered boxes"],
        "COST": {"EVALUATIONS": ["bottom-up", "true boxes"], "PEOPLE": [1, 3], "SIZE": 96,
                 "REPEATS": 1, "IMAGES": 2, "DETECTOR": ""},
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
    assert [e["name"] for e in found["evaluations"]] == list(content["EVALUATIONS"])
    assert len({e["hash"] for e in found["evaluations"]}) == 4
    drawn = {p["people"] for p in found["cost"] if p["images"] == "synthetic"}
    assert drawn == ({1, 3} if costs else set())
    assert [c["replaced"] for c in found["oracle_analysis"]["jittered boxes"]] == [
        "nothing", "heatmaps", "boxes", "boxes and heatmaps",
    ]  # fmt: skip
    text = (out / "report.md").read_text()
    for name in ("evaluations.csv", "compare.csv", "oracle_analysis.csv", "cost.csv")[
        : 4 if costs else 3
    ]:
        assert (out / name).stat().st_size
    for name in ("compare_1.png", "oracle_analysis.png", "cost.png")[: 3 if costs else 2]:
        assert f"![]({name})" in text
        assert (out / name).stat().st_size > 5000
    assert found["evaluations"][0]["hash"] in text
    assert found["compare"][0]["first evaluation"] == "bottom-up"
    assert found["compare"][0]["people"] > 0
    # A second time nothing is trained or evaluated again.
    times = {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    times |= {file: file.stat().st_mtime_ns for file in (out / "evaluations").iterdir()}
    assert len(times) == 6
    content["EVALUATIONS"]["more"] = {"RUN": "top-down", "TEST.DECODING": "dark"}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    assert main([*words[:-2], "--processes", "1"]) == 0
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())
    assert len(list((out / "evaluations").iterdir())) == 5


def seen_gpus(number):
    time.sleep(0.5)  # so that no process does everything
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_processes_take_turns_with_the_gpus(monkeypatch, caplog):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with caplog.at_level(logging.INFO, "higherhrnet"):
        found = processes.run_jobs(seen_gpus, range(6), 3, ["3", "5"], str)
    assert set(found) == {"3", "5"}
    said = [record.getMessage() for record in caplog.records]
    assert sorted(said) == [f"{number}: done" for number in range(6)]
    assert processes.run_jobs(seen_gpus, [1], 2, [], str) == [None]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [processes.list_gpus(device) for device in ("auto", "cuda:1", "cpu")] == [
        ["0", "1"],
        [],
        [],
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 7,-1")
    assert processes.list_gpus("cuda") == ["4", "7"]


def test_other_annotations_are_another_row(tmp_path):
    file = write_coco(tmp_path / "data", SyntheticPeople(3, size=96))
    text = (
        "DATASET: {DATASET: coco, ROOT: '"
        + str(tmp_path / "data")
        + "', TRAIN: synthetic, TEST: synthetic}\n"
    )
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(
        yaml.safe_load(TINY) | {"DATASET": yaml.safe_load(text)["DATASET"] | {"INPUT_SIZE": 64}}
    ))  # fmt: skip
    content = {
        "RUNS": {1: {"CONFIG": str(tmp_path / "tiny.yaml")}},
        "EVALUATIONS": {64: {"RUN": 1}},
    }
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
    assert seen[0]["evaluations"][0]["hash"] != seen[1]["evaluations"][0]["hash"]
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 2


def test_a_difference_is_as_sure_as_the_images_allow():
    ground_truth = SyntheticPeople(25, people=(1, 5), size=128)
    right, wrong = perfect(ground_truth), perfect(ground_truth, jitter=6.0)
    parts = compare.compare(right, wrong, ground_truth.annotations, COCO)
    whole = parts[0]
    assert whole.first == pytest.approx(1.0)
    assert whole.second < 0.9
    assert whole.low <= whole.difference <= whole.high
    assert whole.verdict == "first"
    same = compare.compare(right, right, ground_truth.annotations, COCO)[0]
    assert same.difference == same.low == same.high == 0
    assert same.verdict == "undecided"
    (image, apart), *_ = compare.most_different(right, wrong, ground_truth.annotations, COCO)
    assert apart > 0
    assert any(i["id"] == image for i in ground_truth.annotations["images"])


def test_the_truth_in_place_of_every_answer_is_perfect():
    """Whatever the network says: true heatmaps and tags, or true boxes and heatmaps, find all."""
    ground_truth = SyntheticPeople(6, people=(1, 3), size=256, overlap=0.0, occlusion=0)
    for text, settings in (
        (TINY, ["DATASET.INPUT_SIZE", "256"]),
        (TOP_DOWN, ["MODEL.IMAGE_SIZE", "[192, 256]"]),
    ):
        config = parse_config(text, settings)
        torch.manual_seed(0)
        network = build_model(config, 17)
        ready = build_torch_predictor(config, network, COCO, torch.device("cpu"))
        results = oracle_analysis(
            ready,
            ground_truth,
            lambda sample: Boxes.of(sample.boxes),
            lambda: CocoEvaluator(ground_truth),
        )
        by_name = {result.replaced: result for result in results}
        whole = "heatmaps and tags" if text == TINY else "boxes and heatmaps"
        assert by_name[whole].AP > 0.95
        assert by_name["nothing"].AP < 0.2
        assert by_name[whole].gain == by_name[whole].AP - by_name["nothing"].AP


def test_crossover_lies_between_the_crowds_where_it_happens():
    def points(row, times, detector=0.0):
        return [
            cost.Point(row, detector == 0, "synthetic", people, time, {}, detector, 0.0, 1)
            for people, time in zip((1, 5, 10), times, strict=True)
        ]

    flat, rising = points("a", (100, 100, 100)), points("b", (20, 80, 140), detector=50)
    assert cost.crossover(flat, rising, False) == pytest.approx(5 + 5 * 20 / 60)
    assert cost.crossover(flat, rising, True) == pytest.approx(1 + 4 * 30 / 60)
    assert cost.crossover(flat, points("c", (1, 2, 3)), False) is None
    assert cost.crossover(flat, points("c", (200, 200, 300)), False) == 0.0


def test_crowds_have_as_many_people_as_they_say():
    for people in (1, 10, 50):
        drawn = cost.make_crowd(people, 256)
        assert len(drawn.boxes) == people


def test_unequal_arms_are_named():
    one, other = (
        parse_config(TINY, ["TRAIN.END_EPOCH", n, "SYNTHETIC.SIZE", s])
        for n, s in (("1", "90"), ("2", "80"))
    )
    assert find_unfairness(one, one) == compare_test_images(one, one) == []
    assert find_unfairness(one, other) == ["TRAIN.END_EPOCH 1 and 2"]
    assert find_unfairness(one, other, given=True) == []
    assert compare_test_images(one, other) == ["SYNTHETIC.SIZE 90 and 80"]
    bilinear = parse_config(TINY, ["MODEL.UPSAMPLE_MODE", "bilinear", "TRAIN.LR_STEP", "[1]"])
    assert find_unfairness(one, bilinear) == [
        "MODEL.UPSAMPLE_MODE nearest and bilinear", "TRAIN.LR_STEP (200, 260) and (1,)",
    ]  # fmt: skip


def test_what_is_wrong_is_said_before_anything_is_trained(tmp_path, capsys):
    tiny = str(tmp_path / "tiny.yaml")
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "top_down.yaml").write_text(TOP_DOWN)
    right = {
        "RUNS": {"one": {"CONFIG": tiny}},
        "EVALUATIONS": {"a": {"RUN": "one"}, "b": {"RUN": "one", "SYNTHETIC.SIZE": 128}},
    }
    wrong = [
        (
            {"COMPARE": [["a", "b"]]},
            "evaluations 'a' and 'b' see other images: SYNTHETIC.SIZE 96 and 128",
        ),
        (
            {"COST": {"EVALUATIONS": ["a"], "DETECTOR": "yolo"}},
            "COST.DETECTOR must be weights or one of fasterrcnn",
        ),
        ({"EVALUATIONS": {"a": {"RUN": "one", "TEST.FLOP": 1}}}, "unknown config key 'TEST.FLOP'"),
        (
            {"RUNS": {"one": {"CONFIG": tiny, "WEIGHTS": "none.pth"}}},
            "run 'one': weights file 'none.pth' does not exist",
        ),
        ({"RUNS": {"one": {"CONFIG": tiny, "WEIGHTS": "hrnet_w18_mini"}}}, "another model"),
        (
            {"RUNS": {"one": {"CONFIG": tiny, "MODEL.PRETRAINED": "/nowhere.pth"}}},
            "run 'one': MODEL.PRETRAINED '/nowhere.pth' does not exist",
        ),
        (
            {"EVALUATIONS": {"a": {"RUN": "one"}, "b": {"RUN": "one"}}},
            "evaluations 'a' and 'b' have the same settings",
        ),
        ({"COST": {"PEOPLE": 5}}, "COST.PEOPLE must be a rising list"),
        ({"RUNS": []}, "RUNS must be a mapping"),
    ]
    top_down = {"CONFIG": str(tmp_path / "top_down.yaml")}
    for boxes, said in (
        (
            "fastrcnn_typo",
            "'TEST.BBOX_SOURCE' must be ground_truth, FILE.json, weights of a detector",
        ),
        ("nowhere.safetensors", "'TEST.BBOX_SOURCE' must be ground_truth, FILE.json"),
        ("hrnet_w18_mini", "evaluation 'a': TEST.BBOX_SOURCE"),
    ):
        evaluations = {"a": {"RUN": "one", "TEST.BBOX_SOURCE": boxes}}
        wrong.append(({"RUNS": {"one": top_down}, "EVALUATIONS": evaluations}, said))
    for change, sentence in wrong:
        (tmp_path / "p.yaml").write_text(yaml.safe_dump(right | change))
        words = ["ablate", str(tmp_path / "p.yaml"), "--output", str(tmp_path / "out")]
        assert main([*words, "--device", "cpu"]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_plans_of_version_0_1_are_read(tmp_path):
    former = {
        "ARMS": {"one": {"CONFIG": "x.yaml"}},
        "ROWS": {"a": {"ARM": "one"}, "b": {"ARM": "one", "TEST.FLIP": False}},
        "AUTOPSY": ["a"],
        "COST": {"ROWS": ["a"], "PICTURES": 2},
    }
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(former))
    found = plan.read_plan(tmp_path / "p.yaml")
    assert [evaluation.run for evaluation in found.evaluations] == ["one", "one"]
    assert (found.oracle_analysis, found.cost.images) == (("a",), 2)
