import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.errors import UnavailableError, UserError, VerificationError
from export.precision import at_precision
from export.subprocesses import SubprocessFailedError
from export.trt import engine as module
from export.trt.engine import Engine, ShapeRange, build_engine, check_options, check_shapes
from export.trt.options import EngineOptions
from tests.tensorrt_marks import with_rtx, with_tensorrt

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
    """A convolution from "x" [batch, 3, height, width] to "y", whose shape is unknown."""
    x = helper.make_tensor_value_info("x", kind, ["batch", 3, "height", "width"])
    y = helper.make_tensor_value_info("y", kind, None)
    weight = WEIGHT.astype(helper.tensor_dtype_to_np_dtype(kind))
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    content = helper.make_graph([conv], "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(content, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


@with_tensorrt
def test_an_engine_is_built_for_a_range_of_shapes(tmp_path: Path) -> None:
    built = build_engine(graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES])
    assert set(built.layers) == {"FLOAT"}
    measured = {
        name: getattr(built, name) for name in ("runtime", "version", "layers", "layers_source", "warnings", "gpu")
    }
    assert built == BUILT.changed(file="m.engine", **measured)
    content = (tmp_path / "m.engine").read_bytes()
    assert all(value.tobytes() in content for value in WEIGHT.ravel())
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.engine"}


@with_tensorrt
def test_a_lower_precision_than_requested_leaves_no_engine(tmp_path: Path) -> None:
    path = graph(tmp_path / "half.onnx", kind=TensorProto.FLOAT16)
    with pytest.raises(VerificationError, match=r"should be fp32, and the outputs of its layers are \{'HALF': 1\}"):
        build_engine(path, tmp_path / "m.engine", [SHAPES])
    assert {path.name for path in tmp_path.iterdir()} == {"half.onnx"}


@with_tensorrt
def test_an_error_of_the_builder_has_its_reason(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx")
    small = ShapeRange(name="x", smallest=(1, 3, 1, 1), typical=(1, 3, 1, 1), largest=(1, 3, 1, 1))
    with pytest.raises(VerificationError, match=r"builds no engine of .*m\.onnx: .*conv"):
        build_engine(path, tmp_path / "m.engine", [small])


@with_tensorrt
@pytest.mark.parametrize(("precision", "layer"), [("fp16", "HALF"), ("int8", "INT8")])
def test_an_engine_has_the_precision_of_its_graph_only(tmp_path: Path, precision: str, layer: str) -> None:
    path = graph(tmp_path / "m.onnx")
    path.write_bytes(at_precision(path.read_bytes(), precision, {"x": np.ones(SHAPES.typical, np.float32)}))
    built = build_engine(path, tmp_path / "m.engine", [SHAPES], precision=precision)
    assert built.precision == precision
    assert built.layers[layer] >= 1
    for other in {"fp32", "fp16", "int8"} - {precision}:
        with pytest.raises(VerificationError, match=f"should be {other}, and the outputs of its layers"):
            build_engine(path, tmp_path / f"{other}.engine", [SHAPES], precision=other)
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.engine"}


def test_an_unknown_precision_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no precision 'fp8'; known are fp32, fp16, int8"):
        build_engine(graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES], precision="fp8")


@with_tensorrt
def test_too_small_a_workspace_is_an_error_with_tensorrts_reason(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx")
    with pytest.raises(VerificationError, match=r"builds no engine of .*workspace"):
        build_engine(path, tmp_path / "m.engine", [SHAPES], options=EngineOptions(workspace_mb=1))
    roomy = build_engine(path, tmp_path / "m.engine", [SHAPES], options=EngineOptions(workspace_mb=1024))
    assert roomy.file == "m.engine"


@with_rtx
def test_an_option_without_effect_is_refused_or_reported(tmp_path: Path) -> None:
    path, times = graph(tmp_path / "m.onnx"), tmp_path / "times"
    with pytest.raises(UserError, match=r"tensorrt_rtx .* does not support the engine option 'level'"):
        build_engine(path, tmp_path / "m.engine", [SHAPES], options=EngineOptions(level=5))
    built = build_engine(path, tmp_path / "m.engine", [SHAPES], options=EngineOptions(timing_cache=times))
    assert f"tensorrt_rtx uses no timing cache: {times} was neither read nor written" in built.warnings
    assert not times.exists()


def test_an_engine_records_the_options_that_it_depends_on() -> None:
    options = EngineOptions(workspace_mb=2, timing_cache=Path("/times"), level=0, version_compatible=True)
    engine = BUILT.changed(options=options.recorded())
    assert engine.options == {"workspace_mb": 2, "level": 0, "version_compatible": True}
    assert Engine(**json.loads(json.dumps(engine.to_json())) | {"shapes": (SHAPES,)}) == engine
    assert engine.build_options == EngineOptions(workspace_mb=2, level=0, version_compatible=True)
    with pytest.raises(UserError, match="no engine option 'fp16'"):
        BUILT.changed(options={"fp16": True})


def test_code_for_the_cpu_is_not_run_unasked() -> None:
    BUILT.check_code()
    with pytest.raises(UnavailableError, match=r"contains code .* on the CPU; if you trust its source"):
        BUILT.changed(options={"version_compatible": True}).check_code()


@with_rtx
def test_options_are_checked_without_a_build() -> None:
    check_options(EngineOptions(workspace_mb=2))
    with pytest.raises(UserError, match=r"tensorrt_rtx .* does not support the engine option 'level'"):
        check_options(EngineOptions(level=5))


@with_tensorrt
def test_a_build_reports_progress(tmp_path: Path) -> None:
    reports: list[tuple[str, int, int]] = []
    build_engine(
        graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES], progress=lambda *report: reports.append(report)
    )
    assert len(reports) > 10
    assert reports[0][1] == 0
    assert all(0 <= done <= total for _, done, total in reports)


