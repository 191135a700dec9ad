"""Targets, grouping and assignment of the original code, equal array by array."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from higherhrnet import geometry
from higherhrnet.methods import heatmaps as heat
from higherhrnet.methods.bottom_up import grouping as tagging
from higherhrnet.methods.bottom_up.codec import BottomUpCodec
from higherhrnet.methods.bottom_up.device_maps import DeviceMaps
from higherhrnet.methods.bottom_up.maps import HostMaps
from higherhrnet.outputs import Head, Outputs, View
from higherhrnet.skeleton import COCO, CROWDPOSE

from . import reference_decoder as plain
from .shared import golden_arrays

GROUPINGS = ("k0", "k1", "k3", "k4clean", "k8", "k8crowd", "multiscale", "crowdpose14")
VARIANTS = [(flip, project) for flip in (0, 1) for project in (0, 1)]


def codec_for(name):
    skeleton = CROWDPOSE if name == "crowdpose14" else COCO
    return BottomUpCodec(skeleton, (Head(4, len(skeleton)), Head(2)))


def views_of(arrays, joints, flip):
    scales = [2.0, 1.0, 0.5] if "plain_out0_s1" in arrays else [1.0]
    views = []
    for scale in scales:
        suffix = f"_s{scale:g}" if len(scales) > 1 else ""
        for prefix in ("plain", "flipped")[: 1 + flip]:
            out0, out1 = (
                torch.from_numpy(arrays[f"{prefix}_out{i}{suffix}"].astype(np.float32))
                for i in (0, 1)
            )
            outputs = Outputs((out0[:, :joints], out1), (out0[:, joints:], out1[:, :0]))
            views.append(View(outputs, scale, prefix == "flipped"))
    return views


def plainly_merged(codec, arrays, flip, project):
    views = views_of(arrays, len(codec.skeleton), flip)
    width, height = arrays["base_size"]
    return plain.merge(views, codec.skeleton, (int(height), int(width)) if project else None)


def merged(codec, arrays, flip, project):
    views = views_of(arrays, len(codec.skeleton), flip)
    width, height = arrays["base_size"]
    return codec.aggregate(views, (int(height), int(width)) if project else None)


def on_device(maps):
    """The same maps as a GPU would hold them, here on the processor."""
    return DeviceMaps(torch.from_numpy(maps.heatmaps), torch.from_numpy(maps.tags))


def to_image(arrays, shape):
    width, height = arrays["image_wh"]
    smallest = 0.5 if "plain_out0_s1" in arrays else 1.0
    view, _ = geometry.fit_view((height, width), int(arrays["input_size"]), smallest, smallest)
    return geometry.invert(geometry.fit_map((height, width), view, shape))


def equal_people(people, expected, tolerance=0.0):
    assert people.xy.shape[0] == len(expected)
    np.testing.assert_allclose(people.xy, expected[..., :2], atol=tolerance)
    np.testing.assert_allclose(people.score, expected[..., 2], atol=1e-5)


def case_of(arrays, prefix):
    return {
        key.split("/")[1]: value for key, value in arrays.items() if key.startswith(f"{prefix}/")
    }


@pytest.mark.parametrize("name", GROUPINGS)
@pytest.mark.parametrize(("flip", "project"), VARIANTS)
def test_the_plain_way_stage_by_stage(name, flip, project):
    """What the fast way is measured against is the original."""
    arrays = golden_arrays(f"grouping_{name}.npz")
    case, codec = case_of(arrays, f"flip{flip}_proj{project}"), codec_for(name)
    fields = plainly_merged(codec, arrays, flip, project)

    assert (1, *fields.heatmaps.shape) == tuple(case["heatmaps_shape"])
    assert (1, *fields.tags.shape) == tuple(case["tags_shape"])
    for maps, key in ((fields.heatmaps, "heatmaps"), (fields.tags, "tags")):
        np.testing.assert_allclose(maps.ravel()[case[f"{key}_idx"]], case[f"{key}_val"], atol=1e-5)
        np.testing.assert_allclose(
            maps.sum(dtype=np.float64), case[f"{key}_sum"], rtol=1e-5, atol=1e-2
        )
        squares = (maps.astype(np.float64) ** 2).sum()
        np.testing.assert_allclose(squares, case[f"{key}_sumsq"], rtol=1e-5)

    peaks = plain.find_peaks(fields, codec.threshold, codec.max_candidates)
    for joint, found in enumerate(peaks):
        strong = case["topk_val"][joint] > codec.threshold
        np.testing.assert_allclose(found.score, case["topk_val"][joint][strong], atol=1e-5)
        np.testing.assert_array_equal(found.xy, case["topk_loc"][joint][strong])
        np.testing.assert_allclose(found.tags, case["topk_tag"][joint][strong], atol=1e-4)

    people = tagging.assemble_people(peaks, codec.group(peaks))
    found = people.score > 0
    np.testing.assert_array_equal(people.xy, case["match"][..., :2])
    np.testing.assert_allclose(people.score, case["match"][..., 2], atol=1e-5)
    np.testing.assert_allclose(people.tags, case["match"][..., 3:], atol=1e-4)
    np.testing.assert_allclose(people.location[found], case["adjust"][..., :2][found])
    plain.refine(people, fields)
    np.testing.assert_allclose(people.location, case["refine"][..., :2])
    np.testing.assert_allclose(people.score, case["refine"][..., 2], atol=1e-5)


@pytest.mark.parametrize("device", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("name", GROUPINGS)
@pytest.mark.parametrize(("flip", "project"), VARIANTS)
def test_people(name, flip, project, device):
    arrays = golden_arrays(f"grouping_{name}.npz")
    case, codec = case_of(arrays, f"flip{flip}_proj{project}"), codec_for(name)
    maps = merged(codec, arrays, flip, project)
    if device:
        maps = on_device(maps)
    for joint, found in enumerate(maps.peaks(codec.threshold, codec.max_candidates)):
        strong = case["topk_val"][joint] > codec.threshold
        np.testing.assert_allclose(found.score, case["topk_val"][joint][strong], atol=1e-5)
        np.testing.assert_array_equal(found.xy, case["topk_loc"][joint][strong])
        np.testing.assert_allclose(found.tags, case["topk_tag"][joint][strong], atol=1e-4)
    poses = codec.decode(maps, to_image(arrays, maps.shape)).poses
    assert len(poses) == len(case["final"])
    present = poses.visibility > 0
    np.testing.assert_allclose(poses.xy[present], case["final"][..., :2][present], atol=2e-4)
    np.testing.assert_allclose(poses.score, case["final"][..., 2], atol=1e-5)
    np.testing.assert_allclose(poses.person_score, case["scores"], atol=1e-5)


@pytest.mark.parametrize(
    ("suffix", "grouping"),
    [
        ("_max5", {}),
        ("_max5_ignore", {"only_compared": True}),
        ("_nodetval", {"max_compared": 30, "use_score": False}),
    ],
)
def test_limits_and_costs(suffix, grouping):
    arrays = golden_arrays("grouping_k8crowd.npz")
    most = grouping.get("max_compared", 5)
    codec = BottomUpCodec(
        COCO,
        (Head(4, 17), Head(2)),
        max_candidates=most,
        grouping=tagging.Grouping(**{"max_compared": most, **grouping}),
    )
    maps = merged(codec, arrays, flip=1, project=1)
    prefix = f"flip1_proj1{suffix}"
    if f"{prefix}/match" in arrays:
        peaks = maps.peaks(codec.threshold, codec.max_candidates)
        people = tagging.assemble_people(peaks, codec.group(peaks))
        equal_people(people, arrays[f"{prefix}/match"])
    poses = codec.decode(maps, to_image(arrays, maps.shape)).poses
    expected = arrays[f"{prefix}/final"]
    present = poses.visibility > 0
    np.testing.assert_allclose(poses.xy[present], expected[..., :2][present], atol=2e-4)
    np.testing.assert_allclose(poses.person_score, arrays[f"{prefix}/scores"], atol=1e-5)


def test_assignments():
    arrays = golden_arrays("matching.npz")
    for number in sorted({key.split("/")[0] for key in arrays}):
        case = {k.split("/")[1]: v for k, v in arrays.items() if k.startswith(f"{number}/")}
        *_, use_score = case["flags"]
        for name, assign in tagging.ASSIGNMENTS.items():
            distance, cost, pairs = tagging.match(
                case["det_tag"],
                case["det_score"],
                case["group_tag"],
                tagging.Grouping(use_score=bool(use_score), assign=assign),
            )
            np.testing.assert_allclose(distance, case["dist"], atol=1e-12)
            np.testing.assert_allclose(cost, case["cost"], atol=1e-9)
            real = [(r, c) for r, c in pairs if c < distance.shape[1]]
            total = sum(cost[pair] for pair in real)
            if name == "munkres":
                np.testing.assert_array_equal(pairs, case["pairs"])
            # The tie-break may cost less than one step of the rounded distance, never more.
            np.testing.assert_allclose(total, case["optimum_real"], atol=0.5)


@pytest.mark.parametrize("size", [128, 256])
def test_targets(size):
    arrays = golden_arrays("targets.npz")
    joints = arrays[f"joints_{size}"]
    xy, present = joints[..., :2], joints[..., 2] > 0
    indices = torch.from_numpy(tagging.keypoint_indices(xy, present, (size, size)))
    stamped = heat.draw_gaussians(indices[None], (size, size), sigma=2)[0]
    # Values went through exp(), whose last digit depends on the processor; zeros are exact.
    np.testing.assert_allclose(stamped, arrays[f"heatmaps_{size}"], rtol=1e-6)
    np.testing.assert_array_equal(stamped > 0, arrays[f"heatmaps_{size}"] > 0)
    np.testing.assert_allclose(heat.kernel(2), arrays["kernel_sigma2"], rtol=1e-14)
    empty = heat.draw_gaussians(indices[None, :0], (size, size), sigma=2)
    assert empty.max() == arrays["empty_heatmap_max"]
    indices = tagging.keypoint_indices(xy, present, (size, size))
    for key, per_joint in ((f"joints_list_{size}", 1), (f"joints_list_shared_{size}", 0)):
        original = arrays[key]
        for person, row in enumerate(indices):
            flat = row + per_joint * np.arange(17) * size**2
            listed = original[person][original[person, :, 1] > 0, 0]
            np.testing.assert_array_equal(flat[row >= 0], listed)
        assert not original[len(indices) :].any()


def test_a_31st_person_is_kept():
    joints = np.tile(np.array([[5.0, 5.0]]), (31, 17, 1))
    indices = tagging.keypoint_indices(joints, np.ones((31, 17), bool), (16, 16))
    assert indices.shape == (31, 17)
    assert (indices == 85).all()


def test_scales_without_one_use_the_nearest_scale_for_tags():
    """The original crashes on such lists."""
    arrays = golden_arrays("grouping_multiscale.npz")
    codec = codec_for("multiscale")
    views = [view for view in views_of(arrays, 17, flip=1) if view.scale != 1.0]
    maps = codec.aggregate(views, (128, 128))
    assert maps.shape == (128, 128)
    assert maps.tags.shape[:2] == (2, 17)
    assert len(codec.decode(maps, to_image(arrays, maps.shape)).poses) > 0


def test_shared_tags_group_people():
    """One tag map for all joints reads the same tag wherever every joint's map would."""
    arrays = golden_arrays("grouping_k1.npz")
    codec = codec_for("k1")
    maps = merged(codec, arrays, 1, 1)
    same = np.repeat(maps.tags[:, :1], 17, axis=1)
    shared = codec.decode(HostMaps(maps.heatmaps, maps.tags[:, :1]), geometry.identity()).poses
    repeated = codec.decode(HostMaps(maps.heatmaps, same), geometry.identity()).poses
    np.testing.assert_array_equal(shared.xy, repeated.xy)
    np.testing.assert_array_equal(shared.person_score, repeated.person_score)
    there = codec.decode(on_device(HostMaps(maps.heatmaps, maps.tags[:, :1])), geometry.identity())
    np.testing.assert_array_equal(there.poses.xy, shared.xy)


