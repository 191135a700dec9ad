"""Training over processes, parts, memory and devices gives what training alone gives."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from higherhrnet import geometry, load
from higherhrnet.cli import main
from higherhrnet.config import override_config, parse_config
from higherhrnet.datasets import device_transforms as on_device
from higherhrnet.errors import UserError
from higherhrnet.factory.data import build_dataset, build_loader
from higherhrnet.factory.evaluation import run_validation
from higherhrnet.factory.task_training import train_task
from higherhrnet.factory.training import build_step_trainer, train
from higherhrnet.io.store import Store
from higherhrnet.methods import heatmaps as heat
from higherhrnet.methods.bottom_up.transforms import RandomView
from higherhrnet.models.activation_checkpointing import checkpoint_activations
from higherhrnet.models.model_zoo import find_weights
from higherhrnet.research.bench.train import make_batch
from higherhrnet.research.synthetic.dataset import SyntheticPeople, write_coco
from higherhrnet.skeleton import Skeleton, load_skeleton
from higherhrnet.structures import PackedImages
from higherhrnet.training import checkpoint
from tests.build import build_codec, build_model

from .shared import ROOT

TINY = """
MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, NUM_BASIC_BLOCKS: 1}
DATASET: {DATASET: synthetic, INPUT_SIZE: 64}
SYNTHETIC: {SIZE: 64, TRAIN_IMAGES: 16, TEST_IMAGES: 5}
TRAIN: {END_EPOCH: 2, BATCH_SIZE: 4, WORKERS: 0, PRECISION: fp32, VALIDATE_EVERY: 1,
        GRAD_CLIP_NORM: 1.0}
"""


def tiny(*overrides):
    return parse_config(TINY, overrides)


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder):
    return torch.load(folder / checkpoint.LAST, weights_only=True)["model"]


def farthest(a, b):
    return max((a[name].double() - b[name].double()).abs().max().item() for name in a)


def torchrun(folder, *overrides, wait=True, resume=False):
    """Two processes of a training on this machine."""
    (folder / "tiny.yaml").write_text(TINY)
    words = ["train", "tiny.yaml", "--output", "run", "--device", "cpu", *overrides]
    return twice(folder, *words, *(["--resume"] if resume else []), wait=wait)


def twice(folder, *words, wait=True):
    """Two processes of a command on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_port", str(29500 + os.getpid() % 500), "-m", "higherhrnet"]
    command += [str(word) for word in words]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if not wait:
        return process
    output, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return output


def test_two_processes_train_like_one(tmp_path):
    """Batch norms as loaded: everything is a mean over images, however these are shared."""
    frozen = ("TRAIN.BN_MODE", "frozen")
    train(tiny(*frozen), tmp_path / "one", "cpu")
    torchrun(tmp_path, *frozen)
    alone, together = lines(tmp_path / "one"), lines(tmp_path / "run")
    assert [line["loss"] for line in together] == pytest.approx(
        [line["loss"] for line in alone], rel=1e-5
    )
    assert [line["AP"] for line in together] == pytest.approx([line["AP"] for line in alone])
    assert farthest(weights(tmp_path / "one"), weights(tmp_path / "run")) < 1e-5


def test_two_processes_with_batch_norm_stay_near(tmp_path):
    """Each process normalizes by its own half of the batch, so that curves differ a little."""
    train(tiny(), tmp_path / "one", "cpu")
    torchrun(tmp_path)
    alone, together = lines(tmp_path / "one"), lines(tmp_path / "run")
    assert [line["loss"] for line in together] == pytest.approx(
        [line["loss"] for line in alone], rel=0.05
    )


