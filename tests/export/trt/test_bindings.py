"""The contract with NVIDIA: every name in ``export/trt/bindings.py`` exists in the installed module, which builds.

Names are looked up here, also those of the runtime, which cannot be created without a driver. Builds run in a
subprocess.
"""

import ast
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from export.cuda import load_driver
from export.errors import UnavailableError
from export.precision import at_precision
from export.runners import Array
from export.subprocesses import run_in_subprocess
from export.trt import bindings, builder, loaded_engine, precision_check
from export.trt.bindings import find_variant
from export.trt.builder import EngineBuilder
from latency.table import NULL_KEY

Blocks = Mapping[str, tuple[bytes, dict[str, Array]]]

try:
    VARIANT = find_variant()
    TRT: Any = VARIANT.module
except UnavailableError as error:
    pytest.skip(str(error), allow_module_level=True)

# NVIDIA's class of each protocol.
CLASSES = {
    bindings.TensorRT: "",
    bindings.Builder: "Builder",
    bindings.BuilderConfig: "IBuilderConfig",
    bindings.CudaEngine: "ICudaEngine",
    bindings.EngineInspector: "EngineInspector",
    bindings.ExecutionContext: "IExecutionContext",
    bindings.Layer: "ILayer",
    bindings.Network: "INetworkDefinition",
    bindings.OnnxParser: "OnnxParser",
    bindings.OptimizationProfile: "IOptimizationProfile",
    bindings.ParserError: "ParserError",
    bindings.Runtime: "Runtime",
    bindings.Tensor: "ITensor",
    bindings.TimingCache: "ITimingCache",
}


# Names that only TensorRT-RTX has.
RTX_ONLY = {"ComputeCapability", "num_compute_capabilities", "set_compute_capability"}


def members(protocol: type) -> list[str]:
    methods = [name for name, value in vars(protocol).items() if inspect.isfunction(value)]
    names = [name for name in [*protocol.__annotations__, *methods] if name == "__version__" or name[0] != "_"]
    return [name for name in names if VARIANT.name == "tensorrt_rtx" or name not in RTX_ONLY]


NAMES = [(CLASSES[protocol], name) for protocol in CLASSES for name in members(protocol)]


@pytest.mark.parametrize(("owner", "name"), NAMES, ids=[f"{owner}.{name}" for owner, name in NAMES])
def test_every_name_of_a_protocol_exists(owner: str, name: str) -> None:
    assert hasattr(getattr(TRT, owner) if owner else TRT, name)


def test_every_protocol_has_a_class() -> None:
    protocols = {value for value in vars(bindings).values() if getattr(value, "_is_protocol", False)}
    assert {protocol for protocol in protocols if protocol.__module__ == bindings.__name__} == set(CLASSES)


def chains() -> Iterator[list[str]]:
    """The attributes of ``trt`` or ``.module`` in the source, such as ["ILogger", "WARNING"]."""
    for node in [node for module in (bindings, builder) for node in ast.walk(ast.parse(inspect.getsource(module)))]:
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.insert(0, node.attr)
            node = node.value
        if names and isinstance(node, ast.Name):
            if node.id == "trt":
                yield names
            elif names[0] == "module" and len(names) > 1:
                yield names[1:]


def test_every_name_in_the_source_exists() -> None:
    names_in_source = list(chains())
    assert ["BuilderFlag", "TF32"] in names_in_source
    assert ["ILogger", "WARNING"] in names_in_source
    assert ["Runtime"] in names_in_source
    assert ["LayerInformationFormat", "JSON"] in names_in_source
    assert ["ProfilingVerbosity", "DETAILED"] in names_in_source
    for names in names_in_source:
        if names[0] in RTX_ONLY and VARIANT.name != "tensorrt_rtx":
            continue
        value = TRT
        for name in names:
            value = getattr(value, name)


def test_every_type_is_known() -> None:
    others = {"INT32", "INT64", "BOOL", "UINT8"}
    assert set(TRT.DataType.__members__) <= precision_check.COMPUTED | others
    assert set(loaded_engine.NUMPY_TYPES) | set(precision_check._INSPECTOR_NAMES.values()) <= set(
        TRT.DataType.__members__
    )


def test_modes_locations_and_formats_have_these_names() -> None:
    assert {"INPUT", "OUTPUT"} <= set(TRT.TensorIOMode.__members__)
    assert "DEVICE" in TRT.TensorLocation.__members__
    assert "LINEAR" in TRT.TensorFormat.__members__


