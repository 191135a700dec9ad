"""Configs: they load, mistakes get a sentence, former and official ones are translated."""

import json
import logging
import re

import pytest
import yaml

from higherhrnet import load
from higherhrnet.cli import main
from higherhrnet.config import override_config, parse_config, read_config, to_yaml
from higherhrnet.config.reference import render_reference
from higherhrnet.errors import UserError
from higherhrnet.skeleton import load_skeleton

from .shared import ROOT

CONFIGS = [
    p
    for p in sorted((ROOT / "configs").rglob("*.yaml"))
    if p.parent.name not in ("skeletons", "ablation")
]


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "skeletons").iterdir()))
def test_skeleton_files_load(path):
    assert load_skeleton(str(path)).name == path.stem


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config_loads_and_says_what_it_is(path):
    config = read_config(path)
    assert parse_config(to_yaml(config)) == config
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert len(head) >= 3
    metric = {"segmentation": "IoU"}.get(config.method, "AP")
    for word in (metric, " et al. 20", "Hours"):
        assert word in " ".join(head)
    assert any(line.startswith("# higherhrnet train configs/") for line in head)
    assert str(path.relative_to(ROOT)) in " ".join(head)


def test_every_config_and_plan_is_listed():
    listed = (ROOT / "configs" / "README.md").read_text()
    for path in (ROOT / "configs").rglob("*.yaml"):
        name = re.sub(r"w(18|32|48)\.yaml", "w{18,32,48}.yaml", path.name)
        assert path.parent.name == "skeletons" or name in listed or path.name in listed, path


def test_defaults_are_valid():
    assert parse_config(to_yaml(parse_config(""))) == parse_config("")


