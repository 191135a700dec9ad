"""COCO figures against pycocotools, to the last bit."""

import contextlib
import copy
import io

import numpy as np
import pytest
from faster_coco_eval import COCO as FastCOCO
from faster_coco_eval import COCOeval_faster as FastEval
from pycocotools.coco import COCO as OracleCOCO
from pycocotools.cocoeval import COCOeval as OracleEval

from higherhrnet.datasets.toy import DrawnPeople
from higherhrnet.evaluation.results import NAMES, evaluate
from higherhrnet.skeleton import COCO

from .shared import SHARED


def oracle(records, annotations):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = OracleCOCO()
        truth.dataset = {"info": {}, **copy.deepcopy(annotations)}
        truth.createIndex()
        run = OracleEval(truth, truth.loadRes(copy.deepcopy(records)), "keypoints")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return dict(zip(NAMES, run.stats, strict=True))


def second_opinion(records, annotations):
    """An independent implementation, in C++."""
    truth = FastCOCO()
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = {"info": {}, **copy.deepcopy(annotations)}
        truth.createIndex()
        found = truth.loadRes(copy.deepcopy(records))
        run = FastEval(truth, found, "keypoints", print_function=lambda *_: None)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return dict(zip(NAMES, run.stats[:10], strict=True))


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


@pytest.mark.parametrize("seed", range(3))
def test_drawn_people(seed):
    annotations = DrawnPeople(15, seed=seed, people=(1, 6), overlap=0.8).annotations
    records = guesses(annotations, seed)
    figures = evaluate(records, annotations, COCO)
    assert figures == oracle(records, annotations)
    assert figures == pytest.approx(second_opinion(records, annotations), abs=1e-12)


@pytest.mark.data
def test_real_annotations_with_crowd_regions():
    import json

    file = SHARED / "coco_mini" / "annotations" / "person_keypoints_val_mini.json"
    annotations = json.loads(file.read_text())
    for seed in range(3):
        records = guesses(annotations, seed, noise=20.0)
        assert evaluate(records, annotations, COCO) == oracle(records, annotations)


def test_no_detections():
    annotations = DrawnPeople(2).annotations
    assert set(evaluate([], annotations, COCO).values()) == {0.0}
    nobody = {**annotations, "annotations": []}
    assert set(evaluate([], nobody, COCO).values()) == {-1.0}


def test_annotations_of_other_writers_score_the_same():
    """Ids from 0 or as text, another category, and fields left out change no figure."""
    annotations = DrawnPeople(4, people=(2, 3)).annotations
    records = guesses(annotations, 0)
    expected = evaluate(records, annotations, COCO)
    for change in ({"id": 0}, {"id": "a"}, {"category_id": 7}, {"iscrowd": None}):
        people = [{**person, **change} for person in annotations["annotations"]]
        assert evaluate(records, {**annotations, "annotations": people}, COCO) == expected
    kept = {"image_id", "keypoints", "area"}
    bare = [{k: v for k, v in p.items() if k in kept} for p in annotations["annotations"]]
    assert evaluate(records, {**annotations, "annotations": bare}, COCO)["AP"] >= 0
