"""What a GPU computes is what the processor computes. Every test that can also runs on the
processor, so that it is known to be right where there is no GPU."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from higherhrnet import geometry, load
from higherhrnet.config import parse_config
from higherhrnet.factory.training import build_step_trainer, train
from higherhrnet.inference import pipeline
from higherhrnet.inference.engines.torch_engine import _PadBatch
from higherhrnet.inference.predictor import Scene
from higherhrnet.methods import heatmaps as heat
from higherhrnet.methods.bottom_up.codec import BottomUpCodec
from higherhrnet.methods.bottom_up.device_maps import DeviceMaps
from higherhrnet.outputs import Head, Outputs
from higherhrnet.research.bench.train import make_batch
from higherhrnet.research.synthetic.dataset import SyntheticPeople, write_coco
from higherhrnet.skeleton import COCO

from .test_golden_codec import random_maps

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
TINY = """
MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, NUM_BASIC_BLOCKS: 1}
DATASET: {INPUT_SIZE: 64}
TRAIN: {END_EPOCH: 2, BATCH_SIZE: 4, WORKERS: 1, VALIDATE_EVERY: 1}
"""


TOP_DOWN = """
MODEL: {NAME: pose_hrnet, WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, IMAGE_SIZE: [96, 64]}
TRAIN: {END_EPOCH: 2, BATCH_SIZE: 4, WORKERS: 1, VALIDATE_EVERY: 1}
"""


def scenes(*sizes):
    """Drawn crowds of several shapes, with their boxes."""
    found = []
    for number, (height, width) in enumerate(sizes):
        drawn = SyntheticPeople(1, seed=number, size=max(height, width), people=(3, 3)).draw(0)
        found.append(Scene(np.ascontiguousarray(drawn.image[:height, :width]), drawn.boxes))
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("people", [1, 6])
def test_maps_on_a_device_give_the_same_people(device, people):
    codec = BottomUpCodec(COCO, (Head(4, 17), Head(2)))
    maps = random_maps(3, people)
    there = DeviceMaps(
        torch.from_numpy(maps.heatmaps).to(device), torch.from_numpy(maps.tags).to(device)
    )
    expected = codec.decode(maps, geometry.identity()).poses
    found = codec.decode(there, geometry.identity()).poses
    np.testing.assert_allclose(found.score, expected.score, atol=1e-6)
    np.testing.assert_allclose(found.xy, expected.xy, atol=1e-4)
    blur_sigma = heat.gaussian_blur_on_device(there.heatmaps[None], 1.5)[0].cpu().numpy()
    expected_heat = [heat.gaussian_blur(one, 1.5) for one in maps.heatmaps]
    np.testing.assert_allclose(blur_sigma, expected_heat, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["higherhrnet_w18_mini", "hrnet_w18_mini"])
def test_a_predictor_on_a_device_finds_the_same_people(device, name):
    settings = ["TEST.PRECISION", "fp32"]
    (scene,) = scenes((256, 256))
    boxes = scene.boxes if name == "hrnet_w18_mini" else None
    expected = load(name, "cpu", settings, raw=True)(scene.image, boxes)
    found = load(name, device, settings, raw=True)(scene.image, boxes)
    assert len(found) == len(expected) > 0
    best = np.argsort(-expected.person_score)[:3]
    np.testing.assert_allclose(found.person_score[best], expected.person_score[best], atol=1e-3)
    assert np.median(np.abs(found.xy - expected.xy)[best]) < 0.5


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["higherhrnet_w18_mini", "hrnet_w18_mini"])
def test_recorded_graphs_answer_as_the_network_does(name):
    """Two sizes, a smaller last batch, decoding threads at work meanwhile; the second round replays
    recordings over answers that the decoders may still be reading."""
    images = scenes((256, 256), (256, 256), (256, 256), (192, 256), (192, 256))
    if name == "higherhrnet_w18_mini":
        images = [Scene(scene.image) for scene in images]
    settings = ["TEST.BATCH_SIZE", "2", "TEST.PRECISION", "fp32"]
    plain = load(name, "cuda", settings, raw=True)
    recorded = load(name, "cuda", [*settings, "TEST.CUDA_GRAPHS", "True"], raw=True)
    for _ in range(2):
        for (_, expected), (_, found) in zip(
            pipeline.run(plain, images, lambda scene: scene),
            pipeline.run(recorded, images, lambda scene: scene),
            strict=True,
        ):
            assert len(found[0]) == len(expected[0])
            np.testing.assert_allclose(found[0].score, expected[0].score, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("text", [TINY, TOP_DOWN], ids=["bottom-up", "top-down"])
def test_training_on_a_device_goes_on_where_it_stopped(tmp_path, device, text):
    """With images cached and views made there, and whatever else a GPU does differently."""
    write_coco(tmp_path / "data", SyntheticPeople(8, size=64))
    settings = [
        "DATASET.ROOT", str(tmp_path / "data"), "DATASET.TRAIN", "synthetic",
        "DATASET.TEST", "synthetic", "DATASET.CACHE", "device", "DATASET.WARP", "device",
        "TRAIN.EMA_DECAY",
        "0.9", "TRAIN.ACTIVATION_CHECKPOINTING", "True",
    ]  # fmt: skip
    if device == "cuda":
        settings += ["TRAIN.BN_MODE", "sync"]
    run = tmp_path / "run"
    train(parse_config(text, settings), run, device)
    longer = parse_config(text, [*settings, "TRAIN.END_EPOCH", "3"])
    assert train(longer, run, device, resume=True).best >= 0
    assert len((run / "log.jsonl").read_text().splitlines()) == 3


def test_a_smaller_last_batch_is_filled_up():
    """So that nothing is compiled or recorded for it; other sizes are left alone."""
    seen = []

    def network(images):
        seen.append(tuple(images.shape))
        return Outputs((images.float().sum(dim=1, keepdim=True),), (images[:, :0].float(),))

    refined = _PadBatch(network)
    for count, side in ((1, 8), (4, 8), (2, 8), (2, 6)):
        images = torch.randint(255, (count, 3, side, side))
        answer = refined(images)
        assert torch.equal(answer.heatmaps[0], images.float().sum(dim=1, keepdim=True))
        assert answer.tags[0].shape == (count, 0, side, side)
    assert [shape[0] for shape in seen] == [1, 4, 4, 2]


@pytest.mark.gpu
@pytest.mark.parametrize("text", [TINY, TOP_DOWN], ids=["bottom-up", "top-down"])
def test_a_training_step_never_waits_for_the_gpu(text):
    """Anything that reads a number back (``.item()``, ``bool(tensor)``) raises here."""
    config = parse_config(text, ["TRAIN.PRECISION", "bf16", "TRAIN.EMA_DECAY", "0.9"])
    trainer = build_step_trainer(config, torch.device("cuda"))
    (batch,) = DataLoader([make_batch(config, 4)], batch_size=None, pin_memory=True)
    trainer.model.train()
    for _ in range(2):  # the first allocates and caches
        trainer.train_step([batch])
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.train_step([batch])
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_recorded_training_steps_have_the_same_losses():
    found = []
    for settings in ([], ["TRAIN.COMPILE", "True", "TRAIN.CUDA_GRAPHS", "True"]):
        torch.manual_seed(0)
        config = parse_config(TINY, ["TRAIN.PRECISION", "fp32", *settings])
        trainer = build_step_trainer(config, torch.device("cuda"))
        trainer.model.train()
        trainer.wrap_model()
        steps = [trainer.train_step([make_batch(config, 4)]) for _ in range(5)]
        found.append([sum(float(value) for value in losses.values()) for losses in steps])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-2)
