"""Checks that an engine computes in the requested precision.

A tool that is asked for half precision and silently ships float32 is a known kind of bug, so the types are read in two
places. The strongly typed network has the types that TensorRT must compute in, and can always be read. The engine's
inspector has the types that its kernels exchange, after fusion; it needs a GPU, and an engine built with detailed
verbosity.

Types have the names of TensorRT's DataType. The inspector's format changed: in TensorRT 10 one text has layout and type
("Row major linear FP32"), in 11 they are separate fields
(docs.nvidia.com/deeplearning/tensorrt, "Migrating IEngineInspector Usage from TensorRT 10.x to 11.x").
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from export.errors import VerificationError

COMPUTED = {"FLOAT", "HALF", "BF16", "INT8", "FP8", "FP4", "INT4", "E8M0"}
"""The types that networks compute with; the other types are for indices, shapes and booleans."""
ENGINE_TYPES = {"fp32": {"FLOAT"}, "fp16": {"FLOAT", "HALF"}, "int8": {"FLOAT", "HALF", "INT8"}}
"""The types in ``COMPUTED`` that an engine of each precision may have: some layers stay in a higher precision."""
_REQUIRED = {"fp16": "HALF", "int8": "INT8"}
_FIELDS = ("format/datatype", "datatype", "format")
_INSPECTOR_NAMES = {
    **dict.fromkeys(("fp32", "float", "float32"), "FLOAT"),
    **dict.fromkeys(("fp16", "half", "float16"), "HALF"),
    **dict.fromkeys(("bf16", "bfloat16"), "BF16"),
    **{name.lower(): name for name in ("INT8", "FP8", "FP4", "INT4", "E8M0", "INT32", "INT64", "BOOL", "UINT8")},
}
"""The inspector's name of a type, in lower case -> TensorRT's DataType."""


def check_types(layers: Mapping[str, int], precision: str, *, may_lack_int8: bool = False) -> None:
    """Raise VerificationError unless the layers have a precision.

    Args:
        layers: number of layers by type.
        precision: one of ``ENGINE_TYPES``.
        may_lack_int8: for a part of a network, which may have no convolution to quantise.
    """
    computed = layers.keys() & COMPUTED
    required = _REQUIRED.get(precision)
    lacks = required is not None and required not in computed and not (required == "INT8" and may_lack_int8)
    if lacks or computed - ENGINE_TYPES[precision]:
        raise VerificationError(
            f"the engine should be {precision}, and the outputs of its layers are {dict(layers)}: an engine has the "
            "precision of its ONNX graph, so convert the graph"
        )


def inspected_types(information: str) -> dict[str, int]:
    """Number of layers by output type, from the JSON of an engine inspector; empty if it has no types.

    Raises:
        ValueError: the text is not the JSON of an inspector.
    """
    document = json.loads(information)
    layers = document.get("Layers") if isinstance(document, dict) else None
    if not isinstance(layers, list):
        raise ValueError(f"the JSON of an inspector has a list of Layers, and this has none: {information[:80]!r}")
    # In an engine built without detailed verbosity, each layer is only a name.
    detailed = [layer for layer in layers if isinstance(layer, dict)]
    return dict(Counter(kind for layer in detailed for kind in _types_of(layer.get("Outputs") or [])))


def _types_of(tensors: list[Mapping[str, Any]]) -> set[str]:
    return {kind for tensor in tensors if (kind := _type_of(tensor)) is not None}


def _type_of(tensor: Mapping[str, Any]) -> str | None:
    """The type of a tensor; None if it is not given, as for tensors of unknown shape."""
    texts = {name.lower(): str(value) for name, value in tensor.items()}
    for name in _FIELDS:
        for word in re.findall(r"\w+", texts.get(name, "").lower()):
            if word in _INSPECTOR_NAMES:
                return _INSPECTOR_NAMES[word]
    return None
