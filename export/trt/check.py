"""Will TensorRT take this ONNX file? The verdict of NVIDIA's own parser, node by node, with a hint per known cause.

Three things stand beside the parser. The file is read with onnx first, because the parser takes a text file for an
empty network (seen with tensorrt-rtx 1.7). What it accepts and the builder refuses is looked up in the graph: there
are two such cases that detectors meet. And its warnings count where they change what the network computes.

A file that passes is not proven to build: that takes shapes, time and memory, and is what building is for.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.errors import UserError, VerificationError
from export.subprocesses import DiedError, call
from export.trt import bindings

if TYPE_CHECKING:
    import onnx

MAX_TOPK = 3840
"""The largest K of TopK: tensorrt-rtx 1.7 builds 3840 and refuses 3841, after parsing both."""
_TIMEOUT_S = 300.0

_SYMMETRIC = (
    "TensorRT's int8 is signed and symmetric. Quantise again with onnxruntime's quantize_static: activation_type and "
    "weight_type QInt8, extra_options ActivationSymmetric and WeightSymmetric True"
)
_NMS = "keep it outside the network, or choose a fixed number by score with TopK and Gather"

# What is searched in "OPERATOR: DESCRIPTION", and what to do about it; the first that matches is given.
HINTS: tuple[tuple[str, str], ...] = (
    (r"zero.?point is not supported|shiftIsAllZeros|UINT8 zero_point", _SYMMETRIC),
    (
        r"^DequantizeLinear: .*has type Int32",
        "biases must stay in float: quantise again with extra_options QuantizeBias False",
    ),
    (
        r"^(QLinear\w+|ConvInteger|MatMulInteger|DynamicQuantizeLinear): ",
        "TensorRT reads quantised networks as QuantizeLinear and DequantizeLinear pairs: quantise again with "
        "quant_format=QuantFormat.QDQ",
    ),
    (
        r"^\w+_TRT: .*[Pp]lugin",
        "a plugin that this TensorRT does not bring, and TensorRT-RTX brings none: " + _NMS,
    ),
    (r"^(NonZero|NonMaxSuppression): ", "its output's size depends on the data: " + _NMS),
    (
        r"[Pp]lugin not found",
        "TensorRT has no such operator: express it in standard ONNX operators, or register a plugin of that name and "
        "domain",
    ),
    (
        r"same (input )?types?\b.*BFloat16|BFloat16.*same (input )?types?\b",
        "bfloat16 meets another type. An exporter that folds a batch norm may write float32 weights: fold it with "
        "torch.nn.utils.fusion.fuse_conv_bn_eval before casting the network",
    ),
    (r"same (input )?types?\b", "TensorRT casts nothing by itself: put a Cast before this node"),
    (r"convertDtype|data type", "TensorRT has no such type: texts and complex numbers stay outside the network"),
    (
        r"Node input was not registered",
        "the graph is not valid ONNX: the node reads a tensor that no earlier one makes",
    ),
    (r": false$", "TensorRT has no such operator: express it in others, or keep it outside the network"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why the file is not accepted: one node, or the file as a whole."""

    stage: str
    """Who refuses: "parser", or "builder" where the parser lets it pass."""
    code: str
    """TensorRT's ErrorCode, such as UNSUPPORTED_NODE."""
    node: int | None
    """Index in the graph; None for the file as a whole."""
    name: str
    operator: str
    description: str
    hint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A warning of the parser."""

    message: str
    hint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What TensorRT says of one file."""

    file: str
    runtime: str
    """tensorrt or tensorrt_rtx."""
    version: str
    """Of the runtime."""
    nodes: int
    """Of the graph."""
    problems: tuple[Problem, ...]
    warnings: tuple[Remark, ...]

    @property
    def accepted(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The ``--json`` form."""
        return {"accepted": self.accepted, **asdict(self)}


def check(path: Path) -> Verdict:
    """Have TensorRT's parser read ``path``, of whatever origin.

    Raises:
        UserError: the file, or one that its weights are in, is missing or damaged.
        UnavailableError: no TensorRT is installed.
        VerificationError: the parser itself crashed or hung.
    """
    model = read(path)
    try:
        said = call(bindings.parse, str(path), timeout_s=_TIMEOUT_S)
    except DiedError as error:
        raise VerificationError(f"TensorRT's parser gave no verdict on {path}: it {error}") from None
    problems = [
        Problem(stage="parser", **error, hint=hint(error["operator"], error["description"])) for error in said["errors"]
    ]
    return Verdict(
        file=str(path),
        runtime=said["name"],
        version=said["version"],
        nodes=len(model.graph.node),
        problems=tuple(problems or _builder_problems(model.graph, said["name"], path.parent)),
        warnings=tuple(Remark(message=message, hint=hint("", message)) for message in said["warnings"]),
    )


def hint(operator: str, description: str) -> str | None:
    """What to do about an error of the parser, where the cause is known."""
    text = f"{operator}: {description}"
    return next((advice for pattern, advice in HINTS if re.search(pattern, text)), None)


def read(path: Path) -> "onnx.ModelProto":
    """The model without the weights that lie in other files, which are only looked for.

    Raises:
        UserError: it, or a file of weights, is missing or damaged.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except DecodeError:
        raise UserError(f"{path} is not an ONNX file, or a damaged one: copy or export it again") from None
    if not model.HasField("graph"):
        raise UserError(f"{path} holds no ONNX graph: it is empty or cut off. Copy or export it again")
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _look_for_weights(path, tensor)
    return model


def _look_for_weights(path: Path, tensor: "onnx.TensorProto") -> None:
    """Raise UserError unless the file that ``tensor`` lies in is there and long enough."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    weights = path.parent / where.get("location", "")
    if not weights.is_file():
        raise UserError(f"{path} keeps its weights in {weights}, which is not there: copy it along with the ONNX file")
    end = sum(int(where[key]) for key in ("offset", "length") if where.get(key, "").isdigit())
    if end > weights.stat().st_size:
        raise UserError(f"{weights}, where {path} keeps its weights, is cut off: copy or export both again")


def _builder_problems(graph: "onnx.GraphProto", runtime: str, folder: Path) -> Sequence[Problem]:
    """What the parser accepts and the builder is known to refuse."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    found = []
    for index, node in enumerate(graph.node):
        reason = None
        if node.op_type == "TopK" and node.input[-1] in constants:
            reason = _topk_problem(constants[node.input[1]], folder)
        elif node.op_type == "NonMaxSuppression" and runtime == "tensorrt_rtx":
            reason = ("TensorRT-RTX has no implementation of it", _NMS)
        if reason is not None:
            description, advice = reason
            found.append(
                Problem(
                    stage="builder",
                    code="UNSUPPORTED_NODE",
                    node=index,
                    name=node.name,
                    operator=node.op_type,
                    description=description,
                    hint=advice,
                )
            )
    return found


def _topk_problem(k: "onnx.TensorProto", folder: Path) -> tuple[str, str] | None:
    from onnx import numpy_helper

    value = int(numpy_helper.to_array(k, base_dir=str(folder)).item())
    if value <= MAX_TOPK:
        return None
    return f"K is {value}, and {MAX_TOPK} at most is built", "choose fewer candidates, or take the top k of parts first"
