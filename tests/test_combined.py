"""Several training sets at once: joints by name, what is not annotated, shares."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from higherhrnet.cli import main
from higherhrnet.config import parse_config, to_yaml
from higherhrnet.datasets.coco import CocoKeypoints
from higherhrnet.datasets.combined import ConcatDataset, MappedDataset, Quota, compute_quotas
from higherhrnet.datasets.loader import ShuffledBatches, draw_items
from higherhrnet.errors import UserError
from higherhrnet.factory.data import build_dataset, build_loader, find_skeleton
from higherhrnet.methods.base import method_of
from higherhrnet.outputs import Outputs
from higherhrnet.skeleton import COCO, CROWDPOSE, MPII, Skeleton

from .build import build_codec, build_model
from .shared import SHARED, needs_shared
from .test_brought_files import coco_file

FACE = [joint for joint in COCO.joints if joint.endswith(("nose", "eye", "ear"))]
SMALL = "WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1"
OWN = {
    "bottom-up": (f"{{NAME: pose_higher_hrnet, {SMALL}, NUM_BASIC_BLOCKS: 1}}", "INPUT_SIZE: 64, "),
    "top-down": (f"{{NAME: pose_hrnet, {SMALL}, IMAGE_SIZE: [32, 64]}}", ""),
}


def write_set(folder, count=6, skeleton=COCO, without=()):
    """A set in a folder of its own; ``without`` names joints that nobody has labeled."""
    folder.mkdir(parents=True)
    content = coco_file(folder, count=count, skeleton=skeleton)
    for person in content["annotations"]:
        for joint in without:
            at = 3 * skeleton.index(joint)
            person["keypoints"][at : at + 3] = [0, 0, 0]
        person["num_keypoints"] = len(skeleton) - len(without)
    (folder / "train.json").write_text(json.dumps(content))
    return folder


def read_config(folder, train, mode="bottom-up", **dataset):
    model, own = OWN[mode]
    more = "".join(f", {key}: {value}" for key, value in dataset.items())
    return parse_config(
        f"""
        MODEL: {model}
        DATASET: {{ROOT: {folder}, TEST: full/train.json, {own}TRAIN: {train}{more}}}
        TRAIN: {{END_EPOCH: 1, BATCH_SIZE: 4, WORKERS: 0, PRECISION: fp32}}
        """
    )


def first_targets(config):
    """The codec, targets of the first batch, and the parts' image counts."""
    skeleton, device = find_skeleton(config), torch.device("cpu")
    codec = build_codec(config, build_model(config, len(skeleton)), skeleton)
    dataset = build_dataset(config, "train")
    batches, to_device = build_loader(config, dataset, codec, device)
    batch = next(iter(batches.epoch(0)))
    return batch, to_device(batch)[1], dataset


TWO = "[full/train.json, {TRAIN: train.json, ROOT: %s/faceless}]"


@pytest.fixture
def folder(tmp_path):
    write_set(tmp_path / "full")
    write_set(tmp_path / "faceless", without=FACE)
    return tmp_path


@pytest.mark.parametrize("mode", ["bottom-up", "top-down"])
def test_a_set_without_faces_does_not_teach_that_there_are_none(folder, mode):
    config = read_config(folder, TWO % folder, mode)
    batch, targets, dataset = first_targets(replace_batch(config, 12))
    assert [type(part) for part in dataset.parts] == [MappedDataset] * 2
    criterion = method_of(config).build_criterion(config, build_model(config, 17))
    heads = [torch.full_like(maps, 0.5, requires_grad=True) for maps in targets.heatmaps]
    tags = tuple(torch.zeros(len(maps), 17, *maps.shape[2:]) for maps in heads)
    losses = criterion(Outputs(tuple(heads), tags), targets)
    torch.stack(list(losses.values())).sum().backward()
    gradient = heads[0].grad.abs().sum(dim=(2, 3)) > 0  # (B, K)
    face = np.isin(COCO.joints, FACE)
    full = batch.keypoints.annotated.bool().all(dim=1).numpy()
    faceless = ~full
    assert full.sum() == faceless.sum() == 6
    assert not gradient[faceless][:, face].any()
    assert gradient[faceless][:, ~face].sum() > 40  # top-down views may leave some outside
    assert gradient[full].sum() > 80
    # One after another the same numbers come out: masked squares, averaged over all joints.
    if mode == "bottom-up":
        expected = torch.stack(
            [
                ((heads[0][i] - targets.heatmaps[0][i]) * targets.weights[0][i])[
                    batch.keypoints.annotated[i].bool()
                ].square().sum() / heads[0][i].numel()
                for i in range(12)
            ]
        ).mean()  # fmt: skip
        torch.testing.assert_close(losses["heatmap/4"], expected)


def replace_batch(config, size):
    return replace(config, TRAIN=replace(config.TRAIN, BATCH_SIZE=size))


