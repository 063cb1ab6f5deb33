"""The contract with NVIDIA: every name that ``export/trt/bindings.py`` uses is in the module installed, and it builds.

Names are looked at here, the runtime's too, which cannot be made without a driver; whatever runs does so in a process
of its own.
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
from export.subprocesses import call
from export.trt import bindings, builder, loaded_engine, precision_check
from export.trt.bindings import find_flavour
from export.trt.builder import EngineBuilder
from latency.table import NULL_KEY

Blocks = Mapping[str, tuple[bytes, dict[str, Array]]]

try:
    FLAVOUR = find_flavour()
    TRT: Any = FLAVOUR.module
except UnavailableError as error:
    pytest.skip(str(error), allow_module_level=True)

# Which class of NVIDIA's each protocol stands for.
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


# What TensorRT-RTX alone has, and is asked for there only.
RTX_ONLY = {"ComputeCapability", "num_compute_capabilities", "set_compute_capability"}


def members(protocol: type) -> list[str]:
    methods = [name for name, value in vars(protocol).items() if inspect.isfunction(value)]
    names = [name for name in [*protocol.__annotations__, *methods] if name == "__version__" or name[0] != "_"]
    return [name for name in names if FLAVOUR.name == "tensorrt_rtx" or name not in RTX_ONLY]


PROMISES = [(CLASSES[protocol], name) for protocol in CLASSES for name in members(protocol)]


@pytest.mark.parametrize(("owner", "name"), PROMISES, ids=[f"{owner}.{name}" for owner, name in PROMISES])
def test_what_a_protocol_promises_is_there(owner: str, name: str) -> None:
    assert hasattr(getattr(TRT, owner) if owner else TRT, name)


def test_every_protocol_is_held_against_a_class() -> None:
    protocols = {value for value in vars(bindings).values() if getattr(value, "_is_protocol", False)}
    assert {protocol for protocol in protocols if protocol.__module__ == bindings.__name__} == set(CLASSES)


def chains() -> Iterator[list[str]]:
    """What follows ``trt`` or ``.module`` in the source, such as ["ILogger", "WARNING"]."""
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


def test_every_name_in_the_source_is_there() -> None:
    found = list(chains())
    assert ["BuilderFlag", "TF32"] in found
    assert ["ILogger", "WARNING"] in found
    assert ["Runtime"] in found
    assert ["LayerInformationFormat", "JSON"] in found
    assert ["ProfilingVerbosity", "DETAILED"] in found
    for names in found:
        if names[0] in RTX_ONLY and FLAVOUR.name != "tensorrt_rtx":
            continue
        value = TRT
        for name in names:
            value = getattr(value, name)


def test_every_type_is_computed_with_or_known_not_to_be() -> None:
    others = {"INT32", "INT64", "BOOL", "UINT8"}
    assert set(TRT.DataType.__members__) <= precision_check.COMPUTED | others
    assert set(loaded_engine.NUMPY_TYPES) | set(precision_check._WRITTEN.values()) <= set(TRT.DataType.__members__)


def test_modes_places_and_layouts_have_these_names() -> None:
    assert {"INPUT", "OUTPUT"} <= set(TRT.TensorIOMode.__members__)
    assert "DEVICE" in TRT.TensorLocation.__members__
    assert "LINEAR" in TRT.TensorFormat.__members__


BUILD = """
import json
from pathlib import Path
from export.cuda import load_driver
from export.errors import UserError
from export.trt.builder import EngineBuilder
from export.trt.bindings import find_flavour

builder, answers = EngineBuilder(find_flavour()), {{}}
for path in sorted(Path({folder!r}).glob("*.onnx")):
    try:
        built = builder.build(path.read_bytes())
        answers[path.stem] = {{"bytes": len(built.plan), "layers": built.layers}}
        builder.load(built.plan)
    except UserError as error:
        answers[path.stem] = {{**answers.get(path.stem, {{}}), "error": type(error).__name__, "message": str(error)}}
Path({answer!r}).write_text(json.dumps(answers))
"""


def built_in_turns(graphs: Mapping[str, bytes], folder: Path) -> dict[str, Any]:
    """What one builder, in a process of its own, makes of every graph."""
    for name, content in graphs.items():
        (folder / f"{name}.onnx").write_bytes(content)
    answer = folder / "answer.json"
    call(exec, BUILD.format(folder=str(folder), answer=str(answer)), timeout_s=300)
    answers: dict[str, Any] = json.loads(answer.read_text())
    assert set(answers) == set(graphs)
    return answers


TYPES = {"fp32": {"FLOAT"}, "fp16": {"FLOAT", "HALF"}, "int8": {"FLOAT", "INT8"}}


@pytest.mark.parametrize("precision", TYPES)
def test_every_block_is_built_at_every_precision(blocks: Blocks, precision: str, tmp_path: Path) -> None:
    graphs = {key: at_precision(content, precision, inputs) for key, (content, inputs) in blocks.items()}
    for key, answer in built_in_turns(graphs, tmp_path).items():
        assert answer["bytes"] > 1000, (key, answer)
        computed = answer["layers"].keys() - {"INT64", "INT32", "BOOL"}
        assert computed <= TYPES[precision], (key, answer)
        if key != NULL_KEY:
            assert {"fp32": "FLOAT", "fp16": "HALF", "int8": "INT8"}[precision] in computed, (key, answer)


def a_node(operator: str, domain: str) -> bytes:
    """A graph of one node from "x" to "y"."""
    node = helper.make_node(operator, ["x"], ["y"], name="only", domain=domain)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def test_a_refused_graph_is_told_by_its_node_and_does_not_hurt_the_next(tmp_path: Path) -> None:
    graphs = {"1": a_node("Relu", ""), "2": a_node("Unheard", "of"), "3": a_node("Relu", "")}
    answers = built_in_turns(graphs, tmp_path)
    assert answers["2"]["error"] == "VerificationError"
    assert "parser refuses the ONNX graph: Unheard 'only': " in answers["2"]["message"]
    assert answers["1"]["bytes"] == answers["3"]["bytes"] > 1000


@pytest.mark.skipif(load_driver() is not None, reason="there is a driver here")
def test_without_a_driver_no_engine_is_loaded(tmp_path: Path) -> None:
    answer = built_in_turns({"relu": a_node("Relu", "")}, tmp_path)["relu"]
    assert answer["error"] == "UnavailableError"
    assert "only where there is an NVIDIA driver" in answer["message"]


def test_weights_beside_the_file_are_found(tmp_path: Path, blocks: Blocks) -> None:
    content, inputs = blocks["stem_c16@224x224"]
    path = tmp_path / "m.onnx"
    onnx.save(onnx.load_from_string(content), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    profile = {name: (array.shape,) * 3 for name, array in inputs.items()}
    built = call(builder.build, str(path), str(tmp_path / "m.engine"), profile, {}, "", timeout_s=300)
    assert built["layers"].keys() == {"FLOAT"}


@pytest.mark.skipif(FLAVOUR.name != "tensorrt_rtx", reason="TensorRT builds for whatever GPU is here")
def test_a_gpu_that_tensorrt_rtx_does_not_build_for_is_told_from_those_it_does() -> None:
    with pytest.raises(
        UnavailableError, match=r"for no GPU of compute capability 9\.0, only for SM75, .*fbnetv5\[tensorrt\]"
    ):
        EngineBuilder(FLAVOUR, compute_capability=(9, 0))
    assert builder._rtx_target(FLAVOUR, (8, 6)) == TRT.ComputeCapability.SM86
