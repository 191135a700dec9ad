"""The top-down mode: boxes in, people out, through the same commands as bottom-up."""

import json
import re
import urllib.error

import cv2
import numpy as np
import pytest
import torch
import torchvision

from higherhrnet import geometry, load
from higherhrnet.boxes import Boxes, annotated_box, read_detections
from higherhrnet.cli import main
from higherhrnet.config import parse_config
from higherhrnet.datasets.transforms import warp_sample
from higherhrnet.errors import UserError
from higherhrnet.factory.data import build_dataset
from higherhrnet.inference import pipeline
from higherhrnet.inference.predictor import Scene
from higherhrnet.methods.top_down import detectors
from higherhrnet.methods.top_down.codec import TopDownCodec
from higherhrnet.methods.top_down.instances import PersonInstances
from higherhrnet.methods.top_down.transforms import BoxView
from higherhrnet.outputs import Head
from higherhrnet.poses import Poses
from higherhrnet.research.synthetic.dataset import SyntheticPeople, write_coco
from higherhrnet.skeleton import COCO, MPII
from higherhrnet.structures import KeypointIndices

from .shared import ROOT, SHARED

TEXT = """
MODEL: {NAME: pose_hrnet, WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, IMAGE_SIZE: [64, 64]}
DATASET: {DATASET: synthetic}
SYNTHETIC: {TRAIN_IMAGES: 8, TEST_IMAGES: 3, SIZE: 96}
TRAIN: {END_EPOCH: 1, BATCH_SIZE: 4, PRECISION: fp32, WORKERS: 0}
TEST: {PRECISION: fp32}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a tiny top-down network, trained for an epoch by the command."""
    folder = tmp_path_factory.mktemp("top_down")
    (folder / "tiny.yaml").write_text(TEXT)
    words = ["train", str(folder / "tiny.yaml"), "--output", str(folder / "run"), "--device", "cpu"]
    assert main(words) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def predictor(trained):
    ready = load(trained / "best.safetensors", "cpu", raw=True)
    for part in ready.engine.model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
    ready.__dict__.pop("network", None)
    return ready


def test_the_same_command_trains_and_validates(trained, capsys):
    words = ["valid", str(trained / "config.yaml"), "--weights", str(trained / "best.safetensors")]
    assert main([*words, "--device", "cpu", "--report"]) == 0
    said = capsys.readouterr().out
    assert "boxes ground_truth" in said
    metrics = json.loads((trained / "metrics.json").read_text())
    people = len(build_dataset(parse_config(TEXT), "test").annotations["annotations"])
    assert 0 < metrics["people"] <= people
    assert (trained / "curves.png").exists()


def test_a_codec_inverts_itself():
    """encode → decode on ideal maps is right to the bias that each decoding has."""
    sample = SyntheticPeople(1, seed=3, people=(1, 1), occlusion=0, height=(0.8, 0.8)).sample(0)
    seen = warp_sample(sample, BoxView((256, 192))(sample, np.random.default_rng(0)).affine,
                  (256, 192), COCO)  # fmt: skip
    inside = (seen.poses.visibility[0] > 0) & (
        (seen.poses.xy[0] > 12) & (seen.poses.xy[0] < (180, 244))
    ).all(axis=1)
    apart = {}
    for decoding in ("quarter", "parabola", "dark"):
        codec = TopDownCodec(COCO, (Head(4),), decoding=decoding)
        keypoints = codec.index_keypoints(seen.poses, seen.valid)
        targets = codec.encode(
            KeypointIndices((keypoints.indices[0][None],), keypoints.valid[None])
        )
        xy, heat = codec.points(targets.heatmaps[0].numpy())
        assert (heat[0][inside] == 1).all()
        indices = np.floor(seen.poses.xy[0] / 4 + 0.5)
        apart[decoding] = np.abs(xy[0] - indices)[inside].max()
    # The published encoding rounds to whole cells: nothing is left to find between them.
    assert apart["quarter"] == 0
    assert apart["parabola"] < 1e-5
    assert apart["dark"] < 1e-5


