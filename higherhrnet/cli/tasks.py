"""``valid`` and ``predict`` of segmentation networks, detectors and classifiers."""

from __future__ import annotations

import argparse
import logging
import os
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import torch
from tqdm import tqdm

from ..config import Config
from ..distributed import ProcessGroup, init_distributed
from ..errors import UserError
from ..evaluation.evaluator import format_metrics
from ..factory.device import choose_device
from ..factory.task_training import evaluate
from ..factory.tasks import TaskPredictor, load_task, open_test_set
from ..inference.draw_predictions import check_complete
from ..inference.inputs import describe_skipped, find_inputs, output_names, refuse_overwriting
from ..inference.video import VideoFile
from ..inference.video_writer import VideoWriter
from ..io.atomic import atomic_write, write_json
from ..io.images import read_image
from ..io.lock import lock_folder, remove_leftovers
from ..io.pixels import Image
from ..models.weights import Checkpoint
from .messages import count
from .signals import catch_sigterm

_log = logging.getLogger(__name__)


def valid_task(options: argparse.Namespace, config: Config, file: Checkpoint, output: Path) -> int:
    """Predict annotated images, print and write the metrics."""
    refuse(options, ("preset", "calibrate", "report"))
    device = choose_device(options.device)
    with (
        init_distributed(device.type == "cuda") as group,
        lock_folder(output, "validation") if group.main else nullcontext(),
    ):
        if device.type == "cuda" and group.size > 1:
            device = torch.device("cuda", group.local_rank)
        loaded = load_task(file, device, config=config)
        test, classes = open_test_set(loaded)
        begun = time.perf_counter()
        parts = evaluate(loaded.task, loaded.predict, test, group)
        seconds = time.perf_counter() - begun
        if not group.main:
            return 0
        metrics = loaded.task.summarize(config, test, parts)
        protocol = loaded.task.describe_protocol(config)
        print(f"{len(test)} images, {len(test) / seconds:.1f} images/s; protocol:")
        print("  " + ", ".join(f"{name} {value}" for name, value in protocol.items()))
        print(format_metrics(metrics))
        written = ["metrics.json"]
        write_json(
            output / "metrics.json",
            {
                "metrics": metrics,
                "protocol": protocol,
                "weights": options.weights,
                "images": len(test),
                "classes": list(classes),
            },
        )
        if records := loaded.task.records(test, parts):
            write_json(output / "results.json", records)
            written.append("results.json")
        print(f"{' and '.join(written)} in {output}")
    return 0


def predict_task(options: argparse.Namespace, file: Checkpoint) -> int:
    """Predict and draw images and videos; broken ones are reported and passed over."""
    refuse(options, ("boxes", "mode", "preset", "raw", "smooth", "live", "min_score", "skip_done"))
    if "heatmaps" in options.show or not options.track:
        raise UserError(f"'{options.weights}' has no heatmaps to show, and no people to track")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("images are shared among several processes for pose networks alone")
    inputs = find_inputs(options.inputs, getattr(options, "recursive", False))
    if inputs.skipped:
        print(f"higherhrnet: {describe_skipped(inputs.skipped)}")
    if inputs.cameras or inputs.addresses:
        raise UserError("cameras and addresses are for pose networks; name files")
    output: Path = options.output or Path("output/predict")
    loaded = load_task(file, choose_device(options.device), options.overrides)
    shown = "none" not in options.show
    names = [name.removesuffix("_poses.jpg") for name in output_names(inputs.images, ".jpg")]
    films = [
        name.removesuffix("_poses.mp4") + ending.replace(".jpg", ".mp4")
        for name in output_names(inputs.videos, ".mp4")
        for ending in loaded.task.endings[:1]
    ]
    drawn = [output / f"{name}{ending}" for name in names for ending in loaded.task.endings]
    written = [output / "predictions.json", *drawn, *(output / name for name in films)]
    refuse_overwriting(written, [*inputs.images, *inputs.videos])
    found = _Found(loaded, shown)
    with lock_folder(output, "prediction", clean=False), catch_sigterm(ProcessGroup()):
        remove_leftovers(output, "task prediction")
        try:
            bar = tqdm(inputs.images, unit=" images", disable=not inputs.images)
            for path, name in zip(bar, names, strict=True):
                try:
                    image = read_image(path)
                    drawings = found.add(image, path)
                    files = _write_drawings(drawings, output / name, shown)
                    summary = loaded.task.summarize_image(found.images[-1])
                    where = f" → {', '.join(files)}" if files else ""
                    tqdm.write(f"{path}: {summary}{where}")
                except UserError as error:
                    found.fail(error, path)
            for number, path in enumerate(inputs.videos):
                film = output / films[number] if films and shown else None
                try:
                    _predict_video(found, path, film)
                except UserError as error:
                    found.fail(error, path)
        finally:  # what was found before Ctrl-C is written
            if found.images:
                content = loaded.task.collect(found.images, loaded.classes)
                write_json(output / "predictions.json", content)
    frames = sum("frame" in image for image in found.images)
    counts = {"image": len(found.images) - frames, "frame": frames}
    told = [count(n, what) for what, n in counts.items() if n]
    print(f"{', '.join(told)}; predictions.json in {output}" if told else "nothing was predicted")
    return 2 if found.failures else 0


