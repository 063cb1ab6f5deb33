"""An ONNX graph in float32 becomes one in half precision or in int8, as TensorRT takes it.

TensorRT's networks are strongly typed: an engine is as precise as its ONNX file says, so the precision is put there,
by ONNX Runtime's own tools. int8 is written as QuantizeLinear and DequantizeLinear pairs, signed and symmetric with
biases left in float, since TensorRT refuses all else. Convolutions and matrix products are quantised, each with a scale
for every output channel; they hold nearly all of the work, and what is left in float, such as a detector's sigmoid,
loses most by int8. Only what they read is rounded, not what they give: TensorRT fuses the activation that follows, and
rounding in between would be for nothing. ONNX Runtime's own int8 kernels want both, so such a file is no faster there.
``export/calibration.py`` says where the scales come from.

What it costs in accuracy is not judged here. bfloat16 and fp8 are left out: nobody needed them yet.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.calibration import QUANTISED, Batches, Progress, clip_limits, quantised_nodes, smooth
from export.errors import UserError
from export.runners import Array

if TYPE_CHECKING:
    import onnx

PRECISIONS = ("fp32", "fp16", "int8")


def check_precision(precision: str) -> None:
    """Raise UserError unless there is such a precision."""
    if precision not in PRECISIONS:
        raise UserError(f"there is no precision {precision!r}; known are {', '.join(PRECISIONS)}")


def at_precision(content: bytes, precision: str, inputs: Mapping[str, Array]) -> bytes:
    """A part of a network in another precision: in half precision its inputs and outputs too, which are inside of it.

    Args:
        content: the graph, in float32.
        precision: fp32 leaves it as it is.
        inputs: by name, of the graph's shapes: the ranges of int8 are those seen on them.

    Raises:
        UserError: there is no such precision.
    """
    check_precision(precision)
    if precision == "fp32":
        return content
    return to_half(content, keep_io=False) if precision == "fp16" else to_int8(content, [inputs])


def to_half(content: bytes, *, keep_io: bool = True) -> bytes:
    """The graph in half precision.

    Args:
        content: the graph, in float32.
        keep_io: inputs and outputs stay float32.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _quiet_converters():
        model = convert_float_to_float16(onnx.load_from_string(content), keep_io_types=keep_io)
    return bytes(model.SerializeToString())


def to_int8(
    content: bytes,
    batches: Batches,
    *,
    keep_float: Sequence[str] = (),
    threads: int = 1,
    progress: Progress | None = None,
) -> bytes:
    """The graph with int8 convolutions and matrix products; inputs and outputs stay float32.

    Args:
        content: the graph, in float32.
        batches: inputs, by name, such as the network will meet.
        keep_float: patterns of names of nodes that stay in float, such as ``/head/*``.
        threads: processor threads one operator may use.
        progress: told of each batch.

    Raises:
        UserError: there is nothing to calibrate with, a pattern matches no node that would be quantised, or they match
            all of them.
    """
    import onnx

    if not batches:
        raise UserError("int8 needs images to calibrate with, and there are none")
    _check_patterns(onnx.load_from_string(content).graph, keep_float)
    smoothed = smooth(content, batches, keep_float=keep_float, threads=threads)
    limits = clip_limits(smoothed, batches, keep_float=keep_float, threads=threads, progress=progress)
    return _quantise(smoothed, batches[0], limits, keep_float)


def _check_patterns(graph: "onnx.GraphProto", keep_float: Sequence[str]) -> None:
    everything = len(quantised_nodes(graph))
    for pattern in keep_float:
        if len(quantised_nodes(graph, [pattern])) == everything:
            example = quantised_nodes(graph)[0].name if everything else "none"
            raise UserError(f"no node of the graph that could be int8 matches {pattern!r}; one of them is {example}")
    if keep_float and not quantised_nodes(graph, keep_float):
        raise UserError(f"{', '.join(map(repr, keep_float))} leave nothing to be int8")


def _quantise(content: bytes, batch: Mapping[str, Array], limits: Mapping[str, float], keep: Sequence[str]) -> bytes:
    """Write the pairs. The batch is for the tool, which insists on observing what the limits already say."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class OneBatch(CalibrationDataReader):  # type: ignore[misc]
        """``batch``, once."""

        def __init__(self) -> None:
            self._left = iter([dict(batch)])

        def get_next(self) -> dict[str, Array] | None:
            return next(self._left, None)

    model = onnx.load_from_string(content)
    quantised = {node.name for node in quantised_nodes(model.graph, keep)}
    if not quantised:
        return content  # such as a part of a network that only adds: the tool would take no names for all names
    options: dict[str, Any] = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": list(QUANTISED),
        "TensorQuantOverrides": {
            name: [{"rmin": np.float32(-limit), "rmax": np.float32(limit)}] for name, limit in limits.items()
        },
    }
    with tempfile.TemporaryDirectory(prefix="fbnetv5-") as folder, _quiet_converters():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            path,
            OneBatch(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_quantize=sorted(quantised),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options=options,
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
