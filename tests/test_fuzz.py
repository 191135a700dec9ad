"""Arbitrary files: every outcome is a result or a UserError, in 20 s and 2 GB.

100 examples each by default, 2,000 with ``-m slow``.
"""

import copy
import io
import json
import logging
import resource
import warnings
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from higherhrnet.boxes import find_boxes, read_detections
from higherhrnet.config import parse_config, to_yaml
from higherhrnet.datasets.check import find_problems
from higherhrnet.datasets.coco import CocoKeypoints
from higherhrnet.errors import UserError
from higherhrnet.factory.checkpoints import config_of, open_checkpoint
from higherhrnet.factory.inference import load_predictor
from higherhrnet.io.images import decode, decode_annotated
from higherhrnet.methods.top_down.instances import PersonInstances
from higherhrnet.models.pose_hrnet import PoseHRNet
from higherhrnet.models.weights import metadata_of
from higherhrnet.skeleton import COCO, load_skeleton

from .test_brought_files import coco_file

LIMIT = 2 * 2**30
FEW, MANY = 100, 2000


@pytest.fixture(autouse=True)
def limited():
    """No more than 2 GB beyond what is there; and no words of libraries about broken files."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + LIMIT, hard))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        yield
        logging.disable(logging.NOTSET)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def fuzz(*strategies):
    """The test with few examples, and a slow one with many."""

    def decorate(check):
        def examples(count):
            return settings(
                max_examples=count,
                deadline=20_000,
                database=None,
                derandomize=count == FEW,  # the same every time, so that a pass is a pass
                suppress_health_check=list(HealthCheck),
            )(given(*strategies)(check))

        few, many = examples(FEW), examples(MANY)

        @pytest.mark.parametrize("run", [few, pytest.param(many, marks=pytest.mark.slow)],
                                 ids=["few", "many"])  # fmt: skip
        def test(run):
            run()

        return test

    return decorate


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.integers(-5, 300),
    st.floats(), st.text(max_size=8),
    st.sampled_from(["0", "1e308", "person", "auto", "../x", "x" * 3000, "\x00", "ſ"]),
    st.sampled_from([1e308, -1e308, 1e-320, 2**31, 2**63, 0, -1]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)


def change(content, path, value):
    """The content with one value replaced: each number says which child is gone into."""
    changed = copy.deepcopy(content)
    place, key = None, None
    inner = changed
    for number in path:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        if not keys:
            break
        place, key = inner, keys[number % len(keys)]
        inner = inner[key]
        if not isinstance(inner, dict | list):
            break
    if place is None:
        return value
    place[key] = value
    return changed


PATHS = st.lists(st.integers(0, 60), min_size=1, max_size=5)
CHANGES = st.lists(st.tuples(PATHS, VALUES), min_size=1, max_size=3)


@cache
def folder():
    import tempfile

    path = Path(tempfile.mkdtemp()) / "images"
    content = coco_file(path)
    content["annotations"][0]["segmentation"] = {"counts": [10, 20, 7970], "size": [80, 100]}
    content["annotations"].append({
        "id": 3, "image_id": 1, "category_id": 1, "iscrowd": 1, "bbox": [1, 2, 30, 40],
        "segmentation": [[1, 1, 30, 1, 30, 30]], "area": 100, "keypoints": [0] * 51,
    })  # fmt: skip
    return path, content


@fuzz(CHANGES)
def test_annotations(changes):
    path, content = folder()
    for where, value in changes:
        content = change(content, where, value)
    file = path / "fuzz.json"
    file.write_text(json.dumps(content))
    try:
        dataset = CocoKeypoints(file, path, COCO)
        find_problems(dataset)
        PersonInstances(dataset)
    except UserError:
        return
    for number in range(len(dataset)):
        try:
            dataset.sample(number)
        except UserError:
            continue


@fuzz(CHANGES, st.booleans())
def test_boxes(changes, listed):
    path, content = folder()
    content = [{**r, "score": 0.5} for r in content["annotations"]] if listed else content
    for where, value in changes:
        content = change(content, where, value)
    file = path / "boxes.json"
    file.write_text(json.dumps(content))
    try:
        find_boxes(read_detections(file), 1, "1.png")
    except UserError:
        return


@cache
def config_content():
    import yaml

    return yaml.safe_load(to_yaml(parse_config("")))


@fuzz(CHANGES)
def test_configs(changes):
    content = config_content()
    for where, value in changes:
        content = change(content, where, value)
    try:
        parse_config(json.dumps(content), quiet=True)
    except UserError:
        return


@fuzz(st.text(alphabet="&*a: {}[],-\n!<>|'\"#%@0.e", max_size=200))
def test_yaml(text):
    try:
        parse_config(text, quiet=True)
    except UserError:
        return


@fuzz(CHANGES)
def test_skeletons(changes):
    content = COCO.to_dict() | {"colors": [[1, 2, 3]] * 17}
    for where, value in changes:
        content = change(content, where, value)
    file = folder()[0] / "skeleton.yaml"
    file.write_text(json.dumps(content))
    try:
        load_skeleton(str(file))
    except UserError:
        return


def cut(data, changes, end):
    """Bytes with some replaced, and the end cut off."""
    changed = bytearray(data)
    for at, value in changes:
        changed[at % len(changed)] = value
    return bytes(changed[: max(1, len(changed) - end)])


BYTES = st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 255)), max_size=8)
EARLY = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=8)
ENDS = st.one_of(st.just(0), st.integers(0, 4000))


@cache
def image_files():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8))
    found = []
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000", "AVIF"):
        stream = io.BytesIO()
        image.save(stream, kind)
        found.append(stream.getvalue())
    _, deep = cv2.imencode(".png", rng.integers(0, 2**16, (9, 9, 3)).astype(np.uint16))
    return [*found, deep.tobytes()]


@fuzz(st.integers(0, 9), st.one_of(BYTES, EARLY), ENDS, st.booleans())
def test_images(kind, changes, end, upright):
    data = cut(image_files()[kind], changes, end)
    try:
        image = decode(data, "x", upright)
        assert image.ndim == 3
        assert image.shape[2] == 3
        decode_annotated(data, "x", (48, 64))
    except UserError:
        return


@cache
def checkpoint_files():
    torch.manual_seed(0)
    network = PoseHRNet(17, 2, num_modules=(1, 1, 1), num_blocks=1)
    text = "MODEL: {NAME: pose_hrnet, WIDTH: 2, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1}"
    metadata = metadata_of(to_yaml(parse_config(text, quiet=True)), COCO)
    native = save(network.state_dict(), {"format": "higherhrnet", **metadata})
    stream = io.BytesIO()
    torch.save({"state_dict": network.state_dict(), "perf": np.float64(0.5)}, stream)
    old = io.BytesIO()
    torch.save(network.state_dict(), old, _use_new_zipfile_serialization=False)
    return native, stream.getvalue(), old.getvalue(), metadata, network.state_dict()


def use(file):
    try:
        checkpoint = open_checkpoint(str(file))
        config_of(checkpoint)
        load_predictor(checkpoint, "cpu")
    except UserError:
        return


@fuzz(st.integers(0, 2), st.one_of(BYTES, EARLY, st.lists(
    st.tuples(st.integers(0, 20_000), st.integers(32, 126)), max_size=6)), ENDS)  # fmt: skip
def test_checkpoints(kind, changes, end):
    file = folder()[0] / ("x.safetensors" if kind == 0 else "x.pth")
    file.write_bytes(cut(checkpoint_files()[kind], changes, end))
    use(file)


@fuzz(CHANGES, CHANGES)
def test_checkpoint_metadata(skeleton_changes, config_changes):
    *_, metadata, state = checkpoint_files()
    skeleton = json.loads(metadata["skeleton"])
    for where, value in skeleton_changes:
        skeleton = change(skeleton, where, value)
    import yaml

    config = yaml.safe_load(metadata["config"])
    for where, value in config_changes:
        config = change(config, where, value)
    file = folder()[0] / "m.safetensors"
    own = {"skeleton": json.dumps(skeleton), "config": json.dumps(config)}
    file.write_bytes(save(state, {"format": "higherhrnet", **own}))
    use(file)


@cache
def video_file():
    av = pytest.importorskip("av")
    file = folder()[0] / "whole.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for value in range(4):
            image = np.full((32, 32, 3), 60 * value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return file.read_bytes()


@fuzz(BYTES, ENDS)
def test_videos(changes, end):
    data = video_file()
    from higherhrnet.inference.video import VideoFile

    file = folder()[0] / "x.mp4"
    file.write_bytes(cut(data, changes, end))
    try:
        for number, frame in enumerate(VideoFile(file)):
            assert frame.image is None or frame.image.shape[2] == 3
            if number > 50:
                break
    except UserError:
        return
