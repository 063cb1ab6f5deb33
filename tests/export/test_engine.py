import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import engine as module
from export.engine import Engine, ShapeRange, build_engine, check_shapes, engine_from_json
from export.errors import CheckFailed, NotHere, UserError
from export.isolated import DiedError
from export.tensorrt import find_flavour

try:
    find_flavour()
    HERE = True
except NotHere:
    HERE = False
with_tensorrt = pytest.mark.skipif(not HERE, reason="no TensorRT is installed: pip install 'fbnetv5[rtx]'")

SHAPES = ShapeRange(name="x", smallest=(1, 3, 8, 8), typical=(2, 3, 16, 16), largest=(4, 3, 32, 32))
WEIGHT = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
BUILT = Engine(
    file="model.engine",
    runtime="tensorrt_rtx",
    version="1.7",
    precision="fp32",
    layers={"FLOAT": 1},
    shapes=(SHAPES,),
    ran=False,
)


def graph(path: Path, *, kind: int = TensorProto.FLOAT) -> Path:
    """A convolution from "x" [batch, 3, height, width] to "y", whose shape is not told."""
    x = helper.make_tensor_value_info("x", kind, ["batch", 3, "height", "width"])
    y = helper.make_tensor_value_info("y", kind, None)
    weight = WEIGHT.astype(helper.tensor_dtype_to_np_dtype(kind))
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    content = helper.make_graph([conv], "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(content, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


@with_tensorrt
def test_an_engine_is_built_for_all_shapes_between(tmp_path: Path) -> None:
    built = build_engine(graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES])
    assert built == replace(BUILT, file="m.engine", runtime=built.runtime, version=built.version)
    content = (tmp_path / "m.engine").read_bytes()
    assert all(value.tobytes() in content for value in WEIGHT.ravel())
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.engine"}


@with_tensorrt
def test_a_lower_precision_than_asked_for_leaves_no_engine(tmp_path: Path) -> None:
    path = graph(tmp_path / "half.onnx", kind=TensorProto.FLOAT16)
    with pytest.raises(CheckFailed, match=r"was to be fp32, and has layers that give \{'HALF': 1\}"):
        build_engine(path, tmp_path / "m.engine", [SHAPES])
    assert {path.name for path in tmp_path.iterdir()} == {"half.onnx"}


@with_tensorrt
def test_what_the_builder_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx")
    small = ShapeRange(name="x", smallest=(1, 3, 1, 1), typical=(1, 3, 1, 1), largest=(1, 3, 1, 1))
    with pytest.raises(CheckFailed, match=r"builds no engine of .*m\.onnx: .*conv"):
        build_engine(path, tmp_path / "m.engine", [small])


def test_without_tensorrt_there_is_no_engine(without_tensorrt: None, tmp_path: Path) -> None:
    with pytest.raises(NotHere, match=r"pip install 'fbnetv5\[rtx\]'"):
        build_engine(graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES])
    assert not (tmp_path / "m.engine").exists()


def test_a_builder_that_crashes_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def crash(_: Any, __: str, path: str, *___: Any, **____: Any) -> None:
        Path(path).write_bytes(b"half an engine")
        raise DiedError("was ended by SIGSEGV")

    monkeypatch.setattr(module, "call", crash)
    with pytest.raises(CheckFailed, match=r"made no engine of .*: it was ended by SIGSEGV"):
        build_engine(graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES])
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx"}


WRONG = {
    "another name": ([replace(SHAPES, name="image")], "has inputs ['x'], where shapes are given for ['image']"),
    "one too many": ([SHAPES, SHAPES], "has inputs ['x'], where shapes are given for ['x', 'x']"),
    "a fixed axis": ([replace(SHAPES, largest=(4, 4, 32, 32))], "takes ['any', 3, 'any', 'any'], and [4, 4, 32, 32]"),
    "an axis less": (
        [ShapeRange(name="x", smallest=(1, 3, 8), typical=(1, 3, 8), largest=(1, 3, 8))],
        "and [1, 3, 8] does not fit",
    ),
}


@pytest.mark.parametrize(("shapes", "message"), WRONG.values(), ids=WRONG)
def test_shapes_must_be_of_the_graphs_inputs(tmp_path: Path, shapes: list[ShapeRange], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        check_shapes(onnx.load(graph(tmp_path / "m.onnx")).graph, shapes)


@pytest.mark.parametrize("largest", [(4, 3, 8, 8), (1, 3, 32, 32)], ids=["sides shrink", "batch shrinks"])
def test_shapes_must_not_shrink(largest: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="must not shrink"):
        ShapeRange(name="x", smallest=(1, 3, 8, 8), typical=(2, 3, 16, 16), largest=largest)


def test_an_engine_is_read_back_from_json() -> None:
    assert engine_from_json(asdict(BUILT)) == BUILT
