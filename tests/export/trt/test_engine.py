import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.errors import UnavailableError, UserError, VerificationError
from export.precision import at_precision
from export.subprocesses import DiedError
from export.trt import engine as module
from export.trt.bindings import find_flavour
from export.trt.engine import Engine, ShapeRange, build_engine, check_shapes, engine_from_json
from export.trt.options import EngineOptions

try:
    NAME = find_flavour().name
except UnavailableError:
    NAME = ""
with_tensorrt = pytest.mark.skipif(not NAME, reason="no TensorRT is installed: pip install 'fbnetv5[rtx]'")
with_rtx = pytest.mark.skipif(NAME != "tensorrt_rtx", reason="of TensorRT-RTX: pip install 'fbnetv5[rtx]'")

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
    assert set(built.layers) == {"FLOAT"}
    here = {name: getattr(built, name) for name in ("runtime", "version", "layers", "audited", "warnings", "gpu")}
    assert built == replace(BUILT, file="m.engine", **here)
    content = (tmp_path / "m.engine").read_bytes()
    assert all(value.tobytes() in content for value in WEIGHT.ravel())
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.engine"}


@with_tensorrt
def test_a_lower_precision_than_asked_for_leaves_no_engine(tmp_path: Path) -> None:
    path = graph(tmp_path / "half.onnx", kind=TensorProto.FLOAT16)
    with pytest.raises(VerificationError, match=r"was to be fp32, and has layers that give \{'HALF': 1\}"):
        build_engine(path, tmp_path / "m.engine", [SHAPES])
    assert {path.name for path in tmp_path.iterdir()} == {"half.onnx"}


@with_tensorrt
def test_what_the_builder_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx")
    small = ShapeRange(name="x", smallest=(1, 3, 1, 1), typical=(1, 3, 1, 1), largest=(1, 3, 1, 1))
    with pytest.raises(VerificationError, match=r"builds no engine of .*m\.onnx: .*conv"):
        build_engine(path, tmp_path / "m.engine", [small])


@with_tensorrt
@pytest.mark.parametrize(("precision", "layer"), [("fp16", "HALF"), ("int8", "INT8")])
def test_an_engine_is_of_the_graphs_precision_and_of_no_other(tmp_path: Path, precision: str, layer: str) -> None:
    path = graph(tmp_path / "m.onnx")
    path.write_bytes(at_precision(path.read_bytes(), precision, {"x": np.ones(SHAPES.typical, np.float32)}))
    built = build_engine(path, tmp_path / "m.engine", [SHAPES], precision=precision)
    assert built.precision == precision
    assert built.layers[layer] >= 1
    for other in {"fp32", "fp16", "int8"} - {precision}:
        with pytest.raises(VerificationError, match=f"was to be {other}, and has layers"):
            build_engine(path, tmp_path / f"{other}.engine", [SHAPES], precision=other)
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.engine"}


def test_an_unknown_precision_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no precision 'fp8'; known are fp32, fp16, int8"):
        build_engine(graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES], precision="fp8")


@with_tensorrt
def test_too_small_a_workspace_is_told_in_tensorrts_words(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx")
    with pytest.raises(VerificationError, match=r"builds no engine of .*workspace"):
        build_engine(path, tmp_path / "m.engine", [SHAPES], options=EngineOptions(workspace_mb=1))
    roomy = build_engine(path, tmp_path / "m.engine", [SHAPES], options=EngineOptions(workspace_mb=1024))
    assert roomy.file == "m.engine"


@with_rtx
def test_an_option_that_changes_nothing_is_refused_or_told(tmp_path: Path) -> None:
    path, times = graph(tmp_path / "m.onnx"), tmp_path / "times"
    with pytest.raises(UserError, match=r"tensorrt_rtx .* does not do what the engine option 'level' asks for"):
        build_engine(path, tmp_path / "m.engine", [SHAPES], options=EngineOptions(level=5))
    built = build_engine(path, tmp_path / "m.engine", [SHAPES], options=EngineOptions(timing_cache=times))
    assert f"tensorrt_rtx takes no times: {times} was neither read nor written" in built.warnings
    assert not times.exists()


@with_tensorrt
def test_a_build_is_heard_of_while_it_lasts(tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    build_engine(graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES], progress=lambda *what: heard.append(what))
    assert len(heard) > 10
    assert heard[0][1] == 0
    assert all(0 <= done <= total for _, done, total in heard)


@with_tensorrt
def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES], progress=stop)
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx"}


def answer_of_a_gpu(monkeypatch: pytest.MonkeyPatch, inspected: dict[str, int]) -> None:
    """As if the engine had been built and loaded beside a GPU, and kernels' times kept."""

    def build(_: Any, __: str, path: str, ___: Any, ____: Any, times: str, **_____: Any) -> dict[str, Any]:
        Path(path).write_bytes(b"engine")
        Path(times).write_bytes(b"times")
        answer = {"name": "tensorrt", "version": "10.13", "layers": {"FLOAT": 3}, "warnings": ["mind this"]}
        return {**answer, "gpu": "Tesla T4", "inspected": inspected}

    monkeypatch.setattr(module, "call", build)


def test_where_the_engine_can_be_asked_its_own_types_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer_of_a_gpu(monkeypatch, {"FLOAT": 2, "INT32": 1})
    options = EngineOptions(timing_cache=tmp_path / "kept" / "times")
    built = build_engine(graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES], options=options)
    assert (built.audited, built.layers, built.gpu) == ("engine", {"FLOAT": 2, "INT32": 1}, "Tesla T4")
    assert built.warnings == ("mind this",)
    assert (tmp_path / "kept" / "times").read_bytes() == b"times"


def test_an_engine_of_other_types_than_its_network_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer_of_a_gpu(monkeypatch, {"HALF": 2})
    with pytest.raises(VerificationError, match=r"was to be fp32, and has layers that give \{'HALF': 2\}"):
        build_engine(graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES])
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx"}


def test_without_tensorrt_there_is_no_engine(without_tensorrt: None, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"pip install 'fbnetv5\[rtx\]'"):
        build_engine(graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES])
    assert not (tmp_path / "m.engine").exists()


def test_a_builder_that_crashes_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def crash(_: Any, __: str, path: str, *___: Any, **____: Any) -> None:
        Path(path).write_bytes(b"half an engine")
        raise DiedError("was ended by SIGSEGV")

    monkeypatch.setattr(module, "call", crash)
    with pytest.raises(VerificationError, match=r"made no engine of .*: it was ended by SIGSEGV"):
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


@pytest.mark.parametrize("engine", [BUILT, replace(BUILT, audited="engine", warnings=("mind",), gpu="Tesla T4")])
def test_an_engine_is_read_back_from_json(engine: Engine) -> None:
    assert engine_from_json(json.loads(json.dumps(asdict(engine)))) == engine


def test_what_an_earlier_version_wrote_is_read_too() -> None:
    document = asdict(BUILT)
    for name in ("audited", "warnings", "gpu"):
        del document[name]
    assert engine_from_json(document) == BUILT