def test_a_set_alone_is_trained_as_published(folder):
    config = read_config(folder, "faceless/train.json")
    batch, _, dataset = first_targets(config)
    assert isinstance(dataset, CocoKeypoints)
    assert batch.keypoints.annotated.all()


def test_flipped_views_leave_out_the_other_side(tmp_path):
    left = [joint for joint in COCO.joints if joint.startswith("left")]
    write_set(tmp_path / "full")
    write_set(tmp_path / "faceless", without=left)
    for flip, gone in ((0, "left"), (1, "right")):
        config = read_config(tmp_path, TWO % tmp_path, FLIP=flip)
        batch = first_targets(replace_batch(config, 12))[0]
        rows = batch.keypoints.annotated[(batch.keypoints.annotated == 0).any(dim=1)]
        expected = [joint.split("_")[0] != gone for joint in COCO.joints]
        assert len(rows) == 6
        assert (rows.bool().numpy() == expected).all()


def test_joints_are_matched_by_name_across_skeletons(tmp_path):
    write_set(tmp_path / "full")
    write_set(tmp_path / "crowd", skeleton=CROWDPOSE)
    write_set(tmp_path / "mpii", skeleton=MPII)
    train = (
        "[{TRAIN: full/train.json}, {TRAIN: crowd/train.json, SKELETON: crowdpose}, "
        "{TRAIN: mpii/train.json, SKELETON: mpii}]"
    )
    dataset = build_dataset(read_config(tmp_path, train), "train")
    assert dataset.skeleton == COCO
    crowd, mpii = dataset.parts[1:]
    for part, own in ((crowd, CROWDPOSE), (mpii, MPII)):
        mapped, source = part.sample(0).poses, part.dataset.sample(0).poses
        for joint, name in enumerate(COCO.joints):
            if name in own.joints:
                assert (mapped.xy[:, joint] == source.xy[:, own.index(name)]).all()
                assert (mapped.visibility[:, joint] == 2).all()
            else:
                assert (mapped.visibility[:, joint] == 0).all()
        assert part.sample(0).annotated.sum() == 12
        assert any("nose, left_eye" in str(finding) for finding in part.findings)
    assert any("not trained: head, neck" in str(finding) for finding in crowd.findings)
    parts = ("thorax", "abdomen")
    insect = Skeleton("insect", parts, (), (0.05, 0.05), parts, ())
    write_set(tmp_path / "insects", skeleton=insect)
    (tmp_path / "insect.yaml").write_text(yaml.safe_dump(insect.to_dict()))
    train = "[full/train.json, {TRAIN: insects/train.json, SKELETON: %s}]"
    with pytest.raises(UserError, match=r"'insect' has no joint of skeleton 'coco'.*thorax, abd"):
        build_dataset(read_config(tmp_path, train % (tmp_path / "insect.yaml")), "train")


def test_shares_decide_an_epochs_views():
    class Sized:
        skeleton = COCO

        def __init__(self, count):
            self.count = count

        def __len__(self):
            return self.count

    parts = [Sized(60), Sized(10), Sized(400)]

    def views(*shares):
        return compute_quotas(ConcatDataset(parts, shares), np.arange(470))

    assert views() == views(0, 0, 0) == []
    assert views(0, 0.25, 0.25) == [Quota(60, 60), Quota(10, 30), Quota(400, 30)]
    assert views(0.5, 0.25, 0.25) == [Quota(60, 235), Quota(10, 118), Quota(400, 118)]
    # People are counted, not images: the first two images have three each.
    people = compute_quotas(
        ConcatDataset([Sized(2), Sized(2)], [0, 0.5]), np.array([0, 0, 0, 1, 1, 1, 2, 3])
    )
    assert people == [Quota(6, 6), Quota(2, 6)]

    quotas = views(0, 0.25, 0.25)
    shown = draw_items(quotas, np.random.default_rng(0))
    assert len(shown) == 120
    assert sorted(key[0] for key in shown if key[0] < 60) == list(range(60))
    again = [key for key in shown if 60 <= key[0] < 70]
    assert sorted(again) == sorted(
        [(60 + i, *more) for i in range(10) for more in ((), (1,), (2,))]
    )
    rest = [key[0] for key in shown if key[0] >= 70]
    assert len(set(rest)) == 30
    assert shown != draw_items(quotas, np.random.default_rng(1))

    whole = ShuffledBatches(470, 12, 3, quotas=quotas)
    assert whole.steps == 10
    keys = [key for batch in whole for key in batch]
    assert sorted(key[1:] for key in keys) == sorted(
        draw_items(quotas, np.random.default_rng((3, 0)))
    )
    # However the batch is cut, all see the same together.
    halves = [ShuffledBatches(470, 12, 3, 1, process, 2, quotas) for process in (0, 1)]
    together = [one + two for one, two in zip(*halves, strict=True)]
    assert [key for batch in together for key in batch] == keys


def test_repetitions_within_an_epoch_are_other_views(folder):
    shared = TWO.replace("}", ", SHARE: 0.75}") % folder
    config = replace_batch(read_config(folder, shared), 24)
    batch, _, _ = first_targets(config)
    assert len(batch.ids) == 24
    images = batch.images.flatten(1)
    assert len({tuple(image.tolist()) for image in images}) == 24


