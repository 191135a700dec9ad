"""What finds boxes of people in images: our detector, torchvision's, or a bottom-up network."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...boxes import Boxes
from ...errors import UserError
from ...inference.predictor import Predictor
from ...io.pixels import Image
from ...models.model_zoo import OFFLINE

DETECTORS = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
)
"""Detectors of torchvision that may be named; each has weights ``COCO_V1``."""
_PERSON = 1


@dataclass
class TorchvisionDetector:
    """A detector of torchvision, run in this process.

    Attributes:
        network: takes a list of (3, H, W) float images in 0..1, gives dicts of boxes (corners),
            labels and scores.
        device: where it is.
    """

    network: nn.Module
    device: torch.device

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image]) -> list[Boxes]:
        """Boxes of people, best first."""
        tensors = [
            torch.from_numpy(image).permute(2, 0, 1).to(self.device).float() / 255
            for image in images
        ]
        return [_people(output) for output in self.network(tensors)]


def build_torchvision_detector(
    name: str, device: torch.device, pretrained: bool = True
) -> TorchvisionDetector:
    """One of :data:`DETECTORS` with its COCO weights, fetched at the first use.

    Args:
        pretrained: without weights (for tests) it finds nothing of use.

    Raises:
        UserError: the weights are not there and cannot be fetched.
    """
    from torchvision.models import get_model, get_model_weights

    weights = get_model_weights(name)["COCO_V1"]
    if not pretrained:
        bare = get_model(name, weights=None, weights_backbone=None)
        return TorchvisionDetector(bare.to(device).eval(), device)
    here = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    try:
        if os.environ.get(OFFLINE) and not here.is_file():
            raise OSError("the network is forbidden")
        # Without a backbone of its own: the detector's weights hold it.
        network = get_model(name, weights=weights, weights_backbone=None)
    except (OSError, RuntimeError) as error:  # RuntimeError: the file's hash is wrong
        raise UserError(
            f"the weights of detector '{name}' are neither in {here.parent} "
            f"nor can they be fetched from {weights.url} ({error}); put the file there, or take "
            "boxes from the bundled detector (TEST.BBOX_SOURCE fcos_w18_person) or a result file"
        ) from error
    return TorchvisionDetector(network.to(device).eval(), device)


def _people(output: dict[str, torch.Tensor]) -> Boxes:
    person = output["labels"] == _PERSON
    corners = output["boxes"][person].double().cpu().numpy()
    xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return Boxes.of(xywh, output["scores"][person].double().cpu().numpy())


@dataclass
class PersonDetector:
    """Boxes that a detector of ours finds, one image after another.

    Attributes:
        find: image → boxes of its people, best first.
    """

    find: Callable[[Image], Boxes]

    def __call__(self, images: Sequence[Image]) -> list[Boxes]:
        """Boxes of the people in each image."""
        return [self.find(image) for image in images]


@dataclass
class BottomUpDetector:
    """Boxes around the people that a bottom-up network finds: no further network is needed.

    Attributes:
        predictor: finds the people.
    """

    predictor: Predictor

    def __call__(self, images: Sequence[Image]) -> list[Boxes]:
        """Boxes a tenth wider than the joints."""
        return [Boxes.around(self.predictor(image)) for image in images]
