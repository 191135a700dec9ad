"""The top-down mode gives the original code's numbers."""

import numpy as np
import pytest
import torch

from higherhrnet import geometry
from higherhrnet.boxes import Boxes
from higherhrnet.evaluation.oks import oks_nms
from higherhrnet.methods.top_down.codec import TopDownCodec
from higherhrnet.methods.top_down.losses import TopDownLoss
from higherhrnet.methods.top_down.transforms import half_body
from higherhrnet.outputs import Head, Outputs, View
from higherhrnet.poses import Poses
from higherhrnet.skeleton import COCO
from higherhrnet.structures import Targets

from .shared import golden_arrays, golden_json

ARRAYS = golden_arrays("topdown.npz")
HEADS = (Head(stride=4),)
CODEC = TopDownCodec(COCO, HEADS)


def part(prefix):
    return {
        k.removeprefix(prefix + "/"): v for k, v in ARRAYS.items() if k.startswith(prefix + "/")
    }


def outputs(heatmaps):
    maps = torch.from_numpy(np.asarray(heatmaps, np.float32))
    return Outputs((maps,), (maps[:, :0],))


@pytest.mark.parametrize("case", ["preds0", "preds1", "preds2"])
def test_joints_from_heatmaps(case):
    a = part(case)
    heatmaps = a["heatmaps"].astype(np.float32)
    shape = heatmaps.shape[2:]
    back = [
        geometry.invert(geometry.person_crop(tuple(center), scale[0] * 200, shape))
        for center, scale in zip(a["center"], a["scale"], strict=True)
    ]
    poses = CODEC.decode(heatmaps, back, Boxes.of(np.ones((len(back), 4))))
    np.testing.assert_allclose(poses.xy, a["coords_post1"], rtol=2e-6, atol=2e-3)
    np.testing.assert_array_equal(poses.score, np.maximum(a["maxvals"][..., 0], 0))
    indices = np.array([h.reshape(17, -1).argmax(1) for h in heatmaps])
    plain = np.stack([indices % shape[1], indices // shape[1]], axis=2) * (a["maxvals"] > 0)
    plain = np.array([geometry.apply(b, p) for b, p in zip(back, plain, strict=True)])
    np.testing.assert_allclose(plain, a["coords_post0"], rtol=2e-6, atol=2e-3)
    shifted = np.abs(poses.xy - plain).max(axis=2) > 1e-3
    assert shifted.any()


@pytest.mark.parametrize("shift", [False, True])
def test_mirrored_view(shift):
    a = part("flip")
    views = [
        View(outputs(a["plain"]), 1.0, flipped=False),
        View(outputs(a["flipped_raw"]), 1.0, flipped=True),
    ]
    merged = TopDownCodec(COCO, HEADS, shift_heatmap=shift).aggregate(views)
    np.testing.assert_array_equal(merged, a[f"output_shift{int(shift)}"])


@pytest.mark.parametrize("case", ["target0", "target1"])
def test_targets_and_their_weights(case):
    a = part(case)
    width, height = a["image_size"]
    keypoints = np.concatenate([a["joints"][:, :2], a["vis"][:, :1]], axis=1)[None]
    # Absent joints are at (0, 0) here; the original's stand where they were and weigh nothing.
    index_keypoints = CODEC.index_keypoints(
        Poses.from_annotations(keypoints), np.ones((height, width), np.uint8)
    )
    targets = CODEC.encode(
        index_keypoints._replace(
            indices=(index_keypoints.indices[0][None],), valid=index_keypoints.valid[None]
        )
    )
    np.testing.assert_array_equal(targets.weights[0][0, :, :, 0], a["weight_plain"])
    counted = a["weight_plain"][:, 0] > 0
    heatmaps = targets.heatmaps[0][0].numpy()[counted]  # exp() differs in its last digit
    np.testing.assert_allclose(heatmaps, a["target"][counted], rtol=1e-6)
    np.testing.assert_array_equal(heatmaps > 0, a["target"][counted] > 0)
    assert 0 < counted.sum() < 17
    partly = targets.heatmaps[0][0].numpy()[counted].max(axis=(1, 2)) < 1
    assert partly.any()  # a joint outside the crop whose Gaussian reaches into it


def test_weights_of_joints():
    a = part("target0")
    table = [1, 1, 1, 1, 1, 1, 1, 1.2, 1.2, 1.5, 1.5, 1, 1, 1.2, 1.2, 1.5, 1.5]
    expected = a["weight_plain"] * np.array(table, np.float32)[:, None]
    np.testing.assert_allclose(a["weight_joints_weight"], expected)
    prediction = torch.rand(1, 17, 8, 6)
    weight = torch.from_numpy(a["weight_plain"])[None, :, :, None]
    targets = Targets((torch.zeros(1, 17, 8, 6),), (weight,), ())
    loss = TopDownLoss(HEADS, tuple(map(float, table)))(Outputs((prediction,), ()), targets)
    by_hand = 0.5 * (prediction * torch.from_numpy(expected)[None, :, :, None]).square().mean()
    assert float(loss["heatmap/4"]) == pytest.approx(float(by_hand), rel=1e-6)


@pytest.mark.parametrize("weighted", [0, 1])
def test_loss(weighted):
    a = part("loss")
    prediction = torch.from_numpy(a["output"].astype(np.float32)).requires_grad_()
    weight = (
        torch.from_numpy(a["target_weight"])[..., None] if weighted else torch.ones(3, 17, 1, 1)
    )
    targets = Targets((torch.from_numpy(a["target"].astype(np.float32)),), (weight,), ())
    loss = TopDownLoss(HEADS)(Outputs((prediction,), ()), targets)["heatmap/4"]
    assert float(loss) == pytest.approx(float(a[f"mse_weighted{weighted}"]), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, prediction)
    np.testing.assert_allclose(gradient, a[f"mse_weighted{weighted}_grad"], rtol=1e-5, atol=1e-10)
    hard = TopDownLoss(HEADS, ohkm_topk=8)(Outputs((prediction,), ()), targets)["heatmap/4"]
    assert float(hard) == pytest.approx(float(a[f"ohkm8_weighted{weighted}"]), rel=1e-6)


@pytest.mark.parametrize("number", range(6))
def test_half_a_body(number):
    a = part(f"halfbody{number}")
    labeled = a["vis"][:, 0] > 0
    found = half_body(
        a["joints"][:, :2], labeled, np.array(COCO.upper), a["normal_draw"] < 0.5, (256, 192)
    )
    if not len(a["center"]):
        assert found is None
        return
    center, width = found
    np.testing.assert_allclose(center, a["center"], rtol=1e-6)
    assert width / 200 == pytest.approx(float(a["scale"][0]), rel=1e-6)


def test_mirrored_joints():
    a = part("fliplr")
    keypoints = np.concatenate([a["joints"][:, :2], a["vis"][:, :1]], axis=1)[None]
    flipped = (
        Poses.from_annotations(keypoints)
        .warp(geometry.horizontal_flip(int(a["width"])))
        .swap_sides(COCO)
    )
    np.testing.assert_allclose(flipped.xy[0], a["joints_out"][:, :2] * a["vis_out"][:, :2])
    np.testing.assert_array_equal(flipped.visibility[0] > 0, a["vis_out"][:, 0] > 0)


def test_scores_and_what_remains():
    """Box score times the mean heat above 0.2, then OKS-NMS."""
    for case in golden_json("oks_nms.json")["sets"]:
        keypoints, area = np.array(case["keypoints"]), np.array(case["area"])
        boxes = Boxes.of(np.ones((len(keypoints), 4)), case["score"])
        back = [geometry.identity()] * len(keypoints)
        heatmaps = np.zeros((*keypoints.shape[:2], 4, 4), np.float32)
        heatmaps[:, :, 0, 0] = keypoints[..., 2]
        score = CODEC.decode(heatmaps, back, boxes).person_score
        np.testing.assert_allclose(score, case["rescored_all"], rtol=1e-6)
        for threshold in (0.9, 0.5):
            kept = oks_nms(
                keypoints[..., :2], keypoints[..., 2], score, area, COCO.sigmas, threshold
            )
            assert kept == case[f"rescored_kept_{threshold}"]
