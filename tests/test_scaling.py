"""Training over processes, parts, memory and devices gives what training alone gives."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from higherhrnet import build, geometry
from higherhrnet.codecs import heatmaps as heat
from higherhrnet.config import parse_config
from higherhrnet.datasets import on_device
from higherhrnet.datasets.toy import DrawnPeople, write_coco
from higherhrnet.datasets.transforms import RandomView
from higherhrnet.fields import Packed
from higherhrnet.training import checkpoint

from .shared import ROOT

TINY = """
MODEL: {WIDTH: 4, MODULES: [1, 1, 1], BLOCKS: 1, RESIDUAL_BLOCKS: 1}
DATASET: {KIND: toy, INPUT_SIZE: 64}
TOY: {SIZE: 64, TRAIN_IMAGES: 16, TEST_IMAGES: 5}
TRAIN: {EPOCHS: 2, BATCH: 4, WORKERS: 0, PRECISION: fp32, VALIDATE_EVERY: 1, CLIP: 1.0}
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
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_port", str(29500 + os.getpid() % 500), "-m", "higherhrnet", "train"]
    command += ["tiny.yaml", "--output", "run", "--device", "cpu", *overrides]
    command += ["--resume"] if resume else []
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
    """Batch norms as loaded: everything is a mean over pictures, however these are shared."""
    frozen = ("TRAIN.NORM", "frozen")
    build.train(tiny(*frozen), tmp_path / "one", "cpu")
    torchrun(tmp_path, *frozen)
    alone, together = lines(tmp_path / "one"), lines(tmp_path / "run")
    assert [line["loss"] for line in together] == pytest.approx(
        [line["loss"] for line in alone], rel=1e-5
    )
    assert [line["AP"] for line in together] == pytest.approx([line["AP"] for line in alone])
    assert farthest(weights(tmp_path / "one"), weights(tmp_path / "run")) < 1e-5


def test_two_processes_with_batch_norm_stay_near(tmp_path):
    """Each process normalises by its own half of the batch, so that curves differ a little."""
    build.train(tiny(), tmp_path / "one", "cpu")
    torchrun(tmp_path)
    alone, together = lines(tmp_path / "one"), lines(tmp_path / "run")
    assert [line["loss"] for line in together] == pytest.approx(
        [line["loss"] for line in alone], rel=0.05
    )


def test_every_validation_picture_is_looked_at_once(tmp_path):
    output = torchrun(tmp_path, "TRAIN.EPOCHS", "1")
    assert output.count("epoch 1: AP") == 1  # only the first process talks
    measured = lines(tmp_path / "run")[0]
    config = tiny("DATASET.INPUT_SIZE", "64")
    predictor = build.load(tmp_path / "run" / "best.safetensors", "cpu")
    found = build.validate(predictor, build.pictures(config, "test"))
    for name, value in (found.metrics | found.health).items():
        assert measured[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def descendants(pid):
    found = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=True
    )
    return [int(word) for word in found.stdout.split()]


def test_a_killed_process_ends_all_with_a_sentence_and_the_run_goes_on(tmp_path):
    process = torchrun(tmp_path, "TRAIN.EPOCHS", "100000", wait=False)
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
    assert "higherhrnet: another of the 2 processes of this training ended" in error
    done = checkpoint.load(tmp_path / "run")["progress"]["epoch"]
    torchrun(tmp_path, "TRAIN.EPOCHS", str(done + 1), resume=True)
    assert checkpoint.load(tmp_path / "run")["progress"]["epoch"] == done + 1


def environment_of(pid):
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_parts_add_up_to_the_batch(tmp_path):
    frozen = ("TRAIN.NORM", "frozen")
    build.train(tiny(*frozen), tmp_path / "whole", "cpu")
    build.train(tiny(*frozen, "TRAIN.MICRO_BATCH", "1"), tmp_path / "parts", "cpu")
    assert farthest(weights(tmp_path / "whole"), weights(tmp_path / "parts")) < 1e-5


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["TRAIN.MICRO_BATCH", "3"], "'TRAIN.BATCH' must be a multiple of 1 .* not 4"),
        (["TRAIN.BATCH", "32", "TRAIN.MICRO_BATCH", "1"], "16 pictures are too few for 32 parts"),
        (["TRAIN.NORM", "sync"], "'TRAIN.NORM': sync needs GPUs, not 'cpu'"),
        (["DATASET.CACHE", "device"], "'DATASET.CACHE': device holds files, not drawn pictures"),
        (["TRAIN.RATE_FACTORS", "[stage9 0.1]"], "'TRAIN.RATE_FACTORS': .* with 'stage9'"),
        (["TRAIN.RATE_FACTORS", "[stage2]"], "lists 'PREFIX FACTOR', not 'stage2'"),
    ],
)
def test_settings_that_cannot_be_get_a_sentence(tmp_path, overrides, sentence):
    with pytest.raises(ValueError, match=sentence):
        build.train(tiny(*overrides), tmp_path / "run", "cpu")


