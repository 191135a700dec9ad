"""The house keeps its shape: imports go downward, configs load, the README runs."""

import ast
import os
import re
import shlex
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from higherhrnet.config import default_config, parse_config, read_config, to_yaml
from higherhrnet.datasets.toy import DrawnPeople
from higherhrnet.datasets.walkers import DrawnVideo
from higherhrnet.errors import UserError
from higherhrnet.inference.video_writer import VideoWriter
from higherhrnet.show import save
from higherhrnet.skeleton import load_skeleton

from .shared import ROOT, SHARED

PACKAGE = ROOT / "higherhrnet"
# Top floor first. A room imports from floors below its own, or from within itself.
FLOORS = (
    ("__main__",),
    ("cli", "__init__"),
    ("ablation",),
    ("bench",),
    ("build",),
    ("inference", "training", "validation"),
    ("models", "codecs", "losses", "show", "datasets", "evaluation"),
    ("fields", "boxes"),
    ("poses",),
    ("drawing",),
    ("skeleton", "geometry", "files", "fetch", "constants"),
    ("strict_yaml",),
    ("errors",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def imports_of(path: Path) -> set[str]:
    """Rooms of the package that a file imports, lazily or not."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = parts[: len(parts) - node.level]
                full = [*base, *(node.module.split(".") if node.module else [])]
                rooms |= {full[0]} if full else {alias.name for alias in node.names}
            elif node.module and node.module.startswith("higherhrnet"):
                rooms.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            rooms |= {a.name for a in node.names if a.name.startswith("higherhrnet")}
    return rooms


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_imports_go_downward(path):
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for other in imports_of(path) - {room, "__version__"}:
        if other == "config":
            allowed = room in {"build", "cli"}
        elif room == "config":
            allowed = other in {"strict_yaml", "errors"}
        else:
            allowed = FLOOR[other] > FLOOR[room]
        assert allowed, f"{path.relative_to(ROOT)} imports {other}, which is not below {room}"


def test_every_room_has_a_floor():
    rooms = {
        p.stem if p.is_file() else p.name for p in PACKAGE.iterdir() if p.suffix in {"", ".py"}
    }
    assert rooms - {"__pycache__", "config", "weights", "assets"} == set(FLOOR)


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
    for word in ("AP", " et al. 20", "Hours"):
        assert word in " ".join(head)
    assert any(line.startswith("# higherhrnet train configs/") for line in head)
    assert str(path.relative_to(ROOT)) in " ".join(head)


def test_every_config_and_plan_is_listed():
    listed = (ROOT / "configs" / "README.md").read_text()
    for path in (ROOT / "configs").rglob("*.yaml"):
        name = re.sub(r"w(18|32|48)\.yaml", "w{18,32,48}.yaml", path.name)
        assert path.parent.name == "skeletons" or name in listed or path.name in listed, path


def test_defaults_are_valid():
    assert parse_config("") == default_config()


@pytest.mark.parametrize(
    ("text", "overrides", "sentence"),
    [
        (
            "TRIAN: {EPOCHS: 3}",
            [],
            "unknown config key 'TRIAN.EPOCHS'.*did you mean 'TRAIN.EPOCHS'",
        ),
        ("", ["TEST.FLIPP", "True"], "unknown config key 'TEST.FLIPP'"),
        ("", ["TEST.FLIP"], "'TEST.FLIP' has no value"),
        ("", ["TEST.FLIP", "maybe"], "'TEST.FLIP' must be a bool"),
        ("", ["TRAIN.EPOCHS", "0"], "'TRAIN.EPOCHS' must be at least 1"),
        ("", ["DATASET.INPUT_SIZE", "500"], "'DATASET.INPUT_SIZE' must be a multiple of 64"),
        (
            "",
            ["TEST.ASSIGNMENT", "greedy"],
            "'TEST.ASSIGNMENT' must be one of munkres, strongest",
        ),
        ("", ["TEST.SCALES", "[0]"], "'TEST.SCALES' must list scales in"),
        ("", ["TEST.SCALES", "[1e-9]"], "'TEST.SCALES' must list scales in"),
        ("", ["TRAIN.RATE", "9" * 400], "'TRAIN.RATE' must be a finite number"),
        ("", ["TEST.FLIP", "2020-13-45"], "'TEST.FLIP': '2020-13-45' is not valid YAML"),
        ("MODEL: &a {X: *a}", [], "refers to itself"),
        ("", ["MODEL.WIDTH", "999999"], "'MODEL.WIDTH' must be in 1..1024"),
        ("", ["MODEL.MODULES", "[1, 1, 100000]"], "'MODEL.MODULES' must be three counts"),
        ("", ["LOSS.HEATMAP", "[0, 0]"], "'LOSS.HEATMAP' must be factors from 0, not all 0"),
        ("", ["LOSS.JOINTS", "[0, 0]"], "'LOSS.JOINTS' must be factors from 0, not all 0"),
        ("", ["TRAIN.MILESTONES", "[-1]"], "'TRAIN.MILESTONES' lists epochs"),
        (
            "{MODEL: {NAME: classifier}, DATASET: {KIND: folder}}",
            ["DATASET.TRAIN_LIMIT", "4"],
            "'DATASET.TRAIN_LIMIT' is not for folders of classes",
        ),
        ("", ["TEST.THRESHOLD", "-1"], "'TEST.THRESHOLD' must be at least 0"),
        ("", ["MODEL.TAG_HEADS", "[false]"], "'MODEL.TAG_HEADS' must name at least one head"),
        ("", ["TRAIN.RATE", "fast"], "'TRAIN.RATE' must be a finite number, not 'fast'"),
        ("", ["TRAIN.RATE", ".nan"], "'TRAIN.RATE' must be a finite number"),
        ("", ["TEST.SCALES", "{1: ["], "'TEST.SCALES': .* is not valid YAML"),
        ("TEST:\n  FLIP: true\n  FLIP: false", [], "not valid YAML: 'FLIP' stands twice in line 3"),
        ("TEST: {FLIP: true}\nTEST.FLIP: false", [], "'TEST.FLIP' stands twice in 'config'"),
        ("", ["TEST.FLIP", "!!bool foo"], "'TEST.FLIP': '!!bool foo' is not valid YAML"),
        ("", ["TEST.FLIP", "!!timestamp foo"], "'TEST.FLIP': '!!timestamp foo' is not valid"),
        ("", ["MODEL.MODULES", "[1, 4]"], "'MODEL.MODULES' must be three counts"),
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
    assert parse_config("", ["TEST.SCALES", "[1, 2]"]).TEST.SCALES == [1.0, 2.0]
    assert parse_config("", ["TEST.SCALES", [1, 2], "TEST.FLIP", False]).TEST.FLIP is False
    assert parse_config("", ["TRAIN.RATE", "1e-4"]).TRAIN.RATE == 0.0001
    assert parse_config("TEST:") == parse_config("")  # nothing stands below it
    assert parse_config("", ["DATASET.TRAIN", "2017"]).DATASET.TRAIN == "2017"


def readme_blocks(language):
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def stand_in(line: str) -> list[str] | None:
    """A README command made small enough to run here; None if another test runs it whole."""
    words = shlex.split(line, comments=True)
    if not words or words[0] in {"make", "docker", "git", "pip", "python", "export", "torchrun"}:
        return None
    if words[1] == "ablate":  # minutes even in small: test_ablation.py runs the command whole
        return None
    return [sys.executable, "-m", *words]


@pytest.mark.data
def test_readme_commands(tmp_path):
    """Every `higherhrnet` line of the README's shell blocks runs, training ones made short."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    photos = SHARED / "coco_mini" / "images" / "val_mini"
    (tmp_path / "photo.jpg").write_bytes(sorted(photos.iterdir())[0].read_bytes())
    film = DrawnVideo(2, seconds=0.2, size=64)
    with VideoWriter(tmp_path / "film.mp4", Fraction(film.rate)) as writer:
        for moment in film:
            writer.add(moment.image, moment.time)
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(sorted(photos.iterdir())[1].read_bytes())
    short = ["DATASET.TRAIN_LIMIT", "4", "DATASET.TEST_LIMIT", "2", "TRAIN.BATCH", "2"]
    short += ["TRAIN.EPOCHS", "1", "TRAIN.WORKERS", "0", "TRAIN.WARMUP", "0"]
    ran = 0
    for block in readme_blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            command = stand_in(line)
            if command is None:
                continue
            if command[3] in {"train", "valid"}:
                command += short
            environment = {**os.environ, "HIGHERHRNET_SHARED": str(SHARED), "PYTHONPATH": str(ROOT)}
            done = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            ran += 1
    assert ran >= 6


def test_readme_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "photo.jpg", DrawnPeople(1).drawing(0).image)
    blocks = readme_blocks("python")
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_readme_set_up_is_the_makefile():
    commands = " ".join(readme_blocks("bash"))
    assert "make demo" in commands
    assert "make test" in commands
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {"demo", "test", "lint"} <= set(targets)
