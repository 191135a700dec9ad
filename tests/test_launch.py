"""Starting several processes: Slurm, torchrun's restarts, --gpus, submit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from higherhrnet.cli import main
from higherhrnet.errors import UserError
from higherhrnet.factory.run import tell_unused_gpus
from higherhrnet.launch import adopt_slurm, first_host, is_restarted
from higherhrnet.training import checkpoint

from .shared import ROOT

TINY = """
MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, NUM_BASIC_BLOCKS: 1}
DATASET: {DATASET: synthetic, INPUT_SIZE: 64}
SYNTHETIC: {SIZE: 64, TRAIN_IMAGES: 16, TEST_IMAGES: 2}
TRAIN: {END_EPOCH: 2, BATCH_SIZE: 4, WORKERS: 0, PRECISION: fp32, VALIDATE_EVERY: 100}
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "higherhrnet", *words]


def train_words(*more: str) -> list[str]:
    return ["train", "tiny.yaml", "--output", "run", "--device", "cpu", *more]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / checkpoint.LAST, weights_only=True)["model"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def slurm(rank: int, tasks: int, step: bool = True) -> dict[str, str]:
    """What srun sets in a task."""
    found = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": str(tasks),
             "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
             "SLURM_JOB_NODELIST": ""}  # fmt: skip
    return found | ({"SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_ID": "0"} if step else {})


def test_node_lists():
    for nodes, host in (
        ("", "127.0.0.1"), ("gpu7", "gpu7"), ("gpu[07-09,12],login", "gpu07"), ("a,b", "a"),
        ("rack2-n[1-4]-ib", "rack2-n1-ib"),
    ):  # fmt: skip
        assert first_host(nodes) == host


