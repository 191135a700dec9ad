"""Options beyond the published method, each against an independent computation."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from higherhrnet import geometry, load
from higherhrnet.cli import main
from higherhrnet.config import parse_config, to_yaml
from higherhrnet.datasets.composition import make_mosaic, paste_people
from higherhrnet.errors import UserError
from higherhrnet.factory.checkpoints import open_checkpoint
from higherhrnet.factory.data import build_dataset, build_loader
from higherhrnet.methods.bottom_up.codec import BottomUpCodec
from higherhrnet.methods.bottom_up.device_maps import DeviceMaps
from higherhrnet.methods.bottom_up.grouping import (
    ASSIGNMENTS,
    REACH,
    Grouping,
    group,
    measure_excess,
)
from higherhrnet.methods.bottom_up.losses import (
    HEATMAP_LOSSES,
    BottomUpLoss,
    adapt_scales,
    heatmap_loss,
    tag_losses,
)
from higherhrnet.methods.bottom_up.maps import HostMaps
from higherhrnet.methods.heatmaps import (
    PUBLISHED,
    Peaks,
    SubPixel,
    dark_offset,
    draw_gaussians,
    parabola_offset,
)
from higherhrnet.models.higher_hrnet import HigherHRNet
from higherhrnet.models.state_dict import infer_architecture
from higherhrnet.models.weights import match_heads_by_name
from higherhrnet.outputs import Head, Outputs, View
from higherhrnet.poses import Poses
from higherhrnet.skeleton import COCO
from higherhrnet.structures import Sample, Targets, map_tensors

from .build import build_codec, build_model
from .test_combined import read_config, write_set

HEADS = (Head(4, 17), Head(2))


def one_person(rng, size=256):
    xy = rng.uniform(30, size - 30, (1, 17, 2))
    return Poses.from_annotations(np.concatenate([xy, np.full((1, 17, 1), 2)], axis=2))


def perfect_views(codec, poses, size=256):
    """What a perfect network gives for a square image and its flipped copy."""
    valid = np.ones((size, size), np.uint8)
    views = []
    for flipped in (False, True):
        seen = poses
        if flipped:
            seen = poses.warp(geometry.horizontal_flip(size)).swap_sides(COCO)
        keypoints = codec.index_keypoints(seen, valid, flipped)
        targets = codec.encode(map_tensors(keypoints, lambda tensor: tensor[None]))
        tags = (torch.zeros(1, 17, size // 4, size // 4), torch.zeros(1, 0, size // 2, size // 2))
        views.append(View(Outputs(targets.heatmaps, tags), 1.0, flipped))
    return views


def decoding_errors(project, **settings):
    """(people, K, 2) pixels of the image between people and what comes back of them."""
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(20):
        poses = one_person(rng)
        codec = BottomUpCodec(COCO, HEADS, with_heatmaps=(False, True), **settings)
        shape = (256, 256) if project else None
        maps = codec.aggregate(perfect_views(codec, poses), shape)
        found = codec.decode(maps, geometry.scaling(256 / maps.shape[0])).poses
        errors.append(found.xy - poses.xy)
    return np.concatenate(errors)


@pytest.mark.parametrize("decoding", ["parabola", "dark"])
def test_exact_centers_come_back_exactly(decoding):
    """On the maps' own pixels a log-parabola's top is exact; the published pair is biased. (A blur
    by the Gaussian itself, cut at three sigma, costs DARK some hundredths.)"""
    error = decoding_errors(False, encoding="exact", decoding=decoding)
    assert np.abs(error).max() < (2e-3 if decoding == "parabola" else 0.03)


def test_projected_maps_are_read_without_bias():
    """Enlarged maps are piecewise linear; what is left is noise of a fraction of a pixel."""
    exact = decoding_errors(True, encoding="exact", decoding="parabola", blur_sigma=2.0)
    published = decoding_errors(True)
    assert np.abs(exact.mean(axis=(0, 1))).max() < 0.02
    assert np.abs(exact).mean() < 0.6 * np.abs(published).mean()


def test_gaussians_around_exact_centers():
    rng = np.random.default_rng(1)
    xy = rng.uniform(5, 26, (2, 3, 4, 2))
    pixel = np.floor(xy + 0.5)
    flat = (pixel[..., 1] * 32 + pixel[..., 0]).astype(np.int64)
    flat[1, 2, 3] = -1
    maps = draw_gaussians(
        torch.from_numpy(flat), (32, 32), 2, torch.from_numpy((xy - pixel).astype(np.float32))
    )
    y, x = np.mgrid[:32, :32]
    for b in range(2):
        for k in range(4):
            expected = np.zeros((32, 32))
            for p in range(3):
                if flat[b, p, k] < 0:
                    continue
                u, v = xy[b, p, k]
                gaussian = np.exp(-((x - u) ** 2 + (y - v) ** 2) / 8)
                window = (np.abs(x - pixel[b, p, k, 0]) <= 7) & (np.abs(y - pixel[b, p, k, 1]) <= 7)
                expected = np.maximum(expected, gaussian * window)
            assert maps[b, k].numpy() == pytest.approx(expected, abs=1e-6)


def test_parabola_and_dark_by_polynomials():
    """A parabola through three points by least squares; Newton's step by a linear system."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[-1:2, -1:2]
    patches = []
    for _ in range(50):
        u, v, r = rng.uniform(-0.5, 0.5, 3)
        form = (x - u) ** 2 + (y - v) ** 2 + 0.6 * r * (x - u) * (y - v)
        patches.append(np.exp(-form / 8) * rng.uniform(0.2, 1))
    patches = np.array(patches)
    for patch, parabola, dark in zip(
        patches, parabola_offset(patches), dark_offset(patches), strict=True
    ):
        for line, found in ((patch[1], parabola[0]), (patch[:, 1], parabola[1])):
            a, b, _ = np.polyfit([-1, 0, 1], np.log(line), 2)
            assert found == pytest.approx(-b / (2 * a), abs=1e-9)
        basis = np.stack([x**2, y**2, x * y, x, y, np.ones((3, 3))], axis=2).reshape(9, 6)
        c = np.linalg.lstsq(basis, np.log(patch).ravel(), rcond=None)[0]
        hessian = [[2 * c[0], c[2]], [c[2], 2 * c[1]]]
        assert dark == pytest.approx(np.linalg.solve(hessian, -c[3:5]), abs=1e-9)