BUILD = """
import json
from pathlib import Path
from export.cuda import load_driver
from export.errors import UserError
from export.trt.builder import EngineBuilder
from export.trt.bindings import find_variant

builder, results = EngineBuilder(find_variant()), {{}}
for path in sorted(Path({folder!r}).glob("*.onnx")):
    try:
        built = builder.build(path.read_bytes())
        results[path.stem] = {{"bytes": len(built.plan), "layers": built.layers}}
        builder.load(built.plan)
    except UserError as error:
        results[path.stem] = {{**results.get(path.stem, {{}}), "error": type(error).__name__, "message": str(error)}}
Path({result!r}).write_text(json.dumps(results))
"""


def build_in_subprocess(graphs: Mapping[str, bytes], folder: Path) -> dict[str, Any]:
    """Build every graph with one builder in a subprocess."""
    for name, content in graphs.items():
        (folder / f"{name}.onnx").write_bytes(content)
    result = folder / "result.json"
    run_in_subprocess(exec, BUILD.format(folder=str(folder), result=str(result)), timeout_s=300)
    results: dict[str, Any] = json.loads(result.read_text())
    assert set(results) == set(graphs)
    return results


TYPES = {"fp32": {"FLOAT"}, "fp16": {"FLOAT", "HALF"}, "int8": {"FLOAT", "INT8"}}


@pytest.mark.slow
@pytest.mark.parametrize("precision", TYPES)
def test_every_block_is_built_at_every_precision(blocks: Blocks, precision: str, tmp_path: Path) -> None:
    graphs = {key: at_precision(content, precision, inputs) for key, (content, inputs) in blocks.items()}
    for key, result in build_in_subprocess(graphs, tmp_path).items():
        assert result["bytes"] > 1000, (key, result)
        computed = result["layers"].keys() - {"INT64", "INT32", "BOOL"}
        assert computed <= TYPES[precision], (key, result)
        if key != NULL_KEY:
            assert {"fp32": "FLOAT", "fp16": "HALF", "int8": "INT8"}[precision] in computed, (key, result)


def a_node(operator: str, domain: str) -> bytes:
    """A graph of one node from "x" to "y"."""
    node = helper.make_node(operator, ["x"], ["y"], name="only", domain=domain)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def test_a_refused_graph_is_an_error_with_its_node_and_the_next_is_built(tmp_path: Path) -> None:
    graphs = {"1": a_node("Relu", ""), "2": a_node("Unheard", "of"), "3": a_node("Relu", "")}
    results = build_in_subprocess(graphs, tmp_path)
    assert results["2"]["error"] == "VerificationError"
    assert "parser refuses the ONNX graph: Unheard 'only': " in results["2"]["message"]
    assert results["1"]["bytes"] == results["3"]["bytes"] > 1000


@pytest.mark.skipif(load_driver() is not None, reason="there is a driver here")
def test_without_a_driver_no_engine_is_loaded(tmp_path: Path) -> None:
    result = build_in_subprocess({"relu": a_node("Relu", "")}, tmp_path)["relu"]
    assert result["error"] == "UnavailableError"
    assert "only with an NVIDIA driver" in result["message"]


def test_weights_in_another_file_are_read(tmp_path: Path, blocks: Blocks) -> None:
    content, inputs = blocks["stem_c16@224x224"]
    path = tmp_path / "m.onnx"
    onnx.save(onnx.load_from_string(content), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    profile = {name: (array.shape,) * 3 for name, array in inputs.items()}
    built = run_in_subprocess(builder.build, str(path), str(tmp_path / "m.engine"), profile, {}, "", timeout_s=300)
    assert built["layers"].keys() == {"FLOAT"}


@pytest.mark.skipif(VARIANT.name != "tensorrt_rtx", reason="TensorRT builds for whatever GPU is here")
def test_tensorrt_rtx_lists_the_gpus_that_it_builds_for() -> None:
    with pytest.raises(
        UnavailableError, match=r"for no GPU of compute capability 9\.0, only for SM75, .*fbnetv5\[tensorrt\]"
    ):
        EngineBuilder(VARIANT, compute_capability=(9, 0))
    assert builder._rtx_target(VARIANT, (8, 6)) == TRT.ComputeCapability.SM86
