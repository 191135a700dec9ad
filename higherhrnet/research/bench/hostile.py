"""Hostile files, made here and given to the command line: what it says, how long, how much memory.

Each is brought to a process of its own, whose peak memory the system counts. The table is that of
``docs/security.md``.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from ...config import parse_config, to_yaml
from ...models.higher_hrnet import HigherHRNet
from ...models.weights import metadata_of
from ...skeleton import COCO
from ..synthetic.dataset import SyntheticPeople, write_coco

Row = dict[str, Any]
_SECONDS = 120
_CONFIG = (
    "MODEL: {WIDTH: 4, NUM_MODULES: [1, 1, 1], NUM_BLOCKS: 1, NUM_BASIC_BLOCKS: 1}\n"
    "DATASET: {ROOT: data, TRAIN: synthetic, TEST: synthetic, INPUT_SIZE: 64}\n"
)


def hostile_rows() -> list[Row]:
    """One row an input: what is hostile of it, the sentence, exit status, seconds, peak MB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [
            _try(folder, what, words) for what, words in [*_images(folder), *_checkpoints(folder),
            *_texts(folder), *_annotations(folder), *_archives(folder)]
        ]  # fmt: skip


_MEASURED = """
import resource, sys
from higherhrnet.cli import main
try:
    status = main(sys.argv[1:])
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
sys.exit(status)
"""


def _try(folder: Path, what: str, words: list[str]) -> Row:
    """A command in a process of its own, which tells its peak memory at its end."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", _MEASURED, *words],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    ) as process:  # fmt: skip
        try:
            output, error = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            output, error = process.communicate()
    lines = [line for line in error.splitlines() if line.startswith("higherhrnet: ")]
    peaks = [line.split()[1] for line in output.splitlines() if line.startswith("peak ")]
    return {
        "input": what,
        "command": " ".join(words[:2]),
        "exit": process.returncode,
        "seconds": time.perf_counter() - start,
        "peak MB": int(peaks[-1]) if peaks else -1,
        "said": "a traceback" if "Traceback" in error else (lines[-1][13:113] if lines else ""),
    }


def _png(width: int, height: int) -> bytes:
    """A PNG of one color, packed small however large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def _images(folder: Path) -> list[tuple[str, list[str]]]:
    (folder / "huge.png").write_bytes(_png(30_000, 30_000))
    (folder / "strip.png").write_bytes(_png(40_000, 16))
    (folder / "cut.png").write_bytes(_png(64, 64)[:40])
    (folder / "loop").mkdir()
    (folder / "loop" / "a.png").symlink_to("a.png")
    end = ["--output", "out", "--device", "cpu"]
    return [
        ("PNG of 30,000 x 30,000 in 0.1 MB", ["predict", "huge.png", *end]),
        ("PNG of 40,000 x 16", ["predict", "strip.png", *end]),
        ("truncated PNG", ["predict", "cut.png", *end]),
        ("folder with a link to itself", ["predict", "loop", *end]),
    ]


class _Program:
    """Unpickled carelessly, this would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def _checkpoints(folder: Path) -> list[tuple[str, list[str]]]:
    torch.manual_seed(0)
    config = parse_config(_CONFIG, quiet=True)
    network = HigherHRNet(17, 4, num_modules=(1, 1, 1), num_blocks=1, num_basic_blocks=1)
    state = network.state_dict()
    first = "conv1.weight"
    stride = state | {first: torch.ones(1).expand(64, 3, 3, 3)}
    float8 = {n: t.to(torch.float8_e4m3fn) if t.is_floating_point() else t
              for n, t in state.items()}  # fmt: skip
    torch.save({"state_dict": state, "x": _Program()}, folder / "program.pth")
    torch.save(stride, folder / "stride.pth")
    (folder / "float8.safetensors").write_bytes(save(float8))
    own = {"format": "higherhrnet", **metadata_of(to_yaml(config), COCO)}
    wide = own | {"config": own["config"].replace("WIDTH: 4", "WIDTH: 1024")}
    (folder / "wide.safetensors").write_bytes(save(state, wide))
    laughs = own | {"config": _laughs()}
    (folder / "laughs.safetensors").write_bytes(save(state, laughs))
    deep = own | {"skeleton": "[" * 10_000 + "]" * 10_000}
    (folder / "deep.safetensors").write_bytes(save(state, deep))
    names = [*state][:3]
    (folder / "scalar.safetensors").write_bytes(save({name: torch.ones(()) for name in names}))
    return [
        ("pickle that runs a command", ["weights", "inspect", "program.pth"]),
        ("tensor with strides of 0", ["weights", "inspect", "stride.pth"]),
        ("float8 tensors", ["weights", "inspect", "float8.safetensors"]),
        ("scalars for layers", ["weights", "convert", "scalar.safetensors", "x.safetensors"]),
        ("config that claims width 1024", ["weights", "inspect", "wide.safetensors"]),
        ("aliases that multiply, in metadata", ["weights", "inspect", "laughs.safetensors"]),
        ("skeleton of depth 10,000", ["weights", "inspect", "deep.safetensors"]),
    ]


def _laughs() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join(lines)


def _texts(folder: Path) -> list[tuple[str, list[str]]]:
    (folder / "laughs.yaml").write_text(_laughs())
    (folder / "long.yaml").write_text("a: 1\n" * 2_000_000)
    skeleton = "{name: x, joints: [a], bones: [], sigmas: [.inf], colors: [[.inf, 0, 0]]}"
    (folder / "inf.yaml").write_text(skeleton)
    (folder / "c.yaml").write_text(_CONFIG)
    return [
        ("aliases that multiply", ["data", "stats", "laughs.yaml"]),
        ("10 MB of YAML", ["data", "stats", "long.yaml"]),
        ("infinite color and sigma", ["data", "stats", "c.yaml", "DATASET.SKELETON", "inf.yaml"]),
    ]


def _annotations(folder: Path) -> list[tuple[str, list[str]]]:
    write_coco(folder / "data", SyntheticPeople(2, size=64))
    whole = (folder / "data/annotations/person_keypoints_synthetic.json").read_text()
    found: list[tuple[str, list[str]]] = []
    for name, key, value in (
        ("ids that are lists", "id", [1]),
        ("an area of 1e308", "area", 1e308),
        ("run lengths without counts", "segmentation", {"size": [64, 64], "counts": None}),
        ("run lengths below 0", "segmentation", {"size": [64, 64], "counts": [-9, 4105]}),
        ("a mask of 10^12 pixels", "segmentation", {"size": [10**6, 10**6], "counts": [10**12]}),
    ):
        content = json.loads(whole)
        content["annotations"][0] |= {key: value, "iscrowd": 1}
        file = folder / "data" / f"{len(found)}.json"
        file.write_text(json.dumps(content))
        words = ["data", "check", "c.yaml", "DATASET.IMAGE_DIR", "images/synthetic"]
        found.append((name, [*words, "DATASET.TRAIN", file.name, "DATASET.TEST", file.name]))
    return found


def _archives(folder: Path) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for name, method in (("LZMA", zipfile.ZIP_LZMA), ("bzip2", zipfile.ZIP_BZIP2)):
        (folder / name / "json").mkdir(parents=True)
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            archive.writestr("images/1.jpg", np.zeros(5000, np.uint8).tobytes())
        data = bytearray(stream.getvalue())
        data[48:60] = bytes(12)
        (folder / name / "images.zip").write_bytes(data)
        words = ["data", "prepare", "crowdpose", name, "--offline"]
        found.append((f"damaged archive in {name}", words))
    return found