def test_every_validation_image_is_looked_at_once(tmp_path):
    output = torchrun(tmp_path, "TRAIN.END_EPOCH", "1")
    assert output.count("epoch 1: AP") == 1  # only the first process talks
    measured = lines(tmp_path / "run")[0]
    config = tiny("DATASET.INPUT_SIZE", "64")
    predictor = load(tmp_path / "run" / "best.safetensors", "cpu")
    found = run_validation(config, predictor, build_dataset(config, "test"))
    for name, value in (found.metrics | found.diagnostics).items():
        assert measured[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_two_processes_validate_and_predict_like_one(tmp_path, monkeypatch, request):
    """The same figures to the last digit, and every image in the records once.

    torchrun gives each process one thread; a convolution cut among several rounds otherwise.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    images = write_coco(tmp_path / "data", SyntheticPeople(7, size=128)).parent.parent / "images"
    settings = [
        "DATASET.DATASET",
        "coco",
        "DATASET.ROOT",
        tmp_path / "data",
        "DATASET.TEST",
        "synthetic",
    ]
    settings += ["DATASET.INPUT_SIZE", "128", "TEST.PRECISION", "fp32", "MODEL.WIDTH", "18"]
    config = ROOT / "configs" / "mini" / "higherhrnet_w18_256.yaml"
    valid = ["valid", config, "--weights", "higherhrnet_w18_mini", "--device", "cpu", *settings]
    predict = ["predict", images / "synthetic", "--device", "cpu", "DATASET.INPUT_SIZE", "128"]
    for name in ("one", "two"):
        for words in (valid, predict):
            atomic_write = [str(word) for word in (*words, "--output", tmp_path / name)]
            if name == "two":
                twice(tmp_path, *atomic_write)
            else:
                assert main(atomic_write) == 0
    for file in ("results.json", "metrics.json", "predictions.json"):
        one, two = (json.loads((tmp_path / n / file).read_text()) for n in ("one", "two"))
        if file == "predictions.json":
            for content in (one, two):
                content["images"].sort(key=lambda image: image["id"])
                content["annotations"].sort(key=lambda a: (a["image_id"], -a["score"]))
                for number, record in enumerate(content["annotations"]):
                    record["id"] = number
            assert len(one["images"]) == 7
        assert one == two, file
    assert len(list((tmp_path / "two").glob("*_poses.jpg"))) == 7


def descendants(pid):
    found = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=True
    )
    return [int(word) for word in found.stdout.split()]


def test_a_killed_process_ends_all_with_a_sentence_and_the_run_goes_on(tmp_path):
    process = torchrun(tmp_path, "TRAIN.END_EPOCH", "100000", wait=False)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "last.pth").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    last = max(
        (pid for pid in descendants(process.pid)),
        key=lambda pid: int(environment_of(pid).get("RANK", -1)),
    )
    assert environment_of(last)["RANK"] == "1"
    os.kill(last, signal.SIGKILL)
    _, error = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "higherhrnet: another of the 2 processes ended; a training goes on" in error
    done = checkpoint.load(tmp_path / "run")["progress"]["epoch"]
    torchrun(tmp_path, "TRAIN.END_EPOCH", str(done + 1), resume=True)
    assert checkpoint.load(tmp_path / "run")["progress"]["epoch"] == done + 1


def environment_of(pid):
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_parts_add_up_to_the_batch(tmp_path):
    frozen = ("TRAIN.BN_MODE", "frozen")
    train(tiny(*frozen), tmp_path / "whole", "cpu")
    train(tiny(*frozen, "TRAIN.MICRO_BATCH_SIZE", "1"), tmp_path / "parts", "cpu")
    assert farthest(weights(tmp_path / "whole"), weights(tmp_path / "parts")) < 1e-5


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["TRAIN.MICRO_BATCH_SIZE", "3"], "'TRAIN.BATCH_SIZE' must be a multiple of 1 .* not 4"),
        (
            ["TRAIN.BATCH_SIZE", "32", "TRAIN.MICRO_BATCH_SIZE", "1"],
            "16 images are too few for 32 micro-batches",
        ),
        (["TRAIN.BN_MODE", "sync"], "'TRAIN.BN_MODE': sync needs GPUs, not 'cpu'"),
        (["DATASET.CACHE", "device"], "'DATASET.CACHE': device holds data sets of files alone"),
        (["TRAIN.LR_MULT", "[stage9 0.1]"], "'TRAIN.LR_MULT': .* with 'stage9'"),
        (["TRAIN.LR_MULT", "[stage2]"], "lists 'PREFIX FACTOR', not 'stage2'"),
    ],
)
def test_settings_that_cannot_be_get_a_sentence(tmp_path, overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        train(tiny(*overrides), tmp_path / "run", "cpu")


def test_checkpointing_changes_nothing_but_memory(tmp_path):
    train(tiny(), tmp_path / "stored", "cpu")
    train(tiny("TRAIN.ACTIVATION_CHECKPOINTING", "True"), tmp_path / "again", "cpu")
    stored, again = weights(tmp_path / "stored"), weights(tmp_path / "again")
    for name, tensor in stored.items():
        assert torch.equal(tensor, again[name]), name


def test_checkpointing_takes_synchronized_norms():
    """They insist on a count of batches; it must not rise with the second pass."""
    norm = torch.nn.SyncBatchNorm(3)
    part = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), norm)
    checkpoint_activations(
        part, torch.rand(4, 3, 5, 5, requires_grad=True)
    ).square().sum().backward()
    assert norm.num_batches_tracked == 1
    mean = norm.running_mean.clone()
    assert mean.abs().sum() > 0


@pytest.mark.slow
def test_compiled_training_has_the_same_loss():
    """The same losses for some steps and the same first gradients, to rounding. (A longer run of so
    small a network drifts: batch norms over a few cells make rounding grow.)"""

    curves, gradients = [], []
    for compiled in ("False", "True"):
        checkpoint.seed_everything(0)
        settings = ("TRAIN.OPTIMIZER", "sgd", "TRAIN.LR", "0.01", "TRAIN.COMPILE", compiled)
        trainer = build_step_trainer(tiny(*settings), torch.device("cpu"))
        batch = make_batch(tiny(), 4)
        trainer.model.train()
        trainer.wrap_model()
        curve = [sum(v.item() for v in trainer.train_step([batch]).values())]
        gradients.append([p.grad.clone() for p in trainer.model.parameters()])
        curves.append(
            curve + [sum(v.item() for v in trainer.train_step([batch]).values()) for _ in "ab"]
        )
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)
    for eager, compiled_one in zip(*gradients, strict=True):
        assert (eager - compiled_one).abs().max() < 1e-4 * eager.abs().max() + 1e-9


def test_frozen_layers_are_freed_at_the_epoch(tmp_path):
    settings = ("TRAIN.FREEZE", "[conv1, bn1]", "TRAIN.END_EPOCH", "3", "TRAIN.UNFREEZE_EPOCH", "2")
    train(tiny(*settings, "TRAIN.KEEP_CHECKPOINTS", "2"), tmp_path, "cpu")
    kept = sorted(path.name for path in tmp_path.glob("epoch_*.pth"))
    assert kept == ["epoch_0002.pth", "epoch_0003.pth"]
    before, after = (torch.load(tmp_path / name, weights_only=True)["model"] for name in kept)
    start = build_model(tiny(), 17)
    checkpoint.seed_everything(0)
    start = build_model(tiny(), 17)
    assert torch.equal(before["conv1.weight"], start.conv1.weight)
    assert torch.equal(before["bn1.running_mean"], start.bn1.running_mean)
    assert not torch.equal(after["conv1.weight"], start.conv1.weight)
    assert not torch.equal(after["bn1.running_mean"], start.bn1.running_mean)


def test_layers_learn_at_their_own_rate(tmp_path):
    settings = ("TRAIN.LR_MULT", "[conv1 0.0, final_layers 0.5]", "TRAIN.END_EPOCH", "1")
    train(tiny(*settings), tmp_path, "cpu")
    groups = torch.load(tmp_path / checkpoint.LAST, weights_only=True)["optimizer"]["param_groups"]
    assert sorted(group["lr"] / 0.001 for group in groups) == pytest.approx([0.0, 0.5, 1.0])
    checkpoint.seed_everything(0)
    assert torch.equal(weights(tmp_path)["conv1.weight"], build_model(tiny(), 17).conv1.weight)


def test_checkpoints_inside_an_epoch_resume_to_the_same_weights(tmp_path):
    train(tiny("TRAIN.END_EPOCH", "1"), tmp_path / "whole", "cpu")
    kept = []
    original = checkpoint.save

    def keeping(folder, values):
        original(folder, values)
        kept.append((folder / checkpoint.LAST).read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", keeping)
        settings = tiny("TRAIN.END_EPOCH", "1", "TRAIN.SAVE_EVERY", "3")
        train(settings, tmp_path / "parts", "cpu")
    assert len(kept) == 2  # after the third of four steps, and at the end
    (tmp_path / "parts" / checkpoint.LAST).write_bytes(kept[0])
    train(tiny("TRAIN.END_EPOCH", "1"), tmp_path / "parts", "cpu", resume=True)
    assert farthest(weights(tmp_path / "whole"), weights(tmp_path / "parts")) == 0.0
    assert [line["epoch"] for line in lines(tmp_path / "parts")] == [1]


def test_a_really_full_disk_leaves_the_last_checkpoint(tmp_path):
    """A file system of 1 MiB; where none may be mounted, a limit on file size stands in."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)],
        check=False, capture_output=True,
    ).returncode  # fmt: skip
    if not mounted:
        pytest.skip("no file system may be mounted here (needs root)")
    try:
        parts = dict.fromkeys(("model", "average", "optimizer", "scaler"))
        checkpoint.save(disk, {**parts, "progress": 1})
        with pytest.raises(OSError, match=r"could not write '.*last\.pth': No space left"):
            checkpoint.save(disk, {"progress": 2, "model": torch.zeros(2**20)})
        assert checkpoint.load(disk)["progress"] == 1
        assert [path.name for path in disk.iterdir()] == ["last.pth"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# The input path


OWN = {
    "bottom-up": ("NUM_BASIC_BLOCKS: 1", ", INPUT_SIZE: 64"),
    "top-down": ("NAME: pose_hrnet, IMAGE_SIZE: [96, 64]", ""),
}


def stored(tmp_path, *overrides, count=8, mode="bottom-up"):
    folder = tmp_path / "data"
    if not folder.exists():
        write_coco(folder, SyntheticPeople(count, size=96))
    text = f"""
    MODEL: {{WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, {OWN[mode][0]}}}
    DATASET: {{ROOT: {folder}, TRAIN: synthetic, TEST: synthetic, COLOR_JITTER: 0.3{OWN[mode][1]}}}
    TRAIN: {{END_EPOCH: 1, BATCH_SIZE: 4, PRECISION: fp32, WORKERS: 2}}
    """
    return parse_config(text, overrides)


def first_batch(config):
    coder = build_codec(config, build_model(config, 17), load_skeleton(config.DATASET.SKELETON))
    device = torch.device("cpu")
    batches, feed = build_loader(config, build_dataset(config, "train"), coder, device)
    try:
        for epoch in (0, 1):  # the second reads from the cache
            images, targets = feed(next(iter(batches.epoch(epoch))))
    finally:
        batches.close()
    return images, targets


@pytest.mark.parametrize(
    "overrides",
    [
        ["DATASET.CACHE", "ram"],
        ["DATASET.WARP", "device"],
        ["DATASET.CACHE", "device"],
        ["DATASET.CACHE", "ram", "DATASET.WARP", "device"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("mode", ["bottom-up", "top-down"])
def test_every_input_path_gives_the_same_batch(tmp_path, overrides, mode):
    expected, targets = first_batch(stored(tmp_path, mode=mode))
    images, others = first_batch(stored(tmp_path, *overrides, mode=mode))
    torch.testing.assert_close(others, targets, rtol=0, atol=0)
    if "WARP" in str(overrides) or "device" in overrides:
        difference = (images - expected).abs()  # one gray value is about 0.017
        assert difference.mean() < 0.01
        assert difference.quantile(0.999) < 0.12
    else:
        assert torch.equal(images, expected)


def test_images_are_read_from_a_zip(tmp_path):
    expected, _ = first_batch(stored(tmp_path))
    folder = tmp_path / "data" / "images" / "synthetic"
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"synthetic/{path.name}")
            path.unlink()
    folder.rmdir()
    images, _ = first_batch(stored(tmp_path))
    assert torch.equal(images, expected)
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        archive.writestr("synthetic/other.png", b"")
    with pytest.raises(UserError, match=r"image '0.*png' is not in '.*synthetic\.zip'"):
        build_dataset(stored(tmp_path), "train").sample(0)
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("synthetic/000000000001.png", bytes(range(256)) * 9)
    content = bytearray(folder.with_suffix(".zip").read_bytes())
    content[60:90] = b"?" * 30  # in the middle of the packed image
    folder.with_suffix(".zip").write_bytes(content)
    with pytest.raises(UserError, match=r"image '.*synthetic\.zip/.*png' cannot be read"):
        Store(folder.with_suffix(".zip")).read("000000000001.png")
    folder.with_suffix(".zip").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"image archive '.*synthetic\.zip' cannot be read"):
        build_dataset(stored(tmp_path), "train")


def test_the_device_warps_as_the_host_does():
    """A smooth image through any affine: at most two gray values apart, mirrored ones too."""
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(90), np.arange(120))[..., None] * [1.0, 0.7, 0.4]
    image = np.ascontiguousarray(ramp.astype(np.uint8))
    atomic_write = replace(SyntheticPeople(1).sample(0), image=image)
    for _ in range(8):
        view = RandomView(64)(atomic_write, rng)
        host = geometry.warp(image, view.affine, (64, 64)).astype(int)
        packed = PackedImages(
            torch.from_numpy(image).view(-1),
            torch.tensor([0]),
            torch.tensor([[90, 120]]),
            torch.from_numpy(geometry.invert(view.affine)[None, :2].copy()),
        )
        device = on_device.warp(packed, (64, 64))[0].permute(1, 2, 0).numpy().astype(int)
        inside = cv_inside(view.affine, (90, 120), 64)
        assert np.abs(host - device)[inside].max() <= 2


def cv_inside(affine, shape, size):
    """Where a view shows the image's inside, a pixel away from its border."""
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).astype(float)
    x, y = np.moveaxis(geometry.apply(geometry.invert(affine), grid), -1, 0)
    return (x > 1) & (y > 1) & (x < shape[1] - 2) & (y < shape[0] - 2)


