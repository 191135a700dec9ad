"""Boxes of a box head's outputs, and their losses, by torchvision's FCOS."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torchvision.models.detection import FCOS

from .detector import Detections, build_head
from .extra_heads import BOX_STRIDES


@cache
def _fcos() -> FCOS:
    """What knows the losses and the boxes of outputs; its own layers are not used."""
    made = build_head("fcos", 1, 32, BOX_STRIDES, 0, lambda images: [])
    assert isinstance(made, FCOS)
    return made


def _anchors(count: int, size: tuple[int, int], device: torch.device) -> list[torch.Tensor]:
    """Anchors of all places for each of ``count`` images (H, W).

    Not by the generator's own strides: it divides the image's size by the level's, which is wrong
    where a level was rounded up.
    """
    generator = _fcos().anchor_generator
    generator.set_cell_anchors(torch.float32, device)
    grids = [[-(-side // stride) for side in size] for stride in BOX_STRIDES]
    strides = [[torch.tensor(stride, device=device)] * 2 for stride in BOX_STRIDES]
    return [torch.cat(generator.grid_anchors(grids, strides))] * count


def _places(size: tuple[int, int]) -> list[int]:
    """Of each level."""
    return [-(-size[0] // stride) * -(-size[1] // stride) for stride in BOX_STRIDES]


def box_losses(
    outputs: Sequence[torch.Tensor], boxes: torch.Tensor, size: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """Focal loss, GIoU loss and centerness of a box head (Tian et al. 2019).

    Args:
        outputs: logits, sides and centerness; see :class:`outputs.Outputs`.
        boxes: (B, P, 4) left, top, right, bottom; those without extent are none.
        size: (H, W) of the network's input.
    """
    logits, sides, centerness = (part.float() for part in outputs)
    targets = []
    for own in boxes:
        real = own[own[:, 2] > own[:, 0]]
        labels = torch.zeros(len(real), dtype=torch.int64, device=own.device)
        targets.append({"boxes": real, "labels": labels})
    found = {"cls_logits": logits, "bbox_regression": sides, "bbox_ctrness": centerness}
    anchors = _anchors(len(boxes), size, logits.device)
    losses = _fcos().compute_loss(targets, found, anchors, _places(size))
    return {
        "classification": losses["classification"],
        "sides": losses["bbox_regression"],
        "centerness": losses["bbox_ctrness"],
    }


def decode_boxes(outputs: Sequence[torch.Tensor], size: tuple[int, int]) -> list[Detections]:
    """Boxes of each image, best first, in pixels of the network's input (H, W)."""
    places = _places(size)
    logits, sides, centerness = (torch.split(part.float(), places, dim=1) for part in outputs)
    count = len(logits[0])
    anchors = [list(torch.split(own, places)) for own in _anchors(count, size, logits[0].device)]
    found = _fcos().postprocess_detections(
        {"cls_logits": list(logits), "bbox_regression": list(sides),
         "bbox_ctrness": list(centerness)}, anchors, [size] * count,
    )  # fmt: skip
    return [Detections(one["boxes"], one["scores"], one["labels"]) for one in found]
