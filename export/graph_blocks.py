"""Blocks and inner tensors of an ONNX graph: the block of a node, the output of each block, more graph outputs.

The exporter names a node after the modules it comes from, ``/backbone/s1_p8_0/expand/expand.0/Conv``. Here the first
two of these modules are the node's block. This is a rule of names only, and holds for graphs that ``export/graph.py``
wrote.

A selection, such as the best hundred of all boxes, turns the smallest difference into other rows. If a graph ends in a
selection, rounding is therefore judged by the inputs of the selection and not by its outputs.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from export.errors import UserError
from export.runners import BLOCK_DEPTH, strip_wrapper

if TYPE_CHECKING:
    import onnx

_SELECTIONS = {"TopK", "NonMaxSuppression", "ArgMax", "ArgMin", "NonZero"}


def add_outputs(content: bytes, names: Iterable[str]) -> bytes:
    """The graph with more of its tensors as outputs, after its own outputs.

    Raises:
        UserError: the graph has no such tensor.
    """
    import onnx

    model = onnx.load_from_string(content)
    tensors = {name for node in model.graph.node for name in node.output}
    outputs = {value.name for value in model.graph.output}
    for name in names:
        if name not in tensors:
            raise UserError(f"the ONNX graph has no tensor {name!r}")
        if name not in outputs:
            model.graph.output.add().name = name
    return bytes(model.SerializeToString())


def tensors_before_selection(content: bytes) -> tuple[str, ...]:
    """The float tensors that selections read, and the outputs that depend on no selection; in graph order."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(content)).graph
    floats = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    }
    selecting = selecting_nodes(graph)
    selected = {name for node in selecting for name in node.output}
    read_by_selection = {name for node in selecting for name in node.input if name in floats and name not in selected}
    unselected = {value.name for value in graph.output if value.name not in selected}
    tensors = [name for node in graph.node if node.op_type != "Constant" for name in node.output]
    return tuple(name for name in tensors if name in read_by_selection or name in unselected)


def selecting_nodes(graph: "onnx.GraphProto") -> "list[onnx.NodeProto]":
    """The selections of a graph and all nodes that depend on one, in graph order."""
    selected: set[str] = set()
    nodes = []
    for node in graph.node:
        if node.op_type in _SELECTIONS or selected.intersection(node.input):
            selected.update(node.output)
            nodes.append(node)
    return nodes


def block_outputs(content: bytes) -> dict[str, str]:
    """The last tensor of each block that is read outside it, by the block's name, in graph order."""
    import onnx

    graph = onnx.load_from_string(content).graph
    block_of = {name: block_name(node.name) for node in graph.node for name in node.output}
    read_outside = {value.name for value in graph.output}
    for node in graph.node:
        read_outside.update(name for name in node.input if block_of.get(name) != block_name(node.name))
    last: dict[str, str] = {}
    for node in graph.node:
        for name in node.output:
            if block_of[name] and name in read_outside and node.op_type != "Constant":
                last.pop(block_of[name], None)  # inserted again at the end: blocks are in the order in which they end
                last[block_of[name]] = name
    return last


def block_sources(content: bytes) -> dict[str, set[str]]:
    """The blocks that each block reads from, by name, without tensors from outside all modules."""
    import onnx

    graph = onnx.load_from_string(content).graph
    block_of = {name: block_name(node.name) for node in graph.node for name in node.output}
    sources: dict[str, set[str]] = {}
    for node in graph.node:
        block = block_name(node.name)
        if block:
            sources.setdefault(block, set()).update(block_of.get(name, "") for name in node.input)
    return {block: blocks - {"", block} for block, blocks in sources.items()}


def blocks_before(content: bytes, tensor: str) -> set[str]:
    """The blocks that a tensor of the graph depends on."""
    import onnx

    needed, blocks = {tensor}, set[str]()
    for node in reversed(onnx.load_from_string(content).graph.node):  # nodes are in the order in which they run
        if needed.intersection(node.output):
            needed.update(node.input)
            blocks.add(block_name(node.name))
    return blocks - {""}


def block_name(node: str) -> str:
    """``backbone/s1_p8_0`` of ``/backbone/s1_p8_0/expand/expand.0/Conv``; empty for a node outside all modules."""
    return "/".join(strip_wrapper(node.strip("/").split("/")[:-1])[:BLOCK_DEPTH])


def weights_by_name(graph: "onnx.GraphProto") -> "dict[str, onnx.TensorProto]":
    """The graph's initialisers by name."""
    return {tensor.name: tensor for tensor in graph.initializer}
