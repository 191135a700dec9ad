"""Images as callers have them, and poses as other tools take them."""

import json
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import higherhrnet
from higherhrnet.cli import main
from higherhrnet.errors import UserError
from higherhrnet.inference.prediction_files import read_done
from higherhrnet.io.pixels import to_pixels
from higherhrnet.poses import Poses
from higherhrnet.skeleton import COCO

from .shared import ROOT

PHOTO = ROOT / "higherhrnet" / "assets" / "demo.jpg"


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return cv2.imread(str(PHOTO))[:, :, ::-1].copy()


@pytest.fixture(scope="module")
def predictor() -> higherhrnet.Poses:
    return higherhrnet.load(device="cpu", preset="fast", overrides=["DATASET.INPUT_SIZE", 192])


def kinds_of(pixels: np.ndarray) -> dict[str, object]:
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    return {
        "path": PHOTO,
        "text": str(PHOTO),
        "bytes": PHOTO.read_bytes(),
        "bytearray": bytearray(PHOTO.read_bytes()),
        "file": BytesIO(PHOTO.read_bytes()),
        "array": pixels,
        "floats": pixels.astype(np.float32) / 255,
        "transparent": np.dstack([pixels, np.full(pixels.shape[:2], 7, np.uint8)]),
        "Pillow": Image.fromarray(pixels),
        "Pillow with alpha": Image.fromarray(pixels).convert("RGBA"),
        "tensor": tensor,
        "tensor of floats": tensor / 255,
        "channels last": torch.from_numpy(pixels),
    }


def test_all_kinds_are_the_same_pixels(pixels):
    for name, image in kinds_of(pixels).items():
        found = to_pixels(image)
        assert found.dtype == np.uint8, name
        np.testing.assert_array_equal(found, pixels, err_msg=name)
    np.testing.assert_array_equal(to_pixels(pixels[:, :, ::-1], "BGR"), pixels)
    gray = pixels[:, :, 0]
    for image in (gray, gray[:, :, None], torch.from_numpy(gray)[None], Image.fromarray(gray)):
        np.testing.assert_array_equal(to_pixels(image), np.repeat(gray[:, :, None], 3, axis=2))