def test_stamping_equals_a_plain_loop():
    rng = np.random.default_rng(1)
    indices = torch.from_numpy(rng.integers(-1, 24 * 32, (3, 5, 4)))
    stamped = heat.draw_gaussians(indices, (24, 32), 1)
    kernel, expected = heat.kernel(1).astype(np.float32), np.zeros((3, 4, 24, 32), np.float32)
    radius = len(kernel) // 2
    for b, p, k in np.ndindex(3, 5, 4):
        if (cell := int(indices[b, p, k])) >= 0:
            cy, cx = divmod(cell, 32)
            for dy, dx in np.ndindex(*kernel.shape):
                y, x = cy + dy - radius, cx + dx - radius
                if 0 <= y < 24 and 0 <= x < 32:
                    expected[b, k, y, x] = max(expected[b, k, y, x], kernel[dy, dx])
    np.testing.assert_array_equal(stamped, expected)


def test_colors_change_as_told():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(on_device.change_color(images, torch.ones(2, 3)), images)
    half = on_device.change_color(images, torch.tensor([[0.5, 1, 1], [1, 1, 0]]))
    assert (half[0].float() - images[0] * 0.5).abs().max() <= 0.5
    assert torch.equal(half[1][0], half[1][1])  # no saturation: gray


@pytest.mark.gpu
def test_device_targets_equal_host_targets(tmp_path):
    from higherhrnet.structures import KeypointIndices

    config = stored(tmp_path)
    coder = build_codec(config, build_model(config, 17), load_skeleton(config.DATASET.SKELETON))
    drawn = SyntheticPeople(1, size=64).sample(0)
    keypoints = coder.index_keypoints(drawn.poses, drawn.valid, flipped=False)
    batch = KeypointIndices(tuple(c[None] for c in keypoints.indices), keypoints.valid[None])
    there = KeypointIndices(tuple(c.cuda() for c in batch.indices), batch.valid.cuda())
    torch.testing.assert_close(
        coder.encode(there), coder.encode(batch), rtol=0, atol=0, check_device=False
    )


