"""Code of users' own, named by configs or given to train; and loggers."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import higherhrnet
from higherhrnet.cli import main
from higherhrnet.config import parse_config
from higherhrnet.errors import UserError
from higherhrnet.models.weights import read_checkpoint

from .shared import ROOT

TINY = """
MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, NUM_BASIC_BLOCKS: 1}
DATASET: {DATASET: synthetic, INPUT_SIZE: 64}
SYNTHETIC: {SIZE: 64, TRAIN_IMAGES: 4, TEST_IMAGES: 2}
TRAIN: {END_EPOCH: 2, BATCH_SIZE: 2, WORKERS: 0, PRECISION: fp32, VALIDATE_EVERY: 1}
"""
TOY = ROOT / "tests" / "toy_plugin"


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """The plug-in package, importable; a tiny config in the working folder."""
    monkeypatch.syspath_prepend(str(TOY))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    import toy_plugin

    return toy_plugin


def lines_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_plug_in_trains_validates_predicts_and_exports(toy, tmp_path, capsys):
    overrides = [
        "MODEL.HEAD", "toy_plugin:Conv3x3Head", "LOSS.KIND", "toy_plugin:huber",
        "DATASET.KIND", "toy_plugin:few_people", "LOSS.WITH_AE_LOSS", "[True]",
        "TRAIN.LOGGERS", "[toy_plugin:LinesLogger]",
    ]  # fmt: skip
    assert main(["train", "tiny.yaml", "--output", "run", "--device", "cpu", *overrides]) == 0
    lines = lines_of(tmp_path / "run" / "toy.jsonl")
    assert {"step": -1, "TRAIN.LR": 0.001} in lines
    assert any("train/huber/4" in line for line in lines)
    assert any("epoch/AP" in line for line in lines)
    assert lines[-1]["closed"]
    assert not (tmp_path / "run" / "tensorboard").exists()
    state = read_checkpoint(tmp_path / "run" / "best.safetensors").state
    assert state["head.conv.weight"].shape == (34, 12, 3, 3)
    # The checkpoint knows its head: nothing else is needed, but the package.
    predictor = higherhrnet.load("run/best.safetensors", device="cpu", raw=True)
    assert predictor.engine.model.head.__class__.__name__ == "Conv3x3Head"
    poses = predictor(toy.few_people(None, "test").sample(0).image)
    assert poses.xy.shape[1] == 17
    words = ["valid", "run/config.yaml", "--weights", "run/best.safetensors", "--device", "cpu"]
    assert main(words) == 0
    # And a further training starts from it, head included.
    again = ["MODEL.PRETRAINED", "run/best.safetensors", "TRAIN.LR", "0", "TRAIN.END_EPOCH", "1"]
    capsys.readouterr()
    assert main(["train", "run/config.yaml", "--output", "more", "--device", "cpu", *again]) == 0
    more = read_checkpoint(tmp_path / "more" / "best.safetensors").state
    assert torch.equal(more["head.conv.weight"], state["head.conv.weight"])


def test_what_a_plug_in_lacks_gets_a_sentence(toy, capsys):
    for overrides, words in (
        (["MODEL.HEAD", "nothing:Head"], "'MODEL.HEAD': there is no module 'nothing'"),
        (["LOSS.KIND", "toy_plugin:none"], "'LOSS.KIND': module 'toy_plugin' has no 'none'"),
        (["MODEL.HEAD", "Conv3x3Head"], "'MODEL.HEAD' must be MODULE:NAME"),
        (["TRAIN.LOGGERS", "[tensorbord]"], "or package:name, not 'tensorbord'"),
    ):
        command = ["train", "tiny.yaml", "--output", "run", "--device", "cpu"]
        assert main([*command, *overrides]) == 2
        assert words in capsys.readouterr().err


def test_train_takes_callbacks_and_losses(toy, tmp_path):
    counted, seen = toy.CountSteps(), []

    def criterion(outputs, targets):
        seen.append(outputs.heatmaps[0].shape)
        return {"mine": outputs.heatmaps[0].square().mean()}

    progress = higherhrnet.train(
        "tiny.yaml", "run", "cpu", overrides=["TRAIN.END_EPOCH", 3], callbacks=[counted],
        criterion=criterion,
    )  # fmt: skip
    assert progress.epoch == 3
    assert counted.epochs == [(1, 2), (2, 2), (3, 2)]
    assert counted.ended
    assert len(seen) == 6
    assert "mine" in lines_of(tmp_path / "run" / "log.jsonl")[0]
    with pytest.raises(UserError, match="finds no people"):
        higherhrnet.train("imagenet/hrnet_w18", tmp_path / "other")
    config = parse_config(TINY, ["TRAIN.END_EPOCH", 1])
    assert higherhrnet.train(config, tmp_path / "again", "cpu").epoch == 1


def train_with(logger: str, folder: Path, **environment: str) -> None:
    """Two epochs and, resumed, a third, in processes of their own."""
    (folder / "tiny.yaml").write_text(TINY)
    for more in ([], ["--resume", "TRAIN.END_EPOCH", "3"]):
        command = [sys.executable, "-m", "higherhrnet", "train", "tiny.yaml", "--output", "run"]
        command += ["--device", "cpu", "TRAIN.LOGGERS", f"[tensorboard, {logger}]", *more]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=300,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    assert list((folder / "run" / "tensorboard").iterdir())


@pytest.mark.slow
def test_mlflow_into_a_local_database(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    database = tmp_path / "mlflow.db"
    try:
        mlflow.MlflowClient(f"sqlite:///{database}").search_experiments()
    except Exception as error:  # mlflow-skinny without SQLAlchemy
        pytest.skip(f"MLflow keeps nothing on this machine: {error}")
    train_with("mlflow", tmp_path, MLFLOW_TRACKING_URI=f"sqlite:///{database}")
    with sqlite3.connect(database) as opened:
        runs = opened.execute("select count(*) from runs").fetchone()[0]
        epochs = opened.execute(
            "select value from metrics where key = 'epoch/epoch' order by step"
        ).fetchall()
        rate = opened.execute("select value from params where key = 'TRAIN.LR'").fetchone()
    assert runs == 1
    assert [value for (value,) in epochs] == [1.0, 2.0, 3.0]
    assert rate == ("0.001",)


@pytest.mark.slow
def test_wandb_offline(tmp_path):
    pytest.importorskip("wandb")
    train_with("wandb", tmp_path, WANDB_MODE="offline", WANDB_SILENT="true")
    runs = list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len({run.name.rpartition("-")[2] for run in runs}) == 1  # one run, resumed
    assert any(run.glob("*.wandb") for run in runs)


@pytest.mark.slow
def test_trackio_on_this_machine(tmp_path):
    pytest.importorskip("trackio")
    train_with("trackio", tmp_path, TRACKIO_DIR=str(tmp_path / "trackio"), HF_HUB_OFFLINE="1")
    (database,) = (tmp_path / "trackio").glob("higherhrnet*.db")
    with sqlite3.connect(database) as opened:
        rows = opened.execute("select run_name, metrics from metrics").fetchall()
    (name,) = {name for name, _ in rows}  # one run, resumed
    assert name.startswith("run-")
    found = [json.loads(metrics) for _, metrics in rows]
    assert [m["epoch/epoch"] for m in found if "epoch/epoch" in m] == [1, 2, 3]
