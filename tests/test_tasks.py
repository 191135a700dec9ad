"""Segmentation (HRNetV2), detection (HRNetV2p), and heads beside the keypoints'."""

import contextlib
import io
import json
import re
from fractions import Fraction
from importlib.resources import files
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from higherhrnet import geometry
from higherhrnet.cli import main
from higherhrnet.cli import tasks as cli_tasks
from higherhrnet.config import parse_config, to_yaml
from higherhrnet.datasets.boxes import CocoBoxes, move_boxes
from higherhrnet.datasets.crops import RandomCrop
from higherhrnet.datasets.label_maps import (
    CocoMasks,
    LabelFolder,
    open_cityscapes,
    open_voc,
)
from higherhrnet.datasets.transforms import clip_boxes, warp_silhouettes
from higherhrnet.errors import UserError
from higherhrnet.evaluation.box_ap import BOX_METRICS, box_metrics
from higherhrnet.evaluation.segmentation import count_pixels, segmentation_metrics
from higherhrnet.factory.checkpoints import config_of, kind_of, open_checkpoint, open_network
from higherhrnet.factory.inference import load
from higherhrnet.factory.task_training import train_task
from higherhrnet.factory.tasks import load_task, open_test_set
from higherhrnet.inference.engines.exported import open_export
from higherhrnet.inference.engines.torch_engine import TorchEngine
from higherhrnet.inference.video import VideoFile
from higherhrnet.inference.video_writer import VideoWriter
from higherhrnet.methods.bottom_up.extra_heads import mask_support, mask_to_image
from higherhrnet.models.box_codec import _anchors, box_losses, decode_boxes
from higherhrnet.models.detector import DetectionTargets, Detector, DetectorInputs
from higherhrnet.models.higher_hrnet import HigherHRNet
from higherhrnet.models.normalization import normalize
from higherhrnet.models.segmentation import SegmentationHRNet
from higherhrnet.models.state_dict import find_network
from higherhrnet.models.weights import load_backbone, read_checkpoint, write_native
from higherhrnet.poses import SEEN, Poses
from higherhrnet.research.synthetic.dataset import SyntheticPeople, write_coco
from higherhrnet.research.synthetic.figures import PARTS
from higherhrnet.skeleton import COCO
from higherhrnet.structures import NOT_COUNTED, Silhouettes
from higherhrnet.tasks.base import get_task
from higherhrnet.tasks.detection.predictor import FoundBoxes, merge_views, mirror
from higherhrnet.tasks.segmentation import predictor as segmentation_predictor
from higherhrnet.tasks.segmentation.networks import TorchNetwork
from higherhrnet.tasks.segmentation.predictor import SegmentationPredictor, draw_labels
from higherhrnet.tasks.segmentation.task import mean_cross_entropy
from higherhrnet.training.optim import build_scheduler

from .shared import SHARED, needs_shared

SMALL = {"num_modules": (1, 1, 1), "num_blocks": 1}
SEGMENTATION = """
MODEL: {NAME: seg_hrnet, WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1}
DATASET: {DATASET: synthetic, CROP_SIZE: [64, 64], SYNTHETIC_IMAGES: 24, SYNTHETIC_SIZE: 64}
TRAIN: {END_EPOCH: 1, BATCH_SIZE: 8, WORKERS: 0, PRECISION: fp32, VALIDATE_EVERY: 1, LOGGERS: []}
TEST: {PRECISION: fp32}
"""
DETECTION = """
MODEL: {NAME: det_hrnet, WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, BOX_HEAD: fcos,
        PYRAMID_CHANNELS: 32, PYRAMID_LEVELS: 3, PYRAMID_STRIDE: 8, HEAD_CONVS: 1}
DATASET: {TRAIN: synthetic, TEST: synthetic, INPUT_SIZE: 64, MAX_SIZE: 128, CROP_SIZE: [64, 64]}
TRAIN: {END_EPOCH: 1, BATCH_SIZE: 4, WORKERS: 0, OPTIMIZER: adam, LR: 0.001, PRECISION: fp32,
        LOGGERS: []}
TEST: {SCORE_THRE: 0.0, PRECISION: fp32}
"""


