"""8-bit integers for weights and activations, calibrated on images.

The last convolution of every output stays in floats, since heatmaps and tags are read to
hundredths, and so do the layers of doubled resolution before it: 0.4 AP for a tenth of the speed
(OpenVINO, ``val_mini``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError

Batches = Sequence[npt.NDArray[np.uint8]]
_KEPT = ("final_layer", "deconv_layers")
"""In the names of the weights of convolutions that stay in floats."""


def quantize_onnx(file: Path, batches: Batches) -> Path:
    """An ONNX file with integer convolutions, beside the given one.

    Weights have 7 bits: processors without VNNI add two products in 16 bits.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = file.with_name("prepared.onnx")
    quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
    nodes = onnx.load(prepared).graph.node
    kept = [node.name for node in nodes if any(map(_is_kept, node.input))]
    target = file.with_name("integers.onnx")
    quantization.quantize_static(
        str(prepared),
        str(target),
        _Reader(batches),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "ConvTranspose", "Add", "Concat"],
        per_channel=True,
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        nodes_to_exclude=kept,
    )
    return target


def quantize_openvino(model: Any, batches: Batches) -> Any:
    """An OpenVINO model with integer convolutions."""
    try:
        import nncf
    except ImportError as error:
        raise UserError(
            "--precision int8 for OpenVINO needs nncf: pip install 'higherhrnet[export]'"
        ) from error
    kept = [op.get_friendly_name() for op in model.get_ops() if _reads_kept(op)]
    # Whole ranges: means of ranges, nncf's own choice, cut off peaks (1.1 AP on val_mini).
    whole = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    quantized: Any = nncf.quantize(
        model,
        nncf.Dataset(list(batches)),
        subset_size=len(batches),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=kept, validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=whole
        ),
    )
    return quantized


def _reads_kept(op: Any) -> bool:
    if "Convolution" not in op.get_type_name():
        return False
    return _is_kept(op.input_value(1).get_node().get_friendly_name())


def _is_kept(name: str) -> bool:
    return any(part in name for part in _KEPT)


class _Reader:
    """What ONNX Runtime reads calibration images from."""

    def __init__(self, batches: Batches) -> None:
        self._batches: Iterator[npt.NDArray[np.uint8]] = iter(batches)

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}
