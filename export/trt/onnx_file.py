"""Reads an ONNX file without its weights, and finds nodes in it, also those of subgraphs and functions."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from export.errors import UserError

if TYPE_CHECKING:
    import onnx


def read_onnx(path: Path) -> "onnx.ModelProto":
    """Read a model without its weights in other files, which must exist.

    Raises:
        UserError: the model, or a file of weights, is missing or damaged.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except DecodeError:
        raise UserError(f"{path} is not an ONNX file, or is damaged: copy or export it again") from None
    if not model.HasField("graph"):
        raise UserError(f"{path} contains no ONNX graph: it is empty or truncated. Copy or export it again")
    for tensor in external_tensors(model):
        _check_weights_file(path, tensor)
    return model


def size_with_weights(path: Path, model: "onnx.ModelProto") -> int:
    """Bytes of an ONNX file and of the files that contain its weights."""
    locations = {_location(tensor).get("location", "") for tensor in external_tensors(model)}
    return path.stat().st_size + sum((path.parent / location).stat().st_size for location in locations)


def external_tensors(model: "onnx.ModelProto") -> Iterator["onnx.TensorProto"]:
    """The tensors whose values are in other files: initialisers and constants, of subgraphs and functions too."""
    from onnx.external_data_helper import uses_external_data

    functions = (node for function in model.functions for node in walk(function.node))
    nodes = [*walk(model.graph.node), *functions]
    graphs = [model.graph, *(graph for node in nodes for graph in subgraphs(node))]
    tensors = [tensor for graph in graphs for tensor in graph.initializer]
    tensors += [attribute.t for node in nodes for attribute in node.attribute if attribute.HasField("t")]
    yield from filter(uses_external_data, tensors)


def subgraphs(node: "onnx.NodeProto") -> Iterator["onnx.GraphProto"]:
    """The graphs in the attributes of a node: branches of If, bodies of Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def walk(nodes: Iterable["onnx.NodeProto"]) -> Iterator["onnx.NodeProto"]:
    """Each node, followed by the nodes of its subgraphs."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from walk(graph.node)


def nodes_inside(model: "onnx.ModelProto", index: int) -> Iterator["onnx.NodeProto"]:
    """A node of the main graph, and those of its subgraphs and of the functions that it calls.

    Args:
        model: the model.
        index: position of the node in the main graph.
    """
    functions = {(function.domain, function.name): function for function in model.functions}
    pending = [model.graph.node[index]]
    while pending:
        for node in walk([pending.pop()]):
            yield node
            called = functions.pop((node.domain, node.op_type), None)  # popped: each function is entered once
            pending.extend(reversed(called.node) if called else ())


def layer_name(node: "onnx.NodeProto") -> str:
    """The name that NVIDIA's parser gives to the layer of a node."""
    return node.name or f"node_of_{node.output[0] if node.output else ''}"


def _location(tensor: "onnx.TensorProto") -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _check_weights_file(path: Path, tensor: "onnx.TensorProto") -> None:
    """Raise UserError unless the file with the values of ``tensor`` exists and is long enough."""
    location = _location(tensor)
    weights = path.parent / location.get("location", "")
    if not weights.is_file():
        raise UserError(f"{path} has its weights in {weights}, which does not exist: copy it along with the ONNX file")
    end = sum(int(location[key]) for key in ("offset", "length") if location.get(key, "").isdigit())
    if end > weights.stat().st_size:
        raise UserError(f"{weights}, with the weights of {path}, is truncated: copy or export both again")