def test_checkpointing_changes_nothing_but_memory(tmp_path):
    build.train(tiny(), tmp_path / "stored", "cpu")
    build.train(tiny("TRAIN.CHECKPOINTING", "True"), tmp_path / "again", "cpu")
    stored, again = weights(tmp_path / "stored"), weights(tmp_path / "again")
    for name, tensor in stored.items():
        assert torch.equal(tensor, again[name]), name


@pytest.mark.slow
def test_compiled_training_has_the_same_loss(tmp_path):
    build.train(tiny(), tmp_path / "eager", "cpu")
    build.train(tiny("TRAIN.COMPILE", "True"), tmp_path / "compiled", "cpu")
    eager, compiled = lines(tmp_path / "eager"), lines(tmp_path / "compiled")
    assert [line["loss"] for line in compiled] == pytest.approx(
        [line["loss"] for line in eager], rel=1e-4
    )


def test_frozen_layers_are_freed_at_the_epoch(tmp_path):
    settings = ("TRAIN.FREEZE", "[conv1, bn1]", "TRAIN.EPOCHS", "3", "TRAIN.UNFREEZE_EPOCH", "2")
    build.train(tiny(*settings, "TRAIN.KEEP", "2"), tmp_path, "cpu")
    kept = sorted(path.name for path in tmp_path.glob("epoch_*.pth"))
    assert kept == ["epoch_0002.pth", "epoch_0003.pth"]
    before, after = (torch.load(tmp_path / name, weights_only=True)["model"] for name in kept)
    start = build.model(tiny(), 17)
    checkpoint.seed_everything(0)
    start = build.model(tiny(), 17)
    assert torch.equal(before["conv1.weight"], start.conv1.weight)
    assert torch.equal(before["bn1.running_mean"], start.bn1.running_mean)
    assert not torch.equal(after["conv1.weight"], start.conv1.weight)
    assert not torch.equal(after["bn1.running_mean"], start.bn1.running_mean)


def test_layers_learn_at_their_own_rate(tmp_path):
    settings = ("TRAIN.RATE_FACTORS", "[conv1 0.0, final_layers 0.5]", "TRAIN.EPOCHS", "1")
    build.train(tiny(*settings), tmp_path, "cpu")
    groups = torch.load(tmp_path / checkpoint.LAST, weights_only=True)["optimizer"]["param_groups"]
    assert sorted(group["lr"] / 0.001 for group in groups) == pytest.approx([0.0, 0.5, 1.0])
    checkpoint.seed_everything(0)
    assert torch.equal(weights(tmp_path)["conv1.weight"], build.model(tiny(), 17).conv1.weight)


