"""Entry points of ``torch.hub``.

>>> import torch
>>> predictor = torch.hub.load("higherhrnet/higherhrnet", "predictor", "higherhrnet_w18_mini")
>>> poses = predictor("photo.jpg")
"""

dependencies = ["torch", "torchvision", "numpy", "cv2", "scipy", "yacs", "yaml", "safetensors"]


def predictor(weights="higherhrnet_w18_mini", **options):
    """Images → poses; ``weights`` and ``options`` are those of ``higherhrnet.load``."""
    import higherhrnet

    return higherhrnet.load(weights, **options)


def network(weights="higherhrnet_w18_mini", **options):
    """The ``nn.Module`` alone: normalized (B, 3, H, W) → heatmaps and tags."""
    return predictor(weights, **options).engine.model


def higherhrnet_w18_mini(**options):
    """The bundled bottom-up predictor."""
    return predictor("higherhrnet_w18_mini", **options)


def hrnet_w18_mini(**options):
    """The bundled top-down predictor: call it with an image and boxes."""
    return predictor("hrnet_w18_mini", **options)