def test_what_slurm_says_is_adopted():
    environment = slurm(3, 8) | {"SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "n[05-06]"}
    adopt_slurm(environment)
    assert {environment[k] for k in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")} == {
        "3", "8", "1", "n05",
    }  # fmt: skip
    other = slurm(0, 8)
    adopt_slurm(other)
    assert other["MASTER_PORT"] == environment["MASTER_PORT"]
    for untouched in (
        {"RANK": "1", "WORLD_SIZE": "2", **slurm(0, 4)},  # torchrun within a step
        slurm(0, 1),
        slurm(0, 4, step=False),  # a batch script by itself
        {},
    ):
        before = dict(untouched)
        adopt_slurm(untouched)
        assert untouched == before
    with pytest.raises(UserError, match=r"task 2 of Slurm job \d+, but nothing says how many"):
        adopt_slurm(slurm(2, 4, step=False))
    assert is_restarted({"SLURM_RESTART_COUNT": "1"})
    assert is_restarted({"TORCHELASTIC_RESTART_COUNT": "2"})
    assert not is_restarted({"TORCHELASTIC_RESTART_COUNT": "0"})


def test_two_slurm_tasks_are_one_training(folder):
    """As srun starts them, without torchrun: once two trainings were written into one folder."""
    tasks = [
        subprocess.Popen(
            command(*train_words()), cwd=folder, env=ENVIRONMENT | slurm(rank, 2), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]  # fmt: skip
    told = [task.communicate(timeout=200)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], told
    assert ["best AP" in text for text in told] == [True, False]
    records = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    done = subprocess.run(
        command("train", "tiny.yaml", "--output", "alone", "--device", "cpu", "--gpus", "2"),
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    assert "best AP" in done.stdout
    assert same(weights(folder / "run"), weights(folder / "alone"))  # as torch's launcher does it


def test_tasks_of_a_job_that_no_step_describes_do_not_train_twice(folder):
    tasks = [
        subprocess.Popen(
            command(*train_words("TRAIN.END_EPOCH", "20")), cwd=folder, text=True,
            env=ENVIRONMENT | slurm(rank, 2, step=False),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip
    told = [task.communicate(timeout=200)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 2], told
    assert "start them with srun" in told[1]
    assert len((folder / "run" / "log.jsonl").read_text().splitlines()) == 20


def workers_of(launcher: int) -> dict[int, int]:
    """RANK → process, of those below the launcher."""
    found = {}
    listed = subprocess.run(
        ["ps", "--ppid", str(launcher), "-o", "pid="], capture_output=True, text=True, check=False
    )
    for pid in map(int, listed.stdout.split()):
        pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if "RANK" in values:
            found[int(values["RANK"])] = pid
    return found


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_worker_is_replaced_and_the_weights_are_as_undisturbed(folder, victim):
    """torchrun --max-restarts, by --gpus and --restarts: kill -9 in the middle of an epoch."""
    long = ("TRAIN.END_EPOCH", "16", "TRAIN.SAVE_EVERY", "3", "TRAIN.EMA_DECAY", "0.9")
    words = [*train_words(*long), "--gpus", "2", "--restarts", "2"]
    process = subprocess.Popen(
        command(*words), cwd=folder, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (folder / "run" / checkpoint.LAST).exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(workers_of(process.pid)[victim], signal.SIGKILL)
    told = process.communicate(timeout=240)[0]
    assert process.returncode == 0, told[-3000:]
    assert "started anew: going on from run/last.pth" in told
    undisturbed = [*words[:3], "calm", *words[4:]]
    subprocess.run(
        command(*undisturbed), cwd=folder, env=ENVIRONMENT, check=True, capture_output=True,
        timeout=240,
    )  # fmt: skip
    assert same(weights(folder / "run"), weights(folder / "calm"))
    lines = (folder / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 17))


def test_a_restart_does_not_take_over_a_run_of_another_start(folder):
    """The first attempt refuses a folder that holds a run; so does the second, by its status."""
    first = subprocess.run(
        command(*train_words("TRAIN.END_EPOCH", "1")), cwd=folder, env=ENVIRONMENT, check=True,
        capture_output=True, timeout=200,
    )  # fmt: skip
    assert b"best AP" in first.stdout
    before = (folder / "run" / checkpoint.LAST).read_bytes()
    words = train_words("TRAIN.END_EPOCH", "2", "--gpus", "2", "--restarts", "1")
    done = subprocess.run(
        command(*words), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-2000:]
    assert "already holds a run" in done.stderr
    assert "ChildFailedError" not in done.stderr
    assert (folder / "run" / checkpoint.LAST).read_bytes() == before


def test_gpus_and_slurm_tasks_are_one_or_the_other(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*train_words(), "--gpus", "4"]) == 2
    assert "--gpus 4: this is one of 2 tasks already" in capsys.readouterr().err


def test_more_gpus_than_there_are(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    words = ["train", "tiny.yaml", "--output", "run", "--gpus", "3"]
    assert main(words) == 2
    assert "--gpus 3: this machine has 1 GPUs" in capsys.readouterr().err


def test_unused_gpus_are_told(caplog):
    caplog.set_level("INFO")
    tell_unused_gpus(1)
    assert not caplog.records
    tell_unused_gpus(4)
    assert "this machine has 4 GPUs, and 1 is used: --gpus 4 uses all" in caplog.text


def test_submit_runs_a_job_of_two_tasks_here(folder, capsys, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = ["submit", "--cluster", "local", "--tasks", "2", "--logs", "logs", "--wait"]
    assert main([*options, *train_words("TRAIN.END_EPOCH", "1")]) == 0
    told = capsys.readouterr().out
    assert "job " in told
    assert (folder / "run" / "best.safetensors").is_file()
    (output,) = (folder / "logs").rglob("*_0_log.out")
    assert "best AP" in output.read_text()
    assert len((folder / "run" / "log.jsonl").read_text().splitlines()) == 1
    # What cannot be right is said before it waits in a queue; what fails there is told.
    assert main(["submit", "--cluster", "local", "train", "none.yaml"]) == 2
    assert "config file 'none.yaml' does not exist" in capsys.readouterr().err
    assert main([*options, *train_words("TRAIN.LR", "fast")]) == 1
    assert "ended with status 2" in capsys.readouterr().err


def test_a_preempted_job_goes_on_from_its_checkpoint(folder, monkeypatch):
    pytest.importorskip("submitit")
    from higherhrnet.cli.submit import Command

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    job = Command(tuple(train_words("TRAIN.END_EPOCH", "100000")), str(folder))
    job._process = subprocess.Popen(command(*job.words), cwd=folder, env=ENVIRONMENT,
                                    stderr=subprocess.PIPE)  # fmt: skip
    deadline = time.monotonic() + 120
    while not (folder / "run" / checkpoint.LAST).exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    again = job.checkpoint()
    assert job._process.returncode == 143
    assert again.function.again
    assert again.function.words == job.words
