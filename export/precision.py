"""Converts a float32 ONNX graph to half precision or int8, in the form that TensorRT accepts.

TensorRT's networks are strongly typed: an engine has the precision of its ONNX file, so ONNX Runtime's tools convert
the file. int8 is written as QuantizeLinear and DequantizeLinear pairs, signed and symmetric with biases in float,
because TensorRT refuses everything else. Convolutions and matrix products are quantised, with a scale for every output
channel of the weights. They do nearly all of the work; the other operators, such as a detector's sigmoid, lose most
accuracy in int8. Only their inputs are rounded, not their outputs: TensorRT fuses the activation that follows, and
rounding in between would cost accuracy without benefit. ONNX Runtime's int8 kernels need both, so such a file is no
faster there. ``export/calibration.py`` chooses the scales.

The loss of accuracy is not measured here. bfloat16 and fp8 are left out: nobody has needed them yet.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from export.calibration import QUANTISED, Batches, clip_limits, quantised_nodes, smooth
from export.errors import UserError
from export.graph_blocks import selecting_nodes
from export.progress import Progress
from export.runners import Array

if TYPE_CHECKING:
    import onnx
    from onnxruntime.transformers.onnx_model import OnnxModel

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def check_precision(precision: str) -> None:
    """Raise UserError unless there is such a precision."""
    if precision not in PRECISIONS:
        raise UserError(f"there is no precision {precision!r}; known are {', '.join(PRECISIONS)}")


def at_precision(content: bytes, precision: str, inputs: Mapping[str, Array]) -> bytes:
    """Convert a part of a network; in half precision its inputs and outputs too, because they are inner tensors.

    Args:
        content: the graph, in float32.
        precision: fp32 leaves it as it is.
        inputs: inputs by name, of the graph's shapes, which int8 is calibrated on.

    Raises:
        UserError: there is no such precision.
    """
    check_precision(precision)
    if precision == "fp32":
        return content
    return to_half(content, keep_io=False) if precision == "fp16" else to_int8(content, [inputs])


def to_half(content: bytes, *, keep_io: bool = True) -> bytes:
    """Convert the graph to half precision.

    What selects boxes with a NonMaxSuppression stays in float32: it moves the boxes of each class to a region of their
    own, which may be thousands of pixels away, where half precision has steps of several pixels.

    Args:
        content: the graph, in float32.
        keep_io: inputs and outputs stay float32.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.load_from_string(content)
    exact = [node.name for node in _suppression(model.graph)]
    with _quiet_converters():
        half = OnnxModel(convert_float_to_float16(model, keep_io_types=keep_io, node_block_list=exact))
        _join_float_nodes(half, exact)
        half.topological_sort()  # the converter appends its casts at the end of the graph
    return bytes(half.model.SerializeToString())


def _suppression(graph: "onnx.GraphProto") -> "list[onnx.NodeProto]":
    """The nodes from the first selection on, if boxes are suppressed inside the graph."""
    selecting = selecting_nodes(graph)
    return selecting if any(node.op_type == "NonMaxSuppression" for node in selecting) else []


def _join_float_nodes(model: "OnnxModel", names: Sequence[str]) -> None:
    """Let these nodes, which are in float32, read each other without the two casts that the converter puts between."""
    import onnx

    producers = model.output_name_to_node()
    for node in model.get_nodes_by_op_type("Cast"):
        rounding = producers.get(node.input[0])
        if rounding is None or rounding.op_type != "Cast":
            continue
        types = [onnx.helper.get_node_attr_value(each, "to") for each in (rounding, node)]
        source = producers.get(rounding.input[0])
        if types == [onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT] and source is not None and source.name in names:
            model.replace_input_of_all_nodes(node.output[0], rounding.input[0])
    model.prune_graph()


