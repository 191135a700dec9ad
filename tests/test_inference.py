"""From a trained network and many pictures to people: made ready, batched, in threads."""

import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from higherhrnet import build
from higherhrnet.config import parse_config
from higherhrnet.datasets.pictures import read_picture
from higherhrnet.datasets.toy import DrawnPeople
from higherhrnet.errors import UserError
from higherhrnet.evaluation.operating_point import OperatingPoint
from higherhrnet.inference import network, pipeline
from higherhrnet.inference.predictor import Scene
from higherhrnet.models.pixels import normalise
from higherhrnet.poses import ABSENT, Poses

from .shared import SHARED

TINY = "MODEL: {WIDTH: 4, MODULES: [1, 1, 1], BLOCKS: 1, RESIDUAL_BLOCKS: 1}\n"


@pytest.fixture(scope="module")
def predictor():
    """A tiny network whose batch norms have seen something, so that folding has work to do."""
    torch.manual_seed(0)
    config = parse_config(TINY + "DATASET: {INPUT_SIZE: 64}\nTEST: {PRECISION: fp32, THRESHOLD: 0}")
    joints = build.skeleton(config)
    model = build.model(config, len(joints)).train()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.uniform_(part.bias, -0.5, 0.5)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 64, 64))
    return build.predictor(config, model.eval(), joints, torch.device("cpu"))


def test_folding_changes_rounding_only(predictor):
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.inference_mode():
        expected = predictor.model(normalise(images))
        folded = network.folded(predictor.model)
        got = folded(normalise(images))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in predictor.model.modules())
    for a, b in zip((*got.heatmaps, *got.tags), (*expected.heatmaps, *expected.tags), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ready_networks_answer_alike(predictor, precision):
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        expected = predictor.model(normalise(images))
        got = network.ready(predictor.model, torch.device("cpu"), precision)(images)
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
        network.ready(predictor.model, torch.device("cpu"), graphs=True)


def pictures():
    """Of three sizes, mixed; every seventh is not a picture."""
    drawn = [DrawnPeople(1, size=64 + 32 * (n % 3), seed=n).drawing(0).image for n in range(20)]
    return [image[:, :, :1] if n % 7 == 3 else image for n, image in enumerate(drawn)]


@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (3, 2), (4, 4), (50, 1)])
def test_neither_batch_nor_threads_change_the_people(predictor, batch, workers):
    images = pictures()
    ours = replace(predictor, batch=batch, workers=workers)
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


def test_many_pictures_in_one_call(predictor, tmp_path):
    images = [image for number, image in enumerate(pictures()) if number % 7 != 3]
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
    several = list(pipeline.predict_many(predictor, mixed, broken=lambda *what: told.append(what)))
    assert [len(poses) for poses in several] == [len(found[0]), 0, len(found[1])]
    ((place, error),) = told
    assert (place, "none.png" in str(error)) == (1, True)
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
        with pytest.raises(UserError, match="takes several pictures"):
            pipeline.predict_many(predictor, one)
    boxes = [[[0, 0, 30, 30]]]
    with pytest.raises(UserError, match="boxes serve a top-down one"):
        list(pipeline.predict_many(predictor, images[:1], boxes))
    with pytest.raises(UserError, match="boxes serve a top-down one"):
        predictor(images[0], boxes[0])


def test_nobody_is_shown_beyond_the_edges_of_the_picture(predictor, monkeypatch):
    image = np.zeros((40, 60, 3), np.uint8)
    keypoints = np.zeros((2, 17, 3))
    keypoints[:, :5] = [[[10, 10, 2], [59.4, 39.4, 2], [60, 5, 2], [-0.6, 5, 2], [5, 39.6, 2]],
                        [[70, 10, 2]] * 5]  # fmt: skip
    everybody = Poses.annotated(keypoints)
    monkeypatch.setattr(type(predictor), "decoded", lambda *_: (everybody, None))
    assert len(predictor(image)) == 2
    monkeypatch.setattr(predictor, "point", OperatingPoint(duplicate=1.0))
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

    image = DrawnPeople(1, size=64).drawing(0).image
    stream = pipeline.run(replace(predictor, batch=2), endless(), lambda _: Scene(image))
    for expected in range(30):
        assert next(stream)[0] == expected
        assert len(asked) < expected + 30
    stream.close()


def test_jobs_are_made_in_a_thread_of_their_own_and_its_errors_come_out(predictor):
    image = DrawnPeople(1, size=64).drawing(0).image
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
    stream = pipeline.run(replace(predictor, batch=1), frames(False), lambda _: Scene(image))
    assert next(stream)[0] == 0
    stream.close()
    assert len(closed) == 3
    assert not any(thread.name == "jobs" for thread in threading.enumerate())


def test_other_weights_are_made_ready_anew(predictor):
    mine = replace(predictor, precision="bf16")
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        before = mine.network(image)
    state = {name: value * 0.5 for name, value in mine.model.state_dict().items()}
    former = {name: value.clone() for name, value in mine.model.state_dict().items()}
    mine.load(state)
    with torch.inference_mode():
        assert not torch.equal(mine.network(image).heatmaps[0], before.heatmaps[0])
    mine.load(former)
    with torch.inference_mode():
        assert torch.equal(mine.network(image).heatmaps[0], before.heatmaps[0])


@pytest.mark.data
def test_real_pictures_of_many_sizes_are_found_in_any_company():
    photos = sorted((SHARED / "coco_mini" / "images" / "val_mini").iterdir())[:9]
    ours = build.load("higherhrnet_w18_mini", "cpu", ["DATASET.INPUT_SIZE", "128"])
    found = pipeline.run(ours, photos, lambda photo: Scene(read(photo)))
    for path, (poses, _) in found:
        alone = ours(path)
        assert len(poses) == len(alone)
        np.testing.assert_allclose(poses.xy, alone.xy, atol=1e-3)


def read(path):

    return read_picture(path, upright=True)
