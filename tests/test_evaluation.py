"""COCO figures against pycocotools, to the last bit."""

import contextlib
import copy
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from faster_coco_eval import COCO as FastCOCO
from faster_coco_eval import COCOeval_faster as FastEval

from higherhrnet.datasets.stats import crowding
from higherhrnet.evaluation import evaluator, report
from higherhrnet.evaluation.coco import AREAS, by_crowding, crowdpose_metrics
from higherhrnet.evaluation.evaluator import evaluate
from higherhrnet.evaluation.matching import match
from higherhrnet.evaluation.operating_point import without_duplicates
from higherhrnet.evaluation.pck import accuracy_metrics, pckh_metrics
from higherhrnet.poses import REFINED, SEEN, Poses
from higherhrnet.research.bench import evaluate as evaluate_bench
from higherhrnet.research.synthetic.dataset import SyntheticPeople
from higherhrnet.skeleton import COCO, CROWDPOSE, load_skeleton

from .shared import SHARED


def oracle(records, annotations):
    return evaluate_bench.pycocotools_metrics(records, annotations, COCO)


def approx(expected):
    """To the last digits: the two evaluators sum in another order."""
    return pytest.approx(expected, abs=1e-12, rel=0)


def guesses(annotations, seed, noise=8.0):
    """Detections that are the truth shaken, doubled, dropped, tied in score, or nonsense."""
    rng = np.random.default_rng(seed)
    records = []
    for person in annotations["annotations"]:
        for _ in range(rng.choice([0, 1, 1, 2])):
            keypoints = np.array(person["keypoints"], float).reshape(-1, 3)
            keypoints[:, :2] += rng.normal(0, noise * rng.random(), keypoints[:, :2].shape)
            records.append(
                {
                    "image_id": person["image_id"],
                    "category_id": 1,
                    "keypoints": keypoints.ravel().tolist(),
                    "score": float(rng.choice([0.25, 0.5, rng.random()])),
                }
            )
    first = annotations["images"][0]["id"]
    records.append({"image_id": first, "category_id": 1, "keypoints": [0.0] * 51, "score": 0.9})
    return records


@pytest.mark.parametrize("seed", range(12))
def test_drawn_people(seed):
    annotations = SyntheticPeople(15, seed=seed, people=(1, 6), overlap=0.8).annotations
    records = guesses(annotations, seed)
    assert evaluate(records, annotations, COCO) == approx(oracle(records, annotations))


@pytest.mark.parametrize("many", [1, 2])
def test_one_right_detection(many):
    annotations = SyntheticPeople(many, people=(1, 1), occlusion=0).annotations
    records = [
        {"image_id": p["image_id"], "category_id": 1, "keypoints": p["keypoints"], "score": 0.5}
        for p in annotations["annotations"]
    ]
    assert evaluate(records, annotations, COCO) == approx(oracle(records, annotations))


def test_equal_scores_fall_as_officially_whatever_the_images_order():
    annotations = SyntheticPeople(12, people=(2, 3)).annotations
    shuffled = np.random.default_rng(1).permutation(12)
    mixed = {**annotations, "images": [annotations["images"][n] for n in shuffled]}
    for seed in range(4):
        records = [{**r, "score": round(r["score"], 1)} for r in guesses(annotations, seed)]
        assert evaluate(records, mixed, COCO) == approx(oracle(records, mixed))


def test_parts_are_scored_as_the_whole_is():
    annotations = SyntheticPeople(4, people=(2, 3)).annotations
    records = guesses(annotations, 0, noise=20.0)
    for kind in ("coco", "crowdpose"):
        atomic_write, *_ = report.evaluate_parts(records, annotations, COCO, {}, kind)
        assert atomic_write["AP"] == pytest.approx(evaluate(records, annotations, COCO, kind)["AP"])
    # Nobody is large here: no row says -100.
    assert "large" not in [r["part"] for r in report.evaluate_parts(records, annotations, COCO, {})]


def test_all_zero_detections_and_one_too_many():
    annotations = SyntheticPeople(3, people=(1, 2)).annotations
    zero = [
        {"image_id": n, "category_id": 1, "keypoints": [0.0] * 51, "score": 0.1 * k}
        for n in range(3)
        for k in range(25)
    ]
    assert evaluate(zero, annotations, COCO) == approx(oracle(zero, annotations))


@pytest.mark.data
def test_real_annotations_with_crowd_regions():
    file = SHARED / "coco_mini" / "annotations" / "person_keypoints_val_mini.json"
    annotations = json.loads(file.read_text())
    for seed in range(3):
        records = guesses(annotations, seed, noise=20.0)
        assert evaluate(records, annotations, COCO) == approx(oracle(records, annotations))


def test_no_detections():
    annotations = SyntheticPeople(2).annotations
    figures = evaluate([], annotations, COCO)
    # These people are of medium size: of the large there is nobody to find.
    assert {name for name, value in figures.items() if value == -1} == {"APL", "ARL"}
    assert {value for name, value in figures.items() if name not in ("APL", "ARL")} == {0.0}
    nobody = {**annotations, "annotations": []}
    assert set(evaluate([], nobody, COCO).values()) == {-1.0}