@pytest.mark.parametrize("decoding", ["quarter", "parabola", "dark"])
def test_host_and_device_read_the_same_points(decoding):
    rng = np.random.default_rng(3)
    heatmaps = rng.random((17, 40, 48)).astype(np.float32)
    tags = rng.random((2, 17, 20, 24)).astype(np.float32)
    sub_pixel = SubPixel(decoding, 0.25)
    host = HostMaps(heatmaps, tags, sub_pixel)
    device = DeviceMaps(torch.from_numpy(heatmaps), torch.from_numpy(tags), sub_pixel)
    for one, other in zip(host.peaks(0.5, 30), device.peaks(0.5, 30), strict=True):
        assert (one.xy == other.xy).all()
        assert one.location == pytest.approx(other.location, abs=1e-3)
    joints = np.arange(17)
    for one, other in zip(host.best(joints, tags[:, 0, :17, 0].T),
                          device.best(joints, tags[:, 0, :17, 0].T), strict=True):  # fmt: skip
        assert one == pytest.approx(other, abs=1e-4)
    assert HostMaps(heatmaps, tags).sub_pixel == PUBLISHED


FORMULAS = {
    "mse": lambda p, h: 1.0,
    "foreground": lambda p, h: 1.0 if h > 0.01 else 0.1,
    "weight_adaptive": lambda p, h: h**0.01 * abs(1 - p) + (1 - h**0.01) * abs(p),
    "focal": lambda p, h: abs(1 - (p - 0.1)) if h > 0.01 else abs(1 - (1 - p - 0.02)),
}


@pytest.mark.parametrize("kind", HEATMAP_LOSSES)
def test_heatmap_losses_pixel_by_pixel(kind):
    rng = np.random.default_rng(4)
    target = torch.from_numpy(rng.random((2, 3, 4, 5)).astype(np.float32))
    target[target < 0.6] = 0
    prediction = torch.from_numpy(rng.normal(0.3, 0.4, (2, 3, 4, 5)).astype(np.float32))
    prediction.requires_grad_(True)
    weight = torch.from_numpy(rng.integers(0, 2, (2, 1, 4, 5)).astype(np.float32))
    annotated = torch.tensor([[1, 1, 1], [1, 0, 1]], dtype=torch.uint8)
    loss = heatmap_loss(prediction, target, weight, annotated, kind)
    loss.sum().backward()
    for b in range(2):
        total = 0.0
        for k, y, x in np.ndindex(3, 4, 5):
            p, h = float(prediction[b, k, y, x]), float(target[b, k, y, x])
            factor = FORMULAS[kind](p, h) * float(weight[b, 0, y, x]) * int(annotated[b, k])
            total += factor * (p - h) ** 2
            slope = 2 * factor * (p - h) / 60
            assert float(prediction.grad[b, k, y, x]) == pytest.approx(slope, abs=1e-6)
        assert float(loss[b]) == pytest.approx(total / 60, rel=1e-5)


