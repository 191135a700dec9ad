"""The training side, on drawn images: views, batches, loop, checkpoints, resuming."""

import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from higherhrnet import geometry, load
from higherhrnet.cli import main
from higherhrnet.config import parse_config
from higherhrnet.datasets.loader import (
    Loader,
    ShuffledBatches,
    Views,
    WorkerLostError,
    lost_workers,
)
from higherhrnet.datasets.transforms import warp_annotations, warp_sample
from higherhrnet.errors import UserError
from higherhrnet.evaluation.evaluator import evaluate
from higherhrnet.factory import training as training_factory
from higherhrnet.factory.checkpoints import open_checkpoint, upsample_mode_of
from higherhrnet.factory.data import build_dataset
from higherhrnet.factory.training import train
from higherhrnet.methods.bottom_up.transforms import CenteredView, RandomView
from higherhrnet.methods.top_down.transforms import PersonView
from higherhrnet.models.weights import read_checkpoint
from higherhrnet.poses import ABSENT
from higherhrnet.research.synthetic.dataset import SyntheticPeople, write_coco
from higherhrnet.skeleton import COCO
from higherhrnet.structures import KeypointIndices
from higherhrnet.training import checkpoint, loop
from higherhrnet.training.budget import TimeBudget
from higherhrnet.training.loss_meter import DivergenceError
from higherhrnet.training.optim import ModelEma, build_scheduler
from higherhrnet.training.signals import StoppedError
from tests.build import build_codec, build_model

from .shared import ROOT

TINY = """
MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, NUM_BASIC_BLOCKS: 1}
DATASET: {DATASET: synthetic, INPUT_SIZE: 64}
SYNTHETIC: {SIZE: 64, TRAIN_IMAGES: 8, TEST_IMAGES: 3}
TRAIN: {END_EPOCH: 2, BATCH_SIZE: 2, WORKERS: 0, EMA_DECAY: 0.9, PRECISION: fp32, VALIDATE_EVERY: 1}
"""


def tiny(*overrides):
    return parse_config(TINY, overrides)


def test_drawn_images_depend_on_seed_and_number_alone():
    first, again = SyntheticPeople(5, seed=1).draw(3), SyntheticPeople(99, seed=1).draw(3)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.keypoints, again.keypoints)
    assert (SyntheticPeople(5, seed=2).draw(3).image != first.image).any()


def test_drawn_people_can_be_crowded_and_hidden():
    calm = SyntheticPeople(30, people=(5, 5), overlap=0.0, occlusion=0.0)
    packed = SyntheticPeople(30, people=(5, 5), overlap=1.0, occlusion=1.0)

    def shares(people):
        visibility = np.concatenate([people.draw(i).keypoints[..., 2].ravel() for i in range(30)])
        return len(visibility), (visibility == 1).mean()

    calm_joints, calm_hidden = shares(calm)
    packed_joints, packed_hidden = shares(packed)
    assert packed_joints > calm_joints
    assert packed_hidden > 2 * calm_hidden


def test_drawn_truth_scores_itself_with_one():
    people = SyntheticPeople(6)
    records = []
    for i in range(6):
        sample = people.sample(i)
        records += sample.poses.to_coco(sample.id)
    assert evaluate(records, people.annotations, COCO)["AP"] == pytest.approx(1.0)


def test_written_images_read_back_the_same(tmp_path):
    people = SyntheticPeople(3)
    write_coco(tmp_path, people)
    config = parse_config(f"DATASET: {{ROOT: {tmp_path}, TRAIN: synthetic, TEST: synthetic}}")
    read = build_dataset(config, "test")
    for i in range(3):
        drawn, stored = people.sample(i), read.sample(i)
        np.testing.assert_array_equal(drawn.image, stored.image)
        np.testing.assert_allclose(drawn.poses.xy, stored.poses.xy, atol=0.006)
        np.testing.assert_array_equal(drawn.valid, stored.valid)


def random_view(flip):
    return RandomView(512, flip=flip)


def person_view(flip):
    return PersonView((512, 384), COCO.upper, flip=flip, half_body=0, scale=(0.9, 1.1))


