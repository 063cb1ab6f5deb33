"""An ONNX graph in float32 becomes one in half precision or in int8, as TensorRT takes it.

TensorRT's networks are strongly typed: an engine is as precise as its ONNX file says, so the precision is put there,
by ONNX Runtime's own tools. Half precision takes in the inputs and outputs as well, because what a block passes to
the next one inside a network is half too. int8 is written as QuantizeLinear and DequantizeLinear pairs, signed and
symmetric with biases left in float, since TensorRT refuses all else. Convolutions and matrix products are quantised,
with a scale for each output channel; they hold nearly all of the work, and what is left in float, such as a
detector's sigmoid, loses most by int8. Inputs and outputs stay float32 there.

What it costs in accuracy is not judged here. bfloat16 and fp8 are left out: nobody needed them yet.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from export.errors import UserError
from export.runners import Array

if TYPE_CHECKING:
    import onnx

PRECISIONS = ("fp32", "fp16", "int8")
_QUANTISED = ["Conv", "Gemm", "MatMul"]


def at_precision(content: bytes, precision: str, inputs: Mapping[str, Array]) -> bytes:
    """The graph in another precision.

    Args:
        content: the graph, in float32.
        precision: fp32 leaves it as it is.
        inputs: by name, of the graph's shapes: the ranges of int8 are those seen on them.

    Raises:
        UserError: there is no such precision.
    """
    import onnx

    if precision not in PRECISIONS:
        raise UserError(f"there is no precision {precision!r}; known are {', '.join(PRECISIONS)}")
    if precision == "fp32":
        return content
    model = onnx.load_from_string(content)
    with _quiet_converters():
        return _half(model) if precision == "fp16" else _int8(model, inputs)


def _half(model: "onnx.ModelProto") -> bytes:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return bytes(convert_float_to_float16(model, keep_io_types=False).SerializeToString())


def _int8(model: "onnx.ModelProto", inputs: Mapping[str, Array]) -> bytes:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class OneBatch(CalibrationDataReader):  # type: ignore[misc]
        """``inputs``, once."""

        def __init__(self) -> None:
            self._left = iter([dict(inputs)])

        def get_next(self) -> dict[str, Array] | None:
            return next(self._left, None)

    with tempfile.TemporaryDirectory(prefix="fbnetv5-") as folder:
        path = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            path,
            OneBatch(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTISED,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
        )
        return path.read_bytes()


@contextmanager
def _quiet_converters() -> Iterator[None]:
    """Silence advice that does not apply, and undo that a first message gives the root logger a handler."""
    root = logging.getLogger()
    handlers, threshold = list(root.handlers), root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(threshold)
        root.handlers[:] = handlers
