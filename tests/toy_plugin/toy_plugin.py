"""A plug-in package as users write one: a head, losses, a data set, a logger and a callback."""

import json

import numpy as np
import torch
from torch import nn

from higherhrnet import Callback
from higherhrnet.outputs import Head, Outputs
from higherhrnet.research.synthetic.dataset import SyntheticPeople


class Conv3x3Head(nn.Module):
    """Heatmaps and tags at 1/4 from a 3x3 convolution over the two highest resolutions."""

    resolutions = 4

    def __init__(self, channels, joints):
        super().__init__()
        self.joints = joints
        self.heads = (Head(stride=4, tags=joints),)
        self.conv = nn.Conv2d(channels[0] + channels[1], 2 * joints, 3, padding=1)

    def forward(self, features):
        fine, coarse = features[:2]
        coarse = nn.functional.interpolate(coarse, size=fine.shape[2:], mode="nearest")
        maps = self.conv(torch.cat([fine, coarse], dim=1))
        return Outputs(heatmaps=(maps[:, : self.joints],), tags=(maps[:, self.joints :],))


def huber(config, model):
    """A loss of heatmaps alone, with a threshold of its own."""

    def criterion(outputs, targets):
        losses = {}
        for head, predicted, wanted, weight in zip(
            model.heads, outputs.heatmaps, targets.heatmaps, targets.weights, strict=True
        ):
            error = nn.functional.huber_loss(predicted.float(), wanted, reduction="none")
            losses[f"huber/{head.stride}"] = (error * weight).mean()
        return losses

    return criterion


def few_people(config, split):
    """A data set that is drawn: 6 images to train on, 3 to validate on."""
    count, seed = (6, 1) if split == "train" else (3, 2)
    return SyntheticPeople(count, seed=seed, size=64, people=(1, 2))


class LinesLogger:
    """Every number as a line of JSON."""

    def __init__(self, folder, config):
        self._file = folder / "toy.jsonl"
        self.scalars(-1, {"TRAIN.LR": config["TRAIN.LR"]})

    def scalars(self, step, values):
        with self._file.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def text(self, step, name, text):
        self.scalars(step, {name: text})

    def images(self, step, images):
        self.scalars(step, {name: list(np.shape(image)) for name, image in images.items()})

    def close(self):
        self.scalars(-1, {"closed": True})


class CountSteps(Callback):
    """Remembers what it was told."""

    def __init__(self):
        self.epochs, self.ended = [], False

    def on_epoch_end(self, trainer, record, curve):
        self.epochs.append((record["epoch"], len(curve)))

    def on_train_end(self, trainer):
        self.ended = True