def test_pillow_images_are_turned_as_files_are(tmp_path, pixels):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    upright = to_pixels(tmp_path / "turned.png")
    assert upright.shape[:2] == pixels.shape[1::-1]
    np.testing.assert_array_equal(to_pixels(Image.open(tmp_path / "turned.png")), upright)
    Image.fromarray(pixels).save(tmp_path / "turned.tif", exif=exif)
    upright = to_pixels(tmp_path / "turned.tif")
    np.testing.assert_array_equal(to_pixels(Image.open(tmp_path / "turned.tif")), upright)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.full((4, 4, 3), 200.0), "must have values in 0..1, and this one has 200..200"),
        (np.full((4, 4, 3), np.nan), "must have values in 0..1"),
        (torch.full((3, 4, 4), -2.0), "undo a normalization"),
        (np.zeros((4, 4, 3), np.uint16), "not an array of uint16"),
        (np.zeros((4, 4, 2), np.uint8), "not an array (4, 4, 2) uint8"),
        (np.zeros((0, 4, 3), np.uint8), "not an array (0, 4, 3) uint8"),
        (b"no image", "image 'the given bytes' cannot be decoded"),
        (PHOTO.read_bytes()[:5000], "image 'the given bytes' is truncated"),
        (Image.new("I;16", (4, 4)), "more than 8 bits"),
        (7, "not int"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_image_gets_a_sentence(image, words):
    with pytest.raises(UserError) as error:
        to_pixels(image)
    assert words in str(error.value)


def test_channel_order_is_checked(pixels):
    with pytest.raises(UserError, match="RGB or BGR, not 'GBR'"):
        to_pixels(pixels, "GBR")


def test_predictors_take_one_or_several_of_them(predictor, pixels):
    expected = predictor(PHOTO)
    assert len(expected) > 2
    several = [PHOTO, PHOTO.read_bytes(), Image.fromarray(pixels), pixels.astype(np.float64) / 255]
    for poses in [
        *predictor(several),
        *predictor(torch.from_numpy(pixels).permute(2, 0, 1)[None]),
        predictor(pixels[:, :, ::-1], channel_order="BGR"),
        *higherhrnet.predict_many(predictor, [pixels[:, :, ::-1]], channel_order="BGR"),
    ]:
        np.testing.assert_array_equal(poses.xy, expected.xy)
        assert poses.skeleton == predictor.skeleton
    with pytest.raises(UserError, match="several images"):
        higherhrnet.predict_many(predictor, PHOTO.read_bytes())


def test_repr_and_html_of_poses(predictor):
    poses = predictor(PHOTO)
    assert repr(poses).startswith(
        f"Poses({len(poses)} people, 17 joints of skeleton 'coco', scores"
    )
    assert "\n" not in repr(poses)
    drawn = poses._repr_html_()
    assert drawn.count("<circle") == int((poses.visibility > 0).sum())
    assert "left_wrist" in drawn
    assert drawn.count("<tr>") == len(poses) + 1
    assert Poses.empty(17)._repr_html_() == "<p>Poses(0 people, 17 joints)</p>"


def test_json_rows_and_tables(predictor):
    poses = predictor(PHOTO)
    values = json.loads(poses.to_json())
    assert values["joints"] == list(COCO.joints)
    best = values["people"][0]
    k = COCO.index(next(iter(best["keypoints"])))
    np.testing.assert_allclose(best["keypoints"][COCO.joints[k]][:2], poses.xy[0, k], atol=0.001)
    table = pytest.importorskip("pandas") and poses.to_dataframe()
    assert len(table) == int((poses.visibility > 0).sum())
    assert set(table["joint"]) <= set(COCO.joints)
    assert list(Poses.empty(17).to_dataframe(COCO).columns) == list(table.columns)
    with pytest.raises(UserError, match="do not know their skeleton"):
        Poses.empty(17).to_json()
    with pytest.raises(UserError, match="has 17 joints, but the poses have 4"):
        Poses.empty(4).to_rows(COCO)


def test_supervision_gets_the_same_points(predictor, pixels):
    supervision = pytest.importorskip("supervision")
    poses = predictor(PHOTO)
    points = poses.to_supervision()
    np.testing.assert_allclose(points.xy, poses.xy, atol=1e-3)
    np.testing.assert_array_equal(points.visible, poses.visibility > 0)
    drawn = supervision.VertexAnnotator(radius=3).annotate(pixels.copy(), points)
    assert (drawn != pixels).any()
    assert len(Poses.empty(17).to_supervision()) == 0


def test_fiftyone_gets_fractions_of_the_image(predictor, pixels, monkeypatch):
    """With the two classes that are used in its place: the package starts a database."""
    from types import SimpleNamespace

    monkeypatch.setitem(
        __import__("sys").modules, "fiftyone",
        SimpleNamespace(Keypoint=SimpleNamespace, Keypoints=SimpleNamespace),
    )  # fmt: skip
    poses = predictor(PHOTO)
    people = poses.to_fiftyone(pixels.shape[:2]).keypoints
    height, width = pixels.shape[:2]
    found = np.array(people[0].points) * (width, height)
    seen = poses.visibility[0] > 0
    np.testing.assert_allclose(found[seen], poses.xy[0, seen])
    assert np.isnan(found[~seen]).all()


@pytest.mark.parametrize("tool", ["coco", "label_studio", "yolo"])
def test_predict_correct_train(tool, tmp_path, monkeypatch, capsys):
    """Predictions go to a labeling tool's format, and come back as a training set."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("in/a.jpg", "in/deep/b.jpg"):
        (tmp_path / name).write_bytes(PHOTO.read_bytes())
    words = ["predict", "in", "--recursive", "--show", "none", "--output", "out", "--device", "cpu"]
    assert main([*words, "--preset", "fast", "DATASET.INPUT_SIZE", "192"]) == 0
    predicted = json.loads(Path("out/predictions.json").read_text())
    assert len(predicted["images"]) == 2
    assert len(read_done(Path("out"), COCO.joints)) == 2
    table = Path("out/predictions.csv").read_text()
    for damaged in (table[: len(table) // 2], table + '"' + "x" * 200_000):
        Path("out/predictions.csv").write_text(damaged)
        with pytest.raises(UserError, match="cannot be gone on with"):
            read_done(Path("out"), COCO.joints)
    to = "labels" if tool == "yolo" else "labels/tasks.json"
    assert main(["data", "export", "out/predictions.json", to, "--to", tool]) == 0
    assert main(["data", "export", "out/predictions.json", to, "--to", tool]) == 2
    assert "exists already" in capsys.readouterr().err
    if tool == "label_studio":  # what a person's "submit" does
        tasks = json.loads(Path(to).read_text())
        for task in tasks:
            (prediction,) = task.pop("predictions")
            task["annotations"] = [{"id": 1, "result": prediction["result"]}]
        Path(to).write_text(json.dumps(tasks))
        assert "<KeyPointLabels" in Path("labels/tasks.interface.xml").read_text()
    where = [] if tool == "yolo" else ["--images", "in"]
    words = ["data", "import", to, "again", "--skeleton", "coco", "--split", "0.5", *where]
    assert main(words) == 0
    again = [json.loads(Path(f"again/{s}.json").read_text()) for s in ("train", "val")]
    assert [len(part["images"]) for part in again] == [1, 1]
    expected = np.array(sorted(a["keypoints"] for a in predicted["annotations"]))
    found = np.array(sorted(a["keypoints"] for part in again for a in part["annotations"]))
    assert found.shape == expected.shape
    places = [k for k in range(51) if k % 3 != 2]
    np.testing.assert_allclose(found[:, places], expected[:, places], atol=0.01)


def test_label_files_do_not_write_over_one_another(tmp_path, capsys):
    """a.jpg and a.png have one label file's name; a.jpg of two folders one image's."""
    names = ["x/a.jpg", "x/a.png", "y/b.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    people = [
        {"id": n, "image_id": n, "category_id": 1, "keypoints": [5 + n, 5, 2]} for n in range(3)
    ]
    people[0]["bbox"] = [4, 6, 12, 8]  # as annotated, not as its one joint has it
    loaded = {
        "images": [{"id": n, "file_name": name, "width": 20, "height": 20}
                   for n, name in enumerate(names)],
        "annotations": people,
        "categories": [{"id": 1, "name": "dot", "keypoints": ["<dot> & co"]}],
    }  # fmt: skip
    (tmp_path / "p.json").write_text(json.dumps(loaded))
    words = ["data", "export", str(tmp_path / "p.json")]
    assert main([*words, str(tmp_path / "yolo"), "--to", "yolo"]) == 0
    labels = sorted((tmp_path / "yolo" / "labels" / "train").iterdir())
    assert [float(file.read_text().split()[5]) for file in labels] == [0.25, 0.3, 0.35]
    assert labels[0].read_text().split()[1:5] == ["0.500000", "0.500000", "0.600000", "0.400000"]
    assert main([*words, str(tmp_path / "ls.json"), "--to", "label_studio"]) == 0
    ElementTree.parse(tmp_path / "ls.interface.xml")
    names[2] = "y/a.jpg"
    loaded["images"][2]["file_name"] = names[2]
    (tmp_path / "p.json").write_text(json.dumps(loaded))
    assert main([*words, str(tmp_path / "c.json"), "--to", "coco"]) == 2
    assert "have the same file name" in capsys.readouterr().err
    del loaded["images"][0]["width"]
    (tmp_path / "p.json").write_text(json.dumps(loaded))
    assert main([*words, str(tmp_path / "c.json"), "--to", "coco"]) == 2
    assert "lacks 'width' or 'height'" in capsys.readouterr().err
