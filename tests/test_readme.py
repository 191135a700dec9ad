"""What the README promises: its commands and its Python run."""

import os
import re
import shlex
import subprocess
import sys
from fractions import Fraction

import pytest

from higherhrnet.inference.video_writer import VideoWriter
from higherhrnet.research.synthetic.dataset import SyntheticPeople
from higherhrnet.research.synthetic.video import SyntheticVideo
from higherhrnet.visualization import save_image

from .shared import ROOT, SHARED


def readme_blocks(language):
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def stand_in(line: str) -> list[str] | None:
    """A README command made small enough to run here; None if another test runs it whole."""
    words = shlex.split(line, comments=True)
    if not words or words[0] in {"make", "docker", "git", "pip", "python", "export", "torchrun"}:
        return None
    if words[1] == "ablate" or words[1:3] == ["data", "prepare"] or "--gpus" in words:
        return None
    if words[1] == "serve" or "web" in words or "TEST.ENGINE" in words:
        return None  # test_serve.py, test_web.py, test_export.py
    return [sys.executable, "-m", *words]


@pytest.mark.data
def test_readme_commands(tmp_path):
    """Every `higherhrnet` line of the README's shell blocks runs, training ones made short."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    photos = SHARED / "coco_mini" / "images" / "val_mini"
    (tmp_path / "photo.jpg").write_bytes(sorted(photos.iterdir())[0].read_bytes())
    film = SyntheticVideo(2, seconds=0.2, size=64)
    with VideoWriter(tmp_path / "film.mp4", Fraction(film.rate)) as writer:
        for moment in film:
            writer.add(moment.image, moment.time)
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(sorted(photos.iterdir())[1].read_bytes())
    short = ["DATASET.TRAIN_LIMIT", "4", "DATASET.TEST_LIMIT", "2", "TRAIN.BATCH_SIZE", "2"]
    short += ["TRAIN.END_EPOCH", "1", "TRAIN.WORKERS", "0", "TRAIN.WARMUP_STEPS", "0"]
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
    save_image(tmp_path / "photo.jpg", SyntheticPeople(1).draw(0).image)
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