@pytest.mark.parametrize("push_type", ["exp", "max"])
@pytest.mark.parametrize("shared", [False, True])
def test_tags_of_several_dimensions_person_by_person(push_type, shared):
    rng = np.random.default_rng(5)
    channels = 1 if shared else 4
    tags = torch.from_numpy(rng.normal(0, 0.5, (2, 3 * channels, 6, 6)).astype(np.float32))
    tags.requires_grad_(True)
    indices = torch.from_numpy(rng.integers(-1, 36, (2, 3, 4)))
    indices[1, 2] = -1
    pull, push = tag_losses(tags, indices, push_type, 3)
    (pull.sum() + push.sum()).backward()
    assert tags.grad.isfinite().all()
    for b in range(2):
        means, spreads = [], []
        for person in indices[b].tolist():
            read = [
                [
                    float(tags[b, d * channels + (0 if shared else k)].flatten()[at])
                    for d in range(3)
                ]
                for k, at in enumerate(person)
                if at >= 0
            ]
            if read:
                means.append(np.mean(read, axis=0))
                spreads.append(((np.array(read) - means[-1]) ** 2).sum(axis=1).mean())
        assert float(pull[b]) == pytest.approx(np.mean(spreads), rel=1e-5)
        near = []
        for i, one in enumerate(means):
            for j, other in enumerate(means):
                if i != j:
                    d = np.linalg.norm(one - other)
                    near.append(np.exp(-(d**2)) if push_type == "exp" else max(0, 1 - d))
        assert float(push[b]) == pytest.approx(0.5 * np.mean(near), rel=1e-5)


def test_tag_dimensions_from_weights_to_people():
    small = {"width": 4, "num_modules": (1, 1, 1), "num_blocks": 1, "num_basic_blocks": 1}
    one = HigherHRNet(17, tag_heads=(True, False), **small)
    two = HigherHRNet(17, tag_heads=(True, True), tag_dim=2, **small)
    assert [head.tags for head in two.heads] == [34, 34]
    found = infer_architecture(two.state_dict(), 17)
    assert (found.joints, found.tag_dim, found.tag_per_joint) == (17, 2, True)
    assert infer_architecture(one.state_dict()).tag_dim == 1
    # What one dimension learned is the first of two.
    adapted = match_heads_by_name(one.state_dict(), two, COCO, COCO)
    two.load_state_dict(adapted)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        first, both = one.eval()(image), two.eval()(image)
    torch.testing.assert_close(both.heatmaps[0], first.heatmaps[0])
    torch.testing.assert_close(both.tags[0][:, :17], first.tags[0])
    codec = BottomUpCodec(COCO, two.heads)
    views = [View(both, 1.0, flipped=False), View(both, 1.0, flipped=True)]
    maps = codec.aggregate(views)
    assert maps.tags.shape == (8, 17, 32, 32)  # two views, two outputs, two dimensions
    expected = both.tags[0][0, 17 + COCO.flip_indices[5]].flip(1).numpy()
    cv_resized = cv2.resize(expected, (32, 32), interpolation=cv2.INTER_LINEAR)
    assert np.abs(maps.tags[5, 5] - cv_resized).max() < 1e-6


def painted(size, xy, color):
    """A gray image with a dot at each joint of one person, and its sample."""
    image = np.full((*size, 3), 60, np.uint8)
    for x, y in xy:
        cv2.circle(image, (int(x), int(y)), 3, color, -1)
    keypoints = np.concatenate([xy, np.full((len(xy), 1), 2)], axis=1)[None]
    return Sample(
        image=image,
        poses=Poses.from_annotations(keypoints),
        boxes=np.array([[*xy.min(0), *np.ptp(xy, axis=0)]]),
        valid=np.ones(size, np.uint8),
        id=1,
        affine=geometry.identity(),
    )


class Painted:
    skeleton = COCO

    def __init__(self, samples, outlines):
        self.samples, self._outlines = samples, outlines

    def __len__(self):
        return len(self.samples)

    def sample(self, index):
        return self.samples[index]

    def outlines(self, index):
        return self._outlines[index]