@pytest.mark.parametrize("view_of", [random_view, person_view])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_views_carry_pixels_and_joints_together(flip, view_of):
    """A white pixel painted on each joint is found where the view says the joint went."""
    sample = SyntheticPeople(1, people=(1, 1)).sample(0)
    canvas = np.zeros_like(sample.image)
    xy = sample.poses.xy[0].round().astype(int)
    for x, y in xy[sample.poses.visibility[0] > 0]:
        canvas[y, x] = 255
    painted = replace(sample, image=canvas)
    transform = view_of(flip)
    chosen = transform(painted, np.random.default_rng(0))
    view = warp_sample(painted, chosen.affine, transform.shape, COCO)
    assert geometry.is_flipped(view.affine) == bool(flip)
    joint = COCO.index("right_wrist" if flip else "left_wrist")
    x, y = view.poses.xy[0, joint].round().astype(int)
    assert view.image[y - 2 : y + 3, x - 2 : x + 3].max() > 50
    back = geometry.apply(geometry.invert(view.affine), view.poses.xy[0, joint])
    np.testing.assert_allclose(back, sample.poses.xy[0, COCO.index("left_wrist")], atol=1e-6)


def test_crops_centerd_on_people_take_each_in_turn():
    sample = SyntheticPeople(1, people=(3, 3)).sample(0)
    labeled = sample.poses.visibility > ABSENT
    middles = [xy[seen].mean(axis=0) for xy, seen in zip(sample.poses.xy, labeled, strict=True)]
    transform = RandomView(64, shift=0.0, center="person")
    rng = np.random.default_rng(0)
    taken = []
    for _ in range(30):
        inverse = geometry.invert(transform(sample, rng).affine)
        center = geometry.apply(inverse, np.array([[31.5, 31.5]]))
        away = np.linalg.norm(middles - center, axis=1)
        assert away.min() < 6  # a pixel of the view
        taken.append(int(away.argmin()))
    assert set(taken) == {0, 1, 2}


def test_a_crop_centerd_on_nobody_is_the_images():
    sample = SyntheticPeople(1).sample(0)
    unseen = np.full_like(sample.poses.visibility, ABSENT)
    nobody = replace(sample, poses=replace(sample.poses, visibility=unseen))
    chosen = RandomView(64, center="person")(nobody, np.random.default_rng(0))
    published = RandomView(64)(sample, np.random.default_rng(0))
    np.testing.assert_array_equal(chosen.affine, published.affine)


def views(**settings):
    network = build_model(tiny(), 17)
    index_keypoints = build_codec(tiny(), network, COCO).index_keypoints
    return Views(SyntheticPeople(8), RandomView(64), index_keypoints, seed=3, **settings)


def test_what_lies_beyond_a_image_may_count_as_empty():
    """Published: the loss ignores it. Regions that are left out within the image stay so."""
    sample = SyntheticPeople(1).sample(0)
    left_out = sample.valid.copy()
    left_out[10:60, 20:80] = 0
    sample = replace(sample, valid=left_out)
    affine = geometry.square_crop((128.0, 128.0), 512.0, (128, 128))  # it becomes 32 to 96
    published, empty = (
        warp_annotations(sample, affine, (128, 128), COCO, b)[1] > 0 for b in (False, True)
    )
    padding_in_loss = np.ones((128, 128), bool)
    padding_in_loss[31:97, 31:97] = False
    assert not published[padding_in_loss].any()
    assert empty[padding_in_loss].all()
    within = (slice(33, 95), slice(33, 95))
    np.testing.assert_array_equal(published[within], empty[within])
    assert not empty[within].all()
    counted = [views(padding_in_loss=b)[0, 3].keypoints.valid.float().mean() for b in (False, True)]
    assert counted[0] < counted[1] == 1


def loader(workers, **settings):
    return Loader(views(), ShuffledBatches(8, 2, 3, **settings), workers)