# Pre-training and finetuning


def write_shapes(folder, count):
    """Classes that a tiny network can tell apart: discs, squares and crosses of any color."""
    import cv2

    for split, first in (("train", 0), ("val", 10_000)):
        for number, name in enumerate(("cross", "disc", "square")):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                rng = np.random.default_rng((first + i, number))
                image = rng.integers(0, 60, (64, 64, 3)).astype(np.uint8)
                x, y = rng.integers(24, 40, 2).tolist()
                color = rng.integers(120, 255, 3).tolist()
                if name == "disc":
                    cv2.circle(image, (x, y), 14, color, -1)
                elif name == "square":
                    cv2.rectangle(image, (x - 12, y - 12), (x + 12, y + 12), color, -1)
                else:
                    cv2.line(image, (x - 16, y), (x + 16, y), color, 4)
                    cv2.line(image, (x, y - 16), (x, y + 16), color, 4)
                cv2.imwrite(str(folder / split / name / f"{i}.png"), image)


@pytest.mark.slow
def test_a_backbone_is_pretrained_on_class_folders_and_starts_a_pose_training(tmp_path):
    write_shapes(tmp_path / "shapes", 24)
    text = f"""
    MODEL: {{NAME: cls_hrnet, WIDTH: 4}}
    DATASET: {{ROOT: {tmp_path / "shapes"}, TRAIN: train, TEST: val, INPUT_SIZE: 64,
              AUGMENT: false}}
    TRAIN: {{END_EPOCH: 6, BATCH_SIZE: 8, OPTIMIZER: sgd, LR: 0.004, WEIGHT_DECAY: 0.0001,
             WORKERS: 0,
             LR_STEP: [5], PRECISION: fp32, VALIDATE_EVERY: 1}}
    """
    accuracy = train_task(parse_config(text), tmp_path / "run", "cpu").best
    assert accuracy > 0.6  # a third is chance
    assert "accuracy" in lines(tmp_path / "run")[-1]
    file = tmp_path / "run" / "best.pth"
    names = torch.load(file, weights_only=True)
    assert names["classifier.weight"].shape == (3, 2048)
    shape = (
        "MODEL.NUM_MODULES",
        "[1, 4, 3]",
        "MODEL.NUM_BLOCKS",
        "4",
        "SYNTHETIC.TRAIN_IMAGES",
        "4",
    )
    start = ("MODEL.PRETRAINED", str(file), "TRAIN.FREEZE", "[conv1]", "TRAIN.END_EPOCH", "1")
    pose = tiny(*shape, *start)
    train(pose, tmp_path / "pose", "cpu")
    assert torch.equal(weights(tmp_path / "pose")["conv1.weight"], names["conv1.weight"])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["DATASET.ROOT", "nowhere"], "folder of classes 'nowhere/train' does not exist"),
    ],
)
def test_pretraining_without_images_gets_a_sentence(tmp_path, overrides, sentence):
    text = "{MODEL: {NAME: cls_hrnet}}"
    with pytest.raises(UserError, match=sentence):
        train_task(parse_config(text, overrides), tmp_path / "run", "cpu")


