"""HRNetV2p: a feature pyramid over HRNet, under torchvision's detection heads.

Wang et al. 2020, sec. 6 and fig. 4c. The pyramid has the names of the published checkpoints
(``neck.reduction_conv.conv``, ``neck.fpn_convs.N.conv``), so that these load by name.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead

from .hrnet import HRNet, concatenate_resolutions

HEADS = ("fcos", "retinanet", "faster_rcnn")
_ASPECT_RATIOS = (0.5, 1.0, 2.0)
_OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
"""RetinaNet's anchors a place (Lin et al. 2017, sec. 4): three sizes in each octave."""


class DetectionTargets(NamedTuple):
    """Boxes of B images.

    Attributes:
        boxes: (B, P, 4) float32 left, top, right, bottom, pixels of the network's input.
        labels: (B, P) int64 class numbers from 0; -1 pads.
    """

    boxes: torch.Tensor
    labels: torch.Tensor


class DetectorInputs(NamedTuple):
    """What a detector reads in training: (B, 3, H, W) normalized images, and their boxes."""

    images: torch.Tensor
    targets: DetectionTargets


class Detections(NamedTuple):
    """Boxes found in one image, best first.

    Attributes:
        boxes: (N, 4) float32 left, top, right, bottom, pixels of the network's input.
        scores: (N,) float32.
        labels: (N,) int64 class numbers from 0.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor


class _Conv(nn.Module):
    """A convolution under the name that mmdetection gives it."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, size // 2)
        nn.init.kaiming_uniform_(self.conv.weight, a=1)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y


