"""Small ONNX teachers whose outputs are known exactly, made with ``onnx.helper``.

Every image is dark but for one-coloured rectangles: red is class 0, green class 1. The networks compare the channels.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import Tensor

CLASSES = ("red", "green")
SHARPNESS = 20.0
"""Factor of the logits: a softmax of these is 1 or nearly so."""


def save_model(
    path: Path,
    nodes: Sequence[Any],
    names: Sequence[str],
    *,
    constants: dict[str, NDArray[Any]],
    shape: Sequence[int | str] = ("batch", 3, "height", "width"),
    dtype: int = TensorProto.FLOAT,
    **description: Any,
) -> Path:
    """Write a graph with the input "images", and its description."""
    graph = helper.make_graph(
        list(nodes),
        "teacher",
        [helper.make_tensor_value_info("images", dtype, list(shape))],
        [helper.make_empty_tensor_value_info(name) for name in names],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    path.with_suffix(".json").write_text(json.dumps({"schema": 1, **description}), encoding="utf-8")
    return path


def classifier(path: Path, **fields: Any) -> Path:
    """Logits: SHARPNESS times the mean of red, and of green."""
    nodes = [
        helper.make_node("Gather", ["images", "channels"], ["two"], axis=1),
        helper.make_node("GlobalAveragePool", ["two"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"], axis=1),
        helper.make_node("Mul", ["flat", "sharpness"], ["logits"]),
    ]
    constants = {"channels": np.array([0, 1]), "sharpness": np.array(SHARPNESS, np.float32)}
    description = {"task": "cls", "size": [32, 32], "decoder": "logits", "classes": CLASSES}
    return save_model(path, nodes, ["logits"], constants=constants, **description | fields)


def segmenter(path: Path, **fields: Any) -> Path:
    """Logits of background, red and green: half of SHARPNESS, and SHARPNESS times the channel."""
    nodes = [
        helper.make_node("Gather", ["images", "channels"], ["two"], axis=1),
        helper.make_node("Mul", ["two", "sharpness"], ["scaled"]),
        helper.make_node("Gather", ["images", "first"], ["red"], axis=1),
        helper.make_node("Mul", ["red", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "half"], ["background"]),
        helper.make_node("Concat", ["background", "scaled"], ["logits"], axis=1),
    ]
    constants = {
        "channels": np.array([0, 1]),
        "first": np.array([0]),
        "zero": np.array(0, np.float32),
        "half": np.array(SHARPNESS / 2, np.float32),
        "sharpness": np.array(SHARPNESS, np.float32),
    }
    description = {"task": "seg", "size": [64, 64], "decoder": "pixel_logits", "classes": ("background", *CLASSES)}
    return save_model(path, nodes, ["logits"], constants=constants, **description | fields)


def constant(path: Path, outputs: dict[str, NDArray[Any]], **description: Any) -> Path:
    """The same outputs for every image; the graph adds zero times the input, since it must read it."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
    ]
    constants: dict[str, NDArray[Any]] = {"zero": np.array(0, np.float32)}
    for name, value in outputs.items():
        constants[f"{name}_value"] = value[None]
        constants[f"{name}_shape"] = np.array([-1] + [1] * value.ndim)
        nodes += [
            helper.make_node("Reshape", ["nothing", f"{name}_shape"], [f"{name}_zeros"]),
            helper.make_node(
                "Cast", [f"{name}_zeros"], [f"{name}_cast"], to=helper.np_dtype_to_tensor_dtype(value.dtype)
            ),
            helper.make_node("Add", [f"{name}_value", f"{name}_cast"], [name]),
        ]
    return save_model(path, nodes, list(outputs), constants=constants, **description)


def rectangle_image(
    size: tuple[int, int], boxes: Sequence[tuple[int, int, int, int]], colours: Sequence[int]
) -> Tensor:
    """A black image, uint8 [3, H, W], with rectangles (x0, y0, x1, y1) of pure red (0) or green (1)."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    for (x0, y0, x1, y1), colour in zip(boxes, colours, strict=True):
        image[:, y0:y1, x0:x1] = 0
        image[colour, y0:y1, x0:x1] = 255
    return image


def save_png(path: Path, image: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
