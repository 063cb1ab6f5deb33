"""Reading ONNX files and finding nodes in them; ``test_check.py`` tests damaged files."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.trt.onnx_file import external_tensors, layer_name, nodes_inside, read_onnx, size_with_weights, walk

X, Y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")


def constant(name: str) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.ones(300, np.float32), name))


def nested() -> onnx.ModelProto:
    """Relu, an If with a Constant in one branch, and a call of a function with a Constant."""
    inner = helper.make_graph([constant("w")], "then", [], [helper.make_tensor_value_info("w", 1, [300])])
    other = helper.make_graph([constant("v")], "else", [], [helper.make_tensor_value_info("v", 1, [300])])
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="first"),
        helper.make_node("If", ["c"], ["i"], then_branch=inner, else_branch=other),
        helper.make_node("Own", ["r"], ["y"], domain="own"),
    ]
    body = [constant("k"), helper.make_node("Identity", ["a"], ["b"])]
    function = helper.make_function("own", "Own", ["a"], ["b"], body, [helper.make_opsetid("", 20)])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    graph = helper.make_graph(nodes, "g", [X], [Y])
    return helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=9)


def test_nodes_of_subgraphs_follow_their_node() -> None:
    operators = [node.op_type for node in walk(nested().graph.node)]
    assert operators == ["Relu", "If", "Constant", "Constant", "Own"]


def test_nodes_of_subgraphs_and_functions_are_inside_a_node() -> None:
    inside = [[node.op_type for node in nodes_inside(nested(), index)] for index in range(3)]
    assert inside == [["Relu"], ["If", "Constant", "Constant"], ["Own", "Constant", "Identity"]]


def test_a_function_that_calls_itself_is_searched_once() -> None:
    model = nested()
    model.functions[0].node.append(helper.make_node("Own", ["a"], ["z"], domain="own"))
    assert [node.op_type for node in nodes_inside(model, 2)] == ["Own", "Constant", "Identity", "Own"]


def test_a_node_without_a_name_is_called_after_its_output() -> None:
    assert [layer_name(node) for node in nested().graph.node] == ["first", "node_of_i", "node_of_y"]


def test_weights_in_other_files_are_found_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = nested()
    model.graph.initializer.append(numpy_helper.from_array(np.ones(400, np.float32), "u"))
    onnx.save(model, path, save_as_external_data=True, location="m.bin", size_threshold=0, convert_attribute=True)
    read = read_onnx(path)
    assert {"u", "w", "v"} <= {tensor.name for tensor in external_tensors(read)}
    assert size_with_weights(path, read) == path.stat().st_size + (tmp_path / "m.bin").stat().st_size