def test_batches_do_not_depend_on_workers_or_on_where_one_starts():
    alone = list(loader(workers=0).epoch(5))
    with_workers = loader(workers=2)
    for epoch, start in ((5, 0), (5, 2)):
        shared = list(with_workers.epoch(epoch, start))
        assert [b.ids for b in shared] == [b.ids for b in alone[start:]]
        for a, b in zip(alone[start:], shared, strict=True):
            torch.testing.assert_close(a.images, b.images)
            torch.testing.assert_close(a.keypoints, b.keypoints)
    assert sorted(i for b in alone for i in b.ids) == list(range(8))
    assert [b.ids for b in loader(0).epoch(6)] != [b.ids for b in alone]


def test_targets_decode_to_the_people_they_came_from():
    """encode → decode on the maps themselves, tags being the person's number."""
    network = build_model(tiny(), 17)
    codec = build_codec(tiny("TEST.ASSIGNMENT", "hungarian_distance_tiebreak"), network, COCO)
    drawn = SyntheticPeople(1, seed=5, people=(3, 3), overlap=0.0, occlusion=0).sample(0)
    view = CenteredView(256)(drawn, np.random.default_rng(0))
    sample = warp_sample(drawn, view.affine, (256, 256), COCO)
    keypoints = codec.index_keypoints(sample.poses, sample.valid, flipped=False)
    targets = codec.encode(
        KeypointIndices(tuple(c[None] for c in keypoints.indices), keypoints.valid[None])
    )
    heat = targets.heatmaps[1][0].numpy()
    tags = np.full((17, 128, 128, 1), 99.0, np.float32)
    for person, indices in enumerate(keypoints.indices[0]):
        for joint, cell in enumerate(indices.tolist()):
            if cell >= 0:
                y, x = divmod(cell, 64)
                tags[joint, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3] = 10 * person
    from higherhrnet.methods.bottom_up.maps import HostMaps

    found = codec.decode(HostMaps(heat, tags.transpose(3, 0, 1, 2)), geometry.scaling(2)).poses
    assert len(found) == len(sample.poses)
    for ground_truth, visibility in zip(sample.poses.xy, sample.poses.visibility, strict=True):
        error = np.linalg.norm(found.xy - ground_truth, axis=2)[:, visibility > 0].mean(axis=1)
        assert error.min() < 2.0  # one cell at 1/2


def test_schedules():
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    (rate,) = build_scheduler(optimizer, "multistep", 1, 300, (200, 260), warmup_steps=3).lr_lambdas
    assert [rate(s) for s in (0, 3, 199, 200, 260)] == pytest.approx([0.25, 1, 1, 0.1, 0.01])
    (rate,) = build_scheduler(optimizer, "cosine", 10, 10).lr_lambdas
    assert [rate(s) for s in (0, 50, 100)] == pytest.approx([1, 0.5, 0], abs=1e-9)


def test_average_follows():
    layer = torch.nn.Linear(1, 1)
    average = ModelEma(layer, 0.9)
    before = layer.weight.item()
    with torch.no_grad():
        layer.weight += 1
    for _ in range(200):
        average.update_parameters(layer)
    assert average.module.weight.item() == pytest.approx(before + 1, abs=1e-3)


def test_the_best_so_far_is_that_of_the_same_figure(tmp_path):
    train(tiny("TRAIN.END_EPOCH", "1"), tmp_path, "cpu")
    file = tmp_path / "last.pth"
    saved = torch.load(file, weights_only=False)
    assert saved["progress"]["metric"] == "AP"
    for metric, best in (("PCKh", None), (None, 0.85)):
        progress = saved["progress"] | {"best": 0.85, "metric": metric}
        if metric is None:  # as older versions wrote it, which knew AP alone
            del progress["metric"]
        torch.save(saved | {"progress": progress}, file)
        resumed = train(tiny("TRAIN.END_EPOCH", "2"), tmp_path, "cpu", resume=True)
        assert resumed.metric == "AP"
        assert resumed.best == best if best else resumed.best < 0.85


def test_training_writes_what_it_should(tmp_path):
    progress = train(tiny(), tmp_path, "cpu")
    assert progress.best >= 0
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert {"heatmap/4", "heatmap/2", "pull/4", "push/4", "loss", "AP"} <= lines[0].keys()
    assert lines[1]["loss"] < lines[0]["loss"]
    assert {p.name for p in tmp_path.iterdir()} == {
        "best.safetensors", "config.yaml", "curves.png", "last.pth", "log.jsonl", "tensorboard"
    }  # fmt: skip
    predictor = load(tmp_path / "best.safetensors", "cpu")
    assert predictor.skeleton == COCO
    assert predictor.augmentation.input_size == 64
    predictor(SyntheticPeople(1).draw(0).image)


