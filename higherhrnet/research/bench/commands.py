"""Benchmarks by name: options → rows."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import torch

from ...config import BottomUpConfig, PoseConfig, override_config, parse_config, read_config
from ...datasets.coco import CocoKeypoints
from ...datasets.loader import Views
from ...errors import UserError
from ...factory.checkpoints import config_of, open_checkpoint
from ...factory.data import build_dataset, build_loader, find_skeleton
from ...factory.export import cached_export
from ...factory.inference import build_model_with_weights, build_torch_predictor, load
from ...factory.predict_dataset import make_predictor
from ...inference.engines.torch_engine import TorchEngine
from ...inference.inputs import find_inputs
from ...methods.base import method_of
from ...methods.bottom_up.codec import BottomUpCodec
from ...skeleton import COCO, load_skeleton
from . import data, dataset, decode, engines, evaluate, loss, model, pipeline, serve, track, train
from .table import Row


def _loss(_: argparse.Namespace, device: torch.device) -> Sequence[Row]:
    return loss.run(device)


def _decode(options: argparse.Namespace, device: torch.device) -> Sequence[Row]:
    unused = {"TEST.SCALE_FACTOR", "TEST.FLIP_TEST", "TEST.PROJECT2IMAGE"}
    unused &= {*options.overrides[::2]}
    if unused:
        raise UserError(
            "bench decode makes its own outputs, one scale with its flipped view: "
            f"{min(unused)} changes nothing"
        )
    config = parse_config("", options.overrides, "the command line")
    method = method_of(config)
    if not method.finds_people:
        raise UserError("bench decode measures grouping, which top-down models do without")
    assert isinstance(config, BottomUpConfig)
    skeleton = find_skeleton(config)
    codec = method.build_codec(config, method.build_model(config, len(skeleton)).heads, skeleton)
    assert isinstance(codec, BottomUpCodec)
    return decode.run(codec, device, options.people, config.DATASET.INPUT_SIZE, options.repeats)


def _model(options: argparse.Namespace, device: torch.device) -> Sequence[Row]:
    engine = load(options.weights, options.device, options.overrides).engine
    if not isinstance(engine, TorchEngine):
        raise UserError("bench model measures PyTorch; bench engines compares other runtimes")
    return model.run(engine.model, device, options.sizes, options.batches, options.compile)


def _engines(options: argparse.Namespace, _: torch.device) -> Sequence[Row]:
    file = open_checkpoint(options.weights)
    config = config_of(file, [*options.overrides, "TEST.FLIP_TEST", False])
    skeleton = file.skeleton or load_skeleton(config.DATASET.SKELETON)
    network = build_model_with_weights(config, file, skeleton)[0]
    predictor = build_torch_predictor(config, network, skeleton, torch.device("cpu"))

    def exported(runtime: str) -> Path:
        wanted = override_config(config, ["TEST.ENGINE", runtime])
        return cached_export(file, wanted, network, predictor)

    paths = [Path(name) for name in options.exports]
    return engines.run(network, exported, paths, options.size, options.repeats)


def _dataset(options: argparse.Namespace, _: torch.device) -> Sequence[Row]:
    files = find_inputs(options.inputs).images
    with tempfile.TemporaryDirectory(prefix="higherhrnet-") as folder:
        predict = make_predictor(
            options.device, options.weights, tuple(options.overrides), options.preset, folder
        )
        return list(
            dataset.run(
                predict, files, options.workers, options.images, options.unit_size,
                options.store * 1e6, options.failures, options.ray,
            )
        )  # fmt: skip


def _pipeline(options: argparse.Namespace, _: torch.device) -> Sequence[Row]:
    images = find_inputs(options.inputs).images
    if not images:
        raise UserError("bench pipeline measures images; none was given")
    predictor = load(options.weights, options.device, options.overrides, raw=True)
    exact = load(
        options.weights, options.device,
        [*options.overrides, "TEST.PRECISION", "fp32", "TEST.COMPILE", False,
         "TEST.CUDA_GRAPHS", False], raw=True,
    )  # fmt: skip
    return pipeline.run(predictor, exact, images, options.batches, options.workers)


def _serve(options: argparse.Namespace, _: torch.device) -> Sequence[Row]:
    return serve.run(
        options.weights, options.overrides, options.clients, options.requests, options.broken
    )


def _track(options: argparse.Namespace, _: torch.device) -> Sequence[Row]:
    predictor = load(options.weights, options.device, options.overrides)
    if not predictor.finds_people or predictor.skeleton.joints != COCO.joints:
        raise UserError(
            "bench track makes people with COCO's joints, for weights that find people, and "
            f"'{options.weights}' have other joints or need boxes"
        )
    return track.run(predictor, options.people, options.seconds, options.seed, options.output)


def _evaluate(options: argparse.Namespace, _: torch.device) -> Sequence[Row]:
    return evaluate.run(options.images, options.parsed)


def _data(options: argparse.Namespace, device: torch.device) -> Sequence[Row]:
    config = _read(options)
    method = method_of(config)
    if not method.finds_people:
        raise UserError("bench data measures whole images, as bottom-up models read them")
    dataset = build_dataset(config, "train")
    if not isinstance(dataset, CocoKeypoints):
        raise UserError(
            "bench data measures one set of files; the config's are several, or synthetic"
        )
    count = min(options.count, len(dataset))
    if count < options.batch:
        raise UserError(f"{count} images are less than one --batch of {options.batch}")
    skeleton = find_skeleton(config)
    codec = method.build_codec(config, method.build_model(config, len(skeleton)).heads, skeleton)
    batches, to_device = build_loader(config, dataset, codec, device)
    assert isinstance(batches.items, Views)
    return data.run(dataset, batches.items, to_device, codec.heads, count, options.batch)


def _train(options: argparse.Namespace, device: torch.device) -> Sequence[Row]:
    config = _read(options)
    if not hasattr(config.DATASET, "INPUT_SIZE"):
        if options.sizes:
            raise UserError("--sizes is for bottom-up models; crops have MODEL.IMAGE_SIZE")
        sizes: list[int | None] = [None]
    else:
        sizes = options.sizes or [256, 512]
    return train.run(config, device, _variants(options, sizes), options.steps)


def _read(options: argparse.Namespace) -> PoseConfig:
    config = read_config(options.config, options.overrides)
    method_of(config)
    assert isinstance(config, PoseConfig)
    return config


def _variants(options: argparse.Namespace, sizes: Sequence[int | None]) -> list[list[str]]:
    """Overrides of every row of ``bench train``: the exact step first, the rest against it."""
    rows = []
    for width, size, batch in product(options.widths, sizes, options.batches):
        for precision, compiled in (("fp32", False), ("bf16", False), ("bf16", True)):
            if compiled and not options.compile:
                continue
            rows.append([
                "MODEL.WIDTH", str(width), "TRAIN.BATCH_SIZE", str(batch),
                "TRAIN.MICRO_BATCH_SIZE", "0", "TRAIN.PRECISION", precision,
                "TRAIN.COMPILE", str(compiled),
                *([] if size is None else ["DATASET.INPUT_SIZE", str(size)]),
            ])  # fmt: skip
    return rows


def _hostile(options: argparse.Namespace, device: torch.device) -> Sequence[Row]:
    from .hostile import hostile_rows

    return hostile_rows()


BENCHMARKS: dict[str, Callable[[argparse.Namespace, torch.device], Sequence[Row]]] = {
    "loss": _loss,
    "decode": _decode,
    "model": _model,
    "engines": _engines,
    "dataset": _dataset,
    "pipeline": _pipeline,
    "serve": _serve,
    "track": _track,
    "evaluate": _evaluate,
    "data": _data,
    "train": _train,
    "hostile": _hostile,
}
