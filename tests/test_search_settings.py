"""Searching settings: plans, samplers, pruning, going on after an interruption; grids of runs."""

import json
from pathlib import Path

import pytest

from higherhrnet.cli import main
from higherhrnet.config import override_config, read_config
from higherhrnet.errors import UserError
from higherhrnet.factory import training as training_factory
from higherhrnet.research.ablation.plan import read_plan
from higherhrnet.research.ablation.search import run_search
from higherhrnet.research.ablation.search_plan import Range, read_search
from higherhrnet.training.signals import StoppedError

from .shared import ROOT

pytest.importorskip("optuna")
TINY = """
MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, NUM_BASIC_BLOCKS: 1}
DATASET: {DATASET: synthetic, INPUT_SIZE: 64}
SYNTHETIC: {SIZE: 64, TRAIN_IMAGES: 2, TEST_IMAGES: 2}
TRAIN: {END_EPOCH: 3, BATCH_SIZE: 2, WORKERS: 0, PRECISION: fp32, VALIDATE_EVERY: 1}
"""
PLAN = """
SEARCH:
  CONFIG: tiny.yaml
  SPACE:
    TRAIN.LR: {LOW: 1.0e-5, HIGH: 0.1, LOG: true}
    TRAIN.GRAD_CLIP_NORM: [0, 1]
  TRIALS: 9
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "plan.yaml").write_text(PLAN)
    return tmp_path


@pytest.fixture
def metric(monkeypatch):
    """AP as a function of the settings instead of the network's: best at a rate of 0.001."""
    told = {"validations": 0, "stop_at": -1}
    real = training_factory.run_validation

    def validate(config, *arguments):
        result = real(config, *arguments)
        told["validations"] += 1
        if told["validations"] == told["stop_at"]:
            raise StoppedError(15)
        import math

        off = abs(math.log10(config.TRAIN.LR) + 3)
        result.metrics["AP"] = 0.8 - 0.2 * off - 0.05 * (config.TRAIN.GRAD_CLIP_NORM == 0)
        return result

    monkeypatch.setattr(training_factory, "run_validation", validate)
    return told


def test_a_search_finds_the_best_settings_and_prunes(folder, metric):
    search = read_search(Path("plan.yaml"))
    assert search.space["TRAIN.LR"] == Range(1e-5, 0.1, True)
    results = run_search(search, Path("out"), [], "cpu")
    done = [t for t in results.trials if t.state in ("complete", "pruned")]
    assert len(done) == 9
    assert any(t.state == "pruned" and t.epochs < 3 for t in done)
    best = results.trials[0]
    assert best.state == "complete"
    assert 2e-4 < best.values["TRAIN.LR"] < 5e-3
    assert best.metric > 0.65
    config = read_config("out/best.yaml")
    assert pytest.approx(best.values["TRAIN.LR"]) == config.TRAIN.LR
    assert config.DATASET.INPUT_SIZE == 64
    text = Path("out/search.md").read_text()
    assert "is too high by this choice" in text
    assert len(json.loads(Path("out/search.json").read_text())["trials"]) == len(results.trials)
    assert Path("out/search.png").stat().st_size > 5000
    # Done is done; another search does not go into its folder.
    before = metric["validations"]
    assert len(run_search(search, Path("out"), [], "cpu").trials) == len(results.trials)
    assert metric["validations"] == before
    with pytest.raises(UserError, match="holds a search with other settings"):
        run_search(search, Path("out"), ["TRAIN.END_EPOCH", "4"], "cpu")
    Path("other.yaml").write_text(PLAN.replace("HIGH: 0.1", "HIGH: 0.2"))
    with pytest.raises(UserError, match="holds a search with other settings"):
        run_search(read_search(Path("other.yaml")), Path("out"), [], "cpu")


def test_an_interrupted_search_goes_on_in_the_trial_it_was_at(folder, metric):
    Path("plan.yaml").write_text(PLAN.replace("TRIALS: 9", "TRIALS: 4"))
    search = read_search(Path("plan.yaml"))
    metric["stop_at"] = 8  # in the second epoch of the third trial
    with pytest.raises(StoppedError):
        run_search(search, Path("out"), [], "cpu")
    interrupted = json.loads(Path("out/trials/002/log.jsonl").read_text().splitlines()[0])
    assert interrupted["epoch"] == 1
    results = run_search(search, Path("out"), [], "cpu")
    assert sum(t.state in ("complete", "pruned") for t in results.trials) == 4
    assert not any(t.state == "fail" for t in results.trials)
    assert len(list(Path("out/trials").iterdir())) == 4  # the third was done in its old folder
    lines = Path("out/trials/002/log.jsonl").read_text().splitlines()
    epochs = [json.loads(line)["epoch"] for line in lines]
    assert epochs == list(range(1, len(epochs) + 1))