class _Found:
    """What a task's network found in images, for ``predictions.json``."""

    def __init__(self, loaded: TaskPredictor, shown: bool) -> None:
        self._loaded = loaded
        is_data = not all(ending.endswith(".jpg") for ending in loaded.task.endings)
        self._draws = shown or is_data
        self.images: list[dict[str, Any]] = []
        self.failures = 0

    def add(self, image: Image, path: Path, **more: Any) -> dict[str, Image]:
        """Predict an image; its drawings by the ending of their names."""
        loaded = self._loaded
        found = loaded.predict(image)
        described = loaded.task.describe(loaded.config, found, loaded.classes)
        size = {"height": image.shape[0], "width": image.shape[1]}
        self.images.append({"file_name": str(path), **size, **more, **described})
        if not self._draws:
            return {}
        return dict(loaded.task.draw(loaded.config, image, found, loaded.classes))

    def fail(self, error: UserError, path: Path) -> None:
        """Report something that cannot be read or written, and go on."""
        about = "" if str(path) in str(error) else f"'{path}': "
        _log.error("%s%s", about, error)
        self.failures += 1


def _predict_video(found: _Found, path: Path, film: Path | None) -> None:
    """Every frame of a video, and a video of the drawings, if one is to be written.

    Ctrl-C ends the video where it is; what was done so far is kept, and the interrupt goes on.

    Raises:
        UserError: it is no video, or breaks off.
    """
    source = VideoFile(path)
    before, seen, end = len(found.images), 0, 0.0
    interrupt: KeyboardInterrupt | None = None
    with VideoWriter(film, source.rate, path) if film is not None else nullcontext() as writer:
        if writer is not None and writer.mute:
            _log.error("'%s': %s", path, writer.mute)
        try:
            for frame in tqdm(source, total=source.count or None, unit=" frames"):
                seen, end = seen + 1, frame.time + 1 / float(source.rate)
                try:
                    image = frame.require_image()
                except UserError as error:  # a broken one
                    found.fail(error, path)
                    continue
                seconds = round(frame.time, 4)
                drawings = found.add(image, path, frame=frame.number, seconds=seconds)
                if writer is not None:
                    writer.origin = source.origin
                    writer.add(next(iter(drawings.values())), frame.time)
        except KeyboardInterrupt as error:  # the video is closed properly
            interrupt = error
    if interrupt is not None:
        raise interrupt
    if len(found.images) == before:
        raise UserError(f"'{path}' holds no frame that can be read")
    check_complete(source, str(path), seen, end)


def _write_drawings(drawings: dict[str, Image], stem: Path, shown: bool) -> list[str]:
    """Write what was found as images: label maps as PNG, and drawings as JPEG; returns
    the files."""
    written = []
    for ending, pixels in drawings.items():
        if not shown and ending.endswith(".jpg"):
            continue
        stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels
        file = stem.with_name(stem.name + ending)
        done, encoded = cv2.imencode(file.suffix, stored)
        if not done:
            height, width = pixels.shape[:2]
            raise UserError(f"an image of {width}x{height} pixels is too large for '{file}'")
        with atomic_write(file) as partial:
            partial.write_bytes(encoded.tobytes())
        written.append(str(file))
    return written


def refuse(options: argparse.Namespace, names: tuple[str, ...]) -> None:
    """Options that mean nothing here.

    Raises:
        UserError: one of them is given.
    """
    for name in names:
        value = getattr(options, name, None)
        if value is not None and value is not False:
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option} is for pose networks, and '{options.weights}' is none")