def test_a_checkpoint_to_resume_from_is_also_one_to_use(tmp_path):
    """With its own config, and the averaged weights that would have been validated."""
    train(tiny("MODEL.UPSAMPLE_MODE", "bilinear"), tmp_path, "cpu")
    file = open_checkpoint(str(tmp_path / checkpoint.LAST))
    assert upsample_mode_of(file) == "bilinear"
    predictor = load(tmp_path / checkpoint.LAST, "cpu")
    assert predictor.augmentation.input_size == 64
    average = torch.load(tmp_path / checkpoint.LAST, weights_only=True)["average"][1]
    for name, tensor in predictor.engine.model.state_dict().items():
        assert torch.equal(tensor, average[name]), name


def trained_weights(folder):
    saved = torch.load(folder / checkpoint.LAST, weights_only=True)
    return saved["model"] | {f"average.{k}": v for k, v in saved["average"][1].items()}


def interrupt_in_step(monkeypatch, at, number):
    """Send a signal to this process in the ``at``-th step from now; returns the list of steps."""
    original, calls = loop.Trainer.train_step, []

    def interrupting(self, micro_batches):
        calls.append(self.global_step)
        if len(calls) == at:
            os.kill(os.getpid(), number)
        return original(self, micro_batches)

    monkeypatch.setattr(loop.Trainer, "train_step", interrupting)
    return calls


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("at", "precision"), [(1, "fp32"), (4, "bf16"), (6, "fp16")])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, number, at, precision):
    """A real signal in step ``at`` of 8: same weights, average and log to the bit."""
    settings = ("TRAIN.MICRO_BATCH_SIZE", "1", "TRAIN.WARMUP_STEPS", "3",
                "TRAIN.LR_SCHEDULER", "cosine",
                "TRAIN.PRECISION", precision)  # fmt: skip
    train(tiny(*settings), tmp_path / "whole", "cpu")
    calls = interrupt_in_step(monkeypatch, at, number)
    with pytest.raises(StoppedError) as stopped:
        train(tiny(*settings), tmp_path / "parts", "cpu")
    assert stopped.value.signal == number
    assert len(calls) == at  # the step was finished, no further one begun
    train(tiny(*settings), tmp_path / "parts", "cpu", resume=True)
    whole, parts = trained_weights(tmp_path / "whole"), trained_weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name
    lines = [
        [json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]
        for run in ("whole", "parts")
    ]
    for one, other in zip(*lines, strict=True):
        timing = {"images_per_second"}
        assert {k: v for k, v in one.items() if k not in timing} == {
            k: v for k, v in other.items() if k not in timing
        }