def test_the_device_holds_several_sets(folder):
    expected = first_targets(replace_batch(read_config(folder, TWO % folder, WARP="device"), 12))
    kept = first_targets(replace_batch(read_config(folder, TWO % folder, CACHE="device"), 12))
    torch.testing.assert_close(kept[1], expected[1], rtol=0, atol=0)
    one, other = expected[0].images, kept[0].images
    assert torch.equal(one.shape, other.shape)
    pixels = kept_pixels(replace_batch(read_config(folder, TWO % folder, CACHE="device"), 12))
    for row in range(12):
        size = int(one.shape[row].prod()) * 3
        mine = one.pixels[int(one.start[row]) :][:size]
        assert torch.equal(mine, pixels[int(other.start[row]) :][:size])


def kept_pixels(config):
    skeleton = find_skeleton(config)
    codec = build_codec(config, build_model(config, 17), skeleton)
    return build_loader(config, build_dataset(config, "train"), codec, torch.device("cpu"))[
        1
    ].pixels


def test_lists_of_sets_are_read_checked_and_written(folder):
    config = read_config(folder, TWO % folder)
    assert parse_config(to_yaml(config)) == config
    first, second = config.DATASET.train_sets
    assert (str(folder), "full/train.json") == (first.ROOT, first.TRAIN)
    assert (f"{folder}/faceless", "coco") == (second.ROOT, second.SKELETON)
    assert isinstance(parse_config("").DATASET.TRAIN, str)
    for train, problem in (
        ("[]", "must name the split"),
        ("[{ROOT: x}]", "must name the split"),
        ("[a, {TRAIN: b, SHARE: 1}]", "shares of 1 leave nothing"),
        ("[{TRAIN: a, SHARE: 0.5}, {TRAIN: b, SHARE: 0.2}]", "sum up to 0.7, not to 1"),
        ("[a, {TRAIN: b, SHARED: 1}]", r"'DATASET.TRAIN\[1\]' has no 'SHARED', only TRAIN, ROOT"),
        ("[a, {TRAIN: b, SHARE: 2}]", r"'DATASET.TRAIN\[1\].SHARE' must be in 0..1, not 2"),
        ("[a, 7.5, [b]]", r"'DATASET.TRAIN\[2\].TRAIN' must be a str"),
    ):
        with pytest.raises(UserError, match=problem):
            read_config(folder, train)
    with pytest.raises(UserError, match="synthetic takes no list"):
        read_config(folder, "[a, b]", DATASET="synthetic")


def test_train_and_check_tell_what_is_left_out(folder, capsys):
    file = folder / "config.yaml"
    file.write_text(to_yaml(read_config(folder, TWO % folder, SYNTHETIC_IMAGES=2)))
    assert main(["train", str(file), "--output", str(folder / "run"), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "5 joints are not annotated in this set: nose, left_eye" in said
    assert "they are left out of its loss" in said
    assert main(["data", "check", str(file), "--output", str(folder / "check")]) == 0
    out = capsys.readouterr().out
    assert "5 joints are not annotated in this set" in out
    assert (folder / "check" / "check_train_2.jpg").is_file()
    assert main(["data", "stats", str(file)]) == 0
    assert capsys.readouterr().out.count("train: 6 images") == 2


@needs_shared
@pytest.mark.data
def test_real_sets_train_together(tmp_path):
    config = parse_config(
        f"""
        MODEL: {OWN["bottom-up"][0]}
        DATASET:
          ROOT: {SHARED}/coco_mini
          INPUT_SIZE: 64
          TEST: val_mini
          TEST_LIMIT: 2
          TRAIN_LIMIT: 20
          TRAIN:
            - train_mini
            - {{ROOT: {SHARED}/coco_more, TRAIN: train_more}}
            - {{ROOT: {SHARED}/crowdpose_mini, TRAIN: train, SKELETON: crowdpose, SHARE: 0.2}}
            - {{ROOT: {SHARED}/samples/mpii, TRAIN: test_mpii.json, SKELETON: mpii, SHARE: 0.1}}
        TRAIN: {{END_EPOCH: 1, BATCH_SIZE: 8, WORKERS: 1, PRECISION: fp32}}
        """
    )
    dataset = build_dataset(config, "train")
    assert [len(part) for part in dataset.parts] == [20, 20, 20, 5]
    quotas = compute_quotas(dataset, np.arange(len(dataset)))
    assert [quota.views for quota in quotas] == [20, 20, 11, 6]
    file = tmp_path / "c.yaml"
    file.write_text(to_yaml(config))
    assert main(["train", str(file), "--output", str(tmp_path / "o"), "--device", "cpu"]) == 0
    record = json.loads((tmp_path / "o" / "log.jsonl").read_text().splitlines()[-1])
    assert np.isfinite(record["heatmap/4"])
