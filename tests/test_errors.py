"""A user's mistake is one sentence; a programmer's keeps its traceback, out of any thread."""

import numpy as np
import pytest

from higherhrnet import load, predict_many
from higherhrnet.cli import main
from higherhrnet.errors import UserError
from higherhrnet.methods.bottom_up.codec import BottomUpCodec
from higherhrnet.research.synthetic.dataset import SyntheticPeople, write_coco

TINY = """
MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, NUM_BASIC_BLOCKS: 1}
DATASET: {ROOT: %s, TRAIN: synthetic, TEST: synthetic, INPUT_SIZE: 64}
TRAIN: {END_EPOCH: 1, BATCH_SIZE: 2, PRECISION: fp32}
"""


@pytest.fixture
def config(tmp_path):
    write_coco(tmp_path / "data", SyntheticPeople(4, size=64))
    (tmp_path / "tiny.yaml").write_text(TINY % (tmp_path / "data"))
    return tmp_path / "tiny.yaml"


def broken(*_, **__):
    return np.zeros(3) + np.zeros(4)


def message_of(raised):
    """What Python prints: the last line of a worker's own traceback comes within the message."""
    return str(raised.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bug_in_a_codec_keeps_its_traceback_in_training(config, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(BottomUpCodec, "index_keypoints", broken)
    words = ["train", str(config), "--output", str(tmp_path / "o"), "TRAIN.WORKERS", str(workers)]
    with pytest.raises(ValueError, match="could not be broadcast") as raised:
        main(words)
    if workers:
        assert "test_errors.py" in message_of(raised)  # the worker's traceback, with file and line


def test_a_bug_in_a_codec_keeps_its_traceback_in_prediction(config, tmp_path, monkeypatch):
    monkeypatch.setattr(BottomUpCodec, "decode", broken)
    image = tmp_path / "data" / "images" / "synthetic" / "000000.png"
    output = ["--output", str(tmp_path / "o"), "DATASET.INPUT_SIZE", "64"]
    with pytest.raises(ValueError, match="could not be broadcast"):
        main(["predict", str(image), *output])
    with pytest.raises(ValueError, match="could not be broadcast"):
        list(predict_many(load(overrides=output[2:]), [image], on_error=lambda *_: None))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bug_in_a_codec_keeps_its_traceback_in_validation(config, tmp_path, monkeypatch, workers):
    words = ["--output", str(tmp_path / "o"), "TRAIN.WORKERS", "0"]
    assert main(["train", str(config), *words]) == 0
    monkeypatch.setattr(BottomUpCodec, "decode", broken)
    weights = ["--weights", str(tmp_path / "o" / "best.safetensors")]
    with pytest.raises(ValueError, match="could not be broadcast"):
        main(["valid", str(config), *weights, "TEST.WORKERS", str(workers)])


def test_a_user_error_is_no_value_error():
    """So that no ``except ValueError`` around a library call takes one for the other."""
    assert not issubclass(UserError, ValueError)
