"""Hints whose cause is in the graph, where NVIDIA's text names neither the tensor nor the type."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from export.trt.onnx_file import subgraphs, walk

if TYPE_CHECKING:
    import onnx

_TYPE_MESSAGES = r"convertDtype|convertOnnxWeights|[Dd]ata ?type for the Cast"
_FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT4E2M1")
_KNOWN = (*_FLOATS, "INT4", "INT8", "UINT8", "INT32", "INT64", "BOOL")
"""Types of onnx that the parser reads; it converts DOUBLE to FLOAT."""
_WAYS_OUT = (
    (r"string", "turn text into numbers outside the network"),
    (r"a sequence|an optional|a map", "TensorRT has tensors only: give each element as an input of its own"),
    (r"complex", "give the real and the imaginary part as two inputs"),
    (r"u?int(16|32|64)", "use int32 or int64, and convert outside the network"),
    (r"float8|float4|u?int[24]", "of the types below 8 bits and fp8, TensorRT has int4, float4e2m1 and float8e4m3fn"),
)


def graph_hint(message: str, index: int | None, node: "onnx.NodeProto | None", model: "onnx.ModelProto") -> str | None:
    """The hint for a message whose cause is found in the graph; None for every other message.

    Args:
        message: NVIDIA's text.
        index: position in the main graph of the node, or of the node that contains it; None for the whole file.
        node: the refused node.
        model: the model.
    """
    if re.search(_TYPE_MESSAGES, message):
        return _type_hint(node, model)
    if "Node input was not registered" in message and index is not None and node is not None:
        return _unregistered_hint(model.graph.node[index], node)
    if "Unsupported reduction type" in message:
        scatters = [each for each in walk(model.graph.node) if each.op_type.startswith("Scatter")]
        names = ", ".join(repr(each.name or each.output[0]) for each in scatters)
        return f"scatter with reduction has no implementation ({names}): write the sum as OneHot and MatMul"
    return None


def _type_hint(node: "onnx.NodeProto | None", model: "onnx.ModelProto") -> str:
    """Names the tensors of types that TensorRT does not have."""
    values = [f"{what} {name!r} is {kind}" for what, name, kind in _unknown_types(node, model)]
    if not values:
        return "TensorRT has no such type: keep it outside the network"
    ways_out = [way for pattern, way in _WAYS_OUT if any(re.search(rf"is {pattern}", value) for value in values)]
    return f"{', '.join(values[:4])}, which TensorRT does not have: {'; '.join(ways_out) or 'convert it outside'}"


def _unknown_types(node: "onnx.NodeProto | None", model: "onnx.ModelProto") -> Iterator[tuple[str, str, str]]:
    """(what, name, type) of the target of a Cast, of inputs, initialisers and outputs whose type is not known."""
    from onnx import TensorProto

    names = {number: name for name, number in TensorProto.DataType.items()}
    for attribute in node.attribute if node is not None else ():
        if attribute.name == "to" and names.get(attribute.i) not in _KNOWN and node is not None:
            yield "the target of Cast", node.name or node.output[0], names.get(attribute.i, "unknown").lower()
    for value in model.graph.input:
        form = value.type.WhichOneof("value") or "tensor_type"
        kind = names[value.type.tensor_type.elem_type]
        if form != "tensor_type":
            yield (
                "input",
                value.name,
                {"sequence_type": "a sequence", "optional_type": "an optional"}.get(form, "a map"),
            )
        elif kind not in _KNOWN:
            yield "input", value.name, kind.lower()
    for tensor in model.graph.initializer:
        if names[tensor.data_type] not in _KNOWN:
            yield "initialiser", tensor.name, names[tensor.data_type].lower()


def _unregistered_hint(outer: "onnx.NodeProto", node: "onnx.NodeProto") -> str:
    """Names the input that nothing writes; the condition of a Loop is optional in ONNX and required here."""
    for loop in walk([outer]):
        bodies = list(subgraphs(loop)) if loop.op_type == "Loop" else []
        conditions = {body.input[1].name for body in bodies if len(body.input) > 1}
        without = len(loop.input) < 2 or not loop.input[1]
        if without and conditions & set(node.input):
            return (
                f"Loop {loop.name or loop.output[0]!r} has no condition, which ONNX allows and TensorRT does not: give "
                "it a constant True as its second input"
            )
    names = ", ".join(repr(name) for name in node.input if name)
    return f"the graph is not valid ONNX: the node reads {names}, of which no earlier node writes at least one"