def run_training(folder, *overrides):
    """A training in a process of its own, with loading processes, once its checkpoint exists."""
    (folder / "tiny.yaml").write_text(TINY)
    command = [sys.executable, "-m", "higherhrnet", "train", "tiny.yaml", "--output", "run"]
    command += ["--device", "cpu", "TRAIN.WORKERS", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    length = [] if "TRAIN.MINUTES" in overrides else ["TRAIN.END_EPOCH", "100000"]
    process = subprocess.Popen(
        [*command, *length, *overrides],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while not (folder / "run" / "last.pth").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.2)
    return process, lambda *words: subprocess.run(
        [*command, "--resume", *words], cwd=folder, env=environment, check=True, capture_output=True
    )


@pytest.mark.parametrize("send", [os.kill, pytest.param(os.killpg, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("number", "status", "sentence"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")],
)
def test_signals_leave_a_resumable_checkpoint(tmp_path, number, status, sentence, send):
    """A real signal to a real process with workers, or as torchrun and clusters do it to all of
    them: one sentence, its status, and it goes on."""
    process, resume = run_training(tmp_path)
    send(process.pid, number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == status
    assert error.strip().splitlines()[-1] == (
        f"higherhrnet: {sentence}; a checkpoint is written, go on with --resume"
    )
    assert "Traceback" not in error
    done = checkpoint.load(tmp_path / "run")["progress"]
    assert done["epoch"] >= 1
    resume("TRAIN.END_EPOCH", str(done["epoch"] + 1))
    assert checkpoint.load(tmp_path / "run")["progress"]["epoch"] == done["epoch"] + 1


def test_a_line_that_was_not_finished_does_not_keep_a_run_from_going_on(tmp_path):
    train(tiny("TRAIN.END_EPOCH", "1"), tmp_path, "cpu")
    log = tmp_path / "log.jsonl"
    whole = log.read_text()
    log.write_text(whole + whole[: len(whole) // 2])
    train(tiny(), tmp_path, "cpu", resume=True)
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [1, 2]
    log.write_text("{\n" + whole)
    with pytest.raises(UserError, match=r"log\.jsonl', line 1, is not JSON"):
        train(tiny("TRAIN.END_EPOCH", "3"), tmp_path, "cpu", resume=True)


def test_a_run_that_cannot_be_resumed_stays_as_it_is(tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="no checkpoint to resume from"):
        train(tiny(), tmp_path / "none", "cpu", resume=True)
    assert not (tmp_path / "none").exists()
    run = tmp_path / "run"
    train(tiny("TRAIN.END_EPOCH", "1"), run, "cpu")
    config = (run / "config.yaml").read_text()
    with pytest.raises(UserError, match=r"does not fit this config: size mismatch for"):
        train(tiny("MODEL.WIDTH", "6"), run, "cpu", resume=True)
    assert (run / "config.yaml").read_text() == config
    capsys.readouterr()
    lost = ("MODEL.PRETRAINED", str(tmp_path / "lost.safetensors"))  # all of it is replaced
    train(tiny(*lost), run, "cpu", resume=True)
    assert "random weights" not in capsys.readouterr().out


def test_a_run_that_is_over_stays_as_it_is(tmp_path, caplog):
    caplog.set_level("INFO", logger="higherhrnet")
    first = train(tiny("TRAIN.END_EPOCH", "1"), tmp_path, "cpu")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    again = train(tiny("TRAIN.END_EPOCH", "1", "TRAIN.LR", "0.5"), tmp_path, "cpu", resume=True)
    assert "the run ended after epoch 1: nothing is left" in caplog.text
    assert (again.epoch, again.best) == (first.epoch, first.best)
    assert all((tmp_path / name).read_bytes() == data for name, data in before.items())


def test_the_middle_of_an_epoch_is_that_of_an_equal_epoch(tmp_path, monkeypatch):
    interrupt_in_step(monkeypatch, 3, signal.SIGINT)
    with pytest.raises(StoppedError):
        train(tiny(), tmp_path, "cpu")
    with pytest.raises(UserError, match="within an epoch of 4 steps, and this config's have 1"):
        train(tiny("TRAIN.BATCH_SIZE", "8"), tmp_path, "cpu", resume=True)
    train(tiny(), tmp_path, "cpu", resume=True)


def test_a_broken_image_does_not_save_what_diverged_before_it(tmp_path, monkeypatch):
    original, seen = SyntheticPeople.sample, []

    def breaking(self, index):
        seen.append(index)
        if len(seen) == 6:
            raise UserError("broken")
        return original(self, index)

    monkeypatch.setattr(SyntheticPeople, "sample", breaking)
    with pytest.raises(DivergenceError):
        train(tiny("TRAIN.LR", "1e30"), tmp_path, "cpu")
    assert not (tmp_path / checkpoint.LAST).exists()


def test_a_reader_that_goes_away_is_no_lost_worker():
    with pytest.raises(BrokenPipeError), lost_workers():
        raise BrokenPipeError
    with pytest.raises(WorkerLostError), lost_workers():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")


def test_a_resumed_run_obeys_its_new_settings(tmp_path, monkeypatch):
    """Rates and decay are the config's; another optimizer cannot take over what one gathered."""
    train(tiny("TRAIN.END_EPOCH", "1", "TRAIN.LR_MULT", "[conv 0.1]"), tmp_path, "cpu")
    seen = []
    original = loop.Trainer.train_step
    monkeypatch.setattr(
        loop.Trainer,
        "train_step",
        lambda self, micro_batches: (
            seen.append([(g["lr"], g["weight_decay"]) for g in self.optimizer.param_groups])
            or original(self, micro_batches)
        ),
    )
    changed = ("TRAIN.LR_MULT", "[conv 0.5]", "TRAIN.WEIGHT_DECAY", "0.25")
    train(tiny(*changed), tmp_path, "cpu", resume=True)
    assert sorted(rate for rate, _ in seen[0]) == [0.0005, 0.001]
    assert {decay for _, decay in seen[0]} == {0.25}
    with pytest.raises(UserError, match="made with another optimizer"):
        train(tiny("TRAIN.END_EPOCH", "3", "TRAIN.OPTIMIZER", "sgd"), tmp_path, "cpu", True)


def test_a_killed_loading_process_ends_the_run_with_a_sentence(tmp_path):
    process, resume = run_training(tmp_path)
    listed = subprocess.run(
        ["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True, check=True
    )
    os.kill(int(listed.stdout.split()[0]), signal.SIGKILL)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "higherhrnet: a process that loads images was killed" in error
    done = checkpoint.load(tmp_path / "run")["progress"]
    resume("TRAIN.END_EPOCH", str(done["epoch"] + 1))


def test_nan_stops_with_the_images_named(tmp_path):
    with pytest.raises(
        DivergenceError, match=r"the loss became (nan|inf) in epoch 1.*on images \["
    ):
        train(tiny("TRAIN.LR", "1e30"), tmp_path, "cpu")
    assert not (tmp_path / "last.pth").exists()


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    parts = dict.fromkeys(("model", "average", "optimizer", "scaler"))
    checkpoint.save(tmp_path, {**parts, "progress": 1})

    def full(values, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"could not write '.*last\.pth': No space left on device"):
        checkpoint.save(tmp_path, {"progress": 2})
    monkeypatch.undo()
    assert checkpoint.load(tmp_path)["progress"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth"]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_precisions_and_freezing(tmp_path, precision):
    config = tiny("TRAIN.PRECISION", precision, "TRAIN.FREEZE", "[conv1]", "TRAIN.END_EPOCH", "1")
    checkpoint.seed_everything(0)
    start = build_model(config, 17).conv1.weight.clone()
    train(config, tmp_path, "cpu")
    trained = torch.load(tmp_path / "last.pth", weights_only=True)["model"]
    assert torch.equal(trained["conv1.weight"], start)
    assert math.isfinite(trained["final_layers.0.weight"].sum().item())


def test_freezing_nothing_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"'TRAIN.FREEZE': no parameter starts with 'stage9'"):
        train(tiny("TRAIN.FREEZE", "[stage9]"), tmp_path, "cpu")


@pytest.mark.gpu
def test_training_on_a_gpu(tmp_path):
    for precision in ("bf16", "fp16"):
        config = tiny("TRAIN.PRECISION", precision)
        assert train(config, tmp_path / precision, "cuda") >= 0


@pytest.mark.slow
def test_drawn_crowds_are_learnt(tmp_path):
    from higherhrnet.config import read_config

    assert train(read_config(ROOT / "configs" / "synthetic.yaml"), tmp_path, "cpu") > 0.6


def records_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_training_by_time_ends_in_time_with_its_rate(tmp_path, capsys):
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    command = ["train", str(file), "--output", str(tmp_path / "run"), "--device", "cpu"]
    settings = ["TRAIN.MINUTES", "0.2", "TRAIN.LR_SCHEDULER", "cosine", "TRAIN.WORKERS", "0"]
    begun = time.monotonic()
    assert main([*command, *settings]) == 0
    assert time.monotonic() - begun < 30
    records = records_of(tmp_path / "run")
    assert len(records) > 2
    assert ["AP" in record for record in records] == [False] * (len(records) - 1) + [True]
    rates = [record["learning_rate"] for record in records]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.05 * rates[0]
    assert (tmp_path / "run" / "best.safetensors").is_file()
    progress = checkpoint.load(tmp_path / "run")["progress"]
    assert progress["fraction"] == 1
    assert 5 < progress["seconds"] < 12
    said = capsys.readouterr()
    assert "epochs fit, with" in said.out + said.err
    # Nothing is left of it.
    assert main([*command, "--resume", *settings]) == 0
    assert records_of(tmp_path / "run") == records


def test_a_time_too_short_to_validate_in_is_refused(tmp_path, capsys):
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    command = ["train", str(file), "--output", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*command, "TRAIN.MINUTES", "0.05"]) == 2
    assert "'TRAIN.MINUTES': of 0.05 minutes validation alone would take" in capsys.readouterr().err


def test_a_training_by_time_that_is_ended_leaves_weights(tmp_path):
    process, _ = run_training(tmp_path, "TRAIN.MINUTES", "5", "TRAIN.SAVE_EVERY", "2")
    assert not (tmp_path / "run" / "best.safetensors").exists()
    os.kill(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "ended before it was validated; its weights are kept" in error
    file = read_checkpoint(tmp_path / "run" / "best.safetensors")
    averaged = torch.load(tmp_path / "run" / "last.pth", weights_only=True)["average"][1]
    assert all(torch.equal(value, averaged[name]) for name, value in file.state.items())


def test_the_clock_of_a_budget(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("higherhrnet.training.budget.time.monotonic", lambda: now[0])
    budget = TimeBudget(70, reserve=10, started=100)
    now[0] += 20  # loading, compiling
    assert budget.advance() == 0
    now[0] += 10
    assert budget.advance() == 0.25
    now[0] += 30
    assert budget.advance() == 1
    resumed = TimeBudget(110, reserve=10, started=now[0], fraction=0.5, spent=60)
    assert resumed.advance() == 0.5
    now[0] += 20
    assert resumed.advance() == 0.75
    now[0] += 100
    assert resumed.advance() == 1
    # Rates step down where their epochs would.
    weights = torch.nn.Parameter(torch.zeros(1))
    schedule = build_scheduler(
        torch.optim.SGD([weights], lr=1.0), "multistep", 10, 30, [10, 20], 0.1, 0,
        fraction=lambda: budget.fraction,
    )  # fmt: skip
    found = []
    for budget.fraction in (0.2, 0.4, 0.8):
        found.append(schedule.lr_lambdas[0](0))
    assert found == pytest.approx([1, 0.1, 0.01])


def test_early_stopping_ends_after_validations_without_a_gain(tmp_path, monkeypatch, caplog):
    measured = iter([0.0, 0.0, 0.0, 0.2, 0.3, 0.3, 0.1, 0.9])
    real = training_factory.run_validation

    def validate(*arguments):
        result = real(*arguments)
        result.metrics["AP"] = next(measured)
        return result

    monkeypatch.setattr(training_factory, "run_validation", validate)
    caplog.set_level(logging.INFO)
    config = tiny("TRAIN.EARLY_STOPPING", 2, "TRAIN.END_EPOCH", 20)
    progress = train(config, tmp_path, "cpu")
    # Zeros at the beginning are no reason to give up; 0.3 again and 0.1 are no gain.
    assert (progress.epoch, progress.best) == (7, 0.3)
    assert "stopped after epoch 7 of 20: no gain in 2 validations" in caplog.text
    assert train(config, tmp_path, "cpu", resume=True).epoch == 7


def test_hours_are_told_before_a_long_training(monkeypatch):
    from higherhrnet.research import training_plan

    monkeypatch.setattr(training_plan, "measure", lambda *_, **__: {"images/s": 40.0})
    device = torch.device("cpu")
    assert training_plan.tell_hours(tiny(), device) == ""  # over in a minute
    long = tiny("TRAIN.END_EPOCH", 3600, "DATASET.INPUT_SIZE", 128)
    told = training_plan.tell_hours(long, device)
    assert told.startswith("about 12 minutes for 3600 epochs of 8 views: 40 views/s")
    assert training_plan.tell_hours(tiny("TRAIN.MINUTES", 5), device) == ""
