"""Exported networks: the same people as PyTorch, from files that say all that predicting needs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import tomllib
import torch

import higherhrnet
from higherhrnet import UserError, geometry, load
from higherhrnet.assignment import shortest_augmenting_paths
from higherhrnet.boxes import Boxes
from higherhrnet.cli import main
from higherhrnet.config import parse_config, to_yaml
from higherhrnet.factory.checkpoints import config_of, open_checkpoint
from higherhrnet.factory.inference import build_model_with_weights, build_torch_predictor
from higherhrnet.inference.engines.auto_precision import choose_way
from higherhrnet.inference.engines.export_info import parse_info
from higherhrnet.inference.engines.exported import open_export, read_info
from higherhrnet.io.images import read_image
from higherhrnet.methods import graphs, heatmaps
from higherhrnet.methods.exported import load_exported
from higherhrnet.models.weights import write_native
from higherhrnet.research.synthetic.dataset import SyntheticPeople
from higherhrnet.skeleton import COCO
from tests.build import build_model

from .shared import ROOT, SHARED

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TINY = "{WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1%s}"
BOTTOM_UP = f"""
MODEL: {TINY % ", NUM_BASIC_BLOCKS: 1"}
DATASET: {{INPUT_SIZE: 64, MAX_NUM_PEOPLE: 10}}
TEST: {{DETECTION_THRESHOLD: 0, ASSIGNMENT: hungarian_score_tiebreak}}
"""
TOP_DOWN = f"""
MODEL: {{NAME: pose_hrnet, IMAGE_SIZE: [64, 96], {(TINY % "")[1:]}
"""


def write_tiny(path, text: str) -> None:
    """Weights whose batch norms have seen something, so that fusing has work to do."""
    torch.manual_seed(0)
    config = parse_config(text)
    model = build_model(config, 17).train()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.uniform_(part.bias, -0.5, 0.5)
            part.momentum = None  # the mean of what it sees
    with torch.no_grad():
        model(torch.randn(8, 3, 96, 96))
        for name, weight in model.named_parameters():
            if "final_layer" in name:  # initialized to next to nothing, where all scores tie
                weight *= 200
    write_native(
        path, model.state_dict(), to_yaml(config), COCO,
        operating_point={"person": 0.0, "joint": 0.0, "refined": 0.0, "duplicate": 1.0},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tiny weights of both methods, and their exports."""
    folder = tmp_path_factory.mktemp("export")
    write_tiny(folder / "bu.safetensors", BOTTOM_UP)
    write_tiny(folder / "td.safetensors", TOP_DOWN)
    one_scale = ["TEST.SCALE_FACTOR", "[1.0]"]
    export(folder, "bu", "bu.onnx", "--flip", "--decode", *one_scale)
    export(folder, "bu", "bu.pt2", "--to", "torch_export")
    export(folder, "td", "td.onnx", "--flip", "--decode", "TEST.DECODING", "parabola")
    return folder


def export(folder, weights: str, target: str, *more: str) -> None:
    words = ["export", str(folder / f"{weights}.safetensors"), "--output", str(folder / target)]
    assert main([*words, *more]) == 0


def images(count: int = 3):
    drawn = SyntheticPeople(count, seed=3, size=96, people=(1, 3))
    return [drawn.draw(number).image[: 96 - 16 * number] for number in range(count)]


EXACT = ["TEST.PRECISION", "fp32"]


def same_people(one, other, pixels: float = 0.01) -> None:
    assert len(one) == len(other)
    np.testing.assert_allclose(one.xy, other.xy, atol=pixels)
    np.testing.assert_allclose(one.score, other.score, atol=1e-4)
    np.testing.assert_array_equal(one.visibility, other.visibility)


@pytest.mark.parametrize("name", ["bu.onnx", "bu.pt2"])
def test_an_export_finds_the_same_people(folder, name):
    exported = load(folder / name, overrides=EXACT)
    ours = load(folder / "bu.safetensors", overrides=[*EXACT, "TEST.SCALE_FACTOR", [1.0]])
    total = 0
    for image in images():
        expected = ours(image)
        same_people(exported(image), expected)
        total += len(expected)
    assert total > 0


def test_a_crop_network_is_exported_too(folder):
    exported = load(folder / "td.onnx", overrides=EXACT)
    ours = load(
        folder / "td.safetensors", overrides=[*EXACT, "TEST.DECODING", "parabola"], raw=True
    )
    boxes = Boxes.of([[5, 5, 60, 80], [20, 0, 30, 70]])
    exported.operating_point = None
    same_people(exported(images(1)[0], boxes), ours(images(1)[0], boxes))
    with pytest.raises(UserError, match="boxes"):
        exported(images(1)[0])


def test_candidates_are_the_peaks_of_the_codec(folder):
    exported = load(folder / "bu.onnx", overrides=EXACT)
    prepared = exported.prepare(higherhrnet.inference.predictor.Scene(images(1)[0]))
    (pixels, _), *_ = prepared.inputs
    scores, points, tags = exported.engine.run(pixels, ["scores", "points", "candidate_tags"])
    (views,) = exported.forward([prepared], higherhrnet.inference.stats.InferenceStats())
    codec = replace(exported.codec, threshold=-np.inf)
    maps = codec.aggregate(views, pixels.shape[1:3])
    most = exported.codec.max_candidates
    for joint, peaks in enumerate(maps.peaks(-np.inf, most)):
        count = len(peaks.score)
        assert (scores[0, joint, count:] < peaks.score.min()).all()
        np.testing.assert_allclose(scores[0, joint, :count], peaks.score, atol=1e-5)
        np.testing.assert_allclose(points[0, joint, :count], peaks.location, atol=1e-3)
        np.testing.assert_allclose(tags[0, joint, :count], peaks.tags, atol=1e-4)


def test_points_of_crops_are_those_of_the_codec(folder):
    exported = load(folder / "td.onnx", overrides=EXACT)
    crops = np.stack([image[:80, :96] for image in images(2)])
    crops = np.ascontiguousarray(np.pad(crops, ((0, 0), (0, 16), (0, 0), (0, 0)))[:, :, :64])
    maps, scores, points = exported.engine.run(crops, ["heatmaps", "scores", "points"])
    expected, expected_scores = exported.codec.points(maps)
    np.testing.assert_allclose(points, 4 * expected, atol=1e-3)
    np.testing.assert_allclose(np.maximum(scores, 0), np.maximum(expected_scores, 0), atol=1e-6)


@pytest.mark.parametrize("name", ["quarter", "parabola", "dark"])
def test_offsets_of_graphs_are_those_of_the_codec(name):
    rng = np.random.default_rng(0)
    patches = rng.uniform(0.05, 1, (200, 3, 3)).astype(np.float32)
    patches[:150, 1, 1] += 1
    values = [[torch.from_numpy(patches[:, y, x]) for x in range(3)] for y in range(3)]
    got = graphs.OFFSETS[name](values).numpy()
    np.testing.assert_allclose(got, heatmaps.OFFSETS[name](patches), atol=1e-4)


def test_any_size_and_batch(folder):
    engine = open_export(folder / "bu.onnx")
    for shape in [(1, 64, 64), (3, 96, 160), (2, 256, 64)]:
        found = engine(np.zeros((*shape, 3), np.uint8))
        assert found.heatmaps[0].shape == (shape[0], 17, shape[1] // 2, shape[2] // 2)


def test_without_a_config_the_same_predictor(folder):
    """What the runtime package does, with the settings inside the file alone."""
    for name, boxes in (("bu.onnx", None), ("td.onnx", Boxes.of([[5, 5, 60, 80]]))):
        one, other = load_exported(folder / name), load(folder / name, overrides=EXACT)
        assert one.to_dict() == other.to_dict()
        same_people(one(images(1)[0], boxes), other(images(1)[0], boxes), 0)
        assert one.operating_point == other.operating_point
    with pytest.raises(UserError, match="preset 'fast'"):
        load_exported(folder / "td.onnx", preset="fast")
    with pytest.raises(UserError, match="no exported network"):
        load_exported(folder / "td.safetensors")


def test_the_runtime_wheel_holds_what_is_imported():
    """The list in runtime/pyproject.toml is the import closure, and PyTorch is not in it."""
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "scipy", "munkres", "yacs", "yaml", "PIL", "tqdm"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import higherhrnet.methods.exported, higherhrnet.inference.pipeline
import higherhrnet.inference.tracking, higherhrnet.poses.conversions
import higherhrnet.methods.bottom_up.predictor, higherhrnet.methods.top_down.predictor
import higherhrnet.inference.engines.onnxruntime_engine
import higherhrnet.inference.engines.openvino_engine
print(*(m.__file__ for n, m in sys.modules.items() if n.startswith("higherhrnet.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {path.split("/higherhrnet/")[-1] for path in done.stdout.split()}
    listed = tomllib.loads((ROOT / "runtime" / "pyproject.toml").read_text())
    files = listed["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    prefix = "../higherhrnet/"
    assert {name.removeprefix(prefix) for name in files if name.startswith(prefix)} == {
        *imported, "py.typed",
    }  # fmt: skip
    for source, target in files.items():
        assert (ROOT / "runtime" / source).is_file()
        assert target == "higherhrnet_runtime/" + source.removeprefix(prefix)


def test_one_size(folder, capsys):
    export(folder, "bu", "one.onnx", "--size", "64", "128", "TEST.SCALE_FACTOR", "[1.0]")
    exported = load(folder / "one.onnx", overrides=EXACT)
    file = open_checkpoint(str(folder / "bu.safetensors"))
    config = config_of(file, [*EXACT, "TEST.SCALE_FACTOR", "[1.0]"])
    model, _ = build_model_with_weights(config, file, COCO)
    ours = build_torch_predictor(config, model, COCO, torch.device("cpu"), (64, 128))
    ours.operating_point = exported.operating_point
    image = images(1)[0]
    for part in (image, image[:40], image[:, :40]):  # square, wide and tall
        same_people(exported(np.ascontiguousarray(part)), ours(np.ascontiguousarray(part)))
    # The middle of the image is the middle of the input, and all of the image is in it.
    for shape in ((40, 96), (96, 40), (64, 128)):
        affine = geometry.fit_inside(shape, (64, 128), (64, 128))
        corners = geometry.apply(affine, np.array([[0, 0], [shape[1], shape[0]]]))
        assert (corners >= -1).all()
        assert (corners <= [129, 65]).all()
        assert corners.mean(axis=0) == pytest.approx([64, 32], abs=1)
    words = ["export", str(folder / "bu.safetensors"), "--size", "64", "128"]
    assert main([*words, "TEST.SCALE_FACTOR", "[1, 2]"]) == 2
    assert "several scales" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"DATASET\.INPUT_SIZE"):
        load(folder / "one.onnx", overrides=["DATASET.INPUT_SIZE", 128])


def test_what_is_inside_cannot_be_changed(folder):
    with pytest.raises(UserError, match=r"bu\.onnx.*TEST\.FLIP_TEST"):
        load(folder / "bu.onnx", overrides=["TEST.FLIP_TEST", False])
    with pytest.raises(UserError, match=r"TEST\.WITH_HEATMAPS"):
        load(folder / "bu.pt2", overrides=["TEST.WITH_HEATMAPS", [True, False]])
    with pytest.raises(UserError, match=r"TEST\.ENGINE"):
        load(folder / "bu.onnx", overrides=["TEST.ENGINE", "openvino"])
    with pytest.raises(UserError, match=r"TEST\.PRECISION bf16"):
        load(folder / "bu.onnx", overrides=["TEST.PRECISION", "bf16"])
    with pytest.raises(UserError, match="mps"):
        open_export(folder / "bu.onnx", "mps")
    with pytest.raises(UserError, match=r"TEST\.COMPILE"):
        load(folder / "bu.onnx", overrides=["TEST.COMPILE", True])


def test_sentences(folder, capsys, tmp_path):
    def said(*words: str) -> str:
        assert main(list(words)) == 2
        return capsys.readouterr().err

    weights = str(folder / "bu.safetensors")
    assert "FLIP_TEST is True" in said("export", weights, "--decode", "TEST.SCALE_FACTOR", "[1.0]")
    assert "--images" in said("export", weights, "--precision", "int8")
    assert ".onnx" in said("export", weights, "--output", str(tmp_path / "x.xml"))
    assert "multiples of 32" in said("export", weights, "--size", "64", "100")
    assert "holds no weights" in said("export", str(folder / "bu.onnx"))
    assert "holds no weights" in said("weights", "inspect", str(folder / "bu.onnx"))
    config = str(ROOT / "configs" / "mini" / "higherhrnet_w18_256.yaml")
    assert "does not exist" in said("valid", config, "--weights", str(tmp_path / "none.onnx"))
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match="is no ONNX file"):
        load(tmp_path / "broken.onnx")


def test_a_foreign_file_says_what_it_lacks(folder, tmp_path):
    import onnx

    model = onnx.load(folder / "bu.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match="not written by higherhrnet export"):
        load(tmp_path / "foreign.onnx")
    onnx.helper.set_model_props(model, {"higherhrnet": '{"format": 1}'})
    onnx.save(model, tmp_path / "damaged.onnx")
    with pytest.raises(UserError, match="is damaged"):
        load(tmp_path / "damaged.onnx")


def test_metadata_there_and_back(folder):
    info = read_info(folder / "bu.onnx")
    assert parse_info(folder / "bu.onnx", info.to_json()) == info
    assert info.network.flip
    assert json.loads(info.to_json())["skeleton"]["joints"] == list(COCO.joints)


def test_the_engine_setting_exports_once(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HIGHERHRNET_CACHE", str(tmp_path))
    settings = [*EXACT, "TEST.ENGINE", "onnxruntime"]
    one = load(folder / "bu.safetensors", overrides=settings)
    (file,) = (tmp_path / "exports").glob("*.onnx")
    written = file.stat().st_mtime_ns
    again = load(folder / "bu.safetensors", overrides=settings)
    assert file.stat().st_mtime_ns == written
    ours = load(folder / "bu.safetensors", overrides=EXACT)
    image = images(1)[0]
    same_people(one(image), ours(image))
    same_people(again(image), ours(image))


def test_a_detector_beside_another_engine(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HIGHERHRNET_CACHE", str(tmp_path))
    source = ["TEST.BBOX_SOURCE", str(folder / "bu.safetensors")]
    predictor = load(folder / "td.safetensors", "cpu", [*source, "TEST.ENGINE", "onnxruntime"])
    predictor(images(1)[0])
    load(folder / "td.safetensors", "cpu", [*source, "TEST.ENGINE", "onnxruntime",
                                            "TEST.FLIP_TEST", False])  # fmt: skip
    assert len([*(tmp_path / "exports").glob("*.onnx")]) == 1  # one network, however it is tested


def test_half_precision_is_half(folder):
    export(folder, "bu", "half.pt2", "--to", "torch_export", "--precision", "fp16")
    assert (folder / "half.pt2").stat().st_size < 0.8 * (folder / "bu.pt2").stat().st_size
    assert read_info(folder / "half.pt2").precision == "fp16"
    image = np.zeros((1, 64, 64, 3), np.uint8)
    one, other = (open_export(folder / name)(image).heatmaps[0] for name in ("half.pt2", "bu.pt2"))
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one, other, atol=0.05 * np.abs(other).max())


def test_the_fastest_way_is_measured_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HIGHERHRNET_CACHE", str(tmp_path))
    built, calls = [], []

    def builder(name, seconds):
        def way(images=None):
            calls.append(name)
            time.sleep(seconds)
            return name

        return lambda: built.append(name) or way

    model = torch.nn.Linear(2, 2)
    ways = {"fp32": builder("fp32", 0.02), "fused": builder("fused", 0.005)}
    assert choose_way(model, ways)() == "fused"
    measured = len(calls)
    built.clear()
    assert choose_way(model, ways)() == "fused"
    assert built == ["fused"]  # nothing else is made when it is known
    assert len(calls) == measured + 1
    alike = {"fp32": builder("fp32", 0.02), "b": builder("b", 0.0199)}
    assert choose_way(torch.nn.Linear(3, 3), alike)() == "fp32"
    (tmp_path / "precision.json").write_text("[1]")
    assert choose_way(model, ways)() == "fused"
    monkeypatch.setenv("HIGHERHRNET_CACHE", "/proc/nothing")
    assert choose_way(model, ways)() == "fused"


def test_valid_predict_and_ablate_take_exports(folder, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(
        BOTTOM_UP.replace("TEST: {", "TEST: {SCALE_FACTOR: [1.0], PRECISION: fp32, ")
        + "SYNTHETIC: {SIZE: 64, TEST_IMAGES: 3}\n"
    )
    config = [str(tmp_path / "c.yaml"), "DATASET.DATASET", "synthetic"]
    metrics = []
    for name in ("bu.safetensors", "bu.onnx"):
        words = ["valid", *config, "--weights", str(folder / name)]
        assert main([*words, "--output", str(tmp_path / name)]) == 0
        metrics.append(json.loads((tmp_path / name / "results.json").read_text()))
    assert "run by onnxruntime" in capsys.readouterr().out
    assert len(metrics[0]) == len(metrics[1]) > 0
    photo = ROOT / "higherhrnet" / "assets" / "demo.jpg"
    words = ["predict", str(photo), "--weights", str(folder / "bu.onnx")]
    assert main([*words, "--output", str(tmp_path / "p")]) == 0
    assert (tmp_path / "p" / "predictions.json").is_file()
    (tmp_path / "plan.yaml").write_text(
        f"RUNS: {{a: {{CONFIG: {tmp_path}/c.yaml, WEIGHTS: {folder}/bu.onnx}}}}\n"
        "EVALUATIONS: {a: {RUN: a}}\n"
    )
    words = ["ablate", str(tmp_path / "plan.yaml"), "--output", str(tmp_path / "a")]
    assert main([*words, "DATASET.DATASET", "synthetic"]) == 0


def test_assignment_without_scipy():
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(0)
    for number in range(300):
        shape = rng.integers(0, 9, 2)
        cost = rng.normal(size=shape) if number % 2 else rng.integers(0, 4, shape).astype(float)
        rows, columns = shortest_augmenting_paths(cost)
        expected = linear_sum_assignment(cost)
        assert len({*rows.tolist()}) == len({*columns.tolist()}) == min(shape)
        assert cost[rows, columns].sum() == pytest.approx(cost[expected].sum())


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    """The bundled network as ONNX."""
    target = tmp_path_factory.mktemp("bundled") / "w18.onnx"
    assert (
        main(["export", "higherhrnet_w18_mini", "--preset", "fast", "--output", str(target)]) == 0
    )
    return target


@pytest.mark.data
def test_ten_real_images(bundled):
    photos = sorted((SHARED / "coco_mini" / "images" / "val_mini").iterdir())[:10]
    ours = load("higherhrnet_w18_mini", "cpu", EXACT, raw=True, preset="fast")
    exported = load(bundled, "cpu", EXACT, raw=True)
    runtime = load_exported(bundled, raw=True)
    people = 0
    for photo in photos:
        image = read_image(photo)
        expected = ours(image)
        same_people(exported(image), expected)
        same_people(runtime(image), expected)
        people += len(expected)
    assert people > 20


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("settings", [[], ["TEST.FLIP_TEST", False]])
def test_ten_real_images_in_openvino(settings, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("HIGHERHRNET_CACHE", str(tmp_path))
    photos = sorted((SHARED / "coco_mini" / "images" / "val_mini").iterdir())[10:20]
    ours = load("higherhrnet_w18_mini", "cpu", [*EXACT, *settings], raw=True)
    overrides = [*EXACT, *settings, "TEST.ENGINE", "openvino"]
    exported = load("higherhrnet_w18_mini", "cpu", overrides, raw=True)
    for photo in photos:
        image = read_image(photo)
        same_people(exported(image), ours(image))


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(
    ("to", "precision", "most"),
    [("onnx", "fp16", 0.1), ("openvino", "fp16", 0.1), ("onnx", "int8", 0.5),
     ("openvino", "int8", 0.5)],
)  # fmt: skip
def test_ap_of_other_precisions(to, precision, most, tmp_path, capsys):
    pytest.importorskip("openvino")
    if precision == "int8" and to == "openvino":
        pytest.importorskip("nncf")
    suffix = {"onnx": ".onnx", "openvino": ".xml"}[to]
    words = ["export", "higherhrnet_w18_mini", "--to", to, "--precision", precision]
    words += ["--preset", "fast", "--output", str(tmp_path / f"m{suffix}")]
    words += ["--compare", str(ROOT / "configs" / "mini" / "higherhrnet_w18_384.yaml")]
    if precision == "int8":
        train = SHARED / "coco_mini" / "images" / "train_mini"
        words += ["--images", *(str(path) for path in sorted(train.iterdir())[:400:4])]
    assert main(words) == 0
    difference = float(capsys.readouterr().out.rpartition("(")[2].rpartition(")")[0])
    assert abs(difference) <= most
