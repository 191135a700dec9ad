"""The second look at each person (TEST.ZOOM_SIZES)."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

import cv2
import numpy as np
import pytest

import higherhrnet
from higherhrnet import UserError
from higherhrnet.cli import main
from higherhrnet.config import parse_config
from higherhrnet.inference.pipeline import predict_many
from higherhrnet.inference.predictor import Predictor
from higherhrnet.methods.bottom_up.zoom import choose_people, combine, crop_of
from higherhrnet.poses import ABSENT, REFINED, SEEN, Poses

SIGMAS = (0.1, 0.1, 0.1)
SETTINGS = ["TEST.PRECISION", "fp32", "DATASET.INPUT_SIZE", 256, "TEST.SCALE_FACTOR", [1.0],
            "TEST.FLIP_TEST", True]  # fmt: skip
PHOTO = str(files("higherhrnet") / "assets" / "demo.jpg")


def people(xy, score, visibility=None):
    xy = np.asarray(xy, float)
    score = np.asarray(score, float)
    seen = np.full(score.shape, SEEN) if visibility is None else np.asarray(visibility)
    return Poses(
        xy=xy, score=score, person_score=score.mean(axis=1), visibility=seen.astype(np.int8),
        tag=np.zeros((len(xy), 0)), track=np.full(len(xy), -1),
    )  # fmt: skip


def test_looks_that_agree_are_averaged_and_the_surest_decides_where_they_do_not():
    first = people([[[10, 10], [50, 10], [30, 90]]], [[0.4, 0.8, 0.2]])
    # Of two people in the crop the one alike is taken: its first joint a pixel off, the second far
    # away and less sure, the third far away and surer.
    found = people(
        [[[200, 210], [250, 210], [230, 290]], [[12, 10], [20, 60], [70, 80]]],
        [[0.9, 0.9, 0.9], [0.4, 0.3, 0.6]],
    )
    new = combine(first, np.array([0]), [[found]], SIGMAS)
    np.testing.assert_allclose(new.xy[0], [[11, 10], [50, 10], [70, 80]])
    np.testing.assert_allclose(new.score[0], [0.4, 0.4, 0.3])
    # Half the mean of both looks' scores, half the mean of the joints' new ones.
    both = (first.person_score[0] + found.person_score[1]) / 2
    assert new.person_score[0] == pytest.approx((both + np.mean([0.4, 0.4, 0.3])) / 2)
    assert (new.visibility == SEEN).all()


def test_who_is_not_seen_again_stays_and_is_less_sure():
    first = people([[[10, 10], [50, 10], [30, 90]]], [[0.4, 0.8, 0.6]], [[SEEN, SEEN, ABSENT]])
    first = replace(first, score=np.where(first.visibility == ABSENT, 0, first.score))
    elsewhere = people(first.xy + 400, [[0.9, 0.9, 0.9]])
    for look in (Poses.empty(3), elsewhere):
        new = combine(first, np.array([0]), [[look], [look]], SIGMAS)
        np.testing.assert_array_equal(new.xy[:, :2], first.xy[:, :2])
        np.testing.assert_allclose(new.score, first.score / 3)
        assert new.visibility.tolist() == first.visibility.tolist()
    # A joint that the first look missed comes from the second.
    again = people(first.xy, [[0.4, 0.8, 0.5]], [[SEEN, SEEN, REFINED]])
    new = combine(first, np.array([0]), [[again]], SIGMAS)
    assert new.xy[0, 2].tolist() == [30, 90]
    assert new.visibility[0].tolist() == [SEEN, SEEN, REFINED]
    assert new.score[0, 2] == pytest.approx(0.25)
    # Who was not worth it keeps the joints' scores, and comes behind.
    both = people([first.xy[0], elsewhere.xy[0]], [first.score[0], first.score[0]])
    new = combine(both, np.array([0]), [[again], [again]], SIGMAS)
    np.testing.assert_array_equal(new.score[1], first.score[0])
    assert new.person_score[1] == pytest.approx(both.person_score[1] / 3)
    # Nobody looked again at all.
    assert combine(first, np.array([], int), [], SIGMAS).xy.tolist() == first.xy.tolist()


def test_who_is_looked_at_and_what_is_cut_out():
    scores = np.array([0.5, 0.04, 0.3, *np.linspace(0.1, 0.2, 22)])
    crowd = people(np.random.default_rng(0).uniform(0, 90, (25, 3, 2)), np.tile(scores, (3, 1)).T)
    rows = choose_people(crowd)
    assert rows.tolist() == [row for row in range(25) if row != 1]
    for shape in ((256, 256), (256, 192)):
        for row in rows.tolist():
            crop = crop_of(crowd, row, shape)
            inside = crowd.xy[row] - crop.center
            half = np.array([crop.width, crop.width * shape[0] / shape[1]]) / 2
            assert (np.abs(inside) < 0.7 * half).all()
            affine = crop.to_canvas(shape)
            corner = affine[:2, :2] @ (np.array(crop.center) - half) + affine[:2, 2]
            np.testing.assert_allclose(corner, 0, atol=1e-9)
    # Joints that were filled in may be anywhere; one joint alone says nothing of a size.
    one = people([[[40, 40], [300, 10], [0, 0]]], [[0.9, 0.2, 0]], [[SEEN, REFINED, ABSENT]])
    assert crop_of(one, 0, (256, 256)).width == 48


@pytest.fixture(scope="module")
def zooming() -> Predictor:
    return higherhrnet.load("higherhrnet_w18_mini", "cpu", [*SETTINGS, "TEST.ZOOM_SIZES", [128]])


@pytest.fixture(scope="module")
def photo():
    return cv2.imread(PHOTO)[..., ::-1].copy()


def test_people_stay_who_they_are(zooming, photo):
    once = higherhrnet.load("higherhrnet_w18_mini", "cpu", SETTINGS)
    poses, before = (
        replace(predictor, operating_point=None)(photo) for predictor in (zooming, once)
    )
    assert len(poses) == len(before) > 4
    sure = np.flatnonzero(before.person_score > 0.3)
    assert len(sure) > 2
    for row in sure:
        seen = (before.visibility[row] == SEEN) & (before.score[row] > 0.5)
        moved = np.linalg.norm(poses.xy[row] - before.xy[row], axis=1)[seen]
        assert 0 < np.median(moved) < 0.05 * before.boxes[row, 2:].max()


def test_batches_and_threads_change_nobody(zooming, photo):
    images = [photo, photo[:, 100:500], photo, np.zeros((64, 64, 3), np.uint8)]
    expected = [zooming(image) for image in images]
    assert len(expected[3]) == 0
    several = replace(zooming, batch_size=2, workers=2)
    for alone, found in zip(expected, predict_many(several, images), strict=True):
        np.testing.assert_allclose(found.xy, alone.xy, atol=0.01)
        np.testing.assert_array_equal(found.visibility, alone.visibility)


def test_engines_of_one_batch_size_see_full_ones(zooming, photo):
    """Compiled networks would be prepared anew for every number of people."""
    seen = []

    class Recording:
        device, fixed_batch = zooming.engine.device, True

        def __call__(self, images):
            seen.append(len(images))
            return zooming.engine(images)

    np.testing.assert_allclose(
        replace(zooming, engine=Recording())(photo).xy, zooming(photo).xy, atol=0.01
    )
    assert len(seen) > 1
    assert len(set(seen[1:])) == 1


def test_settings_come_back(zooming, photo):
    again = type(zooming).from_dict(zooming.to_dict(), zooming.engine, zooming.skeleton)
    again.operating_point = zooming.operating_point
    assert again.zoom_sizes == (128,)
    np.testing.assert_array_equal(again(photo).xy, zooming(photo).xy)
    with pytest.raises(UserError, match="multiple of 32"):
        parse_config("MODEL: {NAME: pose_higher_hrnet}\nTEST: {ZOOM_SIZES: [100]}")


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (("--decode", "--flip"), None),
        pytest.param((), None, marks=pytest.mark.slow),
        pytest.param((), (256, 448), marks=pytest.mark.slow),
    ],
)
def test_exports_look_again_too(zooming, photo, tmp_path, words, size):
    pytest.importorskip("onnxruntime")
    file = tmp_path / "net.onnx"
    sides = () if size is None else ("--size", *map(str, size))
    settings = [str(value) for value in SETTINGS[:-4]]
    command = ["export", "higherhrnet_w18_mini", "--to", "onnx", "--output", str(file), *words,
               *sides, *settings, "TEST.SCALE_FACTOR", "[1.0]", "TEST.FLIP_TEST", "True",
               "TEST.ZOOM_SIZES", "[128]"]  # fmt: skip
    assert main(command) == 0
    exported = higherhrnet.load(file)
    assert exported.zoom_sizes == (128,)
    expected, found = zooming(photo), exported(photo)
    assert len(found) == len(expected)
    if size is None:
        np.testing.assert_allclose(found.xy, expected.xy, atol=0.05)
    else:  # it takes but one size: people are looked at in that
        assert np.median(np.abs(found.xy - expected.xy)) < 2