def test_a_grid_by_the_command_in_two_processes(folder, capsys):
    text = PLAN.replace("{LOW: 1.0e-5, HIGH: 0.1, LOG: true}", "[0.001, 0.01]")
    (folder / "grid.yaml").write_text(text + "  SAMPLER: grid\n  PRUNER: none\n")
    words = ["ablate", "grid.yaml", "--output", "out", "--device", "cpu", "--processes", "2"]
    assert main([*words, "TRAIN.END_EPOCH", "1"]) == 0
    trials = json.loads(Path("out/search.json").read_text())["trials"]
    assert {(t["values"]["TRAIN.LR"], t["values"]["TRAIN.GRAD_CLIP_NORM"]) for t in trials} == {
        (0.001, 0), (0.001, 1), (0.01, 0), (0.01, 1),
    }  # fmt: skip
    assert "search.md, search.json, search.png and best.yaml in out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("TRIALS: 9", "TRIALS: 0"), "SEARCH.TRIALS must be a whole number from 1 on, not 0"),
        (
            ("TRIALS: 9", "TRAILS: 12"),
            "unknown key 'TRAILS' in 'plan.yaml'; did you mean 'TRIALS'",
        ),
        (("TRIALS: 9", "SAMPLER: best"), "SEARCH.SAMPLER is one of tpe, random, grid"),
        (("TRIALS: 9", "SAMPLER: grid"), "a grid takes lists of values, and no LOW and HIGH"),
        (("HIGH: 0.1", "HIGH: 1.0e-6"), "with LOW below HIGH"),
        (("LOW: 1.0e-5", "LOW: -1"), "above 0 with LOG"),
        (("TRAIN.LR", "TRAIN.SPEED"), "unknown config key 'TRAIN.SPEED'"),
        (("tiny.yaml", "none.yaml"), "config file 'none.yaml' does not exist"),
        (
            (
                "TRAIN.LR: {LOW: 1.0e-5, HIGH: 0.1, LOG: true}",
                "DATASET.INPUT_SIZE: {LOW: 256, HIGH: 512}",
            ),
            "must be multiples of 64: list them",
        ),
        (("TRIALS: 9", "SETTINGS: [1]"), "SEARCH.SETTINGS must be a mapping"),
        (("TRIALS: 9", "SETTINGS: {TRAIN.LR: 0.5}"), "SPACE.TRAIN.LR is searched"),
        (("[0, 1]", "[0, -1]"), "'TRAIN.GRAD_CLIP_NORM' must be at least 0"),
    ],
)
def test_what_a_plan_has_wrong_gets_a_sentence(folder, capsys, change, told):
    (folder / "plan.yaml").write_text(PLAN.replace(*change))
    assert main(["ablate", "plan.yaml", "--output", "out", "--device", "cpu"]) == 2
    assert told in capsys.readouterr().err


def test_a_grid_of_runs(tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(
        "RUNS:\n"
        "  base: {CONFIG: mini/higherhrnet_w18_256}\n"
        "  rates: {CONFIG: mini/higherhrnet_w18_256, GRID: {TRAIN.LR: [0.001, 0.0003], "
        "TRAIN.OPTIMIZER: [adam, sgd]}}\n"
        "EVALUATIONS:\n"
        "  base: {RUN: base}\n"
        "  no flip: {RUN: rates, TEST.FLIP_TEST: false}\n"
        "  one: {RUN: rates TRAIN.LR 0.001 TRAIN.OPTIMIZER sgd}\n"
        "COMPARE: [[base, no flip TRAIN.LR 0.001 TRAIN.OPTIMIZER adam]]\n"
    )
    plan = read_plan(file)
    assert len(plan.runs) == 5
    assert plan.runs[1].name == "rates TRAIN.LR 0.001 TRAIN.OPTIMIZER adam"
    assert plan.runs[1].settings == ("TRAIN.LR", "0.001", "TRAIN.OPTIMIZER", "adam")
    assert [e.name for e in plan.evaluations][1] == "no flip TRAIN.LR 0.001 TRAIN.OPTIMIZER adam"
    assert len(plan.evaluations) == 6
    assert plan.evaluations[-1].run == "rates TRAIN.LR 0.001 TRAIN.OPTIMIZER sgd"
    assert read_search(file) is None


def test_the_bundled_search_can_be_run():
    path = ROOT / "configs" / "ablation" / "search_own_data.yaml"
    search = read_search(path)
    config = read_config(search.config, search.settings)
    for key, values in search.space.items():
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            override_config(config, [key, value])
    assert (search.sampler, search.pruner, search.trials) == ("tpe", "median", 12)