class FeaturePyramid(nn.Module):
    """HRNetV2p's pyramid: all resolutions at 1/4, mixed, pooled, and convolved at every level.

    Args:
        inputs: channels of the four resolutions together, 15 W.
        channels: of every level.
        levels: how many.
        stride: of the first level, 4 (Faster R-CNN) or 8 (FCOS, RetinaNet), input pixels.
    """

    def __init__(self, inputs: int, channels: int, levels: int, stride: int = 4) -> None:
        super().__init__()
        self.reduction_conv = _Conv(inputs, channels, 1)
        self.fpn_convs = nn.ModuleList(
            _Conv(channels, channels, 3, stride // 4) for _ in range(levels)
        )

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Four maps of HRNet → ``levels`` maps (B, channels, H / stride / 2**i, …)."""
        x = self.reduction_conv(concatenate_resolutions(features))
        pooled = [x if i == 0 else F.avg_pool2d(x, 2**i, 2**i) for i in range(len(self.fpn_convs))]
        return [conv(level) for conv, level in zip(self.fpn_convs, pooled, strict=True)]


class _Pyramid(nn.Module):
    """What torchvision takes for a backbone: images → maps. The layers belong to the detector."""

    def __init__(self, extract: Callable[[torch.Tensor], list[torch.Tensor]], channels: int):
        super().__init__()
        self.extract = extract
        self.out_channels = channels

    def forward(self, images: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        # Anchors get the type of these maps, and bfloat16 has no 1,028.
        return OrderedDict((str(i), level.float()) for i, level in enumerate(self.extract(images)))


class _AsGiven(nn.Module):
    """In the place of torchvision's resizing: images come resized, padded and normalized."""

    def forward(
        self, images: torch.Tensor, targets: list[dict[str, torch.Tensor]] | None = None
    ) -> tuple[ImageList, list[dict[str, torch.Tensor]] | None]:
        size = (images.shape[-2], images.shape[-1])
        return ImageList(images, [size] * len(images)), targets

    def postprocess(
        self, result: list[dict[str, torch.Tensor]], shapes: Any, original: Any
    ) -> list[dict[str, torch.Tensor]]:
        return result


def _to_float(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    """Losses and boxes are computed in float32, whatever the layers are computed in."""
    if isinstance(outputs, torch.Tensor):
        return outputs.float()
    if isinstance(outputs, Mapping):
        return {name: _to_float(module, inputs, value) for name, value in outputs.items()}
    return type(outputs)(_to_float(module, inputs, value) for value in outputs)


def build_head(
    kind: str,
    classes: int,
    channels: int,
    strides: Sequence[int],
    num_convs: int,
    extract: Callable[[torch.Tensor], list[torch.Tensor]],
) -> nn.Module:
    """torchvision's detector of a pyramid.

    Args:
        kind: one of :data:`HEADS`.
        classes: without the background.
        channels: of the pyramid's levels.
        strides: of its levels, input pixels.
        num_convs: 3x3 convolutions of an FCOS head; published: 4.
        extract: images → the levels.
    """
    backbone = _Pyramid(extract, channels)
    if kind == "fcos":
        # FCOS knows its levels by the size of their anchors (Tian et al. 2019, sec. 3.2).
        anchors = AnchorGenerator(tuple((s,) for s in strides), ((1.0,),) * len(strides))
        head = FCOSHead(channels, 1, classes, num_convs)
        made: nn.Module = FCOS(
            backbone, classes, anchor_generator=anchors, head=head, score_thresh=0.05
        )
    elif kind == "retinanet":
        sizes = tuple(tuple(int(4 * s * octave) for octave in _OCTAVES) for s in strides)
        anchors = AnchorGenerator(sizes, (_ASPECT_RATIOS,) * len(strides))
        per_place = anchors.num_anchors_per_location()[0]
        head = RetinaNetHead(channels, per_place, classes)
        made = RetinaNet(backbone, classes, anchor_generator=anchors, head=head)
    else:
        anchors = AnchorGenerator(
            tuple((8 * s,) for s in strides), (_ASPECT_RATIOS,) * len(strides)
        )
        made = FasterRCNN(backbone, classes + 1, rpn_anchor_generator=anchors)
    parts: Sequence[Any] = (
        (made.rpn.head, made.roi_heads.box_predictor)
        if isinstance(made, FasterRCNN)
        else (made.head,)
    )
    for part in parts:
        part.register_forward_hook(_to_float)
    made.transform = _AsGiven()
    return made


class Detector(HRNet):
    """HRNetV2p under the head of FCOS, RetinaNet or Faster R-CNN.

    Args:
        classes: how many, without the background.
        head: one of :data:`HEADS`.
        channels: of the pyramid; published: 256.
        levels: of the pyramid; published: 5.
        stride: of its first level: 4 (Faster R-CNN) or 8 (FCOS, RetinaNet).
        num_convs: 3x3 convolutions of an FCOS head; published: 4.
        width, num_modules, num_blocks, upsample_mode, activation_checkpointing: see :class:`HRNet`.
    """

    def __init__(
        self,
        classes: int,
        width: int,
        head: str = "faster_rcnn",
        channels: int = 256,
        levels: int = 5,
        stride: int = 4,
        num_convs: int = 4,
        num_modules: tuple[int, int, int] = (1, 4, 3),
        num_blocks: int = 4,
        upsample_mode: str = "nearest",
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(width, num_modules, num_blocks, 4, upsample_mode, activation_checkpointing)
        self.classes = classes
        self.neck = FeaturePyramid(sum(self.channels), channels, levels, stride)
        self.strides = tuple(stride * 2**i for i in range(levels))
        self.first_label = int(head == "faster_rcnn")  # its class 0 is the background
        self.detector = build_head(
            head, classes, channels, self.strides, num_convs, self.extract_pyramid
        )

    def set_limits(self, score: float, overlap: float, count: int) -> None:
        """Which boxes are given out.

        Args:
            score: the lowest.
            overlap: of two boxes that overlap more (IoU) one is.
            count: at most so many an image.
        """
        part = getattr(self.detector, "roi_heads", self.detector)
        part.score_thresh, part.nms_thresh, part.detections_per_img = score, overlap, count

    def extract_pyramid(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) normalized images, H and W multiples of the last stride → the levels."""
        return list(self.neck(self.features(images)))

    def forward(  # type: ignore[override]
        self, inputs: DetectorInputs | torch.Tensor
    ) -> dict[str, torch.Tensor] | list[Detections]:
        """In training mode images with boxes → named losses; else images → boxes of each."""
        if isinstance(inputs, DetectorInputs):
            losses: dict[str, torch.Tensor] = self.detector(inputs.images, self._unpad(inputs))
            return losses
        found = self.detector(inputs)
        return [
            Detections(one["boxes"], one["scores"], one["labels"] - self.first_label)
            for one in found
        ]

    def _unpad(self, inputs: DetectorInputs) -> list[dict[str, torch.Tensor]]:
        boxes, labels = inputs.targets
        return [
            {"boxes": b[n >= 0], "labels": n[n >= 0] + self.first_label}
            for b, n in zip(boxes, labels, strict=True)
        ]
