"""Skeleton, geometry and poses: inverses, one-pixel tests, and errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from higherhrnet import geometry
from higherhrnet.errors import UserError
from higherhrnet.poses import REFINED, SEEN, Poses
from higherhrnet.skeleton import (
    COCO,
    CROWDPOSE,
    SKELETONS,
    Side,
    Skeleton,
    flip_pairs_from_names,
    load_skeleton,
)


def test_coco_tables_are_the_published_ones():
    assert COCO.flip_indices.tolist() == [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
    published = (1, 2, 3, 4, 5, 6, 7, 12, 13, 8, 9, 10, 11, 14, 15, 16, 17)
    assert COCO.order == tuple(i - 1 for i in published)
    from pycocotools.cocoeval import Params

    np.testing.assert_allclose(COCO.sigmas, Params("keypoints").kpt_oks_sigmas)


def test_crowdpose_tables_are_the_published_ones():
    assert CROWDPOSE.flip_indices.tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 12, 13]
    assert CROWDPOSE.order == (0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13)
    sigmas = (
        np.array(
            [0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89, 0.79, 0.79]
        )
        / 10
    )
    np.testing.assert_allclose(CROWDPOSE.sigmas, sigmas)


def test_sides_are_read_in_any_case():
    assert flip_pairs_from_names(["Left_Eye", "Right_Eye", "nose"]) == (("Left_Eye", "Right_Eye"),)
    assert flip_pairs_from_names(["LEFT", "RIGHT"]) == (("LEFT", "RIGHT"),)
    names = ["L_eye", "R_eye", "ear_l", "ear_r", "l_bow", "nose"]
    assert flip_pairs_from_names(names) == (("L_eye", "R_eye"), ("ear_l", "ear_r"))
    with pytest.raises(UserError, match="'RightEye' has no 'LeftEye'"):
        flip_pairs_from_names(["RightEye"])


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_mirror_is_its_own_inverse_and_dict_round_trips(skeleton):
    assert (skeleton.flip_indices[skeleton.flip_indices] == np.arange(len(skeleton))).all()
    assert Skeleton.from_dict(skeleton.to_dict()) == skeleton
    assert skeleton.sides[skeleton.index("left_knee")] is Side.LEFT


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sigmas": [0.1]}, "1 sigmas were given for 3 joints"),
        ({"sigmas": [0.1, 0.1, 0]}, "greater than 0"),
        ({"joints": ["a", "left_b", "b"]}, "asymmetric.*'left_b' has no 'right_b'"),
        ({"joints": ["a", "right_b", "b"]}, "asymmetric.*'right_b' has no 'left_b'"),
        ({"joints": ["a", "a", "b"]}, "appears twice"),
        ({"bones": [["a", "z"]]}, "must name two different joints"),
        ({"mirror": [["a", "b"], ["b", "c"]]}, "asymmetric"),
        ({"grouping_order": ["a", "b"]}, "every joint exactly once"),
        ({"flip_pairs": [["a", "b"], ["b", "c"]]}, "asymmetric"),
        ({"color": "red"}, "unknown"),
    ],
)
def test_wrong_skeletons_get_a_sentence(change, sentence):
    values = {"name": "x", "joints": ["a", "b", "c"], "bones": [], "sigmas": [0.1] * 3}
    Skeleton.from_dict(values)
    with pytest.raises(UserError, match=sentence):
        Skeleton.from_dict(values | change)


def test_skeleton_file(tmp_path):
    file = tmp_path / "dog.yaml"
    file.write_text(
        "name: dog\njoints: [nose, left_ear, right_ear]\n"
        "bones: [[nose, left_ear]]\nsigmas: [0.1, 0.1, 0.1]\n"
    )
    assert load_skeleton(str(file)).flip_indices.tolist() == [0, 2, 1]
    for wrong in ("cat", str(tmp_path / "none.yaml")):
        with pytest.raises(UserError, match="skeleton"):
            load_skeleton(wrong)


numbers = st.floats(-300, 300)


@given(numbers, numbers, st.floats(-180, 180), st.floats(0.1, 4), st.booleans())
def test_affines_invert(dx, dy, degrees, factor, flipped):
    affine = geometry.translation(dx, dy) @ geometry.scaling(factor)
    affine = geometry.rotation(degrees, (dx, dy)) @ affine
    if flipped:
        affine = geometry.horizontal_flip(101) @ affine
    points = np.array([[0.0, 0], [3, -7], [120, 40]])
    there = geometry.apply(affine, points)
    np.testing.assert_allclose(geometry.apply(geometry.invert(affine), there), points, atol=1e-6)
    assert geometry.is_flipped(affine) == flipped


@pytest.mark.parametrize(
    "affine",
    [
        geometry.identity(),
        geometry.translation(5, -3),
        geometry.horizontal_flip(41),
        geometry.rotation(90, (20, 20)),
        geometry.rotation(-90, (20, 20)) @ geometry.horizontal_flip(41),
    ],
)
def test_one_white_pixel_travels_with_its_keypoint(affine):
    image = np.zeros((41, 41, 3), np.uint8)
    image[12, 25] = 255
    x, y = geometry.apply(affine, np.array([25.0, 12.0])).round().astype(int)
    warp_annotations = geometry.warp(image, affine, (41, 41))
    assert warp_annotations[y, x].tolist() == [255, 255, 255]
    assert warp_annotations.sum() == 3 * 255


def test_rotation_turns_counter_clockwise():
    turned = geometry.apply(geometry.rotation(90, (0, 0)), np.array([1.0, 0.0]))
    np.testing.assert_allclose(turned, [0, -1], atol=1e-12)  # right becomes up, y runs down


def some_poses(n=3, seed=0):
    rng = np.random.default_rng(seed)
    visibility = rng.integers(0, 3, (n, 17))
    visibility[:, 0] = SEEN
    return Poses.from_annotations(
        np.concatenate([rng.uniform(1, 90, (n, 17, 2)), visibility[..., None]], 2)
    )


def test_mirroring_twice_changes_nothing():
    poses = some_poses()
    twice = poses
    for _ in range(2):
        twice = twice.warp(geometry.horizontal_flip(100)).swap_sides(COCO)
    np.testing.assert_allclose(twice.xy, poses.xy)
    np.testing.assert_array_equal(twice.visibility, poses.visibility)


def test_warp_leaves_absent_joints_alone():
    warp_annotations = some_poses().warp(geometry.translation(10, 10))
    assert not warp_annotations.xy[warp_annotations.visibility == 0].any()


def test_coco_records_there_and_back():
    poses = some_poses()
    records = poses.to_coco(7)
    assert [r["image_id"] for r in records] == [7] * 3
    back = Poses.from_coco(records, COCO)
    np.testing.assert_allclose(back.xy, poses.xy)
    np.testing.assert_allclose(back.score, poses.score)
    with pytest.raises(UserError, match=r"51 keypoint numbers.*14 joints needs 42"):
        Poses.from_coco(records, CROWDPOSE)


def test_nobody():
    nobody = Poses.empty(17)
    assert len(nobody) == 0
    assert nobody.to_coco(1) == []
    assert nobody.boxes.shape == (0, 4)
    assert len(nobody.filter(0.5).warp(geometry.horizontal_flip(3)).swap_sides(COCO)) == 0
    assert len(Poses.concatenate([nobody, some_poses()])) == 3
    assert len(some_poses().select([])) == 0


def test_filter_and_select():
    poses = some_poses()
    assert len(poses.filter(person=1.1)) == 0
    cleared = poses.filter(joint=2.0)
    assert not cleared.visibility.any()
    assert not cleared.score.any()
    np.testing.assert_allclose(poses.select([2, 0]).xy, poses.xy[[2, 0]])
    assert (poses.refined == (poses.visibility == REFINED)).all()


def test_boxes_hold_present_joints():
    poses = some_poses(1)
    x, y, w, h = poses.boxes[0]
    shown = poses.xy[0][poses.visibility[0] > 0]
    np.testing.assert_allclose([x, y, x + w, y + h], [*shown.min(0), *shown.max(0)])