@with_tensorrt
def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES], progress=stop)
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx"}


def simulate_gpu(monkeypatch: pytest.MonkeyPatch, inspected: dict[str, int]) -> None:
    """Replace the build by one with a GPU, which loads the engine and writes a timing cache."""

    def build(_: Any, __: str, path: str, ___: Any, ____: Any, times: str, **_____: Any) -> dict[str, Any]:
        Path(path).write_bytes(b"engine")
        Path(times).write_bytes(b"times")
        result = {"name": "tensorrt", "version": "10.13", "layers": {"FLOAT": 3}, "warnings": ["mind this"]}
        return {**result, "gpu": "Tesla T4", "inspected": inspected}

    monkeypatch.setattr(module, "run_in_subprocess", build)


def test_with_a_gpu_the_layers_are_those_of_the_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    simulate_gpu(monkeypatch, {"FLOAT": 2, "INT32": 1})
    options = EngineOptions(timing_cache=tmp_path / "kept" / "times")
    built = build_engine(graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES], options=options)
    assert (built.layers_source, built.layers, built.gpu) == ("engine", {"FLOAT": 2, "INT32": 1}, "Tesla T4")
    assert built.warnings == ("mind this",)
    assert (tmp_path / "kept" / "times").read_bytes() == b"times"


def test_an_engine_of_other_types_than_its_network_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    simulate_gpu(monkeypatch, {"HALF": 2})
    with pytest.raises(VerificationError, match=r"should be fp32, and the outputs of its layers are \{'HALF': 2\}"):
        build_engine(graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES])
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx"}


def test_without_tensorrt_there_is_no_engine(without_tensorrt: None, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"pip install 'fbnetv5\[rtx\]'"):
        build_engine(graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES])
    assert not (tmp_path / "m.engine").exists()


def test_a_builder_that_crashes_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def crash(_: Any, __: str, path: str, *___: Any, **____: Any) -> None:
        Path(path).write_bytes(b"half an engine")
        raise SubprocessFailedError("was ended by SIGSEGV")

    monkeypatch.setattr(module, "run_in_subprocess", crash)
    with pytest.raises(VerificationError, match=r"made no engine of .*: it was ended by SIGSEGV"):
        build_engine(graph(tmp_path / "m.onnx"), tmp_path / "m.engine", [SHAPES])
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx"}


WRONG = {
    "another name": ([SHAPES.changed(name="image")], "has inputs ['x'], where shapes are given for ['image']"),
    "one too many": ([SHAPES, SHAPES], "has inputs ['x'], where shapes are given for ['x', 'x']"),
    "a fixed axis": ([SHAPES.changed(largest=(4, 4, 32, 32))], "accepts ['any', 3, 'any', 'any'], and [4, 4, 32, 32]"),
    "an axis less": (
        [ShapeRange(name="x", smallest=(1, 3, 8), typical=(1, 3, 8), largest=(1, 3, 8))],
        "and [1, 3, 8] does not fit",
    ),
}


@pytest.mark.parametrize(("shapes", "message"), WRONG.values(), ids=WRONG)
def test_shapes_must_fit_the_graphs_inputs(tmp_path: Path, shapes: list[ShapeRange], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        check_shapes(onnx.load(graph(tmp_path / "m.onnx")).graph, shapes)


@pytest.mark.parametrize("largest", [(4, 3, 8, 8), (1, 3, 32, 32)], ids=["sides shrink", "batch shrinks"])
def test_shapes_must_not_shrink(largest: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="must not shrink"):
        ShapeRange(name="x", smallest=(1, 3, 8, 8), typical=(2, 3, 16, 16), largest=largest)


@pytest.mark.parametrize("engine", [BUILT, BUILT.changed(layers_source="engine", warnings=("mind",), gpu="Tesla T4")])
def test_an_engine_is_read_back_from_json(engine: Engine) -> None:
    assert Engine(**json.loads(json.dumps(engine.to_json()))) == engine


def test_fields_with_defaults_may_be_missing() -> None:
    document = BUILT.to_json()
    for name in ("layers_source", "warnings", "gpu"):
        del document[name]
    assert Engine(**document) == BUILT