def test_checkpoints_inside_an_epoch_resume_to_the_same_weights(tmp_path):
    build.train(tiny("TRAIN.EPOCHS", "1"), tmp_path / "whole", "cpu")
    kept = []
    original = checkpoint.save

    def keeping(folder, values):
        original(folder, values)
        kept.append((folder / checkpoint.LAST).read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", keeping)
        settings = tiny("TRAIN.EPOCHS", "1", "TRAIN.SAVE_EVERY", "3")
        build.train(settings, tmp_path / "parts", "cpu")
    assert len(kept) == 2  # after the third of four steps, and at the end
    (tmp_path / "parts" / checkpoint.LAST).write_bytes(kept[0])
    build.train(tiny("TRAIN.EPOCHS", "1"), tmp_path / "parts", "cpu", resume=True)
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
        checkpoint.save(disk, {"progress": 1})
        with pytest.raises(OSError, match=r"could not write '.*last\.pth': "):
            checkpoint.save(disk, {"progress": 2, "model": torch.zeros(2**20)})
        assert checkpoint.load(disk)["progress"] == 1
        assert [path.name for path in disk.iterdir()] == ["last.pth"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# The input path


def stored(tmp_path, *overrides, count=8):
    folder = tmp_path / "data"
    if not folder.exists():
        write_coco(folder, DrawnPeople(count, size=96))
    text = f"""
    MODEL: {{WIDTH: 4, MODULES: [1, 1, 1], BLOCKS: 1, RESIDUAL_BLOCKS: 1}}
    DATASET: {{ROOT: {folder}, TRAIN: toy, TEST: toy, INPUT_SIZE: 64, COLOUR: 0.3}}
    TRAIN: {{EPOCHS: 1, BATCH: 4, PRECISION: fp32, WORKERS: 2}}
    """
    return parse_config(text, overrides)


def first_batch(config):
    from higherhrnet.build.training import input_path
    from higherhrnet.training.distributed import Group

    coder = build.codec(config, build.model(config, 17), build.skeleton(config))
    on = torch.device("cpu")
    batches, feed = input_path(config, build.pictures(config, "train"), coder, on, Group())
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
def test_every_input_path_gives_the_same_batch(tmp_path, overrides):
    expected, targets = first_batch(stored(tmp_path))
    images, others = first_batch(stored(tmp_path, *overrides))
    torch.testing.assert_close(others, targets, rtol=0, atol=0)
    if "WARP" in str(overrides) or "device" in overrides:
        difference = (images - expected).abs()  # one grey value is about 0.017
        assert difference.mean() < 0.01
        assert difference.quantile(0.999) < 0.12
    else:
        assert torch.equal(images, expected)


def test_pictures_are_read_from_a_zip(tmp_path):
    expected, _ = first_batch(stored(tmp_path))
    pictures = tmp_path / "data" / "images" / "toy"
    with zipfile.ZipFile(pictures.with_suffix(".zip"), "w") as archive:
        for path in sorted(pictures.iterdir()):
            archive.write(path, f"toy/{path.name}")
            path.unlink()
    pictures.rmdir()
    images, _ = first_batch(stored(tmp_path))
    assert torch.equal(images, expected)
    with zipfile.ZipFile(pictures.with_suffix(".zip"), "w") as archive:
        archive.writestr("toy/other.png", b"")
    with pytest.raises(ValueError, match=r"picture '0.*png' is not in '.*toy\.zip'"):
        build.pictures(stored(tmp_path), "train").sample(0)
    pictures.with_suffix(".zip").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"picture archive '.*toy\.zip' cannot be read"):
        build.pictures(stored(tmp_path), "train")


def test_the_device_warps_as_the_host_does():
    """A smooth picture through any affine: at most two grey values apart, mirrored ones too."""
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(90), np.arange(120))[..., None] * [1.0, 0.7, 0.4]
    picture = np.ascontiguousarray(ramp.astype(np.uint8))
    for _ in range(8):
        view = RandomView(64)((90, 120), rng)
        host = geometry.warp(picture, view.affine, (64, 64)).astype(int)
        packed = Packed(
            torch.from_numpy(picture).view(-1),
            torch.tensor([0]),
            torch.tensor([[90, 120]]),
            torch.from_numpy(geometry.invert(view.affine)[None, :2].copy()),
        )
        device = on_device.warp(packed, 64)[0].permute(1, 2, 0).numpy().astype(int)
        inside = cv_inside(view.affine, (90, 120), 64)
        assert np.abs(host - device)[inside].max() <= 2


def cv_inside(affine, shape, size):
    """Where a view shows the picture's inside, a pixel away from its border."""
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).astype(float)
    x, y = np.moveaxis(geometry.apply(geometry.invert(affine), grid), -1, 0)
    return (x > 1) & (y > 1) & (x < shape[1] - 2) & (y < shape[0] - 2)


def test_stamping_equals_a_plain_loop():
    rng = np.random.default_rng(1)
    cells = torch.from_numpy(rng.integers(-1, 24 * 32, (3, 5, 4)))
    stamped = heat.stamp(cells, (24, 32), 1)
    kernel, expected = heat.kernel(1).astype(np.float32), np.zeros((3, 4, 24, 32), np.float32)
    radius = len(kernel) // 2
    for b, p, k in np.ndindex(3, 5, 4):
        if (cell := int(cells[b, p, k])) >= 0:
            cy, cx = divmod(cell, 32)
            for dy, dx in np.ndindex(*kernel.shape):
                y, x = cy + dy - radius, cx + dx - radius
                if 0 <= y < 24 and 0 <= x < 32:
                    expected[b, k, y, x] = max(expected[b, k, y, x], kernel[dy, dx])
    np.testing.assert_array_equal(stamped, expected)


def test_colours_change_as_told():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(on_device.change_colour(images, torch.ones(2, 3)), images)
    half = on_device.change_colour(images, torch.tensor([[0.5, 1, 1], [1, 1, 0]]))
    assert (half[0].float() - images[0] * 0.5).abs().max() <= 0.5
    assert torch.equal(half[1][0], half[1][1])  # no saturation: grey


@pytest.mark.gpu
def test_device_targets_equal_host_targets(tmp_path):
    from higherhrnet.fields import Marks

    config = stored(tmp_path)
    coder = build.codec(config, build.model(config, 17), build.skeleton(config))
    drawn = DrawnPeople(1, size=64).sample(0)
    marks = coder.mark(drawn.poses, drawn.valid, mirrored=False)
    batch = Marks(tuple(c[None] for c in marks.cells), marks.valid[None])
    there = Marks(tuple(c.cuda() for c in batch.cells), batch.valid.cuda())
    torch.testing.assert_close(
        coder.encode(there), coder.encode(batch), rtol=0, atol=0, check_device=False
    )