def random_maps(seed, people, shape=(160, 224), source=(40, 56), depth=2):
    """Blobs of people with noisy tags, some joints missing, on maps whose tags are coarser."""
    rng = np.random.default_rng(seed)
    heat = rng.random((17, *shape)).astype(np.float32) * 0.02
    tags = rng.normal(0, 3, (depth, 17, *source)).astype(np.float32)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for person in range(people):
        for joint in range(17):
            if rng.random() < 0.3:
                continue
            cy, cx = rng.integers(0, shape[0]), rng.integers(0, shape[1])
            blob = rng.uniform(0.15, 1) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 18)
            heat[joint] = np.maximum(heat[joint], blob)
            sy, sx = cy * source[0] // shape[0], cx * source[1] // shape[1]
            tags[:, joint, max(sy - 1, 0) : sy + 2, max(sx - 1, 0) : sx + 2] = person * 0.9
    return HostMaps(heat, tags)


@pytest.mark.parametrize("assignment", list(tagging.ASSIGNMENTS))
@pytest.mark.parametrize("people", [0, 1, 5, 12])
def test_fast_decoding_finds_the_same_people_as_the_plain_way(people, assignment):
    grouping = tagging.Grouping(assign=tagging.ASSIGNMENTS[assignment])
    codec = BottomUpCodec(COCO, (Head(4, 17), Head(2)), grouping=grouping)
    for seed in range(3):
        maps = random_maps(seed, people)
        large = torch.nn.functional.interpolate(
            torch.from_numpy(maps.tags), size=maps.shape, mode="bilinear", align_corners=False
        )
        dense = plain.PlainMaps(maps.heatmaps, large.permute(1, 2, 3, 0).numpy())
        expected, scores = plain.decode(dense, codec)
        for found in (maps, on_device(maps)):
            poses = codec.decode(found, geometry.identity()).poses
            present = poses.visibility > 0
            np.testing.assert_allclose(poses.score, expected.score, rtol=1e-6)
            np.testing.assert_allclose(poses.xy[present], expected.location[present])
            np.testing.assert_allclose(poses.person_score, scores)