def test_annotations_of_other_writers_score_the_same():
    """Ids from 0 or as text, another category, and fields left out change no figure."""
    annotations = SyntheticPeople(4, people=(2, 3)).annotations
    records = guesses(annotations, 0)
    expected = evaluate(records, annotations, COCO)
    for change in ({"id": 0}, {"id": "a"}, {"category_id": 7}, {"iscrowd": None}):
        people = [{**person, **change} for person in annotations["annotations"]]
        assert evaluate(records, {**annotations, "annotations": people}, COCO) == expected
    kept = {"image_id", "keypoints", "area"}
    bare = [{k: v for k, v in p.items() if k in kept} for p in annotations["annotations"]]
    assert evaluate(records, {**annotations, "annotations": bare}, COCO)["AP"] >= 0


# CrowdPose: no evaluator of its own on PyPI; held against faster-coco-eval's mode for it, whose
# figures are the original code's to 0.0.


@pytest.mark.data
def test_crowd_indices_are_mostly_the_published_ones():
    """Three quarters to two decimals; no source says how the others were counted."""
    file = SHARED / "crowdpose_mini" / "json" / "crowdpose_val_annotations_only.json"
    annotations = json.loads(file.read_text())
    ours = crowding(annotations)
    published = {image["id"]: image["crowdIndex"] for image in annotations["images"]}
    assert len(ours) == 2000
    assert np.mean([abs(ours[key] - published[key]) < 0.006 for key in ours]) > 0.75
    nulls = [{**image, "crowdIndex": None} for image in annotations["images"]]
    assert evaluator.resolve_evaluation("auto", {**annotations, "images": nulls}, COCO) == "coco"


@pytest.mark.data
def test_crowdpose_figures_of_the_whole_official_validation_split():
    file = SHARED / "crowdpose_mini" / "json" / "crowdpose_val_annotations_only.json"
    annotations = json.loads(file.read_text())
    sigmas = np.array(CROWDPOSE.sigmas)
    rng = np.random.default_rng(0)
    records = []
    for person in annotations["annotations"]:
        if rng.random() < 0.85:
            keypoints = np.array(person["keypoints"], float).reshape(-1, 3)
            keypoints[:, :2] += rng.normal(0, 0.03 * max(person["bbox"][2:]), (14, 2))
            keypoints[:, 2] = 1
            records.append({
                "image_id": person["image_id"], "category_id": 1,
                "keypoints": keypoints.ravel().tolist(), "score": float(rng.random()),
            })  # fmt: skip
    figures = evaluate(records, annotations, CROWDPOSE)
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = FastCOCO(copy.deepcopy(annotations))
        run = FastEval(
            ground_truth, ground_truth.loadRes(copy.deepcopy(records)), "keypoints_crowd",
            kpt_oks_sigmas=sigmas, use_area=False,
        )  # fmt: skip
        run.evaluate()
        run.accumulate()
        run.summarize()
    assert list(figures.values())[:6] == list(run.stats[:6])
    np.testing.assert_allclose(list(figures.values())[6:], run.stats[6:9], atol=5.1e-5)
    # Pinned: what reading the figures twice, or confusing the cuts, would change.
    parts = by_crowding(annotations["images"])
    assert {name: len(ids) for name, ids in parts.items()} == PINNED_SIZES
    assert {k: round(v, 4) for k, v in figures.items()} == PINNED_FIGURES
    assert evaluate(records, annotations, CROWDPOSE) == figures
    perfect = [
        {"image_id": p["image_id"], "category_id": 1, "keypoints": p["keypoints"], "score": 1.0}
        for p in annotations["annotations"]
        if any(p["keypoints"][2::3])
    ]
    assert evaluate(perfect, annotations, CROWDPOSE)["AP"] == pytest.approx(1.0, abs=2e-4)


PINNED_SIZES = {"easy": 411, "medium": 1240, "hard": 349}
PINNED_FIGURES = {
    "AP": 0.5971, "AP50": 0.8061, "AP75": 0.7518, "AR": 0.6864, "AR50": 0.8534, "AR75": 0.8273,
    "AP easy": 0.5871, "AP medium": 0.5930, "AP hard": 0.6220,
}  # fmt: skip


def test_crowdpose_without_detections():
    annotations = SyntheticPeople(2).annotations
    assert set(crowdpose_metrics([], annotations, COCO).values()) == {0.0, -1.0}


MPII = load_skeleton("mpii")


def mpii_person(shift=0.0, visible=16):
    xy = np.stack([np.arange(16) * 10.0 + shift, np.arange(16) * 5.0], axis=1)
    seen = (np.arange(16) < visible)[:, None] * 2.0
    return {
        "image_id": 1, "category_id": 1, "id": 1, "score": 1.0, "head_size": 20.0,
        "keypoints": np.concatenate([xy, seen], 1).ravel().tolist(),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("shift", "half", "tenth"), [(0, 1, 1), (1.9, 1, 1), (9, 1, 0), (11, 0, 0)]
)
def test_pckh_of_a_shifted_person(shift, half, tenth):
    annotations = {"images": [{"id": 1}], "annotations": [mpii_person()]}
    figures = pckh_metrics([mpii_person(shift)], annotations, MPII)
    assert (figures["PCKh"], figures["PCKh@0.1"]) == (half, tenth)
    assert figures["PCKh left_ankle"] == half


