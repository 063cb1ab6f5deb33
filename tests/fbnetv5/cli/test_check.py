import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.command_line import assert_refused, in_process
from tests.contract.schemas import check_document


def one_operator(path: Path, operator: str = "Relu") -> Path:
    """Write a graph of one operator."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def test_the_exit_code_is_the_result(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT is installed: pip install 'fbnetv5[rtx]'")
    for operator, code in (("Relu", 0), ("Sharpen", 1)):
        path = one_operator(tmp_path / f"{operator}.onnx", operator)
        done = in_process("check", str(path), "--json", cwd=tmp_path)
        assert done.returncode == code, done.stderr
        result = json.loads(done.stdout)
        check_document(["check"], result)
        assert result["accepted"] == (code == 0)
        done = in_process("check", str(path), cwd=tmp_path)
        assert ("hint: " in done.stdout) == (code == 1)


def dynamic_relu(path: Path) -> Path:
    model = onnx.load(one_operator(path))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, path)
    return path


def test_the_shape_is_an_option_and_is_printed(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT is installed: pip install 'fbnetv5[rtx]'")
    path = dynamic_relu(tmp_path / "m.onnx")
    done = in_process("check", str(path), "--no-build", "--shape", "x=4x3", cwd=tmp_path)
    assert done.stdout.endswith("m.onnx: 1 nodes, for x=4x3\n")
    assert "accepts, without a build," in done.stdout
    assert "x=1x3 (chosen" in in_process("check", str(path), cwd=tmp_path).stdout


@pytest.mark.parametrize("shape", ["1x3", "x", "x=", "x=1x", "x=axb"])
def test_another_form_of_a_shape_is_refused(tmp_path: Path, shape: str) -> None:
    arguments = ["check", str(one_operator(tmp_path / "m.onnx")), "--shape", shape]
    assert_refused(arguments, f"--shape {shape!r} has another form than NAME=1x3x224x224", cwd=tmp_path)


def test_without_tensorrt_the_package_to_install_is_named(without_tensorrt: None, tmp_path: Path) -> None:
    done = in_process("check", str(one_operator(tmp_path / "m.onnx")), cwd=tmp_path)
    assert done.returncode == 3
    assert "pip install 'fbnetv5[rtx]'" in done.stderr


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert_refused(["check", "nowhere.onnx"], "cannot read nowhere.onnx", cwd=tmp_path)
