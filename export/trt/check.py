"""Checks whether TensorRT accepts an ONNX file: the errors of NVIDIA's parser, with a hint for each known cause.

Three checks complete the parser. The file is read with onnx first, because the parser accepts a text file as an empty
network (seen with tensorrt-rtx 1.7). The graph is searched for two operators of detectors that the parser accepts and
the builder refuses. The parser's warnings are reported, because some change what the network computes.

A file that passes may still fail to build, which depends on shapes, time and memory: only a build verifies that.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.errors import UserError, VerificationError
from export.subprocesses import SubprocessFailedError, run_in_subprocess
from export.trt import bindings

if TYPE_CHECKING:
    import onnx

MAX_TOPK = 3840
"""The largest K of TopK: tensorrt-rtx 1.7 parses 3840 and 3841, builds 3840 and refuses 3841."""
_TIMEOUT_S = 300.0

_SYMMETRIC = (
    "TensorRT's int8 is signed and symmetric. Quantise again with onnxruntime's quantize_static: activation_type and "
    "weight_type QInt8, extra_options ActivationSymmetric and WeightSymmetric True"
)
_NMS = "keep it outside the network, or choose a fixed number by score with TopK and Gather"

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
        "a plugin that this TensorRT does not contain, and TensorRT-RTX contains none: " + _NMS,
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
    (r"same (input )?types?\b", "TensorRT adds no casts: put a Cast before this node"),
    (r"convertDtype|data type", "TensorRT has no such type: keep strings and complex numbers outside the network"),
    (
        r"Node input was not registered",
        "the graph is not valid ONNX: the node reads a tensor that no earlier node writes",
    ),
    (r": false$", "TensorRT has no such operator: express it in others, or keep it outside the network"),
)
"""(pattern to search in "OPERATOR: DESCRIPTION", what to do about the error); the first match counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One error: of a node, or of the file as a whole."""

    stage: str
    """What refuses it: "parser", or "builder" if the parser accepts it."""
    code: str
    """TensorRT's ErrorCode, such as UNSUPPORTED_NODE."""
    node: int | None
    """Index in the graph; None for the file as a whole."""
    name: str
    """Name of the node."""
    operator: str
    description: str
    hint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParserWarning:
    """A warning of the parser."""

    message: str
    hint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The result of the check of one file."""

    file: str
    runtime: str
    """tensorrt or tensorrt_rtx."""
    version: str
    """Version of the runtime."""
    nodes: int
    """Number of nodes of the graph."""
    problems: tuple[Problem, ...]
    warnings: tuple[ParserWarning, ...]

    @property
    def accepted(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The ``--json`` form."""
        return {"accepted": self.accepted, **asdict(self)}


def check(path: Path) -> CheckResult:
    """Check any ONNX file with TensorRT's parser.

    Raises:
        UserError: the file, or a file with its weights, is missing or damaged.
        UnavailableError: no TensorRT is installed.
        VerificationError: the parser itself crashed or hung.
    """
    model = read_onnx(path)
    try:
        parsed = run_in_subprocess(bindings.parse, str(path), timeout_s=_TIMEOUT_S)
    except SubprocessFailedError as error:
        raise VerificationError(f"TensorRT's parser failed on {path}: it {error}") from None
    problems = [
        Problem(stage="parser", **error, hint=hint_for(error["operator"], error["description"]))
        for error in parsed["errors"]
    ]
    return CheckResult(
        file=str(path),
        runtime=parsed["name"],
        version=parsed["version"],
        nodes=len(model.graph.node),
        problems=tuple(problems or _builder_problems(model.graph, parsed["name"], path.parent)),
        warnings=tuple(ParserWarning(message=message, hint=hint_for("", message)) for message in parsed["warnings"]),
    )


def hint_for(operator: str, description: str) -> str | None:
    """What to do about an error of the parser; None if its cause is not known."""
    text = f"{operator}: {description}"
    return next((advice for pattern, advice in HINTS if re.search(pattern, text)), None)


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
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_weights_file(path, tensor)
    return model


def _check_weights_file(path: Path, tensor: "onnx.TensorProto") -> None:
    """Raise UserError unless the file with the values of ``tensor`` exists and is long enough."""
    location = {entry.key: entry.value for entry in tensor.external_data}
    weights = path.parent / location.get("location", "")
    if not weights.is_file():
        raise UserError(f"{path} has its weights in {weights}, which does not exist: copy it along with the ONNX file")
    end = sum(int(location[key]) for key in ("offset", "length") if location.get(key, "").isdigit())
    if end > weights.stat().st_size:
        raise UserError(f"{weights}, with the weights of {path}, is truncated: copy or export both again")


def _builder_problems(graph: "onnx.GraphProto", runtime: str, folder: Path) -> Sequence[Problem]:
    """The nodes that the parser accepts and the builder is known to refuse."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    problems = []
    for index, node in enumerate(graph.node):
        reason = None
        if node.op_type == "TopK" and node.input[-1] in constants:
            reason = _topk_problem(constants[node.input[1]], folder)
        elif node.op_type == "NonMaxSuppression" and runtime == "tensorrt_rtx":
            reason = ("TensorRT-RTX has no implementation of it", _NMS)
        if reason is not None:
            description, advice = reason
            problems.append(
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
    return problems


def _topk_problem(k: "onnx.TensorProto", folder: Path) -> tuple[str, str] | None:
    """(description, hint) for a K that is too large; None for one that builds."""
    from onnx import numpy_helper

    value = int(numpy_helper.to_array(k, base_dir=str(folder)).item())
    if value <= MAX_TOPK:
        return None
    return f"K is {value}, and at most {MAX_TOPK} is built", "choose fewer candidates, or take the top k of parts first"