@pytest.mark.parametrize(
    ("text", "overrides", "sentence"),
    [
        (
            "TRIAN: {END_EPOCH: 3}",
            [],
            "unknown config key 'TRIAN.END_EPOCH'.*did you mean 'TRAIN.END_EPOCH'",
        ),
        ("", ["TEST.FLIPP", "True"], "unknown config key 'TEST.FLIPP'"),
        ("", ["TEST.FLIP_TEST"], "'TEST.FLIP_TEST' has no value"),
        ("", ["TEST.FLIP_TEST", "maybe"], "'TEST.FLIP_TEST' must be a bool"),
        ("", ["TRAIN.END_EPOCH", "0"], "'TRAIN.END_EPOCH' must be at least 1"),
        ("", ["DATASET.INPUT_SIZE", "500"], "'DATASET.INPUT_SIZE' must be a multiple of 64"),
        (
            "",
            ["TEST.ASSIGNMENT", "greedy"],
            "'TEST.ASSIGNMENT' must be one of munkres, hungarian_score",
        ),
        ("", ["TEST.SCALE_FACTOR", "[0]"], "'TEST.SCALE_FACTOR' must be in 0.05..64"),
        ("", ["TEST.SCALE_FACTOR", "[1e-9]"], "'TEST.SCALE_FACTOR' must be in 0.05..64"),
        ("", ["TRAIN.LR", "9" * 400], "'TRAIN.LR' must be a finite number"),
        ("", ["TEST.FLIP_TEST", "2020-13-45"], "'TEST.FLIP_TEST': '2020-13-45' is not valid YAML"),
        ("MODEL: &a {X: *a}", [], "refers to itself"),
        ("", ["MODEL.WIDTH", "999999"], "'MODEL.WIDTH' must be in 1..1024"),
        ("", ["MODEL.NUM_MODULES", "[1, 1, 100000]"], "'MODEL.NUM_MODULES' must be in 1..64"),
        (
            "",
            ["LOSS.HEATMAPS_LOSS_FACTOR", "[0, 0]"],
            "'LOSS.HEATMAPS_LOSS_FACTOR' leaves no output",
        ),
        (
            "MODEL: {NAME: pose_hrnet}",
            ["LOSS.JOINT_WEIGHTS", "[0, 0]"],
            "'LOSS.JOINT_WEIGHTS' must not be all 0",
        ),
        ("", ["TRAIN.LR_STEP", "[-1]"], "'TRAIN.LR_STEP' must be at least 0"),
        (
            "MODEL: {NAME: cls_hrnet}",
            ["DATASET.TRAIN_LIMIT", "4"],
            "'DATASET.TRAIN_LIMIT' in the overrides is for bottom-up models .* means nothing for",
        ),
        ("", ["TEST.DETECTION_THRESHOLD", "-1"], "'TEST.DETECTION_THRESHOLD' must be in 0..1"),
        ("", ["LOSS.WITH_AE_LOSS", "[false]"], "'LOSS.WITH_AE_LOSS' has one entry for each"),
        ("", ["TRAIN.LR", "fast"], "'TRAIN.LR' must be a finite number, not 'fast'"),
        ("", ["TRAIN.LR", ".nan"], "'TRAIN.LR' must be a finite number"),
        ("", ["TEST.SCALE_FACTOR", "{1: ["], "'TEST.SCALE_FACTOR': .* is not valid YAML"),
        (
            "TEST:\n  FLIP_TEST: true\n  FLIP_TEST: false",
            [],
            "not valid YAML: 'FLIP_TEST' appears twice in line 3",
        ),
        (
            "TEST: {FLIP_TEST: true}\nTEST.FLIP: false",
            [],
            "'TEST.FLIP_TEST' appears twice in 'config'",
        ),
        ("", ["TEST.FLIP_TEST", "!!bool foo"], "'TEST.FLIP_TEST': '!!bool foo' is not valid YAML"),
        (
            "",
            ["TEST.FLIP_TEST", "!!timestamp foo"],
            "'TEST.FLIP_TEST': '!!timestamp foo' is not valid",
        ),
        ("", ["MODEL.NUM_MODULES", "[1, 4]"], "'MODEL.NUM_MODULES' must be a list of 3"),
        ("", ["TRAIN.FREEZE", "[[1]]"], "'TRAIN.FREEZE' must be a str"),
        ("", ["DATASET.TRAIN_LIMIT", "-1"], "'DATASET.TRAIN_LIMIT' must be at least 0"),
        ("- a list", [], "not a mapping"),
        ("a: [", [], "not valid YAML"),
    ],
)
def test_wrong_configs_get_a_sentence(text, overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        parse_config(text, overrides)


def test_whole_numbers_serve_as_decimals():
    assert parse_config("", ["TEST.SCALE_FACTOR", "[1, 2]"]).TEST.SCALE_FACTOR == (1.0, 2.0)
    assert (
        parse_config("", ["TEST.SCALE_FACTOR", [1, 2], "TEST.FLIP_TEST", False]).TEST.FLIP_TEST
        is False
    )
    assert parse_config("", ["TRAIN.LR", "1e-4"]).TRAIN.LR == 0.0001
    assert parse_config("TEST:") == parse_config("")  # nothing stands below it
    assert parse_config("", ["DATASET.TRAIN", "2017"]).DATASET.TRAIN == "2017"


OTHERS = [
    ("pose_hrnet", "TEST.REFINE", "bottom-up"),
    ("pose_hrnet", "LOSS.PUSH_LOSS_FACTOR", "bottom-up"),
    ("pose_higher_hrnet", "TEST.OKS_THRE", "top-down"),
    ("cls_hrnet", "TEST.FLIP_TEST", "bottom-up"),
]


@pytest.mark.parametrize(("name", "key", "method"), OTHERS)
def test_a_key_of_another_method_is_refused(name, key, method):
    with pytest.raises(UserError, match=rf"'{key}' in .* is for {method} models .* means nothing"):
        parse_config(f"MODEL: {{NAME: {name}}}", [key, "1"])


def test_settings_of_the_other_method_are_refused_for_a_checkpoint():
    with pytest.raises(UserError, match=r"'TEST.REFINE' .* means nothing for top-down"):
        load("hrnet_w18_mini", overrides=["TEST.REFINE", False, "LOSS.PUSH", 5])


# Former names


FORMER = json.loads((ROOT / "tests" / "golden" / "former_schema.json").read_text())


@pytest.mark.parametrize("key", FORMER["values"])
def test_every_former_key_is_understood(key):
    """Its default, alone in a file of each model that had it, gives a valid config."""
    understood, refused = 0, []
    for model in ("higher_hrnet", "pose_hrnet", "classifier"):
        section, name = key.split(".")
        text = {"MODEL": {"NAME": model}}
        text.setdefault(section, {})[name] = model if key == "MODEL.NAME" else FORMER["values"][key]
        try:
            parse_config(yaml.safe_dump(text), quiet=True)
        except UserError as error:
            refused.append(str(error))
        else:
            understood += 1
    assert understood
    assert all("means nothing for" in sentence for sentence in refused)


@pytest.mark.parametrize("model", ["higher_hrnet", "pose_hrnet"])
def test_a_whole_former_config_gives_the_same_settings(model):
    tree = {}
    for key, value in FORMER["values"].items():
        section, name = key.split(".")
        tree.setdefault(section, {})[name] = value
    tree["MODEL"]["NAME"] = model
    tree["TRAIN"]["EPOCHS"], tree["TEST"]["BATCH"] = 7, 3
    config = parse_config(yaml.safe_dump(tree))
    assert (config.TRAIN.END_EPOCH, config.TEST.BATCH_SIZE) == (7, 3)
    assert parse_config(to_yaml(config)) == config


@pytest.mark.parametrize("name", ["higherhrnet_w18_mini", "hrnet_w18_mini"])
def test_configs_of_the_checkpoints_of_version_0_1_are_read(name):
    """As they were bundled with 0.1: (former key, its value there) → today's."""
    stored = FORMER["checkpoints"][name]
    config = parse_config(stored["config"], quiet=True)
    former = yaml.safe_load(stored["config"])
    assert former["TRAIN"]["EPOCHS"] == config.TRAIN.END_EPOCH
    assert former["TRAIN"]["RATE"] == config.TRAIN.LR
    assert former["MODEL"]["FUSION"] == config.MODEL.UPSAMPLE_MODE
    if name == "hrnet_w18_mini":
        assert tuple(former["DATASET"]["CROP"][::-1]) == config.MODEL.IMAGE_SIZE
        assert former["LOSS"]["SIGMA"] == config.MODEL.SIGMA
        assert former["TEST"]["SAME"] == config.TEST.OKS_THRE
    else:
        assert former["DATASET"]["SCALE"] == [config.DATASET.MIN_SCALE, config.DATASET.MAX_SCALE]
        assert former["LOSS"]["SIGMA"] == config.DATASET.SIGMA
        assert former["TEST"]["CANDIDATES"] == config.DATASET.MAX_NUM_PEOPLE
        assert (former["LOSS"]["PUSH"],) * 2 == config.LOSS.PUSH_LOSS_FACTOR


def test_what_was_translated_is_said(caplog):
    with caplog.at_level(logging.WARNING, "higherhrnet"):
        parse_config("TRAIN: {EPOCHS: 3, RATE: 0.1}", source="old.yaml")
    assert "former key names in 'old.yaml'" in caplog.text
    assert "TRAIN.RATE is now TRAIN.LR" in caplog.text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("DATASET: {SCALE: [0.5, 1.0, 9]}", "'DATASET.SCALE' .* cannot be"),
        ("{MODEL: {NAME: pose_hrnet}, DATASET: {SCALE: [0.8, 1.6]}}", "symmetric about 1"),
        ("MODEL: {SHARED_TAG: maybe}", "'MODEL.SHARED_TAG' .* cannot be 'maybe'"),
        ("TEST: {AGGREGATE: maybe}", "'TEST.AGGREGATE' .* cannot be 'maybe'"),
        ("MODEL: {NAME: [a]}", "'MODEL.NAME' must be one of"),
        ("TEST: {ASSIGNMENT: [a]}", "'TEST.ASSIGNMENT' must be a str"),
        ("{MODEL: {TAG_HEADS: yes please}, TEST: {AGGREGATE: false}}", "must be a list"),
        ("MODEL: {NAME: pose_hrnet, EXTRA: {A: 1}}", "not a complete official config"),
    ],
)
def test_wrong_former_settings_get_a_sentence(text, sentence):
    with pytest.raises(UserError, match=sentence):
        parse_config(text)


