"""A folder with the page and the network, for browsers: nothing leaves the machine they run on."""

from __future__ import annotations

import base64
import json
import os
import shutil
import tarfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import UserError, WriteError
from ..inference.engines.export_info import ExportInfo
from ..io.atomic import atomic_write
from ..io.download import download, verify
from ..models.model_zoo import OFFLINE, cache_dir

_VERSION = "1.30.0"
_ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{_VERSION}.tgz"
_SHA512 = base64.b64decode(
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
).hex()
_RUNTIME = (
    "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm",
)  # fmt: skip
"""What the browser needs of npm's package onnxruntime-web."""


def write_page(folder: Path, network: Path, info: ExportInfo, name: str) -> None:
    """Write the folder; files that are there already are replaced.

    Args:
        folder: to be written; a web server serves it as it is.
        network: an ONNX file with candidates.
        info: what it says of itself.
        name: of the model, for the page.

    Raises:
        UserError: the network is not bottom-up, or has a decoding that the page does not know.
        OSError: ONNX Runtime's files cannot be fetched, or the folder not be written.
    """
    chosen = info.predictors["default"]
    codec = chosen["settings"]["codec"]
    if "candidate_tags" not in info.outputs or codec["decoding"] not in ("quarter", "parabola"):
        raise UserError("--to web is for bottom-up networks with TEST.DECODING quarter or parabola")
    if chosen["settings"]["zoom_sizes"]:
        raise UserError("--to web looks once at an image: add TEST.ZOOM_SIZES '[]'")
    runtime = _fetch_runtime()
    parts = ("serve/page", "export/web", "assets")
    page, own, assets = (Path(str(files("higherhrnet") / part)) for part in parts)
    try:
        (folder / "page" / "ort").mkdir(parents=True, exist_ok=True)
        html = (page / "index.html").read_text().replace("<html ", '<html data-backend="local" ')
        (folder / "index.html").write_text(html)
        for source in (page / "style.css", page / "app.js", page / "draw.js", *own.iterdir()):
            shutil.copyfile(source, folder / "page" / source.name)
        for part in _RUNTIME:
            shutil.copyfile(runtime / part, folder / "page" / "ort" / part)
        with atomic_write(folder / "page" / "model.onnx") as partial:
            shutil.copyfile(network, partial)
        shutil.copyfile(assets / "demo.jpg", folder / "example.jpg")
        model = _describe(info, chosen, name)
        (folder / "page" / "model.json").write_text(json.dumps(model) + "\n")
    except OSError as error:
        raise WriteError(f"could not write '{folder}': {error.strerror or error}") from error


def _describe(info: ExportInfo, chosen: Any, name: str) -> dict[str, Any]:
    described = info.skeleton.to_drawing()
    point = chosen["operating_point"]
    return {
        "predictor": chosen["settings"],
        "operating_point": point,
        "skeleton": described,
        "describe": {
            "name": name,
            "method": info.method,
            "presets": ["default"],
            "operating_points": {"default": point},
            "skeleton": described,
        },
    }


def _fetch_runtime() -> Path:
    """A folder with ONNX Runtime's files for browsers, fetched once."""
    folder = cache_dir() / f"onnxruntime-web-{_VERSION}"
    if all((folder / part).is_file() for part in _RUNTIME):
        return folder
    archive = cache_dir() / Path(_ADDRESS).name
    if not archive.is_file() and os.environ.get(OFFLINE):
        raise UserError(f"--to web needs '{archive}', from {_ADDRESS}, and --offline forbids it")
    download(_ADDRESS, archive, lambda file: verify(file, _SHA512, "sha512"))
    verify(archive, _SHA512, "sha512")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as members:
        for part in _RUNTIME:
            source = members.extractfile(f"package/dist/{part}")
            assert source is not None
            with atomic_write(folder / part) as partial:
                partial.write_bytes(source.read())
    archive.unlink()
    return folder
