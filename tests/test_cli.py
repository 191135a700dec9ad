"""Every verb through the real command line, and a sentence for every wrong input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from safetensors import safe_open
from safetensors.torch import save_file

from higherhrnet.boxes import read_detections
from higherhrnet.cli import main, split_overrides
from higherhrnet.cli.types import default_output
from higherhrnet.datasets.coco import valid_mask
from higherhrnet.errors import UserError
from higherhrnet.factory.checkpoints import open_checkpoint
from higherhrnet.io.atomic import write_json
from higherhrnet.io.images import read_image
from higherhrnet.io.store import Store
from higherhrnet.models.model_zoo import BUNDLED
from higherhrnet.research.synthetic.dataset import SyntheticPeople, write_coco
from higherhrnet.visualization import save_image

from .shared import ROOT, SHARED

TINY = """
MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, NUM_BASIC_BLOCKS: 1}
DATASET: {ROOT: %s, TRAIN: synthetic, TEST: synthetic, INPUT_SIZE: 64}
TRAIN: {END_EPOCH: 1, BATCH_SIZE: 2, WORKERS: 0, PRECISION: fp32}
"""


@pytest.fixture
def folder(tmp_path):
    write_coco(tmp_path / "data", SyntheticPeople(4, size=64))
    (tmp_path / "tiny.yaml").write_text(TINY % (tmp_path / "data"))
    return tmp_path


def edit_annotations(folder, change):
    file = folder / "data" / "annotations" / "person_keypoints_synthetic.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def sentence(capsys, status, *words):
    """The command ended with the status and said exactly one line holding the words."""
    got, arguments = status
    error = capsys.readouterr().err.strip().splitlines()
    said = [line for line in error if line.startswith("higherhrnet: ")]
    assert got in (1, 2), arguments
    assert len(said) == 1, error
    for word in words:
        assert word in said[0]
    return said[0]


def run(*arguments):
    words = [str(a) for a in arguments]
    return main(words), words


def test_train_valid_predict_convert(folder, capsys):
    config, out = folder / "tiny.yaml", folder / "out"
    assert run("train", config, "--output", out, "--device", "cpu")[0] == 0
    best = out / "best.safetensors"
    assert run("valid", config, "--weights", best, "--output", out / "v", "--device", "cpu")[0] == 0
    metrics = json.loads((out / "v" / "metrics.json").read_text())
    assert set(metrics["metrics"]) == {
        "AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL"
    }  # fmt: skip
    assert metrics["protocol"]["size"] == 64
    assert isinstance(json.loads((out / "v" / "results.json").read_text()), list)
    said = capsys.readouterr().out
    for word in ("tensors matched", "flip True", "scales [1.0]", "refine True", "AP75"):
        assert word in said

    images = folder / "data" / "images" / "synthetic"
    found = run(
        "predict", images, "--weights", best, "--output", out / "p", "TEST.FLIP_TEST", "False"
    )
    assert found[0] == 0
    written = json.loads((out / "p" / "predictions.json").read_text())
    assert len(written["images"]) == 4
    assert len(list((out / "p").glob("*_poses.jpg"))) == 4
    assert cv2.imread(str(next((out / "p").glob("*.jpg")))).shape == (64, 64, 3)
    said = capsys.readouterr().out
    for word in ("people", "ms an image", "forward", "decode"):
        assert word in said

    assert run("weights", "inspect", best)[0] == 0
    assert run("weights", "convert", best, out / "official.pth")[0] == 0
    assert (
        run("weights", "convert", out / "official.pth", out / "back.safetensors", "--half")[0] == 0
    )
    official = torch.load(out / "official.pth", weights_only=True)
    assert "stage4.0.fuse_layers.0.0.weight" not in official
    assert "deconv_layers.0.0.0.weight" in official
    assert "pose_higher_hrnet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"keypoints": 5}, "'keypoints' must be a list of numbers"),
        ({"keypoints": ["1"] * 51}, "'keypoints' must be a list of numbers"),
        ({"area": "x"}, "'area' cannot be 'x'"),
        ({"bbox": [1, 2, 3]}, "'bbox' must be x, y, width, height, not [1, 2, 3]"),
        ({"image_id": [1]}, "'image_id' cannot be [1]"),
        ({"bbox": [1, 2, float("nan"), 4]}, "'bbox' holds a number that is no place"),
        ({"keypoints": [float("inf"), 1, 2] * 17}, "'keypoints' holds a number that is no place"),
        ({"keypoints": [10**400, 1, 2] * 17}, "'keypoints' holds a number that is no place"),
        ({"center": [1]}, "'center' must be x, y, not [1]"),
        ({"center": [1, 1], "scale": [1.0, 1.0]}, "'scale' must be one number"),
        (
            {"iscrowd": 1, "segmentation": [["a", 1, 2, 3, 4, 5]]},
            "'segmentation' must be a list of numbers",
        ),
        (None, "number 0 must be a mapping"),
    ],
)
def test_annotations_of_the_wrong_kind_are_named(folder, capsys, change, word):
    file = next((folder / "data" / "annotations").glob("*.json"))
    content = json.loads(file.read_text())
    first = None if change is None else content["annotations"][0] | change
    content["annotations"][0] = first
    file.write_text(json.dumps(content))
    sentence(capsys, run("data", "check", folder / "tiny.yaml"), file.name, "annotation", word)


def test_a_image_id_is_there_once(folder, capsys):
    edit_annotations(folder, lambda content: content["images"][1].update(content["images"][0]))
    status = run("data", "check", folder / "tiny.yaml")
    sentence(capsys, status, "person_keypoints_synthetic.json", "lists image id", "twice")


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes are POSIX's")
def test_what_is_written_is_a_file_and_a_link_stays_one(folder, capsys):
    (folder / "real.json").write_text("old")
    (folder / "link.json").symlink_to(folder / "real.json")
    write_json(folder / "link.json", [1])
    assert (folder / "link.json").is_symlink()
    assert json.loads((folder / "real.json").read_text()) == [1]
    os.mkfifo(folder / "pipe")
    (folder / "file").write_text("")
    for path, said in (
        ("pipe", "no file"),
        ("data", "is a folder"),
        ("file/x", "file' is no folder"),
    ):
        sentence(capsys, run("weights", "convert", "hrnet_w18_mini", folder / path), path, said)
    assert not (folder / "pipe").is_file()


def test_a_box_file_is_not_written_over(folder, capsys):
    save_image(folder / "1.png", SyntheticPeople(1, size=64).draw(0).image)
    boxes = folder / "predictions.json"
    boxes.write_text(
        json.dumps([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 1}])
    )
    before = boxes.read_bytes()
    words = ("--mode", "top-down", "--boxes", boxes, "--output", folder)
    sentence(capsys, run("predict", folder / "1.png", *words), "would be overwritten")
    assert boxes.read_bytes() == before


def test_boxes_of_another_category_are_used_where_there_are_no_people(tmp_path):
    one = {"image_id": 1, "bbox": [0, 0, 9, 9], "score": 1.0}
    for categories, kept in (((26, 26), 2), ((1, 2), 1), ((1, 1), 2), ((0, 1), 1), ((0, 0), 2)):
        records = [one | {"category_id": category} for category in categories]
        (tmp_path / "boxes.json").write_text(json.dumps(records))
        found = read_detections(tmp_path / "boxes.json")
        assert len(found[1]) == kept
    records = [one | {"category_id": category} for category in (2, 26)]
    (tmp_path / "boxes.json").write_text(json.dumps(records))
    with pytest.raises(UserError, match=r"of its categories \['2', '26'\] none is known"):
        read_detections(tmp_path / "boxes.json")


def test_contradicting_words_are_refused(folder, capsys):
    save_image(folder / "a.png", SyntheticPeople(1, size=64).draw(0).image)
    said = run("predict", folder / "a.png", "--output", folder, "--show", "none", "poses")
    sentence(capsys, said, "--show none and --show poses contradict")
    said = run("predict", folder / "a.png", "--output", folder, "--boxes", "higherhrnet_w18_mini")
    sentence(capsys, said, "add --mode top-down")


def test_a_run_that_finds_nothing_leaves_older_results(folder, capsys):
    out = folder / "out"
    save_image(folder / "a.png", SyntheticPeople(1, size=64).draw(0).image)
    assert run("predict", folder / "a.png", "--output", out)[0] == 0
    before = (out / "predictions.json").read_bytes()
    capsys.readouterr()
    (folder / "b.png").write_bytes(b"")
    sentence(capsys, run("predict", folder / "b.png", "--output", out), "b.png")
    assert (out / "predictions.json").read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("weights", ["higherhrnet_w18_mini", "fcos_w18_person"])
def test_sigterm_ends_predict_as_ctrl_c_does(folder, weights):
    """What was found so far is written; nothing half-written stays."""
    images, out = folder / "images", folder / "out"
    images.mkdir()
    for number in range(60):
        save_image(images / f"{number:02d}.png", SyntheticPeople(1, size=128).draw(0).image)
    command = [sys.executable, "-m", "higherhrnet", "predict", images, "--output", out]
    command += ["--weights", weights]
    process = subprocess.Popen(
        [*map(str, command), "--device", "cpu"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 120
    while not list(out.glob("*.jpg")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    try:
        _, error = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, error
    assert "higherhrnet: ended by SIGTERM" in error
    listed = json.loads((out / "predictions.json").read_text())["images"]
    assert 0 < len(listed) < 60
    assert not list(out.glob(".*"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_ctrl_c_while_python_still_imports(folder):
    """At the very moment at which torch is looked for."""
    code = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
class Finder:
    def find_spec(self, name, *_):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv = ["higherhrnet", "demo"]
from higherhrnet.__main__ import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "higherhrnet: interrupted\n")


def test_a_report_on_images_without_people(folder, capsys):
    edit_annotations(folder, lambda content: content["annotations"].clear())
    out, name = folder / "out", "higherhrnet_w18_mini"
    settings = ("MODEL.WIDTH", 18, "MODEL.NUM_MODULES", "[1, 4, 3]", "MODEL.NUM_BLOCKS", 4)
    settings += ("MODEL.NUM_BASIC_BLOCKS", 4)
    words = ("--weights", name, "--report", "--output", out, *settings)
    assert run("valid", folder / "tiny.yaml", *words)[0] == 0
    assert (out / "report.png").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("TRAIN.GRAD_CLIP_NORM", -1), "'TRAIN.GRAD_CLIP_NORM' must be at least 0, not -1"),
        (("TRAIN.FREEZE", "['']"), "'TRAIN.FREEZE' leaves nothing to train"),
        (("TRAIN.LR_MULT", "['stage2 -5']"), "'stage2 -5' is no factor for a rate"),
        (("TRAIN.EMA_DECAY", 1), "'TRAIN.EMA_DECAY' must be in 0..0.999999, not 1.0"),
        (("TEST.SCALE_FACTOR", "[1, 1]"), "must list scales, each once"),
        (("--device", "meta"), "device 'meta' is unknown"),
    ],
)
def test_settings_that_would_ruin_a_run_are_refused(folder, capsys, words, said):
    status = run("train", folder / "tiny.yaml", "--output", folder / "o", *words)
    sentence(capsys, status, said)


def test_what_cannot_be_read_back_is_not_written(folder, capsys):
    name = "hrnet_w18_mini"
    for words, said in (
        (("convert", name, folder / "x.pth", "--to", "native"), "ends in .safetensors"),
        (("convert", name, folder / "x.safetensors", "--to", "official"), "does not end"),
        (("convert", name, folder / "x.pth", "--half"), "--half is for native files"),
        (("average", name, folder / "tiny.yaml"), "two or more files"),
        (("average", name, name, folder / "tiny.yaml"), "exists already"),
    ):
        sentence(capsys, run("weights", *words), said)
    torch.save({"a": torch.zeros(3, device="meta")}, folder / "meta.pth")
    sentence(capsys, run("weights", "inspect", folder / "meta.pth"), "no numbers")
    torch.save({"a": Path("code")}, folder / "code.pth")
    said = sentence(capsys, run("weights", "inspect", folder / "code.pth"), "holds no tensors")
    assert "weights_only" not in said


def test_the_packages_own_files_are_not_calibrated_by_any_name(folder, capsys):
    link = folder / "link"
    link.symlink_to(BUNDLED)
    file = link / "hrnet_w18_mini.safetensors"
    status = run("valid", folder / "tiny.yaml", "--weights", file, "--calibrate")
    sentence(capsys, status, "belongs to the package")


def test_another_upsampling_is_another_model(folder, capsys):
    name = "higherhrnet_w18_mini"
    config = ROOT / "configs" / "mini" / "higherhrnet_w18_256.yaml"
    status = run("valid", config, "--weights", name, "MODEL.UPSAMPLE_MODE", "bilinear")
    sentence(
        capsys, status, "trained with MODEL.UPSAMPLE_MODE nearest, but the config has bilinear"
    )

    image = ROOT / "higherhrnet" / "assets" / "demo.jpg"
    out = folder / "p"
    status = run("predict", image, "--output", out, "MODEL.UPSAMPLE_MODE", "bilinear")
    sentence(
        capsys, status, "trained with MODEL.UPSAMPLE_MODE nearest, but the config has bilinear"
    )
    source = BUNDLED / f"{name}.safetensors"
    other = folder / "other.safetensors"
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    metadata["config"] = metadata["config"].replace("MODE: nearest", "MODE: bilinear")
    save_file(state, other, metadata)
    status = run("weights", "average", source, other, folder / "mean.safetensors")
    sentence(capsys, status, "other.safetensors", "MODEL.UPSAMPLE_MODE is bilinear, not nearest")
    for config_text in ("MODEL: text", "{"):
        save_file(state, other, metadata | {"config": config_text})
        sentence(capsys, run("valid", config, "--weights", other), "its config cannot be read")
    save_file(state, other, metadata | {"display": '{"unknown": 0.5}'})
    sentence(capsys, run("weights", "inspect", other), "unknown limits")
    save_file(state, other)
    status = run("valid", config, "--weights", other, "--calibrate")
    sentence(capsys, status, "cannot hold an operating point; convert it first")


def test_names_that_look_like_something_else(folder, capsys, monkeypatch):
    """An image like a setting, a file of boxes like YAML, and weights that a shell lost."""
    monkeypatch.chdir(folder)
    save_image(folder / "TEST.JPG", np.zeros((64, 64, 3), np.uint8))
    settings = ["DATASET.INPUT_SIZE", "64", "TEST.SCALE_FACTOR", "[1.0]", "TEST.FLIP_TEST", "False"]
    assert run("predict", "TEST.JPG", "--output", "p", *settings)[0] == 0
    assert (folder / "p" / "TEST_poses.jpg").is_file()
    sentence(capsys, run("predict", "TEST.JPG", "--weights", ""), "''")
    save_image(folder / "TEST.A=1.jpg", np.zeros((64, 64, 3), np.uint8))
    assert run("predict", "TEST.A=1.jpg", "--output", "p", *settings)[0] == 0
    words = ("predict", "TEST.JPG", "--mode", "top-down", "TEST.BOXES", "higherhrnet_w18_mini")
    assert run(*words, "--offline", "--output", "c")[0] == 0  # the former key counts
    sentence(capsys, run(*words[:-1], "truth", "--output", "c"), "is ground_truth")
    record = {"image_id": "TEST", "category_id": 1, "bbox": [5, 5, 40, 50], "score": 1.0}
    for boxes in ("run #1.json", "[a].json"):
        write_json(folder / boxes, [record])
        words = ("predict", "TEST.JPG", "--mode", "top-down", "--boxes", boxes)
        assert run(*words, "--output", "b")[0] == 0
    write_json(folder / "set.json", {"annotations": [record]})
    words = ("predict", "TEST.JPG", "--mode", "top-down", "--boxes", "set.json")
    sentence(capsys, run(*words, "--output", "b"), "set.json", "an object without 'images'")


def test_configs_of_one_name_have_folders_of_their_own():
    places = {
        "configs/coco/w32.yaml": "output/coco/w32", "/a/configs/x/w32.yaml": "output/x/w32",
        "configs/synthetic.yaml": "output/synthetic", "mine.yaml": "output/mine",
        "a/b.yaml": "output/b",
        "output/run/config.yaml": "output/run", "configs/../other/x.yaml": "output/x",
        "/configs/a/configs/coco/x.yaml": "output/coco/x",
    }  # fmt: skip
    assert {k: str(default_output(k)) for k in places} == places


def test_nobody_found_is_ap_zero_not_a_crash(folder):
    config, out = folder / "tiny.yaml", folder / "out"
    run("train", config, "--output", out)
    arguments = (
        "--weights",
        out / "best.safetensors",
        "--output",
        out,
        "TEST.DETECTION_THRESHOLD",
        "1.0",
    )
    assert run("valid", config, *arguments)[0] == 0
    assert json.loads((out / "results.json").read_text()) == []
    assert json.loads((out / "metrics.json").read_text())["metrics"]["AP"] == 0
    blank = folder / "blank.png"
    save_image(blank, np.full((40, 60, 3), 90, np.uint8))
    arguments = (
        "--weights",
        out / "best.safetensors",
        "--output",
        out / "p",
        "TEST.DETECTION_THRESHOLD",
        "1.0",
    )
    assert run("predict", blank, *arguments)[0] == 0
    assert json.loads((out / "p" / "predictions.json").read_text())["annotations"] == []


def test_data_verbs(folder, capsys):
    assert (
        run("data", "synthetic", folder / "more", "--images", 3, "--people", 5, 5, "--overlap", 1)[
            0
        ]
        == 0
    )
    assert len(list((folder / "more" / "images" / "synthetic").iterdir())) == 3
    assert run("data", "check", folder / "tiny.yaml")[0] == 0
    assert "4 images" in capsys.readouterr().out

    def spoil(content):
        content["annotations"][0] |= {
            "area": 0,
            "num_keypoints": 99,
            "id": content["annotations"][1]["id"],
        }

    edit_annotations(folder, spoil)
    (folder / "data" / "images" / "synthetic" / "000002.png").unlink()
    assert run("data", "check", folder / "tiny.yaml")[0] == 2
    said = "".join(capsys.readouterr())
    for word in ("area of 0", "num_keypoints", "used twice", "without a file: 000002.png"):
        assert word in said


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("vald", "c.yaml"), "did you mean valid?"),
        (("predict", "a.jpg", "--wieghts", "x"), "did you mean --weights?"),
        (("predict", "a.jpg", "--min_score", "0.3"), "did you mean --min-score?"),
        (("weights", "inspct", "x"), "did you mean inspect?"),
        (("predict", "a.jpg", "--zzz"), "unrecognized arguments: --zzz"),
    ],
)
def test_mistyped_commands_and_options(capsys, words, meant):
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code == 2
    assert meant in capsys.readouterr().err


def test_epochs_on_the_command_line_count_more_than_minutes_in_a_file(folder, capsys):
    text = (folder / "tiny.yaml").read_text()
    (folder / "timed.yaml").write_text(text.replace("TRAIN: {END", "TRAIN: {MINUTES: 60, END"))
    words = ("train", folder / "timed.yaml", "--output", folder / "timed", "--device", "cpu")
    assert run(*words, "TRAIN.END_EPOCH", 1)[0] == 0
    assert "TRAIN.END_EPOCH instead of the config's TRAIN.MINUTES 60" in capsys.readouterr().out
    sentence(capsys, run(*words, "TRAIN.END_EPOCH", 1, "TRAIN.MINUTES", 3), "exclusive")


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    for verb in ("train", "valid", "predict", "weights", "data", "demo"):
        assert verb in said


def test_a_image_too_long_for_any_memory_is_reported_and_the_rest_is_done(folder, capsys):
    images = folder / "images"
    images.mkdir()
    save_image(images / "a.png", SyntheticPeople(1, size=64).draw(0).image)
    save_image(images / "strip.png", np.zeros((5000, 1, 3), np.uint8))
    status = run("predict", images, "--output", folder / "out", "TEST.FLIP_TEST", "False")
    assert status[0] == 2
    assert "strip.png" in sentence(capsys, status, "1x5000 pixels would become an input of")
    assert (folder / "out" / "a_poses.jpg").exists()
    listed = json.loads((folder / "out" / "predictions.json").read_text())["images"]
    assert [Path(image["file_name"]).name for image in listed] == ["a.png"]


def test_an_input_is_not_written_over(folder, capsys):
    images = folder / "images"
    images.mkdir()
    for name in ("a.png", "a_poses.jpg"):
        save_image(images / name, SyntheticPeople(1, size=64).draw(0).image)
    before = (images / "a_poses.jpg").read_bytes()
    status = run("predict", images, "--output", images)
    sentence(capsys, status, "a_poses.jpg' is an input and would be overwritten")
    assert (images / "a_poses.jpg").read_bytes() == before
    assert run("predict", images / "a_poses.jpg", "--output", images)[0] == 0


def test_what_was_found_is_kept_when_a_drawing_cannot_be_written(folder, capsys):
    images, out = folder / "images", folder / "out"
    images.mkdir()
    for name in ("a.png", "b.png"):
        save_image(images / name, SyntheticPeople(1, size=64).draw(0).image)
    (out / "b_poses.jpg").mkdir(parents=True)  # a folder has its name
    status = run("predict", images, "--output", out)
    assert status[0] == 1
    sentence(capsys, status, "could not write", "b_poses.jpg")
    listed = json.loads((out / "predictions.json").read_text())["images"]
    assert [Path(image["file_name"]).name for image in listed] == ["a.png", "b.png"]


def test_names_as_long_as_file_systems_allow(folder):
    name = "一" * 80 + ".png"  # 244 bytes
    image = SyntheticPeople(1, size=64).draw(0).image
    save_image(folder / "short.png", image)
    (folder / "short.png").rename(folder / name)
    assert run("predict", folder / name, "--output", folder / "out")[0] == 0
    assert len(list((folder / "out").glob("一*_poses.jpg"))) == 1


def test_what_cameras_append_to_a_jpeg_does_not_make_it_truncated(folder):
    image = SyntheticPeople(1, size=64).draw(0).image
    save_image(folder / "a.jpg", image)
    content = (folder / "a.jpg").read_bytes()
    for number in range(5):
        appended = np.random.default_rng(number).bytes(300_000)
        (folder / "motion.jpg").write_bytes(content + appended)
        assert read_image(folder / "motion.jpg").shape == image.shape
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="is truncated"):
        read_image(folder / "cut.jpg")


def test_the_package_s_own_weights_are_not_calibrated(folder, capsys):
    status = run("valid", folder / "tiny.yaml", "--weights", "higherhrnet_w18_mini", "--calibrate")
    sentence(capsys, status, "belongs to the package")


def test_bench_refuses_what_it_does_not_measure(capsys):
    status = run("bench", "track", "--people", "1", "--weights", "hrnet_w18_mini")
    sentence(capsys, status, "for weights that find people", "hrnet_w18_mini")
    sentence(
        capsys, run("bench", "decode", "TEST.FLIP_TEST", "False"), "TEST.FLIP_TEST changes nothing"
    )


def test_bench_wants_sensible_numbers(capsys):
    for words in (("decode", "--repeats", "0"), ("model", "--sizes", "16")):
        with pytest.raises(SystemExit) as ended:
            run("bench", *words)
        assert ended.value.code == 2
        assert "must be" in capsys.readouterr().err


def test_missing_inputs(folder, capsys):
    config, out = folder / "tiny.yaml", folder / "never"
    (folder / "empty").mkdir()
    cases = [
        (("predict", folder / "none.jpg"), "none.jpg", "does not exist"),
        (("predict", folder / "empty"), "holds no images"),
        (("predict", folder / "*.webp"), "*.webp"),
        (("train", folder / "none.yaml"), "none.yaml"),
        (("train", config, "TRAIN.EPOCH", "3"), "TRAIN.EPOCH", "did you mean"),
        (("train", config, "DATASET.TRAIN", "nowhere"), "person_keypoints_nowhere.json"),
        (("train", config, "MODEL.PRETRAINED", "none.pth"), "none.pth"),
        (("train", config, "--resume"), "no checkpoint to resume from"),
        (("train", config, "DATASET.ROOT", "${NOT_SET_ANYWHERE}/x"), "NOT_SET_ANYWHERE"),
        (("valid", config, "--weights", "none.pth"), "none.pth"),
        (("predict", ROOT / "README.md", "--device", "quantum"), "quantum"),
        (("weights", "inspect", "none.pth"), "none.pth"),
        (("data", "synthetic", out, "--images", "0"), "--images"),
        (("weights", "list", "TEST.FLIP_TEST", "False"), "TEST.FLIP_TEST"),
        (
            ("train", config, "DATASET.DATASET", "synthetic", "DATASET.SKELETON", "crowdpose"),
            "SKELETON",
        ),
    ]
    for arguments, *words in cases:
        extra = () if arguments[0] in ("weights", "data") else ("--output", out)
        sentence(capsys, run(*arguments, *extra), *words)
        assert not list(out.glob("**/*.json"))


def test_broken_images_are_reported_and_the_rest_is_done(folder, capsys):
    good = folder / "data" / "images" / "synthetic" / "000000.png"
    cut, text = folder / "cut.jpg", folder / "text.jpg"
    save_image(cut, SyntheticPeople(1).draw(0).image)
    cut.write_bytes(cut.read_bytes()[:2000])
    text.write_text("no image")
    out = folder / "p"
    assert run("predict", cut, text, good, "--output", out, "DATASET.INPUT_SIZE", "64")[0] == 2
    error = capsys.readouterr().err
    assert f"image '{cut}' is truncated" in error
    assert f"image '{text}' cannot be decoded" in error
    assert [p.name for p in out.glob("*.jpg")] == ["000000_poses.jpg"]
    written = json.loads((out / "predictions.json").read_text())
    assert [image["file_name"] for image in written["images"]] == [str(good)]


def test_wrong_joint_count(folder, capsys):
    edit_annotations(folder, lambda c: c["annotations"][0].update(keypoints=[1, 2, 2] * 14))
    said = sentence(
        capsys, run("train", folder / "tiny.yaml", "--output", folder / "o"), "42 keypoint"
    )
    assert "17 joints" in said
    assert not (folder / "o").exists()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_missing_and_truncated_training_images(folder, capsys, workers):
    file = folder / "data" / "images" / "synthetic" / "000001.png"
    file.write_bytes(file.read_bytes()[:1000])
    for output, words in (("o1", "is truncated"), ("o2", "does not exist")):
        arguments = ("--output", folder / output, "TRAIN.WORKERS", workers)
        status = run("train", folder / "tiny.yaml", *arguments)
        assert status[0] == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        lines = [line for line in error.splitlines() if line.startswith("higherhrnet: ")]
        assert "000001.png" in lines[-1]
        assert words in lines[-1]
        assert ("1 image without a file: 000001.png" in lines[0]) is (words != "is truncated")
        file.unlink(missing_ok=True)


def test_scales_that_the_network_cannot_take(folder, capsys):
    image = folder / "data" / "images" / "synthetic" / "000000.png"
    status = run("predict", image, "--output", folder / "p", "TEST.SCALE_FACTOR", "[1, 1.2]")
    sentence(capsys, status, "TEST.SCALE_FACTOR", "multiples of 32")


def test_resuming_with_another_model_or_a_broken_file(folder, capsys):
    arguments = ("train", folder / "tiny.yaml", "--output", folder / "o")
    assert run(*arguments)[0] == 0
    capsys.readouterr()
    sentence(capsys, run(*arguments, "--resume", "MODEL.WIDTH", 8), "does not fit this config")
    (folder / "o" / "last.pth").write_bytes(b"broken")
    sentence(capsys, run(*arguments, "--resume"), "last.pth", "cannot be read")
    for other in ({}, [1], {"random": {"torch": torch.get_rng_state()}, "model": {}}):
        torch.save(other, folder / "o" / "last.pth")
        sentence(capsys, run(*arguments, "--resume"), "last.pth", "no checkpoint of a training")


def test_damaged_weights_are_named(folder, capsys):
    name = "hrnet_w18_mini"
    file = open_checkpoint(name)
    for change, said in (
        ({"display": '{"person": "x"}'}, "damaged"),
        ({"skeleton": "[1]"}, "damaged"),
        ({"display": '{"nobody": 1}'}, "unknown limits"),
    ):
        metadata = {"format": "higherhrnet", "config": file.config or "", **change}
        save_file(file.state, folder / "x.safetensors", metadata)
        words = ("--weights", folder / "x.safetensors", "--output", folder / "out")
        boxes = ("TEST.BBOX_SOURCE", "higherhrnet_w18_mini")
        status = run("predict", ROOT / "higherhrnet" / "assets" / "demo.jpg", *words, *boxes)
        sentence(capsys, status, "x.safetensors", said)
    state = {**file.state, "conv1.weight": file.state["conv1.weight"] * float("nan")}
    save_file(state, folder / "x.safetensors", {"format": "higherhrnet"})
    sentence(capsys, run("weights", "inspect", folder / "x.safetensors"), "finite", "conv1.weight")
    torch.save({0: torch.zeros(1)}, folder / "x.pth")
    sentence(capsys, run("weights", "inspect", folder / "x.pth"), "x.pth", "holds no HRNet")


def test_file_names_in_capitals_are_not_settings(tmp_path):
    save_image(tmp_path / "PHOTO.JPG", SyntheticPeople(1, size=64).draw(0).image)
    assert run("predict", tmp_path / "PHOTO.JPG", "--output", tmp_path / "p")[0] == 0
    assert split_overrides(["predict", "PHOTO.JPG", "TEST.FLIP_TEST", "False"]) == (
        ["predict", "PHOTO.JPG"],
        ["TEST.FLIP_TEST", "False"],
    )


@pytest.mark.parametrize(
    ("segmentation", "ignored"),
    [
        ([[10, 10, 30, 10, 30, 30, 10, 30]], 400),
        ([[]], 2500),  # no polygon: the box
        ([], 2500),
        (None, 2500),
        ({"size": [60, 60], "counts": [600, 600, 2400]}, 600),
        ({"size": [60, 60], "counts": "compressed"}, 3600),
        ({"size": [9, 9], "counts": [81]}, 2500),  # of another image
    ],
)
def test_ignored_regions_in_every_form(segmentation, ignored):
    if segmentation and segmentation == {"size": [60, 60], "counts": "compressed"}:
        atomic_write = rle.encode(np.asfortranarray(np.ones((60, 60), np.uint8)))
        segmentation["counts"] = atomic_write["counts"].decode()
    record = {"keypoints": [0] * 51, "bbox": [0, 0, 50, 50], "segmentation": segmentation}
    valid = valid_mask([record], (60, 60))
    assert abs(int((valid == 0).sum()) - ignored) <= 45
    assert valid_mask([{"keypoints": [0] * 51}], (60, 60)).all()


def test_a_run_is_not_overwritten(folder, capsys):
    arguments = ("train", folder / "tiny.yaml", "--output", folder / "o")
    assert run(*arguments)[0] == 0
    capsys.readouterr()
    sentence(capsys, run(*arguments), "already holds a run", "--resume")
    assert run(*arguments, "--resume", "TRAIN.END_EPOCH", 2)[0] == 0


def test_images_are_turned_upright_to_predict_only(tmp_path):
    wide = tmp_path / "wide.jpg"
    orientation = Image.Exif()
    orientation[0x0112] = 6  # the camera was held upright
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(wide, exif=orientation)
    assert read_image(wide).shape == (30, 20, 3)
    assert read_image(wide, upright=False).shape == (20, 30, 3)
    assert Store(tmp_path).image("wide.jpg").shape == (20, 30, 3)  # as annotations have it


def test_bytes_after_the_image_do_no_harm(tmp_path):
    file = tmp_path / "camera.jpg"
    save_image(file, SyntheticPeople(1).draw(0).image)
    file.write_bytes(file.read_bytes() + bytes(1000))
    assert read_image(file).shape == (256, 256, 3)


def test_checkpoint_of_another_model(folder, capsys):
    out = folder / "out"
    run("train", folder / "tiny.yaml", "--output", out)
    capsys.readouterr()
    arguments = ("--weights", out / "best.safetensors", "--output", out / "v", "MODEL.WIDTH", "8")
    sentence(
        capsys, run("valid", folder / "tiny.yaml", *arguments), "another model", "best.safetensors"
    )
    assert not (out / "v").exists()


def test_nan_loss_exits_with_1(folder, capsys):
    status = run("train", folder / "tiny.yaml", "--output", folder / "o", "TRAIN.LR", "1e30")
    assert status[0] == 1
    sentence(capsys, status, "the loss became", "on images")


def test_a_full_disk_exits_with_1(folder, capsys, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    good = folder / "data" / "images" / "synthetic" / "000000.png"
    status = run("predict", good, "--output", folder / "p", "DATASET.INPUT_SIZE", "64")
    assert status[0] == 1
    sentence(capsys, status, "could not write", "000000_poses.jpg", "No space left")
    # Nothing half-written; what was found is not lost with the drawing.
    assert {p.name for p in (folder / "p").iterdir()} == {
        "predictions.json", "results.json", "predictions.csv",
    }  # fmt: skip
    assert json.loads((folder / "p" / "predictions.json").read_text())["images"]


@pytest.mark.data
def test_real_images_end_to_end(tmp_path, capsys):
    """Real COCO images, the real trunk: a few steps, AP of two images, and a drawing."""
    config = ROOT / "configs" / "mini" / "higherhrnet_w18_256.yaml"
    short = ["DATASET.TRAIN_LIMIT", "4", "DATASET.TEST_LIMIT", "2", "TRAIN.BATCH_SIZE", "2"]
    short += ["TRAIN.END_EPOCH", "1", "TRAIN.WORKERS", "0"]
    assert run("train", config, "--output", tmp_path, *short)[0] == 0
    assert "1460 tensors matched" in capsys.readouterr().out
    photos = sorted((SHARED / "coco_mini" / "images" / "val_mini").iterdir())[:2]
    assert run("predict", *photos, "--output", tmp_path / "p")[0] == 0
    assert len(list((tmp_path / "p").glob("*_poses.jpg"))) == 2


@pytest.mark.data
def test_annotations_of_the_real_sets_are_sound(capsys):
    run("data", "check", ROOT / "configs" / "mini" / "higherhrnet_w18_256.yaml")
    said = capsys.readouterr().out
    assert "train: 2489 images, 9662 people" in said
    assert "test: 200 images" in said


@pytest.mark.parametrize("verb", ["train", "valid", "predict", "ablate"])
def test_settings_that_the_shell_cut(verb, capsys):
    for words, sentence in (
        (
            ["TEST.SCALE_FACTOR", "[1,", "2]", "here"],
            "TEST.SCALE_FACTOR: '[1,' is part of a list; put the",
        ),
        (["here", "TEST.FLIP_TEST"], "'TEST.FLIP_TEST' has no value"),
    ):
        assert main([verb, *words]) == 2
        assert sentence in capsys.readouterr().err
