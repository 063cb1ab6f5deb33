"""Looks inside an ONNX graph: which block a node belongs to, what each block gives, and the values of inner tensors.

The exporter names a node by the modules it came from, ``/backbone/s1_p8_0/expand/expand.0/Conv``; the first two of
them are called its block here. That is a rule of names only, and holds for graphs that ``export/graph.py`` wrote.

A selection, such as the best hundred of all boxes, turns the smallest difference into other rows. Where a graph ends in
one, rounding is judged by what goes into the selection and not by what comes out.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from export.errors import UserError
from export.runners import BLOCK_DEPTH, within_wrapper

if TYPE_CHECKING:
    import onnx

_SELECTIONS = {"TopK", "NonMaxSuppression", "ArgMax", "ArgMin", "NonZero"}


def with_outputs(content: bytes, names: Iterable[str]) -> bytes:
    """The graph with more of its tensors as outputs, after its own.

    Raises:
        UserError: it has no such tensor.
    """
    import onnx

    model = onnx.load_from_string(content)
    made = {name for node in model.graph.node for name in node.output}
    there = {value.name for value in model.graph.output}
    for name in names:
        if name not in made:
            raise UserError(f"the ONNX graph has no tensor {name!r}")
        if name not in there:
            model.graph.output.add().name = name
    return bytes(model.SerializeToString())


def before_selection(content: bytes) -> tuple[str, ...]:
    """The float tensors that outputs are selected from, and the outputs that no selection touches; in graph order."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(content)).graph
    floats = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    }
    selected: set[str] = set()
    crossing: dict[str, None] = {}
    for node in graph.node:
        if node.op_type in _SELECTIONS or selected.intersection(node.input):
            selected.update(node.output)
            crossing.update(dict.fromkeys(name for name in node.input if name in floats and name not in selected))
    whole = [value.name for value in graph.output if value.name not in selected]
    made = [name for node in graph.node if node.op_type != "Constant" for name in node.output]
    return tuple(name for name in made if name in crossing or name in whole)


def block_outputs(content: bytes) -> dict[str, str]:
    """The last tensor that each block gives to others, by the block's name, in graph order."""
    import onnx

    graph = onnx.load_from_string(content).graph
    block_of = {name: block_name(node.name) for node in graph.node for name in node.output}
    given = {value.name for value in graph.output}
    for node in graph.node:
        given.update(name for name in node.input if block_of.get(name) != block_name(node.name))
    last: dict[str, str] = {}
    for node in graph.node:
        for name in node.output:
            if block_of[name] and name in given and node.op_type != "Constant":
                last.pop(block_of[name], None)  # back in at the end: blocks stand in the order in which they finish
                last[block_of[name]] = name
    return last


def block_sources(content: bytes) -> dict[str, set[str]]:
    """The blocks that each block reads from, by name; what it reads from outside all modules is left out."""
    import onnx

    graph = onnx.load_from_string(content).graph
    block_of = {name: block_name(node.name) for node in graph.node for name in node.output}
    sources: dict[str, set[str]] = {}
    for node in graph.node:
        name = block_name(node.name)
        if name:
            sources.setdefault(name, set()).update(block_of.get(read, "") for read in node.input)
    return {name: found - {"", name} for name, found in sources.items()}


def block_name(node: str) -> str:
    """``backbone/s1_p8_0`` of ``/backbone/s1_p8_0/expand/expand.0/Conv``; empty for what is outside all modules."""
    return "/".join(within_wrapper(node.strip("/").split("/")[:-1])[:BLOCK_DEPTH])


def weights_by_name(graph: "onnx.GraphProto") -> "dict[str, onnx.TensorProto]":
    """The graph's initialisers."""
    return {tensor.name: tensor for tensor in graph.initializer}