@pytest.mark.parametrize("concatenated", [True, False])
def test_as_many_joints_in_another_order_are_not_the_same_heads(concatenated):
    from higherhrnet.models import weights as files
    from higherhrnet.skeleton import COCO

    turned = replace(COCO, name="turned", joints=COCO.joints[::-1])
    config = override_config(tiny(), ["MODEL.CAT_OUTPUT", str(concatenated)])
    source, target = (build_model(config, len(COCO)) for _ in range(2))
    checkpoint_file = files.Checkpoint(Path("coco"), source.state_dict())
    files.load_pretrained(target, checkpoint_file, COCO, turned)
    joints = len(COCO)
    for row in range(2 * joints):  # heat, then tags
        old = (row // joints + 1) * joints - 1 - row % joints
        assert torch.equal(target.final_layers[0].weight[row], source.final_layers[0].weight[old])
        if concatenated:
            read = source.deconv_layers[0][0][0].weight[4 + old]
            assert torch.equal(target.deconv_layers[0][0][0].weight[4 + row], read)


def test_heads_go_over_to_another_skeleton_by_joint_name():
    from higherhrnet.models import weights as files
    from higherhrnet.skeleton import COCO, CROWDPOSE

    source = build_model(tiny(), len(COCO))
    target = build_model(tiny(), len(CROWDPOSE))
    checkpoint_file = files.Checkpoint(Path("coco"), source.state_dict())
    fresh = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    files.load_pretrained(target, checkpoint_file, COCO, CROWDPOSE)
    shared = [joint for joint in CROWDPOSE.joints if joint in COCO.joints]
    assert len(shared) == 12
    for joint in CROWDPOSE.joints:
        row = CROWDPOSE.index(joint)
        for offset, before in ((0, 0), (len(CROWDPOSE), len(COCO))):  # heat, tag
            got = target.final_layers[0].weight[offset + row]
            into = target.deconv_layers[0][0][0].weight[4 + offset + row]
            if joint in shared:
                old = before + COCO.index(joint)
                assert torch.equal(got, source.final_layers[0].weight[old])
                assert torch.equal(into, source.deconv_layers[0][0][0].weight[4 + old])
            else:
                assert torch.equal(got, fresh["final_layers.0.weight"][offset + row])
    assert torch.equal(target.conv1.weight, source.conv1.weight)
    wider = build_model(tiny("MODEL.WIDTH", "6"), len(CROWDPOSE))
    with pytest.raises(UserError, match="does not hold the backbone"):
        files.load_pretrained(wider, checkpoint_file, COCO, CROWDPOSE)
    features = source.deconv_layers[0][0][0].weight[:4]
    assert torch.equal(target.deconv_layers[0][0][0].weight[:4], features)


# What the tools say


def test_the_plan_counts_right():
    from higherhrnet.research import training_plan as plan

    w32 = parse_config("")
    assert plan.giga_macs(w32) == pytest.approx(46.20, abs=0.01)
    for precision, measured in (("fp32", 922), ("bf16", 409)):  # MiB an image, measured elsewhere
        config = override_config(w32, ["TRAIN.PRECISION", precision])
        one, two = (plan.memory(config, batch) / 2**20 for batch in (1, 2))
        assert two - one == pytest.approx(measured, rel=0.25)
        again = override_config(config, ["TRAIN.ACTIVATION_CHECKPOINTING", "True"])
        assert plan.memory(again, 2) - plan.memory(again, 1) < 0.5 * (two - one) * 2**20


def test_the_losses_equal_plain_loops():
    from higherhrnet.research.bench import loss

    rows = loss.run(torch.device("cpu"), crowds=(1, 4), batch=2)
    assert len(rows) == 3
    for row in rows:
        assert row["value difference"] < 1e-6
        assert row["gradient difference"] < 1e-7


def test_alarms():
    from higherhrnet.training.alarms import find_alarms

    def record(epoch, **values):
        return {"epoch": epoch, "push/4": 0.1} | values

    well = {"tags/separability": 0.97, "tags/between": 3.0, "tags/within": 0.1}
    same = {"tags/separability": 0.5, "tags/between": 0.01, "tags/within": 0.01}
    assert find_alarms([record(1, **well), record(2, **well)]) == []
    assert find_alarms([record(1, **same)]) == []  # too early to say
    (said,) = find_alarms([record(1, **same), record(2, **same)])
    assert said.startswith("tags have collapsed")
    heat = {"score/nose": 0.6, "score/left_eye": 0.5, "score/left_ear": 0.001}
    fresh = {"score/nose": 0.6, "score/left_eye": 0.5, "score/left_ear": 0.03}
    assert find_alarms([record(3, **well, **heat)]) == []  # it may only have begun
    assert find_alarms([record(1, **heat), record(2, **fresh)]) == []
    assert find_alarms([record(1, **heat), record(2, **heat), record(3)]) == []  # said already
    (said,) = find_alarms([record(1, **well, **heat), record(2), record(3, **well, **heat)])
    assert "'left_ear' is dead" in said
    (said,) = find_alarms([record(1), record(2, **{"push/4": 0.9})])
    assert said.startswith("push/4 explodes")
    (said,) = find_alarms([record(2, **well | {"tags/between": 1000.0})])
    assert said.startswith("tags fly apart")
    (said,) = find_alarms([record(1)], curve=[0.1, 0.3, 5.0, 2.0])
    assert "not warmed up" in said
    assert find_alarms([record(1)], curve=[0.1, 0.09, 0.08]) == []


def test_embedding_diagnostics():
    from higherhrnet.research.embedding_diagnostics import EmbeddingDiagnostics

    ab = Skeleton("ab", ("a", "b"), (), (0.1, 0.1), ("a", "b"), ())
    meter = EmbeddingDiagnostics(ab)
    tags = np.array([[[0.0], [0.2]], [[1.0], [1.2]]])  # two people, their joints 0.2 apart
    present = np.ones((2, 2), bool)
    meter.add(tags, np.array([[0.5, 0.7], [0.9, 0.1]]), present, np.array([[0, 0], [1, 0]]))
    means = meter.summarize()
    assert means["tags/within"] == pytest.approx(0.1)
    assert means["tags/between"] == pytest.approx(1.0)
    assert means["tags/separability"] == 1.0
    assert means["tags/grouped_right"] == 0.75
    assert means["score/a"] == pytest.approx(0.7)
    empty = EmbeddingDiagnostics(ab)
    empty.add(tags[:0], np.zeros((0, 2)), present[:0], np.zeros((0, 2), int))
    assert empty.summarize() == {}


@pytest.mark.data
def test_a_coco_model_is_finetuned_to_crowdpose_and_to_tigers(tmp_path):
    """Real images, the bundled model, the recipes' own configs, cut short."""
    from higherhrnet.config import read_config
    from higherhrnet.models import weights as files
    from higherhrnet.skeleton import COCO

    bundled = files.read_checkpoint(find_weights("higherhrnet_w18_mini")).state
    for recipe in ("mini/crowdpose_w18_512", "finetune/own_skeleton_w18_256"):
        short = ["TRAIN.END_EPOCH", "1", "TRAIN.BATCH_SIZE", "2", "TRAIN.WORKERS", "0",
                 "TRAIN.EMA_DECAY", "0",
                 "DATASET.TRAIN_LIMIT", "2", "DATASET.TEST_LIMIT", "2", "TRAIN.LR", "0.0",
                 "DATASET.INPUT_SIZE", "128", "DATASET.SKELETON"]  # fmt: skip
        config = read_config(ROOT / "configs" / f"{recipe}.yaml")
        skeleton = config.DATASET.SKELETON
        skeleton = str(ROOT / skeleton) if "/" in skeleton else skeleton
        train(override_config(config, [*short, skeleton]), tmp_path / recipe, "cpu")
        trained = load(tmp_path / recipe / "best.safetensors", "cpu")
        joint = "left_hip"
        row, old = trained.skeleton.index(joint), COCO.index(joint)
        got = trained.engine.model.final_layers[1].weight[row]
        torch.testing.assert_close(got, bundled["final_layers.1.weight"][old].float())


def test_the_plan_tells_hours(tmp_path, capsys):
    text = "MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1}\n"
    text += "DATASET: {DATASET: synthetic, INPUT_SIZE: 128}\nSYNTHETIC: {TRAIN_IMAGES: 20}"
    (tmp_path / "c.yaml").write_text(text)
    command = ["train", str(tmp_path / "c.yaml"), "--plan", "--device", "cpu"]
    assert main([*command, "TRAIN.BATCH_SIZE", "4"]) == 0
    assert re.search(r"about \d+ minutes for 300 epochs of 20 views", capsys.readouterr().out)
    assert main([*command, "TRAIN.BATCH_SIZE", "4", "TRAIN.MINUTES", "8"]) == 0
    assert re.search(r"about [\d.e+]+ epochs in 8 minutes: .* views/s", capsys.readouterr().out)
