"""From a trained network and many images to people: made ready, batched, in threads."""

import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from higherhrnet import load
from higherhrnet.config import parse_config
from higherhrnet.errors import UserError
from higherhrnet.evaluation.operating_point import OperatingPoint
from higherhrnet.factory.inference import build_torch_predictor
from higherhrnet.inference import pipeline
from higherhrnet.inference.engines import torch_engine as network
from higherhrnet.inference.predictor import Scene
from higherhrnet.inference.stats import InferenceStats
from higherhrnet.io.images import read_image
from higherhrnet.models.normalization import normalize
from higherhrnet.outputs import Outputs
from higherhrnet.poses import ABSENT, Poses
from higherhrnet.research.synthetic.dataset import SyntheticPeople
from higherhrnet.skeleton import load_skeleton
from tests.build import build_model

from .shared import SHARED

TINY = "MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, NUM_BASIC_BLOCKS: 1}\n"


@pytest.fixture(scope="module")
def predictor():
    """A tiny network whose batch norms have seen something, so that fusing has work to do."""
    torch.manual_seed(0)
    config = parse_config(
        TINY + "DATASET: {INPUT_SIZE: 64}\nTEST: {PRECISION: fp32, DETECTION_THRESHOLD: 0}"
    )
    joints = load_skeleton(config.DATASET.SKELETON)
    model = build_model(config, len(joints)).train()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.uniform_(part.bias, -0.5, 0.5)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 64, 64))
    return build_torch_predictor(config, model.eval(), joints, torch.device("cpu"))


def test_fusing_batch_norms_changes_rounding_only(predictor):
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.inference_mode():
        expected = predictor.engine.model(normalize(images))
        folded = network.fuse_conv_bn(predictor.engine.model)
        got = folded(normalize(images))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in predictor.engine.model.modules())
    for a, b in zip((*got.heatmaps, *got.tags), (*expected.heatmaps, *expected.tags), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ready_networks_answer_alike(predictor, precision):
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        expected = predictor.engine.model(normalize(images))
        got = network.prepare_for_inference(predictor.engine.model, torch.device("cpu"), precision)(
            images
        )
    for a, b in zip((*got.heatmaps, *got.tags), (*expected.heatmaps, *expected.tags), strict=True):
        assert a.dtype == torch.float32
        if precision == "fp32":
            assert torch.equal(a, b)
        elif b.numel():
            assert (a - b).abs().max() < 0.05 * b.abs().max()


def test_bf16_is_the_default_only_where_the_hardware_has_it(monkeypatch):
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        wanted = "bf16" if native else "fp32"
        assert network.best_precision(torch.device("cpu")) == wanted


def test_cuda_graphs_need_a_gpu(predictor):
    with pytest.raises(UserError, match="needs a GPU"):
        network.prepare_for_inference(predictor.engine.model, torch.device("cpu"), cuda_graphs=True)


def make_images():
    """Of three sizes, mixed; every seventh is not an image."""
    drawn = [SyntheticPeople(1, size=64 + 32 * (n % 3), seed=n).draw(0).image for n in range(20)]
    return [image[:, :, :2] if n % 7 == 3 else image for n, image in enumerate(drawn)]


@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (3, 2), (4, 4), (50, 1)])
def test_neither_batch_nor_threads_change_the_people(predictor, batch, workers):
    images = make_images()
    ours = replace(predictor, batch_size=batch, workers=workers)
    found = list(pipeline.run(ours, range(20), lambda number: Scene(images[number])))
    assert [job for job, _ in found] == list(range(20))
    assert all(len(result[0]) > 0 for _, result in found if isinstance(result, tuple))
    for number, result in found:
        if number % 7 == 3:
            assert isinstance(result, UserError)
            continue
        alone, _ = predictor.predict(images[number])
        poses, _ = result
        assert len(poses) == len(alone)
        np.testing.assert_allclose(poses.xy, alone.xy, atol=1e-3)
        np.testing.assert_allclose(poses.person_score, alone.person_score, atol=1e-5)


def test_many_images_in_one_call(predictor, tmp_path):
    images = [image for number, image in enumerate(make_images()) if number % 7 != 3]
    cv2.imwrite(str(tmp_path / "a.png"), images[0][..., ::-1])
    found = list(pipeline.predict_many(predictor, [tmp_path / "a.png", *images[1:]]))
    assert len(found) == len(images)
    for poses, image in zip(found, images, strict=True):
        np.testing.assert_allclose(poses.xy, predictor(image).xy, atol=1e-3)
    stream = pipeline.predict_many(predictor, [images[0], tmp_path / "none.png"])
    assert len(next(stream)) == len(found[0])
    with pytest.raises(UserError, match=r"none\.png"):
        next(stream)
    told = []
    mixed = [images[0], tmp_path / "none.png", images[1]]
    several = list(
        pipeline.predict_many(predictor, mixed, on_error=lambda *what: told.append(what))
    )
    assert [len(poses) for poses in several] == [len(found[0]), 0, len(found[1])]
    ((location, error),) = told
    assert (location, "none.png" in str(error)) == (1, True)
    same = [image for image in images if image.shape == images[0].shape]

    def refilled():
        buffer = np.empty_like(same[0])
        for image in same:
            buffer[:] = image
            yield buffer

    for poses, image in zip(pipeline.predict_many(predictor, refilled()), same, strict=True):
        np.testing.assert_allclose(poses.xy, predictor(image).xy, atol=1e-3)

    def failing():
        yield from images[:3]
        raise KeyError("the camera is gone")

    stream = pipeline.predict_many(predictor, failing())
    assert [len(next(stream)) for _ in range(3)] == [len(poses) for poses in found[:3]]
    with pytest.raises(KeyError, match="the camera is gone"):
        next(stream)
    for one in (images[0], "a.png", tmp_path):
        with pytest.raises(UserError, match="takes several images"):
            pipeline.predict_many(predictor, one)
    boxes = [[[0, 0, 30, 30]]]
    with pytest.raises(UserError, match="boxes serve a top-down one"):
        list(pipeline.predict_many(predictor, images[:1], boxes))
    with pytest.raises(UserError, match="boxes serve a top-down one"):
        predictor(images[0], boxes[0])


