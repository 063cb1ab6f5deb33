"""Whether an engine computes in the precision it was asked for in.

A tool that is asked for half precision and quietly ships float32 is a known kind of bug, so the types are asked for, in
two places. The strongly typed network says what TensorRT must compute in, and can always be asked. The engine's
inspector says what its kernels exchange, after fusion; that takes a GPU, and an engine built with detailed verbosity.

Types have TensorRT's own names, as its DataType lists them. How the inspector writes them changed: in TensorRT 10 one
text says layout and type ("Row major linear FP32"), in 11 they are fields of their own
(docs.nvidia.com/deeplearning/tensorrt, "Migrating IEngineInspector Usage from TensorRT 10.x to 11.x").
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from export.errors import VerificationError

COMPUTED = {"FLOAT", "HALF", "BF16", "INT8", "FP8", "FP4", "INT4", "E8M0"}
"""The types that networks compute with; the others hold indices, shapes and truths."""
ENGINE_TYPES = {"fp32": {"FLOAT"}, "fp16": {"FLOAT", "HALF"}, "int8": {"FLOAT", "HALF", "INT8"}}
"""Of those, the ones that an engine of a precision may have: some layers stay in a higher one."""
_REQUIRED = {"fp16": "HALF", "int8": "INT8"}
_FIELDS = ("format/datatype", "datatype", "format")
_WRITTEN = {
    **dict.fromkeys(("fp32", "float", "float32"), "FLOAT"),
    **dict.fromkeys(("fp16", "half", "float16"), "HALF"),
    **dict.fromkeys(("bf16", "bfloat16"), "BF16"),
    **{name.lower(): name for name in ("INT8", "FP8", "FP4", "INT4", "E8M0", "INT32", "INT64", "BOOL", "UINT8")},
}
"""How the inspector writes a type, in lower case."""


def check_types(layers: Mapping[str, int], precision: str, *, may_lack_int8: bool = False) -> None:
    """Raise VerificationError where layers are not of a precision.

    Args:
        layers: how many there are of each type.
        precision: one of ``ENGINE_TYPES``.
        may_lack_int8: for a part of a network, which may have no convolution that int8 could be made of.
    """
    computed = layers.keys() & COMPUTED
    needed = _REQUIRED.get(precision)
    lacks = needed is not None and needed not in computed and not (needed == "INT8" and may_lack_int8)
    if lacks or computed - ENGINE_TYPES[precision]:
        raise VerificationError(
            f"the engine was to be {precision}, and has layers that give {dict(layers)}: an engine is as precise as "
            "its ONNX graph, so convert that"
        )


def inspected_types(information: str) -> dict[str, int]:
    """How many layers give each type, by an engine inspector's JSON; empty where that names no types.

    Raises:
        ValueError: it is not what an inspector writes.
    """
    document = json.loads(information)
    layers = document.get("Layers") if isinstance(document, dict) else None
    if not isinstance(layers, list):
        raise ValueError(f"an inspector's answer has a list of Layers, and this has none: {information[:80]!r}")
    # Of an engine built without detailed verbosity, each layer is but a name.
    described = [layer for layer in layers if isinstance(layer, dict)]
    return dict(Counter(kind for layer in described for kind in _types_of(layer.get("Outputs") or [])))


def _types_of(tensors: list[Mapping[str, Any]]) -> set[str]:
    return {kind for tensor in tensors if (kind := _type_of(tensor)) is not None}


def _type_of(tensor: Mapping[str, Any]) -> str | None:
    """None where it is not told, as for tensors whose shapes were not told either."""
    told = {name.lower(): str(value) for name, value in tensor.items()}
    for name in _FIELDS:
        for word in re.findall(r"\w+", told.get(name, "").lower()):
            if word in _WRITTEN:
                return _WRITTEN[word]
    return None