@pytest.mark.parametrize(
    ("decoding", "bound"), [("quarter", 0.3), ("parabola", 1e-3), ("dark", 0.02)]
)
def test_points_between_cells(decoding, bound):
    y, x = np.mgrid[:32, :24]
    for center in ((10.3, 14.6), (7.75, 20.1)):
        gaussian = np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / 8).astype(np.float32)
        codec = TopDownCodec(COCO, (Head(4),), decoding=decoding)
        xy, _ = codec.points(np.tile(gaussian, (1, 17, 1, 1)))
        assert np.abs(xy[0, 0] - center).max() < bound


def test_every_person_is_a_sample():
    images = SyntheticPeople(5, people=(2, 4))
    persons = PersonInstances(images)
    assert len(persons) == sum(len(images.boxes(i)) for i in range(5))
    for index in range(len(persons)):
        sample = persons.sample(index)
        assert len(sample.poses) == len(sample.boxes) == 1
        np.testing.assert_array_equal(sample.boxes, persons.boxes(index))


def test_boxes_of_writers_of_all_kinds():
    size = (100, 200)
    assert annotated_box({"bbox": [1, 2, 3, 4], "keypoints": []}, size) == [1, 2, 2, 3]
    # Cut at the edges, as the published code does, before the crop is made.
    assert annotated_box({"bbox": [-5, 90, 50, 30], "keypoints": []}, size) == [0, 90, 49, 9]
    for nobody in ({"iscrowd": 1}, {"area": 0}):
        assert annotated_box({"bbox": [1, 2, 3, 4], **nobody}, size) == [0, 0, 0, 0]
    assert annotated_box({"bbox": [1, 2, 3, 4], "area": None}, size) == [1, 2, 2, 3]
    person = {"center": [100.0, 80.0], "scale": 0.5, "keypoints": [], "bbox": [0, 0, 1, 1]}
    assert annotated_box(person, size) == [50.0, 37.5, 100.0, 100.0]
    assert annotated_box({**person, "area": 0.0}, size) == [50.0, 37.5, 100.0, 100.0]  # one joint
    gaps = {**person, "center": None, "scale": None, "bbox": [1, 2, 3, 4]}
    assert annotated_box(gaps, size) == [1, 2, 2, 3]
    # What published MPII training makes of it: 15 px (times the scale) lower, 1.25 times larger.
    center, extent = geometry.box_crop(tuple(annotated_box(person, size)), (256, 256))
    assert center == (100.0, 87.5)
    assert extent == (125.0, 125.0)
    keypoints = [10, 20, 2, 30, 60, 2] + [0, 0, 0] * 15
    assert annotated_box({"keypoints": keypoints}, size) == [6.0, 16.0, 28.0, 48.0]


def test_jitter_moves_every_edge_a_little():
    boxes = Boxes.of([[10, 20, 100, 200]] * 50)
    warp_annotations = boxes.jitter(0.05, np.random.default_rng(0))
    apart = np.abs(warp_annotations.xywh[:, :2] - boxes.xywh[:, :2])
    assert (apart <= [10.0, 20.0]).all()
    assert (apart.mean(axis=0) > [2, 4]).all()
    assert (warp_annotations.xywh[:, 2:] > 50).all()


@pytest.mark.parametrize(("batch", "crops"), [(1, 64), (4, 3), (3, 1)])
def test_neither_batch_nor_chunks_change_the_people(predictor, batch, crops):
    people = SyntheticPeople(6, people=(1, 4), size=96)
    scenes = [Scene(s.image, Boxes.of(s.boxes)) for s in map(people.sample, range(6))]
    scenes[2] = Scene(scenes[2].image, Boxes.of([]))  # nobody there
    predictor.batch, predictor.crops = batch, crops
    for number, (poses, maps) in pipeline.run(predictor, range(6), scenes.__getitem__):
        predictor.crops = 64
        alone = predictor(*scenes[number])
        predictor.crops = crops
        assert len(poses) == len(alone)
        np.testing.assert_allclose(poses.person_score, alone.person_score, atol=1e-5)
        assert maps.dense_heatmaps().shape == (17, 49, 49)


