"""The contract with NVIDIA: every name that ``export/tensorrt.py`` uses is in the module installed."""

import ast
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from export import engine, tensorrt
from export.errors import NotHere
from export.tensorrt import find_flavour

try:
    FLAVOUR = find_flavour()
    TRT: Any = FLAVOUR.module
except NotHere as error:
    pytest.skip(str(error), allow_module_level=True)

# Which class of NVIDIA's each protocol stands for.
CLASSES = {
    tensorrt.TensorRT: "",
    tensorrt.Builder: "Builder",
    tensorrt.BuilderConfig: "IBuilderConfig",
    tensorrt.CudaEngine: "ICudaEngine",
    tensorrt.ExecutionContext: "IExecutionContext",
    tensorrt.Layer: "ILayer",
    tensorrt.Network: "INetworkDefinition",
    tensorrt.OnnxParser: "OnnxParser",
    tensorrt.OptimizationProfile: "IOptimizationProfile",
    tensorrt.ParserError: "ParserError",
    tensorrt.Runtime: "Runtime",
    tensorrt.Tensor: "ITensor",
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
    protocols = {value for value in vars(tensorrt).values() if getattr(value, "_is_protocol", False)}
    assert {protocol for protocol in protocols if protocol.__module__ == tensorrt.__name__} == set(CLASSES)


def chains() -> Iterator[list[str]]:
    """What follows ``trt`` or ``.module`` in the source, such as ["ILogger", "WARNING"]."""
    for node in ast.walk(ast.parse(inspect.getsource(tensorrt))):
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
    for names in found:
        if names[0] in RTX_ONLY and FLAVOUR.name != "tensorrt_rtx":
            continue
        value = TRT
        for name in names:
            value = getattr(value, name)


def test_every_type_is_known_to_be_lower_than_float32_or_not() -> None:
    others = {"FLOAT", "INT32", "INT64", "BOOL", "UINT8"}
    assert set(TRT.DataType.__members__) <= engine.LOWER | others
