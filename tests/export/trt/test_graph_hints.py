"""Hints whose cause is in the graph; ``test_check.py`` tests them with NVIDIA's parser."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.trt.graph_hints import graph_hint

NO_TYPE = "Assertion failed: convertDtype(onnxDtype.elem_type(), &trtDtype)"


def model(kind: onnx.TypeProto, nodes: list[onnx.NodeProto], **weights: np.ndarray) -> onnx.ModelProto:
    value = helper.make_value_info("x", kind)
    initialisers = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    return helper.make_model(helper.make_graph(nodes, "g", [value], [], initialisers))


def tensor(kind: int) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(kind, [2])


TYPES = {
    "uint16": (tensor(TensorProto.UINT16), "input 'x' is uint16", "int32"),
    "text": (tensor(TensorProto.STRING), "input 'x' is string", "text into numbers"),
    "complex": (tensor(TensorProto.COMPLEX64), "input 'x' is complex64", "two inputs"),
    "fp8": (tensor(TensorProto.FLOAT8E5M2), "input 'x' is float8e5m2", "float8e4m3fn"),
    "a sequence": (helper.make_sequence_type_proto(tensor(1)), "input 'x' is a sequence", "tensors only"),
    "an optional": (helper.make_optional_type_proto(tensor(1)), "input 'x' is an optional", "tensors only"),
}


@pytest.mark.parametrize(("kind", "cause", "advice"), TYPES.values(), ids=TYPES)
def test_an_input_of_a_type_that_does_not_exist_is_named(kind: onnx.TypeProto, cause: str, advice: str) -> None:
    hint = graph_hint(NO_TYPE, None, None, model(kind, []))
    assert hint is not None
    assert hint.startswith(cause)
    assert advice in hint


def test_an_initialiser_of_a_type_that_does_not_exist_is_named() -> None:
    hint = graph_hint("convertOnnxWeights(initializer)", None, None, model(tensor(1), [], w=np.ones(2, np.uint16)))
    assert hint is not None
    assert hint.startswith("initialiser 'w' is uint16")


def test_the_target_of_a_cast_is_named() -> None:
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.UINT16)
    hint = graph_hint('convertDtype(onnxType, &newType) && "data type"', 0, cast, model(tensor(1), [cast]))
    assert hint is not None
    assert hint.startswith("the target of Cast 'y' is uint16")


def test_scatters_are_named_because_the_message_names_no_node() -> None:
    nodes = [helper.make_node("ScatterElements", ["x", "i", "v"], ["y"], name="add", reduction="add")]
    assert "('add')" in (graph_hint("Unsupported reduction type", None, None, model(tensor(1), nodes)) or "")


def test_other_messages_have_no_cause_in_the_graph() -> None:
    assert graph_hint("softcap == 0.0", 0, helper.make_node("Relu", ["x"], ["y"]), model(tensor(1), [])) is None