def rounded_to_half(content: bytes) -> bytes:
    """The float32 graph with its weights, inputs and all tensors between its nodes rounded to half precision.

    On a CPU, ONNX Runtime computes most operators of a half-precision graph in float32 and drops the casts between
    them, so a value that is too large for half precision stays finite there. This graph has it infinite, as a GPU has.
    Sums within an operator are of float32 here; a GPU may round them too.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(content))
    graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half.astype(np.float32), tensor.name))

    def rounding(source: str, target: str) -> "list[onnx.NodeProto]":
        to_half_node = helper.make_node("Cast", [source], [f"{target}_half"], to=TensorProto.FLOAT16)
        return [to_half_node, helper.make_node("Cast", [f"{target}_half"], [target], to=TensorProto.FLOAT)]

    exact = {name for node in _suppression(graph) for name in node.output}
    inputs = {value.name: f"{value.name}_rounded" for value in graph.input if value.name in floats}
    nodes = [node for name, of_half in inputs.items() for node in rounding(name, of_half)]
    for node in graph.node:
        node.input[:] = [inputs.get(name, name) for name in node.input]
        nodes.append(node)
        for place, name in enumerate(node.output):
            if name in floats - exact and node.op_type != "Constant":
                node.output[place] = f"{name}_exact"
                nodes += rounding(f"{name}_exact", name)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(kept)
    return bytes(model.SerializeToString())


def to_int8(
    content: bytes,
    batches: Batches,
    *,
    keep_float: Sequence[str] = (),
    threads: int = 1,
    progress: Progress | None = None,
) -> bytes:
    """Quantise convolutions and matrix products to int8; inputs and outputs stay float32.

    Args:
        content: the graph, in float32.
        batches: typical inputs by name.
        keep_float: name patterns of nodes that stay in float, such as ``/head/*``.
        threads: CPU threads that one operator may use.
        progress: called after each batch.

    Raises:
        UserError: there is no batch, a pattern matches no node that would be quantised, or the patterns match all
            of these nodes.
    """
    import onnx

    if not batches:
        raise UserError("int8 needs images to calibrate with, and there are none")
    _check_patterns(onnx.load_from_string(content).graph, keep_float)
    smoothed = smooth(content, batches, keep_float=keep_float, threads=threads)
    limits = clip_limits(smoothed, batches, keep_float=keep_float, threads=threads, progress=progress)
    return _quantise(smoothed, batches[0], limits, keep_float)


def _check_patterns(graph: "onnx.GraphProto", keep_float: Sequence[str]) -> None:
    """Raise UserError unless each pattern matches a node and some node is left to quantise."""
    total = len(quantised_nodes(graph))
    for pattern in keep_float:
        if len(quantised_nodes(graph, [pattern])) == total:
            example = quantised_nodes(graph)[0].name if total else "none"
            raise UserError(f"no node of the graph that could be int8 matches {pattern!r}; one of them is {example}")
    if keep_float and not quantised_nodes(graph, keep_float):
        raise UserError(f"{', '.join(map(repr, keep_float))} leave no node to quantise")


def _quantise(content: bytes, batch: Mapping[str, Array], limits: Mapping[str, float], keep: Sequence[str]) -> bytes:
    """Write the QuantizeLinear pairs. ``limits`` has all ranges, but the tool needs a batch to observe as well."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class OneBatch(CalibrationDataReader):  # type: ignore[misc]
        """Reads ``batch`` once."""

        def __init__(self) -> None:
            self._batches = iter([dict(batch)])

        def get_next(self) -> dict[str, Array] | None:
            return next(self._batches, None)

    model = onnx.load_from_string(content)
    quantised = {node.name for node in quantised_nodes(model.graph, keep)}
    if not quantised:
        return content  # e.g. a part of a network that only adds: the tool would read no names as all names
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
    """Silence advice that does not apply, and remove the handler that a first message adds to the root logger."""
    root = logging.getLogger()
    handlers, threshold = list(root.handlers), root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(threshold)
        root.handlers[:] = handlers