def test_former_numbers_may_be_text():
    config = parse_config("DATASET: {SHIFT: 1e-1, SCALE: ['0.6', '1.4']}")
    assert (config.DATASET.MAX_TRANSLATE, config.DATASET.MAX_SCALE) == (20.0, 1.4)


def test_former_and_new_name_together_are_refused():
    with pytest.raises(UserError, match=r"'TRAIN\.LR' appears twice"):
        parse_config("TRAIN: {LR: 0.1, RATE: 0.2}")


# Official files

OFFICIAL = sorted((ROOT / "tests" / "golden" / "official_configs").rglob("*.yaml"))


def our_config_of(path):
    """Our own config of that name, and the settings in which the official variant differs."""
    architecture, dataset = path.parts[-3:-1]
    name = path.stem.replace("_adam_lr1e-3", "")
    variant = {
        "_coco": ["MODEL.PRETRAINED", "official/higherhrnet_w32_512"],
        "_syncbn": ["TRAIN.BN_MODE", "sync"],
    }
    suffix = next((s for s in variant if name.endswith(s)), "")
    folder = dataset.replace("crowd_pose", "crowdpose")
    file = ROOT / "configs" / folder / f"{architecture}_{name.removesuffix(suffix)}.yaml"
    return override_config(read_config(file), variant.get(suffix, []))


