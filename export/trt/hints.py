"""What to do about a refusal of NVIDIA's parser or builder, and its text in readable form.

A hint depends on NVIDIA's text and, because one text may have several causes, on the ONNX node and the graph. The texts
are those of tensorrt-rtx 1.7.1; ``benchmarks/backend_models.py`` counts the refusals without a hint.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from export.trt.graph_hints import graph_hint
from export.trt.hint_table import HINTS

if TYPE_CHECKING:
    import onnx

_BY_FUNCTION = (
    "onnx defines {operator} by simpler operators: replace it with onnx.inliner.inline_selected_functions(model, "
    '[("", "{operator}")], inline_schema_functions=True), and check again'
)
_NO_OPERATOR = "TensorRT has no such operator: express it in standard ONNX operators, or keep it outside the network"
_NO_PLUGIN = (
    "TensorRT has no such operator: express it in standard ONNX operators, or register a plugin of that name and domain"
)
CRASH = (
    "the library itself failed: simplify the graph, for instance with onnxruntime's basic optimizations, try another "
    "version of TensorRT, or report the file to NVIDIA"
)
"""What to do if NVIDIA's library crashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A message of NVIDIA's parser or builder with its place in the graph."""

    message: str
    index: int | None = None
    """Position in the main graph of the node, or of the node that contains it."""
    node: "onnx.NodeProto | None" = None
    operator: str = ""
    """Type of the node, also of one that was not found."""
    name: str = ""


def hint_for(refusal: Refusal, model: "onnx.ModelProto") -> str | None:
    """What to do about a refusal; None if its cause is not known."""
    advice = graph_hint(refusal.message, refusal.index, refusal.node, model) or _listed_hint(refusal)
    if advice is None:
        return None
    for placeholder, text in _fields(refusal, model).items():
        advice = advice.replace(f"{{{placeholder}}}", text)
    return advice


def readable(message: str, operator: str) -> str:
    """NVIDIA's sentence without conditions in C++, error codes and places in its source."""
    if message == "false":
        return f"this TensorRT has no implementation of {operator}"
    errors = re.findall(r"Error Code \d+: [\w ]+ \((.*?)(?: In [\w()]+ at \S+)+\)", message)
    if errors:
        return "; ".join(dict.fromkeys(_without_layer(error) for error in errors))
    if "MyelinCheckException" in message:
        return message.split("failed. ", 1)[-1].split("  ", 1)[0].strip()
    quoted = re.findall(r'"([^"]*)"', message.rsplit("&&", 1)[-1]) if "&&" in message else []
    if quoted:
        return "".join(quoted)
    return re.sub(r"^Assertion failed: .*?: (?=\S)", "", message)


def _without_layer(text: str) -> str:
    """The text without "LAYER: LAYER: " in front, and without "Assertion ... failed." unless there is nothing else."""
    text = re.sub(r"^Assertion \S+ failed\. (?=\S)", "", text.strip())
    return re.sub(r"^(I\w+Layer )?(\S+: )+", "", text).rstrip(". ")


def _listed_hint(refusal: Refusal) -> str | None:
    for operator, pattern, advice in HINTS:
        if re.fullmatch(operator or ".*", refusal.operator) and re.search(pattern, refusal.message):
            return advice
    if refusal.message == "false":
        return _BY_FUNCTION if _is_function(refusal.operator) else _NO_OPERATOR
    if re.search(r"[Pp]lugin", refusal.message):
        return _BY_FUNCTION if _is_function(refusal.operator) else _NO_PLUGIN
    return None


def _is_function(operator: str) -> bool:
    """Whether onnx defines the operator by simpler ones."""
    import onnx

    return any(schema.name == operator and schema.domain == "" for schema in onnx.defs.get_function_ops())


def _fields(refusal: Refusal, model: "onnx.ModelProto") -> dict[str, str]:
    """The texts that hints may contain, by placeholder."""
    node = refusal.node
    inputs = [] if node is None else list(node.input)
    others = [] if node is None else [repr(output) for output in node.output[1:] if output]
    opset = {entry.domain: entry.version for entry in model.opset_import}.get("", 0)
    return {
        "operator": refusal.operator,
        "opset": str(opset),
        "other_outputs": ", ".join(others) or "its other outputs",
        **{f"input{index}": repr(inputs[index]) if index < len(inputs) else "an input" for index in (1, 2, 3)},
    }