def test_a_image_that_the_detector_refuses_does_not_stop_the_others(predictor, monkeypatch):
    def detector(images):
        if any(image.shape[0] < 10 for image in images):
            raise UserError("too thin")
        return [Boxes.of([[5, 5, 40, 60]]) for _ in images]

    monkeypatch.setattr(predictor, "detector", detector)
    monkeypatch.setattr(predictor, "batch", 4)
    images = [np.zeros((3 if n % 4 == 1 else 90, 80, 3), np.uint8) for n in range(10)]
    found = list(pipeline.run(predictor, range(10), lambda number: Scene(images[number])))
    assert [number for number, _ in found] == list(range(10))
    refused = [number for number, result in found if isinstance(result, UserError)]
    assert refused == [1, 5, 9]


def test_a_image_without_boxes_is_refused(predictor):
    with pytest.raises(UserError, match=r"needs boxes.*TEST\.BBOX_SOURCE"):
        predictor(np.zeros((60, 80, 3), np.uint8))


def test_boxes_are_plain_numbers_from_python(predictor):
    flipped = np.zeros((90, 80, 3), np.uint8)[:, ::-1]  # torch takes no such view
    rows = [[5, 5, 40, 60], [20, 10, 30, 50]]
    for given in (rows, np.array(rows), Boxes.of(rows)):
        assert len(predictor(flipped, given)) <= 2
    beside = [[-50, 5, 40, 60], [5, 95, 40, 60], [80, 0, 9, 9]]
    assert len(predictor(flipped, beside)) == 0
    assert len(predictor(flipped, [*beside, [-30, 5, 40, 60]])) == 1
    many = list(pipeline.predict_many(predictor, [flipped, flipped], [rows, beside]))
    assert [len(poses) for poses in many] == [len(predictor(flipped, rows)), 0]
    for given, how_many in (([rows], "fewer"), ([rows] * 3, "more")):
        stream = pipeline.predict_many(predictor, [flipped, flipped], given)
        assert len(next(stream)) == len(predictor(flipped, rows))
        with pytest.raises(UserError, match=f"boxes for each image, and was given {how_many}"):
            list(stream)
    with pytest.raises(UserError, match=r"must be \(N, 4\).*not \[4\]"):
        predictor(flipped, rows[0])
    with pytest.raises(UserError, match=r"2 boxes came with \[1\] scores"):
        Boxes.of(rows, [0.5])


def test_repetitions_are_dropped_or_lowered(predictor):
    sample = SyntheticPeople(1, people=(1, 1), size=96).sample(0)
    twice = Boxes.of(np.repeat(sample.boxes, 2, axis=0), [0.9, 0.8])
    assert len(predictor(sample.image, twice)) == 1
    predictor.soft_nms = True
    assert len(predictor(sample.image, twice)) == 2
    predictor.soft_nms, predictor.oks_threshold = False, 1.0
    assert len(predictor(sample.image, twice)) == 2
    predictor.oks_threshold = 0.9


def test_boxes_from_bottom_up_weights(trained, tmp_path):
    """PoseDataset in, drawings out, without any network but our own."""
    write_coco(tmp_path, SyntheticPeople(2, size=128))
    words = [
        "predict",
        str(tmp_path / "images" / "synthetic"),
        "--weights",
        str(trained / "best.safetensors"),
    ]
    words += ["--boxes", "higherhrnet_w18_mini", "--raw", "--device", "cpu"]
    assert main([*words, "--output", str(tmp_path / "out"), "--show", "poses", "heatmaps"]) == 0
    assert len(list((tmp_path / "out").glob("*_poses.jpg"))) == 2
    assert len(list((tmp_path / "out").glob("*_heatmaps.jpg"))) == 2