def run_cli(*words, status=0):
    """What a command prints, on both streams."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        assert main([str(word) for word in words]) == status, said.getvalue()
    return said.getvalue()


# Segmentation


def test_segmentation_networks_have_the_official_names_and_sizes():
    model = SegmentationHRNet(19, 48)
    head = {n: tuple(t.shape) for n, t in model.state_dict().items() if n.startswith("last_layer")}
    normed = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert set(head) == {
        "last_layer.0.weight", "last_layer.0.bias", "last_layer.3.weight", "last_layer.3.bias",
        *(f"last_layer.1.{name}" for name in normed),
    }  # fmt: skip
    assert head["last_layer.0.weight"] == (720, 720, 1, 1)
    assert head["last_layer.3.weight"] == (19, 720, 1, 1)
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e6, 1) == 65.9  # published: 65.8 or 65.9 M


@needs_shared
def test_the_trunk_of_others_has_the_names_of_ours():
    trunk = read_checkpoint(SHARED / "weights" / "hrnet_w18_trunk.safetensors").state
    for model in (SegmentationHRNet(2, 18), Detector(1, 18, "fcos", 32, 2, 8, 0)):
        own = model.state_dict()
        extra = {n for n in own if n.startswith(("last_layer.", "neck.", "detector."))}
        counters = {n for n in own if n.endswith("num_batches_tracked")}
        assert set(own) - extra - counters == {
            n for n in trunk if not n.endswith("num_batches_tracked")
        }


def test_published_segmentation_layouts_are_read(tmp_path):
    model = SegmentationHRNet(3, 4, align_corners=False, **SMALL)  # as mmsegmentation's
    state = model.state_dict()
    official = {f"model.{n}": t for n, t in state.items()} | {
        "loss.criterion.weight": torch.ones(3)
    }
    assert find_network(official).state.keys() == state.keys()
    names = {
        "last_layer.0.": "decode_head.convs.0.conv.",
        "last_layer.1.": "decode_head.convs.0.bn.",
        "last_layer.3.": "decode_head.conv_seg.",
    }
    mmseg = {}
    for name, tensor in state.items():
        prefix = next((p for p in names if name.startswith(p)), None)
        if name != "last_layer.0.bias":
            inner = names[prefix] + name.removeprefix(prefix) if prefix else f"backbone.{name}"
            mmseg[inner] = tensor
    torch.save({"state_dict": mmseg, "meta": {}}, tmp_path / "mmseg.pth")
    file = read_checkpoint(tmp_path / "mmseg.pth")
    assert file.state.keys() == state.keys()
    loaded = load_task(file, torch.device("cpu"))
    assert loaded.config.MODEL.WIDTH == 4
    assert loaded.classes == ("class 0", "class 1", "class 2")
    with torch.no_grad():
        model.last_layer[0].bias.zero_()
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(loaded.model(x), model.eval()(x))


def test_a_pose_network_starts_one_with_all_resolutions(tmp_path):
    pose = HigherHRNet(17, 4, **SMALL)
    file = tmp_path / "pose.safetensors"
    write_native(file, pose.state_dict(), "MODEL: {}", COCO)
    model = SegmentationHRNet(2, 4, **SMALL)
    report = load_backbone(model, read_checkpoint(file))
    assert all(n.startswith(("last_layer.", "stage4.0.fuse_layers.")) for n in report.missing)
    assert torch.equal(model.conv1.weight, pose.conv1.weight)
    stripped = {n: t for n, t in pose.state_dict().items() if not n.startswith("stage3")}
    write_native(file, stripped, "MODEL: {}", COCO)
    with pytest.raises(UserError, match="does not hold the backbone"):
        load_backbone(model, read_checkpoint(file))


def test_segmentation_metrics_equal_an_independent_computation():
    rng = np.random.default_rng(0)
    classes, total = 4, np.zeros((4, 4), np.int64)
    truth, found = [], []
    for _ in range(5):
        labels = rng.choice([0, 1, 2, 255], (13, 17)).astype(np.uint8)
        guess = rng.integers(0, 3, (13, 17)).astype(np.uint8)
        total += count_pixels(labels, guess, classes, 255)
        truth.append(labels.ravel())
        found.append(guess.ravel())
    a, b = np.concatenate(truth), np.concatenate(found)
    a, b = a[a != 255], b[a != 255]
    ious, accuracies = [], []
    for c in range(3):  # class 3 is nowhere
        ious.append(np.sum((a == c) & (b == c)) / np.sum((a == c) | (b == c)))
        accuracies.append(np.mean(b[a == c] == c))
    metrics = segmentation_metrics(total, ("a", "b", "c", "d"))
    assert metrics["mIoU"] == pytest.approx(np.mean(ious), abs=1e-12)
    assert metrics["pixel accuracy"] == pytest.approx(np.mean(a == b), abs=1e-12)
    assert metrics["mean accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-12)
    assert metrics["IoU b"] == pytest.approx(ious[1], abs=1e-12)
    assert metrics["IoU d"] == -1
    nothing = segmentation_metrics(np.zeros((2, 2), np.int64), ("a", "b"))
    assert nothing["mIoU"] == nothing["pixel accuracy"] == nothing["mean accuracy"] == -1


def test_cross_entropy_is_the_mean_over_pixels_that_count():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 5, 7), torch.randint(0, 3, (2, 5, 7))
    labels[0, :2] = 255
    weights = torch.tensor([0.5, 1.0, 2.0])
    for factors in (None, weights):
        expected = F.cross_entropy(logits, labels, factors, ignore_index=255)
        torch.testing.assert_close(mean_cross_entropy(logits, labels, factors), expected)
    labels[:] = 255
    assert mean_cross_entropy(logits, labels, None) == 0  # torch's is NaN


def test_the_poly_schedule_is_that_of_the_paper():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = build_scheduler(optimizer, "poly", 10, 5)
    rates = []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.01 * (1 - n / 50) ** 0.9 for n in range(50)])


def test_scales_and_flip_are_averaged_as_probabilities(monkeypatch):
    torch.manual_seed(1)
    model = SegmentationHRNet(3, 4, **SMALL).eval()
    image = np.random.default_rng(2).integers(0, 256, (64, 96, 3), np.uint8)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    total = torch.zeros(3, 64, 96)
    for scale in (1.0, 2.0):
        size = (int(96 * scale), int(64 * scale))
        pixels = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        for flipped in (False, True):
            seen = pixels[:, ::-1].copy() if flipped else pixels
            x = (torch.from_numpy(seen).permute(2, 0, 1) / 255 - mean) / std
            with torch.no_grad():
                logits = model(x[None])
            whole = F.interpolate(logits, size[::-1], mode="bilinear", align_corners=True)
            whole = whole.flip(3) if flipped else whole
            if scale != 1:
                whole = F.interpolate(whole, (64, 96), mode="bilinear", align_corners=False)
            total += whole[0].softmax(0)
    network = TorchNetwork(model, torch.device("cpu"), "fp32")
    predictor = SegmentationPredictor(network, (1.0, 2.0), flip=True)
    found = predictor.probabilities(image)
    np.testing.assert_allclose(found, (total / 4).numpy(), atol=1e-5)
    assert predictor(image).shape == (64, 96)
    odd = SegmentationPredictor(network)
    assert odd(image[:51, :77]).shape == (51, 77)
    monkeypatch.setattr(segmentation_predictor, "_NUMBERS", 3 * 96 * 7)  # seven rows at a time
    assert np.array_equal(predictor(image), found.argmax(axis=0))


def test_the_first_class_is_drawn_unless_it_is_the_background():
    image = np.full((8, 8, 3), 90, np.uint8)
    labels = np.zeros((8, 8), np.uint8)
    assert np.array_equal(draw_labels(image, labels), image)
    assert (draw_labels(image, labels, has_background=False) != image).any(axis=2).all()


# Data


def test_views_move_labels_and_boxes_with_the_image():
    image = np.zeros((60, 90, 3), np.uint8)
    image[20:40, 30:70] = 255
    labels = (image[..., 0] > 0).astype(np.uint8)
    boxes = np.array([[30.0, 20.0, 70.0, 40.0]])
    crop = RandomCrop((64, 64), (0.5, 2.0))
    seen = 0
    for number in range(40):
        view = crop((60, 90), np.random.default_rng(number))
        pixels, moved = view.warp(image), view.warp_labels(labels, 255)
        white = pixels[..., 0] > 200
        inside = moved != 255
        assert (white == (moved == 1))[inside].mean() > 0.93  # edges are blended
        cut, kept = clip_boxes(move_boxes(boxes, view.affine), view.shape)
        if not kept[0]:
            continue
        seen += 1
        rows, columns = np.nonzero(white & inside)
        extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(np.array(extent) - cut[0]).max() < 1.6
    assert seen > 20


def coco_file(folder, annotations, categories=({"id": 1, "name": "person"},)):
    (folder / "images").mkdir()
    cv2.imwrite(str(folder / "images" / "a.png"), np.full((40, 60, 3), 90, np.uint8))
    images = [{"id": 5, "file_name": "a.png", "height": 40, "width": 60}]
    file = folder / "a.json"
    content = {"images": images, "annotations": annotations, "categories": list(categories)}
    file.write_text(json.dumps(content))
    return file, folder / "images"


def square(x, y, side):
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def test_masks_of_outlines(tmp_path):
    person = {"image_id": 5, "category_id": 1, "iscrowd": 0}
    annotations = [
        person | {"id": 1, "bbox": [2, 2, 20, 20], "segmentation": square(2, 2, 20)},
        person | {"id": 2, "bbox": [5, 5, 6, 6], "segmentation": square(5, 5, 6), "category_id": 9},
        person | {"id": 3, "bbox": [30, 0, 10, 10], "segmentation": []},
        person
        | {"id": 4, "bbox": [40, 20, 10, 10], "iscrowd": 1, "segmentation": square(40, 20, 10)},
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 9, "name": "ball"}]
    files = coco_file(tmp_path, annotations, categories)
    sample = CocoMasks(*files).sample(0)
    assert CocoMasks(*files).classes == ("background", "person", "ball")
    labels = sample.labels
    assert labels[20, 15] == 1
    assert labels[8, 8] == 2
    assert labels[5, 35] == 255
    assert labels[25, 45] == 255
    assert labels[39, 59] == 0
    assert CocoMasks(*files, classes=["person"]).sample(0).labels[8, 8] == 1
    with pytest.raises(UserError, match="no category 'dog'"):
        CocoMasks(*files, classes=["dog"])


@pytest.mark.parametrize("corner", [float("nan"), 1e9, -1e12])
def test_a_polygon_that_is_no_place_gets_a_sentence(tmp_path, corner):
    """pycocotools ends the process on them."""
    ring = [2, 2, 20, 2, 20, corner]
    person = {"id": 1, "image_id": 5, "category_id": 1, "bbox": [2, 2, 20, 20]}
    joints = {"keypoints": [5, 5, 2], "num_keypoints": 1, "segmentation": [ring]}
    files = coco_file(tmp_path, [person | joints])
    with pytest.raises(UserError, match=r"image 5: .* no place in an image"):
        CocoMasks(*files).sample(0)


def test_ids_are_matched_and_what_is_wrong_is_told(tmp_path, caplog):
    person = {"id": 1, "image_id": "5", "category_id": 1, "bbox": [2, 2, 20, 20]}
    person["segmentation"] = square(2, 2, 20)
    annotations = [person, person | {"id": 2, "image_id": 77}]
    files = coco_file(tmp_path, annotations)
    assert CocoMasks(*files).sample(0).labels[10, 10] == 1
    assert len(CocoBoxes(*files).sample(0).boxes) == 1
    assert "annotation of images that are not listed: 2" in caplog.text
    content = json.loads(files[0].read_text())
    content["images"].append({"id": 6, "file_name": "none.png"})
    files[0].write_text(json.dumps(content))
    CocoBoxes(*files)
    assert "image without a file: none.png" in caplog.text
    content["images"][1]["id"] = 5
    files[0].write_text(json.dumps(content))
    for dataset in (CocoBoxes, CocoMasks):
        with pytest.raises(UserError, match="lists image id 5 twice"):
            dataset(*files)


def test_images_without_any_outline_teach_no_masks(tmp_path):
    person = {"id": 1, "image_id": 5, "category_id": 1, "bbox": [2, 2, 20, 20]}
    files = coco_file(tmp_path, [person])
    with pytest.raises(UserError, match="no outlines of"):
        CocoMasks(*files)


def test_boxes_of_classes(tmp_path):
    box = {"image_id": 5, "iscrowd": 0}
    annotations = [
        box | {"id": 1, "category_id": 1, "bbox": [2, 2, 20, 30]},
        box | {"id": 2, "category_id": 9, "bbox": [5, 5, 6, 6]},
        box | {"id": 3, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 9, "name": "ball"}, {"id": 4, "name": "cat"}]
    files = coco_file(tmp_path, annotations, categories)
    dataset = CocoBoxes(*files)
    assert dataset.classes == ("person", "ball")
    sample = dataset.sample(0)
    assert sample.boxes.tolist() == [[2, 2, 22, 32], [5, 5, 11, 11]]
    assert sample.labels.tolist() == [0, 1]
    assert len(dataset.annotations["annotations"]) == 3  # the crowd counts in evaluation
    turned = CocoBoxes(*files, classes=["ball", "person"])
    assert turned.sample(0).labels.tolist() == [1, 0]
    assert turned.categories == [9, 1]


def test_label_files_of_gray_and_palette_pngs(tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    labels[0, 0] = 255
    for name in ("gray", "palette"):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.jpg"), np.zeros((3, 4, 3), np.uint8))
        stored = Image.fromarray(labels, mode="P" if name == "palette" else "L")
        if name == "palette":
            stored.putpalette([value % 256 for value in range(0, 768 * 7, 7)])
        stored.save(tmp_path / "labels" / f"{name}.png")
    folder = LabelFolder(tmp_path / "images", tmp_path / "labels", ("a", "b", "c"), 255)
    for index in range(2):
        assert np.array_equal(folder.sample(index).labels, labels)
    two = LabelFolder(tmp_path / "images", tmp_path / "labels", ("a", "b"), 255)
    with pytest.raises(UserError, match="holds class 2, but there are 2 classes"):
        two.sample(0)
    cv2.imwrite(str(tmp_path / "images" / "more.jpg"), np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(UserError, match=r"more.jpg' has no label map"):
        LabelFolder(tmp_path / "images", tmp_path / "labels", ("a", "b", "c"), 255)
    cv2.imwrite(str(tmp_path / "labels" / "more.png"), np.zeros((3, 4, 3), np.uint8))
    colors = LabelFolder(tmp_path / "images", tmp_path / "labels", ("a", "b", "c"), 255)
    with pytest.raises(UserError, match="is in colors"):
        colors.sample(1)


def test_cityscapes_and_voc_are_read_by_torchvision(tmp_path):
    from PIL import Image

    city = tmp_path / "city"
    for kind in ("leftImg8bit", "gtFine"):
        (city / kind / "val" / "x").mkdir(parents=True)
    raw = np.array([[0, 7, 8], [33, 24, 255]], np.uint8)
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(
        city / "leftImg8bit" / "val" / "x" / "x_0_0_leftImg8bit.png"
    )
    Image.fromarray(raw).save(city / "gtFine" / "val" / "x" / "x_0_0_gtFine_labelIds.png")
    dataset = open_cityscapes(city, "val")
    assert len(dataset.classes) == 19
    assert dataset.classes[0] == "road"
    # unlabeled, road, sidewalk; bicycle, person, and no label at all
    assert dataset.sample(0).labels.tolist() == [[255, 0, 1], [18, 11, 255]]
    with pytest.raises(UserError, match="Cityscapes cannot be read"):
        open_cityscapes(tmp_path, "val")

    root = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(root / "JPEGImages" / "a.jpg")
    stored = Image.fromarray(np.array([[0, 15], [20, 255]], np.uint8), mode="P")
    stored.putpalette([value % 256 for value in range(0, 768 * 7, 7)])
    stored.save(root / "SegmentationClass" / "a.png")
    dataset = open_voc(tmp_path / "voc", "train")
    assert dataset.classes[15] == "person"
    assert dataset.sample(0).labels.tolist() == [[0, 15], [20, 255]]
    with pytest.raises(UserError, match="PASCAL VOC cannot be read"):
        open_voc(tmp_path, "train")


def test_drawn_people_have_exact_masks():
    part_of = {0: "head", 7: "arm", 9: "lower arm", 13: "leg", 15: "lower leg"}
    people = SyntheticPeople(6, seed=3, size=160)
    read = 0
    for index in range(len(people)):
        drawing = people.draw(index)
        assert np.array_equal(drawing.owner > 0, drawing.parts > 0)
        for number, area in enumerate(drawing.areas, 1):
            assert (drawing.owner == number).sum() == area
        for person in drawing.keypoints:
            for joint, part in part_of.items():
                x, y, visible = person[joint]
                if visible == SEEN:
                    read += 1
                    label = drawing.parts[round(y), round(x)]
                    assert label > 0
                    assert part in PARTS[label - 1]
    assert read > 20


# Detection


@pytest.mark.parametrize("head", ["fcos", "retinanet", "faster_rcnn"])
def test_detectors_learn_and_find(head):
    torch.manual_seed(0)
    model = Detector(2, 4, head, channels=32, levels=3, stride=8, num_convs=1, **SMALL)
    boxes = torch.tensor([[[8.0, 8, 40, 56], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]])
    targets = DetectionTargets(boxes, torch.tensor([[1, -1], [-1, -1]]))
    losses = model(DetectorInputs(torch.rand(2, 3, 64, 64), targets))
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.neck.reduction_conv.conv.weight.grad.abs().sum() > 0
    model.set_limits(0.0, 0.5, 7)
    found = model.eval()(torch.rand(2, 3, 64, 128))
    assert len(found) == 2
    assert len(found[0].boxes) <= 7
    assert set(found[0].labels.tolist()) <= {0, 1}


def test_boxes_are_float32_whatever_the_layers_are():
    torch.manual_seed(0)
    model = Detector(1, 4, "faster_rcnn", 32, 3, 4, **SMALL).eval()
    model.set_limits(0.0, 0.5, 20)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = model(torch.rand(1, 3, 128, 128))[0]
    assert found.boxes.dtype == torch.float32
    assert not torch.equal(found.boxes, found.boxes.bfloat16().float())


@pytest.mark.parametrize("head", ["fcos", "faster_rcnn"])
def test_anchors_are_exact_in_large_images(head):
    """bfloat16 has no 1,028."""
    model = Detector(1, 4, head, 32, 3, 8, num_convs=1, **SMALL).eval()
    model.set_limits(0.0, 0.5, 1)
    part = model.detector.rpn if head == "faster_rcnn" else model.detector
    seen = []
    part.anchor_generator.register_forward_hook(lambda module, inputs, found: seen.append(found))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        model(torch.rand(1, 3, 32, 1344))
    (anchors,) = seen[0]
    widths = anchors[:, 2] - anchors[:, 0]
    assert anchors[:, 2].max() > 1300
    assert len(set(widths.tolist())) == (3 if head == "fcos" else 7)  # levels, aspect ratios


@needs_shared
def test_box_ap_is_that_of_pycocotools():
    from pycocotools.coco import COCO as Index
    from pycocotools.cocoeval import COCOeval

    folder = SHARED / "coco_mini"
    annotations = folder / "annotations" / "person_keypoints_val_mini.json"
    records = json.loads(
        (folder / "person_detection_results" / "val_mini_yolox_tiny.json").read_text()
    )
    metrics = box_metrics(records, json.loads(annotations.read_text()))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = Index(str(annotations))
        run = COCOeval(truth, truth.loadRes(records), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    assert [metrics[name] for name in BOX_METRICS] == pytest.approx(run.stats.tolist(), abs=1e-9)
    assert metrics["AP"] == pytest.approx(0.5142, abs=1e-4)
    assert box_metrics([], json.loads(annotations.read_text()))["AP"] == 0


def test_a_detector_is_trained_validated_and_finds_boxes_for_top_down(tmp_path):
    write_coco(tmp_path / "data", SyntheticPeople(8, size=64), "synthetic")
    config = tmp_path / "det.yaml"
    config.write_text(DETECTION)
    run = tmp_path / "run"
    root = ("DATASET.ROOT", str(tmp_path / "data"))
    run_cli("train", config, "--output", run, "--device", "cpu", *root)
    file = open_checkpoint(str(run / "best.safetensors"))
    assert file.classes == ("person",)
    out = run_cli(
        "valid", config, "--weights", run / "best.safetensors", "--output", run / "v", *root
    )
    assert re.search(r"AP50 +\d", out)
    records = json.loads((run / "v" / "results.json").read_text())
    stored = json.loads((run / "v" / "metrics.json").read_text())
    truth = json.loads(
        (tmp_path / "data" / "annotations/person_keypoints_synthetic.json").read_text()
    )
    assert stored["metrics"]["AP"] == pytest.approx(box_metrics(records, truth)["AP"], abs=1e-9)
    image = tmp_path / "data" / "images" / "synthetic" / "000000.png"
    out = run_cli(
        "predict", image, "--weights", run / "best.safetensors", "--output", run / "p",
        "TEST.DISPLAY_SCORE", "0",
    )  # fmt: skip
    assert (run / "p" / "000000_boxes.jpg").is_file()
    # Its predictions are a box file, and its weights a detector.
    for boxes in (run / "p" / "predictions.json", run / "best.safetensors"):
        out = run_cli(
            "predict", image, "--mode", "top-down", "--boxes", boxes, "--output", run / "t",
            "--raw", "TEST.BBOX_THRE", "0.01",
        )  # fmt: skip
        assert "people in 1 image" in out


def test_boxes_of_several_views_vote():
    """Against loops: NMS within a class, then the mean of those that lie alike."""

    def overlap(a, b):
        sides = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
        shared = np.prod(np.maximum(sides, 0))
        return shared / (a[2] * a[3] + b[2] * b[3] - shared)

    rng = np.random.default_rng(0)
    views = []
    for _ in range(3):
        places = np.repeat([[10, 20, 30, 60], [14, 22, 30, 60], [100, 5, 20, 20]], 4, axis=0)
        order = np.sort(rng.random(12))[::-1]
        found = places + rng.normal(0, 1.5, (12, 4))
        views.append(FoundBoxes(found, order, rng.integers(0, 2, 12)))
    xywh, score, labels = (
        np.concatenate([getattr(view, name) for view in views]) for name in vars(views[0])
    )
    expected = []
    for i in np.argsort(-score):
        if all(overlap(xywh[i], xywh[j]) <= 0.5 for j in expected if labels[j] == labels[i]):
            expected.append(i)
    merged = merge_views(views, 0.5, 3)
    assert len(expected) > 3
    assert merged.score.tolist() == score[expected[:3]].tolist()
    assert merged.labels.tolist() == labels[expected[:3]].tolist()
    for box, i in zip(merged.xywh, expected, strict=False):
        voters = [
            j
            for j in range(len(xywh))
            if labels[j] == labels[i] and overlap(xywh[i], xywh[j]) > 0.75
        ]
        weights = [score[j] * overlap(xywh[i], xywh[j]) for j in voters]
        assert box == pytest.approx(np.average(xywh[voters], axis=0, weights=weights))
    assert len(merge_views([view.at_least(2) for view in views], 0.5, 3)) == 0


def test_several_scales_and_the_flipped_image_find_the_same_people():
    photo = cv2.imread(str(files("higherhrnet") / "assets" / "demo.jpg"))[..., ::-1].copy()
    settings = ["TEST.SCALE_FACTOR", [0.8, 1.0], "TEST.FLIP_TEST", True, "TEST.PRECISION", "fp32"]
    plain = load_task("fcos_w18_person")
    several = load_task("fcos_w18_person", overrides=settings)
    once, found = plain(photo).at_least(0.6), several(photo).at_least(0.5)
    assert len(once) > 2
    for box in once.xywh:
        assert np.abs(found.xywh - box).max(axis=1).min() < 0.15 * box[2:].max()
    flipped = mirror(several(np.ascontiguousarray(photo[:, ::-1])).at_least(0.5), photo.shape[1])
    assert flipped.xywh == pytest.approx(found.xywh, abs=1.0)


def test_top_down_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HIGHERHRNET_OFFLINE", "1")
    monkeypatch.setenv("HIGHERHRNET_CACHE", str(tmp_path / "none"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    image = files("higherhrnet") / "assets" / "demo.jpg"
    out = run_cli("predict", image, "--mode", "top-down", "--output", tmp_path / "out")
    people = int(re.search(r"(\d+) people in 1 image", out)[1])
    assert 3 <= people <= 30
    fetched = [p for p in (tmp_path / "none").rglob("*") if p.suffix in (".pth", ".safetensors")]
    assert not fetched


@pytest.mark.parametrize(
    ("categories", "classes", "sentence"),
    [
        ([{"id": 1}], (), "a category needs 'id' and 'name'"),
        ({"id": 1}, (), "categories must be a list"),
        ([{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], (), "two categories named 'a'"),
        ([{"id": 1, "name": "a"}], ("a", "a"), "names 'a' twice"),
        ([{"id": 1, "name": "a"}], ("b",), "no category 'b'"),
    ],
)
def test_categories_that_cannot_be_used_are_named(tmp_path, categories, classes, sentence):
    box = {"id": 1, "image_id": 5, "category_id": 1, "bbox": [1, 1, 9, 9]}
    files = coco_file(tmp_path, [box | {"segmentation": square(1, 1, 8)}], [])
    content = json.loads(files[0].read_text()) | {"categories": categories}
    files[0].write_text(json.dumps(content))
    for kind in (CocoBoxes, CocoMasks):
        with pytest.raises(UserError, match=sentence):
            kind(*files, classes)


def test_category_ids_may_be_text(tmp_path):
    box = {"id": 1, "image_id": 5, "category_id": "7", "bbox": [1, 1, 9, 9]}
    files = coco_file(tmp_path, [box], [{"id": 7, "name": "cat"}])
    assert CocoBoxes(*files).sample(0).labels.tolist() == [0]


def test_pixels_of_any_label_may_not_count(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name / "test").mkdir(parents=True)
    labels = np.random.default_rng(0).integers(0, 3, (32, 32)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "labels" / "test" / "a.png"), labels)
    cv2.imwrite(str(tmp_path / "images" / "test" / "a.png"), np.zeros((32, 32, 3), np.uint8))
    config = parse_config(
        SEGMENTATION,
        ["DATASET.DATASET", "folder", "DATASET.ROOT", str(tmp_path), "DATASET.TEST", "test",
         "DATASET.CLASSES", "[void, a, b]", "DATASET.IGNORE_LABEL", 0],
    )  # fmt: skip
    task = get_task("segmentation")
    test = task.open_test(config)
    parts = [task.evaluate(lambda image: np.maximum(labels, 1), test, [0])]
    metrics = task.summarize(config, test, parts)
    assert metrics["mIoU"] == metrics["pixel accuracy"] == 1


# One trunk, several heads


def test_keypoints_do_not_change_by_heads_beside_them():
    torch.manual_seed(0)
    plain = HigherHRNet(17, 8, **SMALL).eval()
    joint = HigherHRNet(17, 8, extra_heads=("masks", "boxes"), **SMALL).eval()
    joint.load_state_dict(plain.state_dict(), strict=False)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        a, b = plain(x), joint(x)
    assert torch.equal(a.heatmaps[1], b.heatmaps[1])
    assert torch.equal(a.tags[0], b.tags[0])
    assert b.masks[0].shape == (2, 1, 16, 16)
    assert [part.shape[2] for part in b.boxes] == [1, 4, 1]
    engine = TorchEngine(joint, torch.device("cpu"), "fp32")
    outputs = engine(np.zeros((1, 64, 64, 3), np.uint8))
    assert outputs.masks[0].shape == (1, 1, 16, 16)
    assert len(outputs.boxes) == 3


def test_boxes_of_a_head_are_those_that_it_was_taught():
    size = (64, 128)
    torch.manual_seed(0)
    places = sum((64 // s) * (128 // s) for s in (8, 16, 32, 64))
    outputs = tuple(torch.randn(1, places, n, requires_grad=True) for n in (1, 4, 1))
    truth = torch.tensor([[[10.0, 8, 50, 60], [-1, -1, -1, -1]]])
    optimizer = torch.optim.Adam(outputs, lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        sides = outputs[0], outputs[1].exp(), outputs[2]
        sum(box_losses(sides, truth, size).values()).backward()
        optimizer.step()
    found = decode_boxes([outputs[0], outputs[1].exp(), outputs[2]], size)[0]
    assert torch.allclose(found.boxes[0], truth[0, 0], atol=1.0)


def test_a_turned_box_is_that_of_the_ellipse_in_it():
    silhouettes = Silhouettes(np.ones((100, 120), np.uint8), np.array([[40.0, 20, 80, 90]]))
    angle = np.linspace(0, 2 * np.pi, 3600)
    ellipse = np.stack([60 + 20 * np.cos(angle), 55 + 35 * np.sin(angle)], axis=1)
    for degrees in (0, 30, 77):
        for flip in (False, True):
            affine = geometry.rotation(degrees, (59.5, 54.5))
            affine = geometry.horizontal_flip(120) @ affine if flip else affine
            mask, boxes = warp_silhouettes(silhouettes, affine, (100, 120))
            moved = geometry.apply(affine, ellipse - 0.5) + 0.5
            expected = np.concatenate([moved.min(axis=0), moved.max(axis=0)])
            np.testing.assert_allclose(boxes[0], expected, atol=0.01)
            assert mask.shape == (25, 30)
    assert (mask == NOT_COUNTED).any()  # beyond the image's edge


def test_people_need_the_support_of_the_mask():
    probability = np.zeros((16, 16), np.float32)
    probability[:, 8:] = 1.0
    xy = np.array([[[40.0, 10.0], [50.0, 20.0]], [[5.0, 10.0], [50.0, 10.0]], [[900.0, 0], [5, 5]]])
    poses = Poses.from_annotations(np.concatenate([xy, np.full((3, 2, 1), 2.0)], axis=2))
    assert mask_support(poses, probability, geometry.identity()).tolist() == [1.0, 0.5, 0.0]


def test_masks_reach_the_edges_of_the_image():
    image = np.zeros((64, 64, 3), np.uint8)
    even = np.full((16, 16), 0.7, np.float32)
    mask = mask_to_image(even, geometry.identity(), image.shape[:2])
    np.testing.assert_allclose(mask, 0.7, atol=1e-6)


def test_anchors_are_where_the_places_are():
    # 864 is a multiple of 32 alone: the coarsest level was rounded up.
    anchors = _anchors(2, (864, 512), torch.device("cpu"))
    assert len(anchors) == 2
    centers = (anchors[0][:, :2] + anchors[0][:, 2:]) / 2
    last = centers[-14 * 8 :].reshape(14, 8, 2)
    assert last[3, 5].tolist() == [5 * 64, 3 * 64]
    assert len(centers) == sum(-(-864 // s) * (512 // s) for s in (8, 16, 32, 64))


JOINT = """
MODEL: {WIDTH: 8, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, NUM_BASIC_BLOCKS: 1,
        HEADS: [masks, boxes]}