@pytest.mark.parametrize("name", ["k8", "multiscale"])
def test_smoothing_is_a_gaussian_over_the_merged_heatmaps(name):
    arrays = golden_arrays(f"grouping_{name}.npz")
    codec = codec_for(name)
    views = views_of(arrays, 17, flip=1)
    shape = tuple(int(side) for side in arrays["base_size"][::-1])
    bare, blur_sigma = (
        replace(codec, blur_sigma=sigma).aggregate(views, shape) for sigma in (0.0, 2.0)
    )
    np.testing.assert_array_equal(blur_sigma.tags, bare.tags)
    expected = gaussian_filter(bare.heatmaps, (0, 2, 2), mode="mirror", radius=(0, 6, 6))
    np.testing.assert_allclose(blur_sigma.heatmaps, expected, atol=1e-6)
    device = heat.gaussian_blur_on_device(torch.from_numpy(bare.heatmaps[None]), 2.0)
    np.testing.assert_allclose(device[0].numpy(), expected, atol=1e-6)
    slow = plain.merge(views, COCO, shape, blur_sigma=2.0)
    np.testing.assert_allclose(slow.heatmaps, expected, atol=1e-5)


def test_the_most_people_are_the_best():
    codec = BottomUpCodec(COCO, (Head(4, 17), Head(2)), max_candidates=4)
    maps = random_maps(0, 8)
    everyone = codec.decode(maps, geometry.identity())
    few = replace(codec, max_detections=3).decode(maps, geometry.identity())
    assert everyone.people_dropped == 0
    assert everyone.candidates_dropped > 0
    assert few.people_dropped == len(everyone.poses) - 3
    best = np.sort(everyone.poses.person_score)[-3:]
    np.testing.assert_array_equal(np.sort(few.poses.person_score), best)
