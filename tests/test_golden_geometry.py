"""Views of the original code, to the last digit that its float32 intermediate points carry."""

import numpy as np
import pytest

from higherhrnet import geometry
from higherhrnet.poses import Poses
from higherhrnet.skeleton import COCO

from .shared import golden_arrays, golden_json

CASES = golden_json("geometry.json")


@pytest.mark.parametrize("case", CASES["multi_scale"])
def test_test_view(case):
    width, height = case["image_wh"]
    shape, affine = geometry.fit_view(
        (height, width), case["input_size"], case["scale_factor"], case["min_scale"]
    )
    assert [shape[1], shape[0]] == case["size_resized"]
    # The original solves for its matrix from float32 points, hence not to the last float64 bit.
    np.testing.assert_allclose(affine[:2], case["matrix"], atol=2e-5)
    points = np.array(case["points"])
    back = geometry.apply(geometry.invert(affine), points)
    np.testing.assert_allclose(back, case["points_image"], atol=2e-4)
    half = (shape[0] // 2, shape[1] // 2)
    to_half = geometry.fit_map((height, width), shape, half)
    back = geometry.apply(geometry.invert(to_half), np.array(case["points_half_resolution"]))
    np.testing.assert_allclose(back, case["points_half_resolution_image"], atol=2e-4)


@pytest.mark.parametrize(("scale", "side"), [(0.8, 448), (1.6, 896), (2.4, 1344)])
def test_thrice_the_smallest_scale_is_thrice_its_size(scale, side):
    assert geometry.fit_view((500, 500), 512, scale, 0.8)[0] == (side, side)


@pytest.mark.parametrize("case", CASES["train_affine"])
def test_training_view(case):
    shape = tuple(case["res"])
    affine = geometry.square_crop(tuple(case["center"]), case["scale"] * 200, shape, case["rot"])
    np.testing.assert_allclose(affine, case["matrix"], atol=1e-10)
    for points, expected in zip(case["points"], case["points_out"], strict=True):
        np.testing.assert_allclose(geometry.apply(affine, np.array(points)), expected, atol=1e-9)


@pytest.mark.parametrize("case", CASES["train_affine_full"])
def test_whole_training_geometry_from_its_draws(case):
    width, height = case["image_wh"]
    side = case["scale"] * 200
    center = (width / 2 + case["dx"], height / 2 + case["dy"])
    affine = geometry.square_crop(center, side, (512, 512), case["rot"])
    np.testing.assert_allclose(affine[:2], case["matrix_512"], atol=1e-10)
    poses = Poses.from_annotations(np.array(case["joints"])).warp(affine)
    present = poses.visibility > 0
    for stride, size in ((4, 128), (2, 256)):
        on_map = geometry.apply(geometry.map_affine(stride, flipped=False), poses.xy)
        expected = np.array(case[f"joints_{size}"])[..., :2]
        np.testing.assert_allclose(on_map[present], expected[present], atol=1e-9)
        canvas = geometry.warp(
            np.full((height, width), 255, np.uint8),
            geometry.map_affine(stride, flipped=False) @ affine,
            (size, size),
        )
        assert abs(int((canvas > 127).sum()) - case[f"mask_sum_{size}"]) <= size
    # Mirrored as one composed affine and with left and right exchanged.
    flipped = poses.warp(geometry.horizontal_flip(512)).swap_sides(COCO)
    assert geometry.is_flipped(geometry.horizontal_flip(512) @ affine)
    on_map = geometry.apply(geometry.map_affine(4, flipped=True), flipped.xy)
    expected = np.array(case["joints_128_flipped"])[..., :2]
    shown = flipped.visibility > 0
    np.testing.assert_allclose(on_map[shown], expected[shown], atol=1e-9)


@pytest.mark.parametrize("case", CASES["box_to_center_scale"])
def test_person_box(case):
    width, height = case["image_size"]
    center, extent = geometry.box_crop(tuple(case["box_xywh"]), (height, width))
    np.testing.assert_allclose(center, case["center"], atol=2e-5)
    scale = np.array(case["scale"])
    if center[0] == -1:  # the original forgets the padding for this one center; we do not
        scale = scale * 1.25
    np.testing.assert_allclose(np.array(extent) / 200, scale, atol=1e-6)


@pytest.mark.parametrize("case", CASES["topdown_affine"])
def test_person_view(case):
    width, height = case["output_size"]
    affine = geometry.person_crop(
        tuple(case["center"]), case["scale"][0] * 200, (height, width), case["rot"]
    )
    warp_annotations = geometry.apply(affine, np.array(case["points"]))
    np.testing.assert_allclose(warp_annotations, case["points_out"], rtol=2e-6, atol=2e-4)
    np.testing.assert_allclose(affine[:2], case["matrix"], rtol=2e-6, atol=1e-3)


@pytest.mark.parametrize("scale", [0.5, 1, 2])
def test_resized_images(scale):
    arrays = golden_arrays("warp.npz")
    images = sorted({key.split("/")[0] for key in arrays})
    compared = 0
    for key, expected in arrays.items():
        if not key.endswith(f"{scale:g}"):
            continue
        source = arrays[next(k for k in arrays if k.split("/")[0] == key.split("/")[0])]
        shape, affine = geometry.fit_view(source.shape[:2], 128, scale, 0.5)
        assert shape == expected.shape[:2]
        ours = geometry.warp(source, affine, shape)
        assert np.abs(ours.astype(int) - expected.astype(int)).max() <= 3
        compared += 1
    assert compared == len(images)