@pytest.mark.parametrize("path", OFFICIAL, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_an_official_config_gives_the_settings_of_ours(path, caplog):
    with caplog.at_level(logging.WARNING, "higherhrnet"):
        config = read_config(path)
    assert config == our_config_of(path)
    assert len(caplog.records) == 1  # what has no counterpart is named, in one line
    assert "without a counterpart here: AUTO_RESUME, CUDNN.*" in caplog.text


def test_there_are_official_configs():
    assert len(OFFICIAL) == 14


def test_an_official_config_that_wants_something_else_is_refused(tmp_path):
    text = OFFICIAL[0].read_text().replace("BASE_LR", "BASE_LR")
    (tmp_path / "a.yaml").write_text(text.replace("SCALE_TYPE: 'short'", "SCALE_TYPE: 'long'"))
    with pytest.raises(UserError, match=r"DATASET\.SCALE_TYPE long is not supported, only short"):
        read_config(tmp_path / "a.yaml")


def test_training_of_an_official_config_can_be_planned(capsys):
    small = ["TRAIN.BATCH_SIZE", "2", "MODEL.WIDTH", "18"]
    assert main(["train", str(OFFICIAL[0]), "--plan", "--device", "cpu", *small]) == 0
    printed = capsys.readouterr()
    assert "GMAC" in printed.out
    assert "is an official config" in printed.err


# The command line


@pytest.mark.parametrize(
    "words",
    [["TRAIN.END_EPOCH", "0"], ["train.end_epoch", "0"], ["TRAIN.END_EPOCH=0"],
     ["TRAIN.EPOCHS", "0"], ["train.epochs", "0"], ["TRAIN.EPOCHS=0"]],
)  # fmt: skip
def test_ways_to_write_a_setting(words, capsys):
    assert main(["train", str(ROOT / "configs" / "synthetic.yaml"), *words]) == 2
    assert "'TRAIN.END_EPOCH' must be at least 1, not 0" in capsys.readouterr().err


def test_an_option_that_is_a_setting_is_answered(capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "a.yaml", "--epochs", "3"])
    assert left.value.code == 2
    assert "settings are written as TRAIN.END_EPOCH VALUE" in capsys.readouterr().err


def test_the_reference_page_is_current():
    """Else: python -m higherhrnet.config.reference > docs/config.md"""
    assert (ROOT / "docs" / "config.md").read_text() == render_reference()


def test_paths_are_relative_to_the_config_then_to_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "work" / "there").mkdir(parents=True)
    (tmp_path / "set" / "mouse.yaml").touch()
    config = tmp_path / "set" / "config.yaml"
    config.write_text(
        "DATASET: {ROOT: images, SKELETON: mouse.yaml, TRAIN: [{TRAIN: a.json, ROOT: .}, "
        "{TRAIN: b.json, ROOT: there}]}\nMODEL: {PRETRAINED: higherhrnet_w18_mini}\n"
    )
    monkeypatch.chdir(tmp_path / "work")
    read = read_config("../set/config.yaml")
    assert read.DATASET.ROOT == "../set/images"
    assert read.DATASET.SKELETON == "../set/mouse.yaml"
    assert [entry.ROOT for entry in read.DATASET.TRAIN] == ["../set", "there"]
    assert read.MODEL.PRETRAINED == "higherhrnet_w18_mini"
    # What is given beside the file is relative to the working folder.
    assert read_config(config, ["DATASET.ROOT", "images"]).DATASET.ROOT == "images"


def test_bundled_configs_by_name_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    expected = read_config(ROOT / "configs/coco/higherhrnet_w32_512.yaml")
    for name in ("coco/higherhrnet_w32_512", "configs/coco/higherhrnet_w32_512.yaml"):
        assert read_config(name) == expected
    tigers = read_config("atrw/hrnet_w32_256x256")
    assert load_skeleton(tigers.DATASET.SKELETON).name == "atrw"
    given = read_config("coco/hrnet_w32_256x192", ["DATASET.SKELETON", "skeletons/atrw.yaml"])
    assert load_skeleton(given.DATASET.SKELETON).name == "atrw"
    with pytest.raises(UserError, match="did you mean 'coco/higherhrnet_w32_512'"):
        read_config("coco/higherhrnet_w32_51")
    assert main(["configs", "list"]) == 0
    assert "coco/higherhrnet_w32_512 " in capsys.readouterr().out
    assert main(["configs", "copy", "atrw/hrnet_w32_256x256", "mine.yaml"]) == 0
    assert load_skeleton(read_config("mine.yaml").DATASET.SKELETON).name == "atrw"
    assert main(["configs", "copy", "atrw/hrnet_w32_256x256", "mine.yaml"]) == 2
    assert "'mine.yaml' exists already" in capsys.readouterr().err
    assert main(["configs", "show", "mine.yaml", "TRAIN.LR", "0.5"]) == 0
    assert "LR: 0.5" in capsys.readouterr().out