def test_pckh_counts_whom_nobody_found_and_leaves_out_what_is_not_annotated():
    annotations = {"images": [{"id": 1}], "annotations": [mpii_person(), mpii_person(2000.0, 8)]}
    figures = pckh_metrics([mpii_person()], annotations, MPII)
    # Pelvis and thorax (6, 7) do not count: 14 joints of one, 6 of the other.
    assert figures["PCKh"] == pytest.approx(14 / 20)
    assert pckh_metrics([], annotations, MPII)["PCKh"] == 0


def test_accuracy_within_a_radius():
    ground_truth = mpii_person(visible=10)
    guess = mpii_person(shift=3.0, visible=12)
    guess["keypoints"][0] += 50
    annotations = {"images": [{"id": 1}], "annotations": [ground_truth]}
    figures = accuracy_metrics([guess], annotations, MPII, radius=5)
    # 9 near, 1 far and 2 that are not annotated, 4 rightly not found.
    assert {k: figures[k] for k in ("TP", "FP", "TN", "FN")} == {"TP": 9, "FP": 3, "TN": 4, "FN": 0}
    assert figures["accuracy"] == pytest.approx(13 / 16)


@pytest.mark.parametrize("seed", range(4))
def test_the_table_of_matches_gives_the_official_precision(seed):
    annotations = SyntheticPeople(15, seed=seed, people=(1, 6), overlap=0.8).annotations
    records = guesses(annotations, seed)
    official = oracle(records, annotations)
    assert match(records, annotations, COCO).precision() == pytest.approx(official["AP"], abs=1e-12)
    for name in ("M", "L"):
        part = match(records, annotations, COCO, AREAS[name]).precision()
        assert part == pytest.approx(official[f"AP{name}"], abs=1e-12)


@pytest.mark.data
def test_the_table_of_real_images_with_crowd_regions():
    file = SHARED / "coco_mini" / "annotations" / "person_keypoints_val_mini.json"
    annotations = json.loads(file.read_text())
    records = guesses(annotations, 5, noise=20.0)
    table = match(records, annotations, COCO)
    official = oracle(records, annotations)["AP"]
    assert table.precision() == pytest.approx(official, abs=1e-12)
    low, high = table.interval(draws=100)
    assert low < official < high
    assert high - low < 0.2
    half = table.images[::2]
    part = {**annotations, "images": [i for i in annotations["images"] if i["id"] in set(half)]}
    part["annotations"] = [a for a in annotations["annotations"] if a["image_id"] in set(half)]
    kept = [r for r in records if r["image_id"] in set(half)]
    assert table.only(half) == pytest.approx(oracle(kept, part)["AP"], abs=1e-12)


def test_images_without_anybody_are_no_trouble_to_the_table():
    annotations = SyntheticPeople(3, people=(1, 2)).annotations
    empty = {**annotations, "images": [*annotations["images"], {"id": 99}]}
    records = guesses(annotations, 0)
    records.append({**records[0], "image_id": 99, "score": 0.99})
    assert match(records, empty, COCO).precision() == pytest.approx(
        oracle(records, empty)["AP"], abs=1e-12
    )
    nobody = {**empty, "annotations": []}
    assert match(records, nobody, COCO).precision() == -1


def test_people_where_nobody_is_annotated_are_wrong_joints():
    annotations = {"images": [{"id": 1}, {"id": 2}], "annotations": [mpii_person()]}
    ghost = {**mpii_person(), "image_id": 2}
    figures = accuracy_metrics([mpii_person(), ghost], annotations, MPII, radius=5)
    assert (figures["TP"], figures["FP"]) == (16, 16)


def test_pieces_filled_up_with_another_person_are_not_shown():
    rng = np.random.default_rng(0)
    whole = Poses.from_annotations(
        np.concatenate([rng.uniform(0, 200, (1, 17, 2)), np.full((1, 17, 1), 2)], axis=2)
    )
    own = whole.xy[0].copy()
    own[15:] += 60  # the two joints that were seen
    visibility = np.full((1, 17), REFINED, np.int8)
    visibility[0, 15:] = SEEN
    piece = replace(whole, xy=own[None], visibility=visibility, person_score=np.array([0.05]))
    apart = replace(piece, xy=piece.xy + 300)
    both = Poses.concatenate([piece, whole, apart])
    kept = without_duplicates(both, COCO, 0.7)
    assert kept.person_score.tolist() == [1, 0.05]
    assert (kept.xy[1] == apart.xy[0]).all()
    # Seen with more joints it is somebody.
    visibility = np.full((1, 17), REFINED, np.int8)
    visibility[0, 11:] = SEEN
    own[11:] += 60
    somebody = replace(piece, xy=own[None], visibility=visibility)
    assert len(without_duplicates(Poses.concatenate([somebody, whole]), COCO, 0.7)) == 2