COLORS = [(250, 20, 20), (20, 250, 20), (20, 20, 250), (250, 250, 20)]


def painted_set():
    rng = np.random.default_rng(6)
    samples, outlines = [], []
    for size, color in zip([(120, 160), (160, 120), (80, 80), (200, 320)], COLORS, strict=True):
        xy = np.round(rng.uniform(10, min(size) - 10, (17, 2)))
        samples.append(painted(size, xy, color))
        outlines.append([(samples[-1].image != 60).any(axis=2)])
    return Painted(samples, outlines)


def test_a_mosaic_carries_pixels_and_joints_together():
    dataset = painted_set()
    made = make_mosaic(dataset.samples, dataset)
    assert made.image.shape == (240, 320, 3)
    assert len(made.poses) == len(made.boxes) == 4
    for person, color in enumerate(COLORS):
        for x, y in made.poses.xy[person]:
            row, column = divmod(person, 2)
            assert column * 160 <= x + 0.5 <= column * 160 + 160, (person, x)
            assert row * 120 <= y + 0.5 <= row * 120 + 120, (person, y)
        shown = [made.image[round(y), round(x)] for x, y in made.poses.xy[person]]
        assert np.mean(np.argmax(shown, axis=1) == np.argmax(color)) > 0.7 or person == 3
    # What no image fills does not count: the upright image leaves bars.
    assert made.valid[:120, :160].all()
    assert not made.valid[:120, 160 + 95 :].any()
    assert (made.image[made.valid == 0] < 60).all()


def test_pasted_people_hide_what_is_behind_them():
    dataset = painted_set()
    below = dataset.samples[0]
    hidden = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        made = paste_people(below, dataset, 1, rng)
        assert made.image.shape == below.image.shape
        assert len(made.poses) == len(made.boxes) == 2
        assert (made.poses.xy[0] == below.poses.xy[0]).all()
        changed = (made.image != below.image).any(axis=2)
        greens = made.image[changed].astype(int)
        assert len(greens)
        assert (greens[:, 1] >= greens[:, 0]).mean() > 0.95
        present = made.poses.visibility[1] > 0
        inside = made.poses.xy[1][present]
        assert ((inside > -0.6) & (inside < [159.6, 119.6])).all()
        for joint in np.flatnonzero(made.poses.visibility[0] == 1):
            x, y = below.poses.xy[0, joint].astype(int)
            assert changed[y, x]
            hidden += 1
    assert hidden
    assert paste_people(below, Painted(dataset.samples, [[None]] * 4), 1, rng) is below


def test_compositions_are_drawn_anew_and_reproducibly(tmp_path):
    write_set(tmp_path / "full")

    def batch(**dataset):
        config = read_config(tmp_path, "full/train.json", **dataset)
        codec = build_codec(config, build_model(config, 17), COCO)
        batches, _ = build_loader(
            config, build_dataset(config, "train"), codec, torch.device("cpu")
        )
        return next(iter(batches.epoch(0)))

    plain, mosaic, again = batch(), batch(MOSAIC=1), batch(MOSAIC=1)
    assert torch.equal(mosaic.images, again.images)
    assert not torch.equal(mosaic.images, plain.images)
    assert mosaic.keypoints.indices[0].shape[1] == 4
    assert torch.equal(batch(COPY_PASTE=1).images, batch(COPY_PASTE=1).images)
    with pytest.raises(UserError, match="CACHE ram instead of device"):
        batch(MOSAIC=0.5, CACHE="device")


def test_defaults_are_published():
    config = parse_config("")
    assert (config.DATASET.ENCODING, config.TEST.DECODING) == ("truncated", "quarter")
    assert (config.LOSS.HEATMAPS_LOSS_TYPE, config.MODEL.TAG_DIM) == ("mse", 1)
    assert config.DATASET.MOSAIC == config.DATASET.COPY_PASTE == 0


