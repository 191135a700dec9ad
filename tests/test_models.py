"""Networks: official names, golden forward passes, heads by settings, and weights in files."""

import zlib

import numpy as np
import pytest
import torch

from higherhrnet import load
from higherhrnet.cli import main
from higherhrnet.config import parse_config, to_yaml
from higherhrnet.errors import UserError
from higherhrnet.factory.checkpoints import config_of
from higherhrnet.methods.bottom_up.predictor import BottomUpPredictor
from higherhrnet.models import state_dict as layouts
from higherhrnet.models import weights
from higherhrnet.models.classifier import Classifier
from higherhrnet.models.detector import FeaturePyramid
from higherhrnet.models.higher_hrnet import HigherHRNet
from higherhrnet.models.hrnet import HRNet, concatenate_resolutions
from higherhrnet.models.model_zoo import find_weights
from higherhrnet.models.normalization import normalize
from higherhrnet.models.pose_hrnet import PoseHRNet
from higherhrnet.outputs import Head
from higherhrnet.skeleton import COCO, load_skeleton
from tests.build import build_model

from .shared import ROOT, SHARED, golden_arrays, golden_json

NETWORKS = {
    "higher_hrnet_w32_coco": lambda: HigherHRNet(17, 32),
    "higher_hrnet_w48_coco": lambda: HigherHRNet(17, 48),
    "higher_hrnet_w32_crowdpose": lambda: HigherHRNet(14, 32),
    "pose_hrnet_w32_coco": lambda: PoseHRNet(17, 32),
    "pose_hrnet_w48_coco": lambda: PoseHRNet(17, 48),
    "pose_hrnet_w32_mpii": lambda: PoseHRNet(16, 32),
    "cls_hrnet_w18": lambda: Classifier(18),
    "cls_hrnet_w32": lambda: Classifier(32),
    "cls_hrnet_w48": lambda: Classifier(48),
}
TRUNK = SHARED / "weights" / "hrnet_w18_trunk.safetensors"


def tiny():
    return HigherHRNet(17, 4, num_modules=(1, 1, 1), num_blocks=1, num_basic_blocks=1)


def golden_state(model):
    """The weights that the golden forward passes were computed with."""
    state = {}
    for key, tensor in model.state_dict().items():
        rng = np.random.RandomState(zlib.crc32(key.encode()))
        shape = tuple(tensor.shape)
        if tensor.ndim > 1:
            values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif key.endswith("num_batches_tracked"):
            values = np.zeros(shape)
        elif key.endswith("running_mean"):
            values = 0.05 * rng.standard_normal(shape)
        elif key.endswith("running_var"):
            values = rng.uniform(0.5, 1.5, shape)
        elif key.endswith("bias"):
            values = 0.1 * rng.standard_normal(shape)
        else:
            values = rng.uniform(0.3, 0.6, shape)
        state[key] = torch.tensor(values, dtype=tensor.dtype)
    return state


@pytest.mark.parametrize("name", NETWORKS)
def test_names_shapes_and_parameter_counts(name):
    with torch.device("meta"):
        model = NETWORKS[name]()
    expected = golden_json("state_dict_keys.json")[name]
    assert [[k, list(t.shape)] for k, t in model.state_dict().items()] == expected["entries"]
    assert sum(p.numel() for p in model.parameters()) == expected["num_parameters"]


def test_w32_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = HigherHRNet(17, 32)
    assert sum(p.numel() for p in model.parameters()) == 28_645_331


