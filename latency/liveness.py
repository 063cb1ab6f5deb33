"""The activation memory of an ONNX graph of fixed shapes: the bytes of all live tensors, operator by operator.

A tensor is live from the operator that writes it to the last one that reads it; an output of the graph to the end, an
input of the graph from the beginning. While an operator runs, its inputs and its outputs are live. Weights, and what
depends on no input of the graph, are no activations. Operators run in the order of the graph, none in place and none
fused with another, so this is more than a runtime needs that has such operators.

The sizes of tensors are those of one run in ONNX Runtime, since shape inference does not resolve every graph.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """A tensor of a graph that is no weight."""

    bytes: int
    written: int
    """Number of the operator that writes it; 0 for an input of the graph."""
    last_read: int
    """Number of the last operator that reads it, or else of the one that writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """The activations of a graph, by name."""

    operators: int
    activations: Mapping[str, Activation]
    outputs: tuple[str, ...]

    def peak_bytes(self, kept: Collection[str] = ()) -> int:
        """The largest number of bytes that are live during an operator.

        Args:
            kept: inputs that are live to the end, because another graph reads them afterwards.
        """
        changes = [0] * (self.operators + 1)
        for name, activation in self.activations.items():
            end = self.operators if name in kept or name in self.outputs else activation.last_read + 1
            changes[activation.written] += activation.bytes
            changes[end] -= activation.bytes
        return max(accumulate(changes))


def liveness_of(content: bytes) -> Liveness:
    """The activations of an ONNX graph of fixed shapes."""
    import onnx

    graph = onnx.load_from_string(content).graph
    weights = {tensor.name for tensor in graph.initializer}
    written = {value.name: 0 for value in graph.input if value.name not in weights}
    last_read = dict(written)
    for number, node in enumerate(graph.node):
        if any(name in written for name in node.input):
            written |= dict.fromkeys(filter(None, node.output), number)
            last_read |= dict.fromkeys([*node.input, *node.output], number)
    sizes = _bytes_of_run(content)
    activations = {
        name: Activation(bytes=sizes[name], written=first, last_read=last_read[name]) for name, first in written.items()
    }
    outputs = tuple(value.name for value in graph.output)
    return Liveness(operators=len(graph.node), activations=activations, outputs=outputs)


def _bytes_of_run(content: bytes) -> dict[str, int]:
    """The bytes of every tensor of a graph but its weights, by name, in a run on zeros."""
    import numpy as np
    import onnx
    import onnxruntime

    model = onnx.load_from_string(content)
    outputs = {value.name for value in model.graph.output}
    inner = [name for node in model.graph.node for name in node.output if name and name not in outputs]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {each.name: np.zeros(each.shape, dtype=np.float32) for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    return {
        name: array.nbytes for name, array in (feed | dict(zip(names, session.run(None, feed), strict=True))).items()
    }
