"""Predict with networks that ``higherhrnet export`` wrote: NumPy, OpenCV and ONNX Runtime alone.

>>> import higherhrnet_runtime
>>> predictor = higherhrnet_runtime.load("model.onnx")
>>> poses = predictor("photo.jpg")  # or an (H, W, 3) uint8 RGB array
>>> poses.xy, poses.score, poses.person_score  # (N, K, 2) pixels, (N, K), (N,)
"""

from .boxes import Boxes
from .errors import UserError
from .inference.pipeline import predict_many
from .inference.tracking import Tracker
from .io.images import read_image
from .methods.exported import load_exported as load
from .poses import Poses
from .skeleton import Skeleton

__all__ = [
    "Boxes",
    "Poses",
    "Skeleton",
    "Tracker",
    "UserError",
    "load",
    "predict_many",
    "read_image",
]
