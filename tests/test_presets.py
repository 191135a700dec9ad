"""Presets: fast, balanced and accurate test settings in a checkpoint, each with its own limits."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from higherhrnet import UserError, load
from higherhrnet.cli import main
from higherhrnet.factory.checkpoints import open_checkpoint
from higherhrnet.inference.video_writer import VideoWriter
from higherhrnet.models.model_zoo import BUNDLED
from higherhrnet.visualization import save_image

CONFIG = """
MODEL: {WIDTH: 18}
DATASET: {DATASET: synthetic, INPUT_SIZE: 64}
SYNTHETIC: {SIZE: 64, TEST_IMAGES: 3}
TEST: {SCALE_FACTOR: [1, 2]}
"""


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A copy of the bundled weights with one preset, of its own."""
    folder = tmp_path_factory.mktemp("calibrated")
    with safe_open(BUNDLED / "higherhrnet_w18_mini.safetensors", "pt") as file:
        metadata = {name: value for name, value in file.metadata().items() if name != "presets"}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, folder / "own.safetensors", metadata)
    (folder / "c.yaml").write_text(CONFIG)
    words = ["valid", str(folder / "c.yaml"), "--weights", str(folder / "own.safetensors")]
    words += ["--preset", "fast", "--calibrate", "--output", str(folder / "v")]
    assert main([*words, "DATASET.INPUT_SIZE", "128", "TEST.BLUR_SIGMA", "1.5"]) == 0
    return folder


def test_calibrating_writes_a_preset_and_leaves_the_rest(calibrated):
    file = open_checkpoint(str(calibrated / "own.safetensors"))
    before = open_checkpoint("higherhrnet_w18_mini")
    assert file.operating_point == before.operating_point
    assert file.presets["fast"]["settings"] == {
        "TEST.SCALE_FACTOR": [1.0],
        "TEST.FLIP_TEST": False,
        "TEST.BLUR_SIGMA": 1.5,
        "DATASET.INPUT_SIZE": 128,
    }
    measured = json.loads((calibrated / "v" / "metrics.json").read_text())
    assert file.presets["fast"]["operating_point"] == measured["operating_point"]
    assert measured["protocol"]["scales"] == [1.0]
    assert measured["protocol"]["flip"] is False


def test_presets_are_loaded_with_their_limits(calibrated, caplog):
    name = str(calibrated / "own.safetensors")
    fast, plain = load(name, "cpu", preset="fast"), load(name, "cpu")
    assert (fast.augmentation.input_size, fast.augmentation.flip) == (128, False)
    assert fast.codec.blur_sigma == 1.5
    stored = open_checkpoint(name).presets["fast"]["operating_point"]
    assert fast.operating_point.to_dict() == stored
    assert plain.augmentation == load("higherhrnet_w18_mini", "cpu").augmentation
    assert load(name, "cpu", preset="accurate").augmentation == plain.augmentation
    # Own settings come on top; what was never calibrated is said.
    assert load(name, "cpu", ["TEST.FLIP_TEST", True], preset="fast").augmentation.flip
    with caplog.at_level("INFO", "higherhrnet"):
        balanced = load(name, "cpu", preset="balanced")
    assert "was not calibrated for preset balanced" in caplog.text
    assert balanced.augmentation.scales == (1.0,)
    # With other settings than it was calibrated with, its figures are not said.
    assert replace(plain.operating_point, precision=0, recall=0, images=0) == (
        balanced.operating_point
    )
    assert "(not calibrated with these settings)" in str(balanced.operating_point)
    assert load(name, "cpu", ["TEST.PRECISION", "fp32"]).operating_point == plain.operating_point
    with pytest.raises(UserError, match="preset 'quick' must be one of fast, balanced, accurate"):
        load(name, "cpu", preset="quick")
    assert load(name, "cpu", preset="fast", raw=True).operating_point is None
    assert load("hrnet_w18_mini", "cpu", preset="fast").flip is False


def test_videos_take_the_fast_preset_if_it_is_calibrated(calibrated, tmp_path, capsys):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(2)]
    with VideoWriter(tmp_path / "v.mp4", Fraction(10)) as writer:
        for number, frame in enumerate(frames):
            writer.add(frame, 0.1 * number)
    save_image(tmp_path / "i.png", frames[0])
    words = ["predict", str(tmp_path / "v.mp4"), str(tmp_path / "i.png"), "--show", "none"]
    words += ["--output", str(tmp_path / "o"), "--device", "cpu"]
    own = ["--weights", str(calibrated / "own.safetensors")]
    sentence = "videos: preset fast"
    assert main([*words, *own]) == 0
    said = capsys.readouterr().out
    assert sentence in said
    points = load(own[1], "cpu").operating_point, load(own[1], "cpu", preset="fast").operating_point
    for which, point in zip(("images", "videos"), points, strict=True):
        assert f"operating point of {which}: {point}" in said
    for more in (["--preset", "balanced"], ["TEST.FLIP_TEST", "True"]):
        assert main([*words, *own, *more]) == 0
        assert sentence not in capsys.readouterr().out


def test_presets_survive_conversion_and_are_shown(calibrated, tmp_path, capsys):
    source = str(calibrated / "own.safetensors")
    assert main(["weights", "convert", source, str(tmp_path / "c.safetensors")]) == 0
    converted = open_checkpoint(str(tmp_path / "c.safetensors"))
    assert converted.presets == open_checkpoint(source).presets
    # What was not measured with these settings is not said of them.
    own = open_checkpoint(source)
    assert own.operating_point["images"] > 0
    changed = str(tmp_path / "changed.safetensors")
    assert main(["weights", "convert", source, changed, "DATASET.INPUT_SIZE", "192"]) == 0
    found = open_checkpoint(changed)
    assert found.operating_point == {
        **own.operating_point,
        "precision": 0,
        "recall": 0,
        "images": 0,
    }
    assert found.presets == own.presets  # which has an input size of its own
    capsys.readouterr()
    assert main(["weights", "inspect", source]) == 0
    assert "preset fast: TEST.SCALE_FACTOR [1.0], TEST.FLIP_TEST False" in capsys.readouterr().out


def test_a_damaged_preset_is_said(calibrated, tmp_path):
    with safe_open(calibrated / "own.safetensors", "pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for spoiled in ('{"fast": 3}', '{"fast": {"settings": {}}}', "[1]",
                    '{"fast": {"settings": 1, "operating_point": {}}}',
                    '{"fast": {"settings": {}, "operating_point": {"person": "x"}}}'):  # fmt: skip
        save_file(tensors, tmp_path / "s.safetensors", metadata | {"presets": spoiled})
        with pytest.raises(UserError, match="its description cannot be read"):
            open_checkpoint(str(tmp_path / "s.safetensors"))
