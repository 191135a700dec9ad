"""What is exported of a detector."""

from __future__ import annotations

import torch
from torchvision.models.detection import FCOS

from ...models.detector import Detector
from ...models.image_network import ImageNetwork


class DetectionGraph(ImageNetwork):
    """(B, H, W, 3) uint8 RGB → boxes and scores of all places of an FCOS head, before NMS."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, N, 4) float32 left, top, right, bottom, pixels of the images, and (B, N, C) scores:
        the square root of class probability times centerness (Tian et al. 2019, sec. 3.4)."""
        assert isinstance(self.network, Detector)
        levels = self.network.extract_pyramid(self.normalized(images))
        fcos = self.network.detector
        assert isinstance(fcos, FCOS)
        found = fcos.head(levels)
        strides = self.network.strides
        anchors = torch.cat([_anchors(*pair) for pair in zip(levels, strides, strict=True)])
        center, size = anchors[:, :2], anchors[:, 2:]
        sides = found["bbox_regression"]
        low, high = center - sides[..., :2] * size, center + sides[..., 2:] * size
        scores = (found["cls_logits"].sigmoid() * found["bbox_ctrness"].sigmoid()).sqrt()
        return torch.cat([low, high], dim=2), scores


def _anchors(level: torch.Tensor, stride: int) -> torch.Tensor:
    """(h * w, 3) x, y of a level's places and their stride, as torchvision's anchors are."""
    height, width = level.shape[2:]
    y = torch.arange(height, device=level.device)[:, None].expand(height, width)
    x = torch.arange(width, device=level.device).expand(height, width)
    places = torch.stack([x, y, torch.ones_like(x)], dim=2).reshape(-1, 3)
    return places.float() * stride