def test_boxes_from_a_list(trained, tmp_path):
    people = SyntheticPeople(2, size=128)
    write_coco(tmp_path, people)
    listed = [
        {"image_id": 1, "category_id": 1, "bbox": people.boxes(1)[0].tolist(), "score": 0.8},
        {"image_id": 1, "category_id": 17, "bbox": [0, 0, 9, 9], "score": 0.9},
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(listed))
    words = [
        "predict",
        str(tmp_path / "images" / "synthetic"),
        "--weights",
        str(trained / "best.safetensors"),
    ]
    words += ["--boxes", str(tmp_path / "boxes.json"), "--raw", "--device", "cpu"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(found["annotations"]) == 1


def test_detectors_of_torchvision(monkeypatch):
    """Every name builds, and answers become boxes of people alone."""
    detector = detectors.build_torchvision_detector(
        "fasterrcnn_mobilenet_v3_large_320_fpn", torch.device("cpu"), pretrained=False
    )
    images = [np.zeros((60, 80, 3), np.uint8), np.zeros((40, 50, 3), np.uint8)]
    assert len(detector(images)) == 2
    answer = {
        "boxes": torch.tensor([[1.0, 2, 5, 10], [0, 0, 3, 3]]),
        "labels": torch.tensor([1, 17]),
        "scores": torch.tensor([0.9, 0.8]),
    }
    detector.network = lambda images: [answer] * len(images)
    np.testing.assert_array_equal(detector(images)[1].xywh, [[1, 2, 4, 8]])


def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch):
    def offline(name, **_):
        raise urllib.error.URLError("no network")

    name = "retinanet_resnet50_fpn"
    monkeypatch.setattr(torchvision.models, "get_model", offline)
    with pytest.raises(UserError, match=rf"weights of detector '{name}' .* put the file there"):
        detectors.build_torchvision_detector(name, torch.device("cpu"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["TEST.BBOX_SOURCE", "yolo"],
            "'TEST.BBOX_SOURCE' must be ground_truth, FILE.json, weights of a detector",
        ),
        (["TEST.BBOX_SOURCE", "nowhere.json"], "box file 'nowhere.json' does not exist"),
        (
            ["MODEL.IMAGE_SIZE", "[100, 64]"],
            "'MODEL.IMAGE_SIZE' must be a multiple of 32, not 100",
        ),
    ],
)
def test_wrong_settings_are_one_sentence(trained, words, sentence, capsys):
    whole = [
        "valid",
        str(trained / "config.yaml"),
        "--weights",
        str(trained / "best.safetensors"),
    ]
    assert main([*whole, *words, "--device", "cpu"]) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_modes_and_weights_that_contradict_each_other(trained, tmp_path, capsys):
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.zeros((64, 64, 3), np.uint8))
    words = ["predict", str(image), "--device", "cpu", "--output", str(tmp_path)]
    assert main([*words, "--mode", "top-down", "--weights", "higherhrnet_w18_mini"]) == 2
    assert "are bottom-up weights, which --mode top-down contradicts" in capsys.readouterr().err
    assert main([*words, "--boxes", "retinanet_resnet50_fpn"]) == 2
    assert "--boxes serves top-down weights" in capsys.readouterr().err


def test_upper_bodies():
    assert sum(COCO.upper) == 11
    assert [j for j, up in zip(MPII.joints, MPII.upper, strict=True) if not up] == [
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis",
    ]  # fmt: skip


@pytest.mark.data
def test_detections_of_a_real_detector():
    folder = SHARED / "coco_mini" / "person_detection_results"
    found = read_detections(folder / "val_mini_yolox_tiny.json")
    assert len(found) > 150
    assert all(len(boxes.usable(0.1)) <= len(boxes) for boxes in found.values())


def test_poses_make_boxes():
    keypoints = np.zeros((1, 17, 3))
    keypoints[0, :2] = [[10, 20, 2], [30, 60, 2]]
    np.testing.assert_allclose(
        Boxes.around(Poses.from_annotations(keypoints)).xywh, [[6.0, 16.0, 28.0, 48.0]]
    )


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "file", "skeleton", "figure"),
    [
        ("mpii", "test_mpii.json", "mpii", "PCKh"),
        ("atrw", "test_atrw.json", str(ROOT / "configs" / "skeletons" / "atrw.yaml"), "AP"),
        ("crowdpose", "test_crowdpose.json", "crowdpose", "AP easy"),
        ("ochuman", "test_ochuman.json", "coco", "AP75"),
    ],
)
def test_sets_of_all_kinds_train_and_validate(tmp_path, folder, file, skeleton, figure, capsys):
    text = TEXT.replace(
        "DATASET: synthetic", f"ROOT: {SHARED / 'samples' / folder}, SKELETON: {skeleton}"
    )
    (tmp_path / "config.yaml").write_text(text)
    words = ["train", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "run")]
    assert main([*words, "--device", "cpu", "DATASET.TRAIN", file, "DATASET.TEST", file]) == 0
    said = capsys.readouterr().out
    score = "PCKh" if folder == "mpii" else "AP"
    assert f"epoch 1: {score} " in said
    assert f"best {score} " in said
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert figure in json.loads(log.splitlines()[-1])
