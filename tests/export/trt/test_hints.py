"""Hints and readable sentences for texts of tensorrt-rtx 1.7.1; ``test_check.py`` gets such texts from NVIDIA."""

import re

import onnx
import pytest
from onnx import helper

from export.trt.hint_table import HINTS
from export.trt.hints import Refusal, hint_for, readable

EMPTY = helper.make_model(helper.make_graph([], "g", [], []), opset_imports=[helper.make_opsetid("", 20)])

# name: (operator, NVIDIA's text, words of the hint)
KNOWN: dict[str, tuple[str, str, str | None]] = {
    "zero point": ("QuantizeLinear", "shiftIsAllZeros(zeroPoint): Non-zero zero point is not supported.", "QInt8"),
    "bias": ("DequantizeLinear", "Invalid Node - b (b: input has type Int32 but must have type FP8)", "QuantizeBias"),
    "operator format": ("QLinearConv", "false", "QuantFormat.QDQ"),
    "plugin": ("EfficientNMS_TRT", 'creator && "Plugin not found, are the plugin name', "TensorRT-RTX contains none"),
    "custom": ("Sharpen", 'creator && "Plugin not found, are the plugin name', "register a plugin"),
    "a function": ("SwiGLU", 'creator && "Plugin not found, are the plugin name', "inline_schema_functions"),
    "data-dependent": ("NonZero", "NonZero plugin creator version 1 was not found", "depends on the data"),
    "no kernel for NMS": ("NonMaxSuppression", "node_of_i has no runners that implement it", "depends on the data"),
    "loss": ("SoftmaxCrossEntropyLoss", "false", "without its loss"),
    "text": ("StringConcat", "false", "numbers only"),
    "bits": ("BitShift", "false", "operations on bits"),
    "fp8": ("Cast", "Tensor y has datatype FP8 but is not produced by IQuantizeLayer", "QuantizeLinear"),
    "float scales": ("Resize", "Network input s is a shape tensor and must have type Int32", "its scales"),
    "Celu in half precision": ("Celu", "must have same input types. But they are Half and Float", "in float32 only"),
    "opset": ("", "ctx->getOpsetVersion() >= 7: Pre-opset 7 broadcasting is unsupported", "the graph has opset 20"),
    "unknown": ("Conv", "a cause nobody met yet", None),
}


@pytest.mark.parametrize(("operator", "message", "words"), KNOWN.values(), ids=KNOWN)
def test_known_causes_have_a_hint(operator: str, message: str, words: str | None) -> None:
    hint = hint_for(Refusal(message=message, operator=operator), EMPTY)
    assert hint is None if words is None else words in (hint or "")


def test_the_tensors_of_the_node_are_named() -> None:
    node = helper.make_node("ReduceSum", ["x", "axes"], ["y"])
    refusal = Refusal(message="Axis input must resolve to a constant", index=0, node=node, operator="ReduceSum")
    assert "its axes, 'axes'," in (hint_for(refusal, EMPTY) or "")


def test_operators_in_the_table_exist() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas()} | {"X_TRT"}
    patterns = [alternative for operator, _, _ in HINTS if operator for alternative in operator.split("|")]
    assert [pattern for pattern in patterns if not any(re.fullmatch(pattern, name) for name in known)] == []


SENTENCES = {
    "no importer": ("false", "this TensorRT has no implementation of Det"),
    "an assertion": (
        "Assertion failed: mode == none: With reduction: not supported.",
        "With reduction: not supported.",
    ),
    "a condition": (
        '(mode == "linear") && (form == "a long form") && "Only L1 and " "L2 are supported now."',
        "Only L1 and L2 are supported now.",
    ),
    "an error of the builder": (
        "Invalid Node - n ITensor::getDimensions: Error Code 4: Shape Error (node_of_y: axis is not a constant In "
        "makeAxesMask at /_src/shape.cpp:3553)",
        "axis is not a constant",
    ),
    "two places": (
        "Error Code 4: API Usage Error (ITopKLayer t: t: K exceeds the maximum value allowed (3840). In processCheck "
        "at /_src/a.cpp:1066 In analyzeShapes at /_src/b.cpp:2825)",
        "K exceeds the maximum value allowed (3840)",
    ),
    "Myelin": (
        "Error Code 1: Myelin ([a.h:1: f] MyelinCheckException: b.cpp:59: CHECK(ok) failed. Attention has no kernel.  "
        "(See a page)  More)",
        "Attention has no kernel.",
    ),
}


@pytest.mark.parametrize(("message", "sentence"), SENTENCES.values(), ids=SENTENCES)
def test_nvidias_sentence_is_readable(message: str, sentence: str) -> None:
    assert readable(message, "Det") == sentence
