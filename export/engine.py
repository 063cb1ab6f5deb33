"""An ONNX file becomes a TensorRT engine: built for the shapes asked for, and in the precision asked for.

The engine is built ahead of time and never loaded here, so it is proven to build and not proven to run. With
tensorrt-rtx this needs no GPU, and the engine is for compute capability 8.0, 8.6, 8.9 and 12.0, which is NVIDIA's
default (docs.nvidia.com/deeplearning/tensorrt-rtx, "CPU-Only AOT"). The builder works in a process of its own, and what
it is not trusted to check is checked before it starts: it accepts shapes for inputs that do not exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export import tensorrt
from export.check import read
from export.errors import CheckFailed, UserError
from export.files import written_whole
from export.isolated import DiedError, call

if TYPE_CHECKING:
    import onnx

NAME = "model.engine"
_TIMEOUT_S = 900.0
LOWER = {"HALF", "BF16", "FP8", "FP4", "INT8", "INT4", "E8M0"}
"""Types that a layer of a float32 engine must not give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeRange:
    """The shapes an engine takes for one input; it is fastest at the typical one."""

    name: str
    smallest: tuple[int, ...]
    typical: tuple[int, ...]
    largest: tuple[int, ...]

    def __post_init__(self) -> None:
        axes = list(zip(self.smallest, self.typical, self.largest, strict=True))
        if not all(1 <= low <= middle <= high for low, middle, high in axes):
            raise UserError(
                f"shapes of {self.name!r} are smallest {list(self.smallest)}, typical {list(self.typical)}, largest "
                f"{list(self.largest)}: each axis must be positive and must not shrink from one to the next"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A built engine, as the manifest tells of it."""

    file: str
    """Its name in the folder."""
    runtime: str
    """tensorrt or tensorrt_rtx: it loads in this one only."""
    version: str
    """Of the runtime: an engine loads in the version that built it."""
    precision: str
    """Asked for, and found in every layer."""
    layers: dict[str, int]
    """How many layers of the strongly typed network give each type."""
    shapes: tuple[ShapeRange, ...]
    """Of the one optimisation profile, number 0."""
    ran: bool
    """Whether it has been run here."""


def build_engine(onnx_path: Path, path: Path, shapes: Sequence[ShapeRange]) -> Engine:
    """Build the engine of a float32 graph, written whole or not at all.

    Args:
        onnx_path: the graph.
        path: of the engine.
        shapes: one for every input, in the graph's order.

    Raises:
        UserError: the graph cannot be read, or the shapes are not its.
        NotHere: no TensorRT that can build is installed.
        CheckFailed: the parser or the builder refuses or crashes, or the engine is not float32 throughout.
    """
    check_shapes(read(onnx_path).graph, shapes)
    profile = {one.name: (one.smallest, one.typical, one.largest) for one in shapes}
    with written_whole(path) as temporary:
        try:
            built = call(tensorrt.build, str(onnx_path), str(temporary), profile, timeout_s=_TIMEOUT_S)
        except DiedError as error:
            raise CheckFailed(f"TensorRT's builder made no engine of {onnx_path}: it {error}") from None
        check_float32(built["layers"])
    return Engine(
        file=path.name,
        runtime=built["name"],
        version=built["version"],
        precision="fp32",
        layers=built["layers"],
        shapes=tuple(shapes),
        ran=False,
    )


def check_shapes(graph: "onnx.GraphProto", shapes: Sequence[ShapeRange]) -> None:
    """Raise UserError unless ``shapes`` are of the graph's inputs, in its order, and vary only where it lets them."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    names = [value.name for value in inputs]
    if names != [one.name for one in shapes]:
        raise UserError(f"the graph has inputs {names}, where shapes are given for {[one.name for one in shapes]}")
    for value, one in zip(inputs, shapes, strict=True):
        # An axis without a number has a name, or nothing at all: then dim_value is 0.
        axes = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for shape in (one.smallest, one.typical, one.largest):
            fits = len(axes) == len(shape) and all(fixed in (0, side) for fixed, side in zip(axes, shape, strict=False))
            if not fits:
                wanted = [fixed or "any" for fixed in axes]
                raise UserError(f"input {one.name!r} takes {wanted}, and {list(shape)} does not fit")


def check_float32(layers: dict[str, int]) -> None:
    """Raise CheckFailed where a layer is of a lower precision."""
    lower = {name: count for name, count in layers.items() if name in LOWER}
    if lower:
        raise CheckFailed(
            f"the engine was to be fp32, and has layers that give {lower}: the ONNX file holds those types"
        )


def engine_from_json(document: dict[str, Any]) -> Engine:
    """What ``asdict`` made of an engine.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    shapes = [
        ShapeRange(name=one["name"], **{key: tuple(one[key]) for key in ("smallest", "typical", "largest")})
        for one in document["shapes"]
    ]
    return Engine(**{**document, "shapes": tuple(shapes)})
