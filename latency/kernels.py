"""Cuts an ONNX graph of fixed shapes into kernels, roughly as TensorRT would, and counts what each does.

A convolution or matrix product is a kernel, together with the element-wise operators after it. Element-wise operators
elsewhere run together too. Anything else that moves data (pooling, resizing, concatenation, top-k) is a kernel of its
own, and a reshape is free. A tensor that only its own kernel reads is never written to memory.

A real builder fuses more: it pads without copying, and lets convolutions write into the output of a concatenation.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from export.errors import VerificationError

if TYPE_CHECKING:
    import onnx

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_ELEMENTWISE = frozenset(
    {"Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater"}
    | {"HardSigmoid", "HardSwish", "LeakyRelu", "Less", "Log", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "PRelu"}
    | {"Pow", "Reciprocal", "Relu", "Round", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh", "Where"}
)
_FREE = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators whose output is the memory of their first input in another shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The work of one kernel."""

    macs: int
    """Multiply-adds of its matrix product or convolution; 0 without one, however many element-wise operators it has."""
    elements: int
    """Number of elements of the tensors it reads and writes, weights too; each tensor once."""


def kernels_of(content: bytes) -> list[Kernel]:
    """The kernels of an ONNX graph in execution order.

    Raises:
        VerificationError: the graph has a tensor whose shape is not fixed.
    """
    import onnx

    folded = onnx.load_from_string(_folded(content))
    graph = onnx.shape_inference.infer_shapes(folded, strict_mode=True, data_prop=True).graph
    shapes = _shapes(graph)
    return [
        Kernel(macs=group.macs, elements=sum(math.prod(shapes[name]) for name in (*group.reads, *group.writes)))
        for group in _groups(graph, shapes)
    ]


def _folded(content: bytes) -> bytes:
    """The graph with constants folded, as a builder does it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3  # it warns about every graph it writes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return path.read_bytes()


def _shapes(graph: "onnx.GraphProto") -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, by name."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if not tensor.HasField("shape") or any(axis.WhichOneof("value") != "dim_value" for axis in tensor.shape.dim):
            raise VerificationError(f"tensor {value.name!r} has no fixed shape: export the graph at one batch and size")
        shapes[value.name] = tuple(axis.dim_value for axis in tensor.shape.dim)
    return shapes


@dataclass(slots=True, kw_only=True)
class _Group:
    """Operators that run as one kernel."""

    fuses: bool
    """Whether element-wise operators that read its result become part of it."""
    macs: int = 0
    reads: set[str] = field(default_factory=set)
    writes: set[str] = field(default_factory=set)


def _groups(graph: "onnx.GraphProto", shapes: Mapping[str, tuple[int, ...]]) -> list[_Group]:
    """Group the operators of the graph into kernels; each kernel only depends on earlier ones.

    An element-wise operator therefore joins the kernel that computes the last of its operands, and reads the others.
    """
    groups: list[_Group] = []
    producer: dict[str, int] = {}
    memory: dict[str, str] = {}  # the tensor whose memory the output of a free operator is
    for node in graph.node:
        inputs = [memory.get(name, name) for name in node.input if name]
        if node.op_type in _FREE:
            memory[node.output[0]] = inputs[0]
            continue
        last = max((producer[name] for name in inputs if name in producer), default=None)
        if last is None or not groups[last].fuses or node.op_type not in _ELEMENTWISE:
            last = len(groups)
            groups.append(_Group(fuses=node.op_type in _PRODUCTS | _ELEMENTWISE))
        groups[last].macs += _macs(node, shapes)
        groups[last].reads.update(inputs)
        groups[last].writes.update(name for name in node.output if name)
        producer.update(dict.fromkeys(node.output, last))
    _drop_internal(groups, outputs={memory.get(value.name, value.name) for value in graph.output})
    return groups


def _drop_internal(groups: Sequence[_Group], *, outputs: set[str]) -> None:
    """Remove from the reads and writes of every kernel the tensors that only it uses; keep the graph's ``outputs``."""
    for group in groups:
        group.reads -= group.writes
    read = outputs.union(*(group.reads for group in groups))
    for group in groups:
        group.writes &= read


def _macs(node: "onnx.NodeProto", shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-adds of a product, without biases, as the FBNet papers count; 0 for any other operator."""
    if node.op_type not in _PRODUCTS:
        return 0
    first, second, output = (shapes[name] for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":
        return math.prod(output) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(output) * first[0 if transposed else -1]