def test_nobody_is_shown_beyond_the_edges_of_the_image(predictor, monkeypatch):
    image = np.zeros((40, 60, 3), np.uint8)
    keypoints = np.zeros((2, 17, 3))
    keypoints[:, :5] = [[[10, 10, 2], [59.4, 39.4, 2], [60, 5, 2], [-0.6, 5, 2], [5, 39.6, 2]],
                        [[70, 10, 2]] * 5]  # fmt: skip
    everybody = Poses.from_annotations(keypoints)
    monkeypatch.setattr(type(predictor), "decode", lambda *_: (everybody, None))
    assert len(predictor(image)) == 2
    monkeypatch.setattr(predictor, "operating_point", OperatingPoint(duplicate=1.0))
    (shown,) = predictor(image).visibility
    assert (shown > ABSENT).tolist() == [True, True] + [False] * 15


def test_an_endless_stream_is_taken_bit_by_bit(predictor):
    asked = []

    def endless():
        number = 0
        while True:
            asked.append(number)
            yield number
            number += 1

    image = SyntheticPeople(1, size=64).draw(0).image
    stream = pipeline.run(replace(predictor, batch_size=2), endless(), lambda _: Scene(image))
    for expected in range(30):
        assert next(stream)[0] == expected
        assert len(asked) < expected + 30
    stream.close()


def test_jobs_are_made_in_a_thread_of_their_own_and_its_errors_come_out(predictor):
    image = SyntheticPeople(1, size=64).draw(0).image
    threads, closed = [], []

    def frames(broken):
        try:
            for number in range(5):
                threads.append(threading.current_thread())
                if broken and number == 3:
                    raise OSError("the disk is gone")
                yield number
        finally:
            closed.append(True)

    found = list(pipeline.run(predictor, frames(False), lambda _: Scene(image)))
    assert [job for job, _ in found] == list(range(5))
    assert threading.current_thread() not in threads
    with pytest.raises(OSError, match="the disk is gone"):
        list(pipeline.run(predictor, frames(True), lambda _: Scene(image)))
    stream = pipeline.run(replace(predictor, batch_size=1), frames(False), lambda _: Scene(image))
    assert next(stream)[0] == 0
    stream.close()
    assert len(closed) == 3
    assert not any(thread.name == "jobs" for thread in threading.enumerate())


def test_other_weights_are_prepared_anew(predictor):
    engine = network.TorchEngine(predictor.engine.model, torch.device("cpu"), "bf16")
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    before = engine(images).heatmaps[0]
    former = {name: value.clone() for name, value in engine.model.state_dict().items()}
    engine.load_state_dict({name: value * 0.5 for name, value in former.items()})
    assert not np.array_equal(engine(images).heatmaps[0], before)
    engine.load_state_dict(former)
    assert np.array_equal(engine(images).heatmaps[0], before)


class FlatEngine:
    """Another runtime: every heatmap is the image's mean brightness."""

    device = "cpu"
    fixed_batch = False

    def __call__(self, images):
        b, h, w, _ = images.shape
        mean = images.astype(np.float32).mean(axis=(1, 2, 3))[:, None, None, None] / 255

        def maps(channels, stride):
            return np.broadcast_to(mean, (b, channels, h // stride, w // stride))

        return Outputs((maps(17, 4), maps(17, 2)), (maps(17, 4), maps(0, 2)))


def test_another_engine_can_stand_in(predictor):
    ours = replace(predictor, engine=FlatEngine())
    image = np.full((64, 64, 3), 51, np.uint8)
    _, maps = ours.predict(image)
    np.testing.assert_allclose(maps.dense_heatmaps(), 0.2, atol=1e-6)


def test_statistics_are_passed_and_not_kept(predictor):
    stats = InferenceStats()
    images = [image for number, image in enumerate(make_images()) if number % 7 != 3][:6]
    list(pipeline.run(predictor, images, Scene, stats))
    assert set(stats.seconds) == {"preprocess", "forward", "aggregate", "decode"}
    assert all(value > 0 for value in stats.seconds.values())
    dropped = dict(stats.dropped)
    list(pipeline.run(predictor, images, Scene))
    assert stats.dropped == dropped


@pytest.mark.data
def test_real_images_of_many_sizes_are_found_in_any_company():
    photos = sorted((SHARED / "coco_mini" / "images" / "val_mini").iterdir())[:9]
    ours = load("higherhrnet_w18_mini", "cpu", ["DATASET.INPUT_SIZE", "128"])
    found = pipeline.run(ours, photos, lambda photo: Scene(read(photo)))
    for path, (poses, _) in found:
        alone = ours(path)
        assert len(poses) == len(alone)
        np.testing.assert_allclose(poses.xy, alone.xy, atol=1e-3)


def read(path):

    return read_image(path, upright=True)