@pytest.mark.parametrize("name", ["higher_hrnet_w32", "pose_hrnet_w32", "cls_hrnet_w32"])
def test_forward(name):
    arrays = {
        k.removeprefix(f"{name}/"): v
        for k, v in golden_arrays("forward.npz").items()
        if k.startswith(name)
    }
    model = NETWORKS[name if name in NETWORKS else f"{name}_coco"]().eval()
    model.load_state_dict(golden_state(model))
    inner = {}
    for part in ("layer1", "stage2", "stage3", "stage4.1", "stage4"):
        model.get_submodule(part).register_forward_hook(
            lambda m, i, out, part=part: inner.update({part.replace(".", "_"): out})
        )
    with torch.no_grad():
        out = model(torch.from_numpy(arrays["input"]))
    if name == "cls_hrnet_w32":
        answers = {"out": out}
    else:
        joined = [torch.cat(pair, 1) for pair in zip(out.heatmaps, out.tags, strict=True)]
        answers = (
            {"out": joined[0]} if len(joined) == 1 else {f"out{i}": o for i, o in enumerate(joined)}
        )
    for part, maps in inner.items():
        maps = [maps] if isinstance(maps, torch.Tensor) else maps
        answers |= {f"{part}_{i}": m for i, m in enumerate(maps)}
    compared = [k for k in arrays if k in answers]
    assert any(k.startswith("out") for k in compared)
    for key in compared:
        np.testing.assert_allclose(answers[key], arrays[key], atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "heads"),
    [
        ({"tag_heads": (True,)}, (Head(4, 17),)),
        ({"tag_heads": (True, False)}, (Head(4, 17), Head(2))),
        ({"tag_heads": (True, True)}, (Head(4, 17), Head(2, 17))),
        ({"tag_heads": (True, False, False)}, (Head(4, 17), Head(2), Head(1))),
        ({"tag_per_joint": False}, (Head(4, 1), Head(2))),
        ({"cat_output": False, "num_basic_blocks": 0}, (Head(4, 17), Head(2))),
    ],
)
def test_heads_are_settings(settings, heads):
    model = HigherHRNet(17, 4, num_modules=(1, 1, 1), num_blocks=1, **settings).eval()
    assert model.heads == heads
    outputs = model(torch.zeros(1, 3, 64, 96))
    for head, heatmaps, tags in zip(heads, outputs.heatmaps, outputs.tags, strict=True):
        assert heatmaps.shape == (1, 17, 64 // head.stride, 96 // head.stride)
        assert tags.shape == (1, head.tags, 64 // head.stride, 96 // head.stride)
    found = layouts.infer_architecture(model.state_dict())
    assert found.joints == 17
    assert found.tag_heads == tuple(head.tags > 0 for head in heads)
    assert found.tag_per_joint == settings.get("tag_per_joint", True)
    if len(heads) > 1:
        assert found.cat_output == settings.get("cat_output", True)
        assert found.num_basic_blocks == settings.get("num_basic_blocks", 4)


def test_multi_resolution_outputs():
    model = HRNet(8, num_modules=(1, 1, 1), num_blocks=1, outputs=4)
    features = model(torch.zeros(1, 3, 64, 64))
    assert [f.shape[1:] for f in features] == [(8, 16, 16), (16, 8, 8), (32, 4, 4), (64, 2, 2)]
    assert concatenate_resolutions(features).shape == (1, 120, 16, 16)
    pyramid = FeaturePyramid(120, 16, 4)
    assert [level.shape[1:] for level in pyramid(features)] == [(16, s, s) for s in (16, 8, 4, 2)]


def test_pixels_must_be_bytes():
    white = normalize(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    torch.testing.assert_close(
        white[0, :, 0, 0],
        (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225]),
    )
    with pytest.raises(TypeError, match="uint8"):
        normalize(torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize(
    ("rename", "container"),
    [
        (lambda k: k, None),
        (lambda k: f"module.{k}", "state_dict"),
        (lambda k: f"1.{k}", None),
        (
            lambda k: (
                f"keypoint_head.{k}" if k.startswith(("final", "deconv")) else f"backbone.{k}"
            ),
            "state_dict",
        ),
        (
            lambda k: (
                f"module.head.{k}" if k.startswith(("final", "deconv")) else f"module.backbone.{k}"
            ),
            "state_dict",
        ),
    ],
    ids=["official", "data_parallel", "half_wrapper", "mmpose0", "mmpose1"],
)
def test_foreign_layouts_load(tmp_path, rename, container):
    source, target = tiny(), tiny()
    state = {rename(k): v for k, v in source.state_dict().items()}
    file = tmp_path / "foreign.pth"
    torch.save({container: state, "epoch": 3} if container else state, file)
    report = weights.load_weights(target, weights.read_checkpoint(file))
    assert report.matched == len(state)
    assert not report.missing
    for key, tensor in source.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[key])


def test_mmposes_network_with_tags_at_a_quarter_loads(tmp_path):
    """Its only head is called as a top-down one's is, and has twice as many maps."""
    source = HigherHRNet(17, 4, num_modules=(1, 1, 1), num_blocks=1, tag_heads=(True,))
    state = {
        k.replace("final_layers.0.", "keypoint_head.final_layer.")
        if k.startswith("final")
        else f"backbone.{k}": v
        for k, v in source.state_dict().items()
    }
    torch.save({"state_dict": state}, tmp_path / "ae.pth")
    ready = load(tmp_path / "ae.pth", "cpu")
    assert isinstance(ready, BottomUpPredictor)
    assert len(ready.skeleton) == 17
    for key, tensor in source.state_dict().items():
        assert torch.equal(tensor, ready.engine.model.state_dict()[key])


def test_what_is_known_of_a_published_file_goes_with_it(tmp_path):
    """By its name, wherever it lies, and into what is made of it."""
    file = tmp_path / "pose_higher_hrnet_w32_640.pth"
    weights.write_official(file, tiny().state_dict())
    assert load(file, "cpu").augmentation.input_size == 640
    assert main(["weights", "convert", str(file), str(tmp_path / "a.safetensors")]) == 0
    assert load(tmp_path / "a.safetensors", "cpu").augmentation.input_size == 640


def test_the_mean_of_checkpoints(tmp_path, capsys):
    networks = [tiny(), tiny()]
    for name, network in zip("ab", networks, strict=True):
        file = tmp_path / f"{name}.safetensors"
        settings = to_yaml(
            parse_config(
                "MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, NUM_BASIC_BLOCKS: 1}"
            )
        )
        weights.write_native(
            file, network.state_dict(), settings, COCO, operating_point={"person": 0.5}
        )
    words = [str(tmp_path / f"{name}.safetensors") for name in "abc"]
    assert main(["weights", "average", *words]) == 0
    mean = weights.read_checkpoint(words[2])
    assert mean.operating_point is None
    other_file = tmp_path / "d.safetensors"
    varied = settings.replace("UPSAMPLE_MODE: nearest", "UPSAMPLE_MODE: bilinear")
    weights.write_native(other_file, networks[0].state_dict(), varied, COCO)
    mixed = ["weights", "average", words[0], str(other_file), str(tmp_path / "e.safetensors")]
    assert main(mixed) == 2
    one, other = (network.state_dict() for network in networks)
    for name in ("conv1.weight", "bn1.running_var"):
        torch.testing.assert_close(mean.state[name], (one[name] + other[name]) / 2)
    assert isinstance(load(words[2], "cpu"), BottomUpPredictor)
    weights.write_official(
        tmp_path / "d.pth", HigherHRNet(17, 4, num_modules=(1, 1, 1)).state_dict()
    )
    other_file, mean_file = str(tmp_path / "d.pth"), str(tmp_path / "e.safetensors")
    assert main(["weights", "average", words[0], other_file, mean_file]) == 2
    assert "is of another network than" in capsys.readouterr().err


def test_joints_of_ones_own_are_named_when_converting(tmp_path, capsys):
    skeleton = ROOT / "configs" / "skeletons" / "atrw.yaml"
    file = tmp_path / "tigers.pth"
    network = HigherHRNet(15, 4, num_modules=(1, 1, 1), num_blocks=1, num_basic_blocks=1)
    weights.write_official(file, network.state_dict())
    command = ["weights", "convert", str(file), str(tmp_path / "tigers.safetensors")]
    assert main(command) == 2
    assert "give one with DATASET.SKELETON" in capsys.readouterr().err
    assert main([*command, "DATASET.SKELETON", str(skeleton)]) == 0
    assert main(["weights", "inspect", str(file), "DATASET.SKELETON", str(skeleton)]) == 0
    assert weights.read_checkpoint(tmp_path / "tigers.safetensors").skeleton.name == "atrw"


def test_weights_of_another_skeleton_are_not_scored(tmp_path):
    """COCO and AP-10K both have 17 joints."""
    file = tmp_path / "animals.safetensors"
    animals = load_skeleton(str(ROOT / "configs" / "skeletons" / "ap10k.yaml"))
    weights.write_native(file, tiny().state_dict(), to_yaml(parse_config("")), animals)
    with pytest.raises(UserError, match="skeleton 'ap10k', not those of 'coco'"):
        weights.load_weights(tiny(), weights.read_checkpoint(file), COCO)


def test_native_files_carry_config_and_skeleton(tmp_path):
    config = parse_config(
        "MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1}\nDATASET: {INPUT_SIZE: 128}"
    )
    model = build_model(config, 17)
    file = tmp_path / "mine.safetensors"
    weights.write_native(file, model.state_dict(), to_yaml(config), COCO, half=True)
    read = weights.read_checkpoint(file)
    assert config_of(read) == config
    assert read.skeleton == COCO
    assert {t.dtype for t in read.state.values() if t.is_floating_point()} == {torch.float16}
    predictor = load(file, "cpu")
    assert predictor.augmentation.input_size == 128
    assert next(predictor.engine.model.parameters()).dtype == torch.float32


def test_official_file_needs_no_config(tmp_path):
    file = tmp_path / "official.pth"
    weights.write_official(file, tiny().state_dict())
    predictor = load(file, "cpu", ["DATASET.INPUT_SIZE", "64", "TEST.FLIP_TEST", "False"])
    poses = predictor(np.zeros((50, 70, 3), np.uint8))
    assert poses.xy.shape[1:] == (17, 2)
    back = weights.read_checkpoint(file)
    assert all(
        torch.equal(t, predictor.engine.model.state_dict()[k]) for k, t in back.state.items()
    )


@pytest.mark.parametrize("other", ["pose", "wider", "joints"])
def test_a_checkpoint_of_another_model_is_refused(tmp_path, other):
    settings = {"num_modules": (1, 1, 1), "num_blocks": 1}
    model = {
        "pose": PoseHRNet(17, 4, **settings),
        "wider": HigherHRNet(17, 8, num_basic_blocks=1, **settings),
        "joints": HigherHRNet(14, 4, num_basic_blocks=1, **settings),
    }[other]
    file = tmp_path / "other.pth"
    weights.write_official(file, model.state_dict())
    target = tiny()
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(
        UserError, match=r"other\.pth' is a checkpoint of another model: \d+ tensors"
    ):
        weights.load_weights(target, weights.read_checkpoint(file))
    assert all(torch.equal(v, target.state_dict()[k]) for k, v in before.items())


def test_a_trunk_alone_starts_training_but_does_not_predict(tmp_path):
    state = {k: v for k, v in tiny().state_dict().items() if not k.startswith(("final", "deconv"))}
    file = tmp_path / "trunk.pth"
    weights.write_official(file, state)
    report = weights.load_backbone(tiny(), weights.read_checkpoint(file))
    assert report.matched == len(state)
    assert all(name.startswith(("final", "deconv")) for name in report.missing)
    with pytest.raises(UserError, match="another model: it holds a trunk of width 4"):
        load(file, "cpu")
    with pytest.raises(UserError, match="does not hold the backbone"):
        weights.load_backbone(
            HigherHRNet(17, 8, num_modules=(1, 1, 1), num_blocks=1), weights.read_checkpoint(file)
        )


def test_imagenet_classifier_starts_training(tmp_path):
    file = tmp_path / "imagenet.pth"
    weights.write_official(file, Classifier(4, classes=5).state_dict())
    report = weights.load_backbone(HigherHRNet(17, 4), weights.read_checkpoint(file))
    assert any(name.startswith("classifier") for name in report.unexpected)
    assert all(name.startswith(("final_layers", "deconv")) for name in report.missing)


@pytest.mark.parametrize("content", [b"", b"not weights", b"broken", b"PK\x03\x04 broken zip"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_unreadable_files_get_a_sentence(tmp_path, content, suffix):
    file = tmp_path / f"broken{suffix}"
    file.write_bytes(content)
    with pytest.raises(UserError, match="is not a readable weights file"):
        weights.read_checkpoint(file)


def test_a_file_without_tensors_and_a_missing_one(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match="holds no tensors"):
        weights.read_checkpoint(tmp_path / "empty.pth")
    with pytest.raises(UserError, match="does not exist"):
        weights.read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(UserError, match="neither a bundled checkpoint"):
        find_weights("no_such_name")


@pytest.mark.data
def test_the_real_trunk_fits_w18():
    report = weights.load_backbone(
        build_model(parse_config("MODEL: {WIDTH: 18}"), 17), weights.read_checkpoint(TRUNK)
    )
    assert report.matched == 1460
    assert all(name.startswith(("final", "deconv")) for name in report.missing)
    assert all(name.startswith("stage4.2.fuse_layers.") for name in report.unexpected)
    with pytest.raises(UserError, match="does not hold the backbone"):
        weights.load_backbone(build_model(parse_config(""), 17), weights.read_checkpoint(TRUNK))


def test_bundled_checkpoint_is_whole():
    file = weights.read_checkpoint(find_weights("higherhrnet_w18_mini"))
    model = build_model(config_of(file), 17)
    assert not weights.compare_state(model, file.state).missing
    assert file.skeleton == COCO
    assert 9.3e6 < sum(p.numel() for p in model.parameters()) < 9.4e6