DATASET: {DATASET: synthetic, INPUT_SIZE: 64}
SYNTHETIC: {SIZE: 64, TRAIN_IMAGES: 8, TEST_IMAGES: 4}
TRAIN: {END_EPOCH: 1, BATCH_SIZE: 4, WORKERS: 0, PRECISION: fp32, VALIDATE_EVERY: 1, LOGGERS: []}
TEST: {PRECISION: fp32}
"""


def test_one_trunk_is_trained_for_all_heads(tmp_path):
    config = tmp_path / "joint.yaml"
    config.write_text(JOINT)
    run = tmp_path / "run"
    run_cli("train", config, "--output", run, "--device", "cpu")
    line = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert {"heatmap/4", "mask/4", "boxes/sides", "mask/IoU", "boxes/AP"} <= line.keys()
    weights = run / "best.safetensors"
    out = run_cli(
        "valid", config, "--weights", weights, "--output", run / "v", "TEST.MASK_SUPPORT", "0.9"
    )
    assert "mask/IoU" in out
    assert "mask support 0.9" in out
    out = run_cli("export", weights, "--to", "torch_export", "--output", run / "a.pt2")
    assert "outputs heatmaps, tags" in out
    with pytest.raises(UserError, match="know no masks"):
        parse_config(JOINT, ["DATASET.MOSAIC", 0.5])
    with pytest.raises(UserError, match=r"'LOSS.KIND' and 'MODEL.HEADS' are exclusive"):
        parse_config(JOINT, ["LOSS.KIND", "a:b"])
    official = run / "official.pth"
    run_cli("weights", "convert", weights, official)
    assert "HEADS" not in run_cli("weights", "inspect", official)
    assert config_of(open_checkpoint(str(official))).MODEL.HEADS == ("masks", "boxes")
    with pytest.raises(UserError, match="needs a network with"):
        parse_config(JOINT, ["MODEL.HEADS", "[boxes]", "TEST.MASK_SUPPORT", 0.5])


def test_an_exported_detector_gives_the_same_boxes(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    config = parse_config(DETECTION)
    torch.manual_seed(3)
    model = Detector(1, 4, "fcos", 32, 3, 8, 1, **SMALL)
    weights = tmp_path / "det.safetensors"
    write_native(weights, model.state_dict(), to_yaml(config), None, classes=("person",))
    out = run_cli("export", weights, "--to", "onnx", "--output", tmp_path / "det.onnx")
    assert "multiples of 32; outputs boxes, scores" in out
    session = onnxruntime.InferenceSession(str(tmp_path / "det.onnx"))
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    boxes, scores = session.run(None, {"images": image[None]})
    loaded = load_task(open_checkpoint(str(weights)), torch.device("cpu"))
    found = loaded.model(normalize(torch.from_numpy(image).permute(2, 0, 1)[None]))[0]
    best = scores[0, :, 0].argmax()
    assert scores[0, best, 0] == pytest.approx(found.scores[0].item(), abs=1e-4)
    clipped = np.clip(boxes[0, best], 0, [96, 64, 96, 64])
    np.testing.assert_allclose(clipped, found.boxes[0].detach().numpy(), atol=0.01)
    # The file in the place of the checkpoint: the same boxes, also of several views.
    exported = load_task(tmp_path / "det.onnx")
    assert exported.classes == ("person",)
    photo = np.random.default_rng(1).integers(0, 256, (50, 91, 3), np.uint8)
    for settings in ((), ("TEST.SCALE_FACTOR", [0.7, 1.3], "TEST.FLIP_TEST", True)):
        one, other = (
            load_task(file, "cpu", [*settings, "TEST.MAX_DETECTIONS", 20])(photo)
            for file in (weights, tmp_path / "det.onnx")
        )
        assert len(one) == len(other) >= 5
        np.testing.assert_allclose(one.score, other.score, atol=1e-5)
        np.testing.assert_allclose(one.xywh, other.xywh, atol=0.02)
    out = run_cli(
        "predict", "a.jpg", "--weights", tmp_path / "det.onnx", "--mode", "top-down", status=2
    )
    assert "--mode is for pose networks" in out
    with pytest.raises(UserError, match="finds no poses"):
        open_export(tmp_path / "det.onnx")
    assert kind_of(open_network(str(tmp_path / "det.onnx"))) == "det_hrnet"
    segmentation = parse_config("MODEL: {NAME: seg_hrnet}")
    with pytest.raises(UserError, match="network for detection, and the config is for segm"):
        load_task(tmp_path / "det.onnx", "cpu", config=segmentation)
    top_down = load(
        "hrnet_w18_mini", "cpu", {"TEST.BBOX_SOURCE": str(tmp_path / "det.onnx")}, raw=True
    )
    assert top_down(photo).xy.shape[1:] == (17, 2)
    with pytest.raises(UserError, match=r"TEST.PRECISION bf16 is for PyTorch"):
        load_task(tmp_path / "det.onnx", "cpu", ["TEST.PRECISION", "bf16"])
    other = ("MODEL.BOX_HEAD", "retinanet", "MODEL.HEAD_CONVS", "4")
    out = run_cli("export", weights, "--to", "onnx", *other, status=2)
    assert "was trained with MODEL.BOX_HEAD fcos" in out


# Commands


@pytest.fixture(scope="module")
def segmentation_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation")
    (folder / "seg.yaml").write_text(SEGMENTATION)
    run_cli("train", folder / "seg.yaml", "--output", folder / "run", "--device", "cpu")
    return folder


def test_a_segmentation_network_is_trained_validated_and_predicts(segmentation_run, tmp_path):
    weights = segmentation_run / "run" / "best.safetensors"
    assert open_checkpoint(str(weights)).classes == ("background", "person")
    out = run_cli(
        "valid", segmentation_run / "seg.yaml", "--weights", weights, "--output", tmp_path / "v",
        "TEST.SCALE_FACTOR", "[0.5, 1.0]", "TEST.FLIP_TEST", "True",
    )  # fmt: skip
    assert "scales [0.5, 1.0], flip True" in out
    assert "mIoU" in out
    assert "IoU person" in out
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), SyntheticPeople(1, size=80).draw(0).image[..., ::-1])
    broken = tmp_path / "b.png"
    broken.write_bytes(image.read_bytes()[:200])
    out = run_cli(
        "predict", image, broken, "--weights", weights, "--output", tmp_path / "p", status=2
    )
    assert "1 image; predictions.json" in out
    run_cli("predict", image, "--weights", weights, "--output", tmp_path / "q", "--show", "none")
    assert sorted(p.name for p in (tmp_path / "q").iterdir()) == [
        "a_labels.png",
        "predictions.json",
    ]
    out = run_cli("predict", broken, "--weights", weights, "--output", tmp_path / "r", status=2)
    assert "nothing was predicted" in out
    assert "predictions.json" not in out
    labels = cv2.imread(str(tmp_path / "p" / "a_labels.png"), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (80, 80)
    assert set(np.unique(labels)) <= {0, 1}
    assert (tmp_path / "p" / "a_overlay.jpg").is_file()
    taken = tmp_path / "a_overlay.jpg"
    cv2.imwrite(str(taken), np.zeros((64, 64, 3), np.uint8))
    out = run_cli("predict", image, taken, "--weights", weights, "--output", tmp_path, status=2)
    assert "is an input and would be overwritten" in out
    described = json.loads((tmp_path / "p" / "predictions.json").read_text())
    assert described["classes"] == ["background", "person"]


def test_videos_of_tasks(segmentation_run, tmp_path):
    pytest.importorskip("av")
    film = tmp_path / "film.mp4"
    photo = cv2.imread(str(files("higherhrnet") / "assets" / "demo.jpg"))[..., ::-1]
    with VideoWriter(film, Fraction(5)) as writer:
        for number in range(3):
            writer.add(photo[:120, 40 * number : 40 * number + 160].copy(), number / 5)
    (tmp_path / "broken.mp4").write_bytes(film.read_bytes()[:100])
    for weights, drawn in ((segmentation_run / "run" / "best.safetensors", "film_overlay.mp4"),
                           ("fcos_w18_person", "film_boxes.mp4")):  # fmt: skip
        out = tmp_path / drawn
        said = run_cli("predict", film, "--weights", weights, "--output", out)
        assert "3 frames" in said
        found = json.loads((out / "predictions.json").read_text())
        assert [image["frame"] for image in found["images"]] == [0, 1, 2]
        assert found["images"][2]["seconds"] == 0.4
        assert len(list(VideoFile(out / drawn))) == 3
        words = ("predict", tmp_path / "broken.mp4", film, "--weights", weights, "--output", out)
        said = run_cli(*words, "--show", "none", status=2)
        assert "broken.mp4' cannot be read" in said
        assert "3 frames" in said


def test_ctrl_c_keeps_what_a_video_has_so_far(tmp_path):
    pytest.importorskip("av")
    with VideoWriter(tmp_path / "film.mp4", Fraction(5)) as writer:
        for number in range(6):
            writer.add(np.full((64, 64, 3), 40 * number, np.uint8), number / 5)

    class Interrupted:
        images: ClassVar[list] = []

        def add(self, image, path, **more):
            if len(self.images) == 3:
                raise KeyboardInterrupt
            self.images.append(more)
            return {"_boxes.jpg": image}

    with pytest.raises(KeyboardInterrupt):
        cli_tasks._predict_video(Interrupted(), tmp_path / "film.mp4", tmp_path / "drawn.mp4")
    assert len(list(VideoFile(tmp_path / "drawn.mp4"))) == 3


def test_training_goes_on_and_refuses_what_does_not_fit(segmentation_run, tmp_path):
    config = parse_config(SEGMENTATION, ["TRAIN.END_EPOCH", 2])
    progress = train_task(config, segmentation_run / "run", "cpu", resume=True)
    assert progress.epoch == 2
    with pytest.raises(UserError, match="already holds a run"):
        train_task(config, segmentation_run / "run", "cpu")
    with pytest.raises(UserError, match="2 classes"):
        train_task(parse_config(SEGMENTATION, ["LOSS.CLASS_WEIGHTS", [1.0]]), tmp_path / "x", "cpu")
    weights = segmentation_run / "run" / "best.safetensors"
    parts = parse_config(SEGMENTATION, ["DATASET.DATASET", "synthetic_parts"])
    loaded = load_task(open_checkpoint(str(weights)), torch.device("cpu"), config=parts)
    with pytest.raises(UserError, match="the data set's 7 classes are background, head"):
        open_test_set(loaded)


def test_settings_that_contradict_a_checkpoint_are_named(segmentation_run, tmp_path):
    weights = segmentation_run / "run" / "best.safetensors"
    config = segmentation_run / "seg.yaml"
    words = ("valid", config, "--weights", weights, "--output", tmp_path / "v")
    out = run_cli(*words, "MODEL.ALIGN_CORNERS", "False", status=2)
    assert "was trained with MODEL.ALIGN_CORNERS True, but the config has False" in out
    out = run_cli(*words, "DATASET.CLASSES", "[dog]", status=2)
    assert "'DATASET.CLASSES' names dog, and the network finds background, person" in out
    out = run_cli("train", config, "DATASET.CLASSES", "[background, dog]", status=2)
    assert "classes are background, person, not the 2 that are wanted: background, dog" in out
    out = run_cli("valid", config, "--weights", "hrnet_w18_mini", status=2)
    assert "it holds a pose_hrnet, and the config is of a seg_hrnet" in out
    long = tmp_path / "long.png"
    cv2.imwrite(str(long), np.zeros((3, 3000, 3), np.uint8))
    out = run_cli("predict", long, "--weights", weights, "TEST.SHORT_SIDE", "384", status=2)
    assert "would become an input of 384000x384, which is too much" in out
    with pytest.raises(UserError, match="must name the split of every set"):
        parse_config(SEGMENTATION, ["DATASET.TRAIN", []])


def test_a_run_does_not_go_on_with_other_classes(tmp_path):
    box = {"image_id": 5, "category_id": 1, "bbox": [2, 2, 20, 20]}
    annotations = [box | {"id": 1}, box | {"id": 2, "category_id": 2}]
    coco_file(tmp_path, annotations, [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}])
    (tmp_path / "det.yaml").write_text(DETECTION)
    words = ("train", tmp_path / "det.yaml", "--output", tmp_path / "run", "--device", "cpu")
    data = ("DATASET.ROOT", tmp_path, "DATASET.TRAIN", "a.json", "DATASET.TEST", "a.json",
            "DATASET.IMAGE_DIR", "images", "TRAIN.BATCH_SIZE", "1")  # fmt: skip
    run_cli(*words, *data)
    again = ("--resume", "TRAIN.END_EPOCH", "2", "DATASET.CLASSES", "[dog, cat]")
    assert "tells cat, dog apart" in run_cli(*words, *data, *again, status=2)


def test_a_classifier_is_validated_and_predicts(tmp_path):
    for split in ("train", "val"):
        for name, value in (("bright", 220), ("dark", 30)):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(4):
                image = np.full((40, 50, 3), value, np.uint8)
                cv2.imwrite(str(tmp_path / split / name / f"{number}.png"), image)
    config = tmp_path / "cls.yaml"
    config.write_text(
        f"""
        MODEL: {{NAME: cls_hrnet, WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1}}
        DATASET: {{ROOT: {tmp_path}, INPUT_SIZE: 32}}
        TRAIN: {{END_EPOCH: 1, BATCH_SIZE: 4, WORKERS: 0, PRECISION: fp32, LOGGERS: []}}
        """
    )
    run = tmp_path / "run"
    run_cli("train", config, "--output", run, "--device", "cpu", "TRAIN.VALIDATE_EVERY", "1")
    out = run_cli("valid", config, "--weights", run / "best.pth", "--output", run / "v")
    assert "accuracy" in out
    stored = json.loads((run / "v" / "metrics.json").read_text())
    assert stored["classes"] == ["bright", "dark"]
    image = tmp_path / "val" / "dark" / "0.png"
    for weights in ("best.pth", "last.pth"):
        run_cli("predict", image, "--weights", run / weights, "--output", run / "p")
    found = json.loads((run / "p" / "predictions.json").read_text())
    assert found["images"][0]["class"] in ("bright", "dark")
    exported = tmp_path / "cls.pt2"
    out = run_cli("export", run / "last.pth", "--to", "torch_export", "--output", exported)
    assert "outputs logits" in out
    values = [
        load_task(file, "cpu", ["DATASET.INPUT_SIZE", 32])(image)
        for file in (run / "last.pth", exported)
    ]
    assert values[0] == values[1]


def test_pose_options_are_refused_for_other_networks(segmentation_run, tmp_path):
    weights = segmentation_run / "run" / "best.safetensors"
    out = run_cli("predict", "a.jpg", "--weights", weights, "--boxes", "x.json", status=2)
    assert "--boxes is for pose networks" in out
    out = run_cli("train", segmentation_run / "seg.yaml", "--plan", status=2)
    assert "--plan is for pose networks" in out
    out = run_cli("export", weights, "--to", "onnx", "--precision", "int8", status=2)
    assert "name some with --images" in out
    out = run_cli("export", weights, "--to", "onnx", "--decode", status=2)
    assert "--decode is for pose networks" in out
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.zeros((64, 64, 3), np.uint8))
    out = run_cli("predict", image, "--mode", "top-down", "--boxes", weights, status=2)
    assert "does not find boxes of people" in out


def test_an_exported_segmentation_network_gives_the_same_labels(segmentation_run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    weights = segmentation_run / "run" / "best.safetensors"
    target = tmp_path / "seg.onnx"
    out = run_cli("export", weights, "--to", "onnx", "--output", target)
    assert "outputs labels, logits" in out
    session = onnxruntime.InferenceSession(str(target))
    about = json.loads(session.get_modelmeta().custom_metadata_map["higherhrnet"])
    assert about["classes"] == ["background", "person"]
    assert about["multiple"] == 32
    loaded = load_task(
        open_checkpoint(str(weights)), torch.device("cpu"), ["TEST.PRECISION", "fp32"]
    )
    for shape in ((64, 96), (128, 64)):
        image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        labels, logits = session.run(None, {"images": image[None]})
        assert labels.shape == (1, *shape)
        assert logits.shape[2:] == (shape[0] // 4, shape[1] // 4)
        assert (labels[0] == loaded.predict(image)).mean() > 0.999
    # The file in the place of the checkpoint.
    flipped = ["TEST.FLIP_TEST", True, "TEST.SCALE_FACTOR", [1.0, 1.5]]
    for settings in ((), flipped):
        one, other = (load_task(file, "cpu", settings)(image) for file in (weights, target))
        assert (one == other).mean() > 0.99
    values = []
    for number, network in enumerate((weights, target)):
        folder = tmp_path / str(number)
        run_cli("valid", segmentation_run / "seg.yaml", "--weights", network, "--output", folder)
        values.append(json.loads((folder / "metrics.json").read_text())["metrics"]["mIoU"])
    assert values[0] == pytest.approx(values[1], abs=0.01)
    out = run_cli(
        "valid", segmentation_run / "seg.yaml", "--weights", target, "MODEL.WIDTH", 8, status=2
    )
    assert "was trained with MODEL.WIDTH" in out
    out = run_cli("weights", "inspect", target, status=2)
    assert "holds no weights" in out
    # One size: other images are fitted into it.
    sized = tmp_path / "sized.onnx"
    out = run_cli("export", weights, "--to", "onnx", "--size", 64, 96, "--output", sized)
    assert "64 x 96" in out
    wide = np.random.default_rng(0).integers(0, 256, (64, 200, 3), np.uint8)
    assert load_task(sized)(wide).shape == (64, 200)
    with pytest.raises(UserError, match="reads images of 64x96 alone"):
        load_task(sized, "cpu", flipped)
