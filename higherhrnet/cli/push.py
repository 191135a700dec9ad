"""``higherhrnet weights push``: a checkpoint with its model card to the Hugging Face Hub."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from ..config import PoseConfig
from ..errors import UserError
from ..factory.checkpoints import config_of, is_task, open_checkpoint, operating_point_of
from ..methods.base import method_of
from ..models.hub import FILE, push_folder
from ..models.weights import Checkpoint
from ..skeleton import Skeleton, load_skeleton


def push_weights(options: argparse.Namespace) -> int:
    """Upload weights, config, skeleton and model card."""
    file = open_checkpoint(options.file)
    if is_task(file):
        raise UserError(f"'{file.path}' finds no poses: pose networks alone are pushed")
    if file.path.suffix != ".safetensors" or not file.config:
        raise UserError(
            f"'{file.path}' has no config inside: higherhrnet weights convert IN OUT.safetensors "
            "makes a file that has"
        )
    config = config_of(file)
    skeleton = file.skeleton or load_skeleton(config.DATASET.SKELETON)
    metrics = _read_metrics(options.metrics)
    with tempfile.TemporaryDirectory(prefix="higherhrnet-") as name:
        folder = Path(name)
        shutil.copyfile(file.path, folder / FILE)
        (folder / "config.yaml").write_text(file.config)
        (folder / "skeleton.yaml").write_text(yaml.safe_dump(skeleton.to_dict(), sort_keys=False))
        card = make_card(options.repository, file, config, skeleton, metrics, options.license)
        (folder / "README.md").write_text(card)
        if options.card_only:
            print(card, end="")
            return 0
        address = push_folder(folder, options.repository, options.private, options.message)
    print(f"{address}\nuse: higherhrnet.load('hf://{options.repository}')")
    return 0


def _read_metrics(file: Path | None) -> dict[str, float]:
    """Numbers of a ``metrics.json`` that ``valid`` wrote."""
    if file is None:
        return {}
    try:
        loaded = json.loads(file.read_bytes())
        numbers = loaded.get("metrics", loaded)
        return {k: float(v) for k, v in numbers.items() if isinstance(v, int | float)}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"'{file}' is no metrics.json of higherhrnet valid: {error}") from error


def make_card(
    repository: str,
    file: Checkpoint,
    config: PoseConfig,
    skeleton: Skeleton,
    metrics: dict[str, float],
    license: str,
) -> str:
    """The model card: YAML for the Hub, then how to use it and what is known of it."""
    method = method_of(config)
    head: dict[str, Any] = {
        "library_name": "higherhrnet",
        "pipeline_tag": "keypoint-detection",
        "license": license,
        "tags": ["keypoint-detection", "pose-estimation", "hrnet", method.name],
    }
    if "AP" in metrics:
        head["model-index"] = [{
            "name": repository.rpartition("/")[2],
            "results": [{
                "task": {"type": "keypoint-detection"},
                "dataset": {"name": config.DATASET.TEST, "type": config.DATASET.TEST},
                "metrics": [{"type": "AP", "value": round(100 * metrics["AP"], 2)}],
            }],
        }]  # fmt: skip
    numbers = sum(tensor.numel() for tensor in file.state.values())
    name = "HigherHRNet" if method.finds_people else "HRNet"
    lines = [
        f"# {repository.rpartition('/')[2]}",
        "",
        f"{name}-W{config.MODEL.WIDTH}, {method.name}, {numbers:,} numbers; skeleton "
        f"'{skeleton.name}' with {len(skeleton)} joints: {', '.join(skeleton.joints)}.",
        "",
        "```python",
        "import higherhrnet",
        "",
        f'predictor = higherhrnet.load("hf://{repository}")',
        'poses = predictor("photo.jpg")' + ("" if method.finds_people else "  # with boxes"),
        "```",
        "",
        f"Operating point for images: {operating_point_of(file)}.",
        "",
    ]
    if metrics:
        shown = [
            key for key in ("AP", "AP50", "AP75", "APM", "APL", "AR", "PCKh") if key in metrics
        ]
        lines += [
            f"Measured on `{config.DATASET.TEST}`:", "",
            "| " + " | ".join(shown) + " |", "|" + "---|" * len(shown),
            "| " + " | ".join(f"{100 * metrics[key]:.2f}" for key in shown) + " |", "",
        ]  # fmt: skip
    lines += ["`config.yaml` has all settings, `skeleton.yaml` the joints.", ""]
    return "---\n" + yaml.safe_dump(head, sort_keys=False) + "---\n\n" + "\n".join(lines)