def test_far_joints_are_not_joined():
    """Two people with the same tags: only where their joints lie tells them apart."""
    rng = np.random.default_rng(7)
    people = [rng.uniform(0, 40, (17, 2)) + shift for shift in ([20, 20], [220, 150])]
    peaks = []
    for joint in range(17):
        xy = np.array([person[joint] for person in people])
        tags = rng.normal(0, 0.02, (2, 1)).astype(np.float32)
        score = np.array([0.6, 0.9] if joint % 2 else [0.9, 0.6], np.float32)
        peaks.append(Peaks(xy.astype(np.int64), score, xy, tags))

    def grouped(weight):
        grouping = Grouping(assign=ASSIGNMENTS["hungarian_score_tiebreak"], distance_weight=weight)
        members = group(peaks, COCO.order, grouping, (256, 320))
        return [sorted(set(member.values())) for member in members]

    assert grouped(1.0) == [[0], [1]]
    assert grouped(0.0) == [[0, 1], [0, 1]]
    # By hand: 100 pixels from the nearest joint of a person of 50 is half an extent too far.
    person = np.array([[0.0, 0.0], [30.0, 40.0]])
    excess = measure_excess(np.array([[130.0, 40.0], [30.0, 50.0]]), [person, person[:1]], 400.0)
    length = np.hypot(130, 40)
    assert excess == pytest.approx(
        np.array([[100 / 50 - REACH, length / 20 - REACH], [0, np.hypot(30, 50) / 20 - REACH]])
    )


def test_scale_adaptive_targets():
    """A wider Gaussian is the narrower one to a power; the gradient by differences."""
    y, x = np.mgrid[:15, :15]
    square = ((x - 7) ** 2 + (y - 7) ** 2).astype(float)
    target = torch.from_numpy(np.exp(-square / 8)).float()[None, None]
    target[0, 0, :2] = 0
    for scale in (0.7, 1.0, 1.5):
        adapted, cost = adapt_scales(target, torch.full_like(target, 1 / scale - 1))
        expected = np.exp(-square / (8 * scale**2))
        expected[:2] = 0
        assert adapted[0, 0].numpy() == pytest.approx(expected, abs=1e-6)
        assert cost[0, 0, 5, 5].item() == pytest.approx((1 / scale - 1) ** 2, abs=1e-6)
        assert cost[0, 0, 0, 0] == 0
    rng = np.random.default_rng(8)
    prediction = torch.from_numpy(rng.normal(0.3, 0.3, (1, 1, 15, 15)))

    def total(values):
        adapted, cost = adapt_scales(target, values)
        return (adapted.double() - prediction).square().mean() + cost.mean()

    scales = torch.from_numpy(rng.normal(0, 0.2, (1, 1, 15, 15)).astype(np.float32))
    scales.requires_grad_(True)
    head = (Head(4, 1),)
    loss = BottomUpLoss(head, (1.0,), (0.0,), (0.0,))(
        Outputs((prediction.float(),), (torch.zeros(1, 1, 15, 15),), (scales,)),
        Targets((target,), (torch.ones(1, 1, 15, 15),), (torch.zeros(1, 0, 1, dtype=torch.int64),)),
    )
    assert float(loss["heatmap/4"] + loss["scale/4"]) == pytest.approx(
        float(total(scales)), rel=1e-5
    )
    (loss["heatmap/4"] + loss["scale/4"]).backward()
    for at in ((7, 7), (5, 9), (3, 3)):
        step = torch.zeros_like(scales)
        step[0, 0, at[0], at[1]] = 1e-2
        with torch.no_grad():
            slope = (total(scales + step) - total(scales - step)) / 2e-2
        assert scales.grad[0, 0, at[0], at[1]].item() == pytest.approx(
            float(slope), rel=0.02, abs=1e-6
        )


def test_scale_adaptive_networks_train_load_and_predict(tmp_path):
    write_set(tmp_path / "full")
    config = read_config(tmp_path, "full/train.json")
    file = tmp_path / "c.yaml"
    file.write_text(to_yaml(config))
    words = ["train", str(file), "--output", str(tmp_path / "o"), "--device", "cpu"]
    assert main([*words, "MODEL.SCALE_ADAPTIVE", "True", "MODEL.TAG_DIM", "2"]) == 0
    record = json.loads((tmp_path / "o" / "log.jsonl").read_text().splitlines()[-1])
    assert np.isfinite(record["scale/4"])
    weights = tmp_path / "o" / "best.safetensors"
    predictor = load(weights, "cpu")
    assert predictor.engine.model.scale_layers
    assert len(predictor(np.zeros((64, 64, 3), np.uint8)).xy.shape) == 3
    torch.save(open_checkpoint(str(weights)).state, tmp_path / "plain.pth")
    found = infer_architecture(open_checkpoint(str(tmp_path / "plain.pth")).state)
    assert (found.scale_adaptive, found.tag_dim) == (True, 2)
    load(tmp_path / "plain.pth", "cpu")
