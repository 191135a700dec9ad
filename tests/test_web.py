"""The page in a real Chromium: with a server, and with the network in the browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from higherhrnet.cli import main
from higherhrnet.io.images import read_image
from higherhrnet.methods.exported import load_exported

from .shared import ROOT

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
HERE = ROOT / "tests" / "web"
pytestmark = [
    pytest.mark.web,
    pytest.mark.skipif(
        CHROMIUM is None or shutil.which("node") is None or not (HERE / "node_modules").is_dir(),
        reason="needs Chromium, Node.js and npm install in tests/web: make test-web",
    ),
]


@contextmanager
def serving(*command: str) -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", *command], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            yield "http://" + line.partition("http://")[2].split("/")[0] + "/"
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    """Three images: the demo photograph, a portrait part of it, and it flipped and larger."""
    folder = tmp_path_factory.mktemp("images")
    demo = read_image(ROOT / "higherhrnet" / "assets" / "demo.jpg")
    parts = [demo, demo[:, 150:430], cv2.resize(demo[:, ::-1], None, fx=1.4, fy=1.4)]
    for number, part in enumerate(parts):
        cv2.imwrite(str(folder / f"{number}.png"), part[..., ::-1])
    return sorted(folder.iterdir())


def run_page(**job: object) -> dict[str, object]:
    words = ["node", str(HERE / "page.mjs"), json.dumps(job | {"chromium": CHROMIUM})]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, cwd=HERE)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout)
    assert found["errors"] == []
    return found


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """Where screenshots go: to be looked at."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_with_a_server(images, out):
    command = ["higherhrnet", "serve", "--port", "0", "--compare", "hrnet_w18_mini"]
    with serving(*command) as url:
        found = run_page(server=url, images=[str(path) for path in images], out=str(out))
    assert 4 <= found["example"] <= 6  # five skiers; bf16 and float32 may differ at a limit
    assert found["none"] == 0 < found["example"] <= found["all"]
    for name in ("show-heatmap", "show-tags", "tag-colors", "show-refined", "show-poses"):
        assert found[name], f"{name} changes nothing"
    assert str(found["compare"]).startswith("top-down: ")
    assert found["saved"] == found["all"]
    assert found["dropped"] >= 2
    assert "no image" in str(found["error"])
    order = ["view", "file", "example", "webcam", "person", "joint", "preset", "show-poses"]
    start = found["tab"].index("view")
    assert found["tab"][start : start + len(order)] == order
    assert found["webcam"] == 0  # the fake camera shows a clock
    assert found["phone"]
    assert {"forward", "decode", "total"} <= set(found["times"])


def test_without_a_server(images, out, tmp_path):
    assert main(["export", "higherhrnet_w18_mini", "--to", "web", "--output", str(tmp_path)]) == 0
    with serving("http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)) as url:
        found = run_page(web=url, images=[str(path) for path in images], out=str(out))
    predictor = load_exported(tmp_path / "page" / "model.onnx")
    predictor.operating_point = replace(
        predictor.operating_point, person=0.0, joint=0.0, refined=0.0
    )
    for path, answer in zip(images, found["web"], strict=True):
        expected = predictor(path)
        order = np.argsort(-expected.person_score, kind="stable")
        expected = expected.select(order)
        assert len(answer["people"]) == len(expected) >= 2
        for person, ours in enumerate(answer["people"]):
            keypoints = np.array(ours["keypoints"]).reshape(-1, 3)
            assert ours["visibility"] == expected.visibility[person].tolist()
            np.testing.assert_allclose(keypoints[:, :2], expected.xy[person], atol=1)
            assert ours["score"] == pytest.approx(expected.person_score[person], abs=0.01)
