"""An ONNX file becomes a TensorRT engine: built for the shapes asked for, and in the precision asked for.

Where there is no GPU the engine is built ahead of time and not loaded, so it is proven to build and not proven to run;
where there is one it is loaded and its types are read from it. ``export/trt/engine_runner.py`` runs it. With
tensorrt-rtx
building needs no GPU, and the engine is for compute capability 8.0, 8.6, 8.9 and 12.0, which is NVIDIA's default
(docs.nvidia.com/deeplearning/tensorrt-rtx, "CPU-Only AOT"). The builder works in a process of its own, and what it is
not trusted to check is checked before it starts: it accepts shapes for inputs that do not exist.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.errors import UserError, VerificationError
from export.files import atomic_write
from export.subprocesses import DiedError, call
from export.trt import builder
from export.trt.check import read
from export.trt.options import EngineOptions
from export.trt.precision_check import ENGINE_TYPES, check_types

if TYPE_CHECKING:
    import onnx

NAME = "model.engine"
_TIMEOUT_S = 7200.0
"""TensorRT's longest search, on a small device; who waits sees it get on, and may stop it."""


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
    """How many layers give each type, of what ``audited`` says."""
    shapes: tuple[ShapeRange, ...]
    """Of the one optimisation profile, number 0."""
    ran: bool
    """Whether it has been run here."""
    audited: str = "network"
    """"network": the types of the strongly typed network; "engine": those that the engine's inspector told as well."""
    warnings: tuple[str, ...] = ()
    """What TensorRT had to say of the build."""
    gpu: str | None = None
    """The GPU that it was built or run on; None where there was none."""


def build_engine(
    onnx_path: Path,
    path: Path,
    shapes: Sequence[ShapeRange],
    *,
    precision: str = "fp32",
    options: EngineOptions | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Engine:
    """Build the engine of a graph, written whole or not at all; interrupting it stops the builder.

    Args:
        onnx_path: the graph.
        path: of the engine.
        shapes: one for every input, in the graph's order.
        precision: that of the graph, which the engine must be found to have.
        options: how it is built.
        progress: told what TensorRT is doing, how many steps of it are done, and of how many. What it does has parts,
            which it tells of in between.

    Raises:
        UserError: the graph or the timing cache cannot be read, the shapes are not the graph's, there is no such
            precision, or the TensorRT that is here does not do what an option asks for.
        UnavailableError: no TensorRT that can build is installed.
        VerificationError: the parser or the builder refuses or crashes, or the engine is not of that precision.
    """
    if precision not in ENGINE_TYPES:
        raise UserError(f"there is no precision {precision!r}; known are {', '.join(ENGINE_TYPES)}")
    check_shapes(read(onnx_path).graph, shapes)
    options = options or EngineOptions()
    profile = {one.name: (one.smallest, one.typical, one.largest) for one in shapes}
    with atomic_write(path) as temporary, tempfile.TemporaryDirectory(prefix="fbnetv5-") as folder:
        times = Path(folder) / "times"
        arguments = (str(onnx_path), str(temporary), profile, options.to_json(), str(times))
        try:
            built = call(builder.build, *arguments, timeout_s=_TIMEOUT_S, progress=progress)
        except DiedError as error:
            raise VerificationError(f"TensorRT's builder made no engine of {onnx_path}: it {error}") from None
        for layers in (built["layers"], built["inspected"]):
            if layers:
                check_types(layers, precision)
        _keep_times(times, options.timing_cache)
    return Engine(
        file=path.name,
        runtime=built["name"],
        version=built["version"],
        precision=precision,
        layers=built["inspected"] or built["layers"],
        shapes=tuple(shapes),
        ran=False,
        audited="engine" if built["inspected"] else "network",
        warnings=tuple(built["warnings"]),
        gpu=built["gpu"],
    )


def _keep_times(times: Path, path: Path | None) -> None:
    """Put the timing cache where the user wants it, if one came of the build."""
    if path is not None and times.exists():
        with atomic_write(path) as temporary:
            shutil.copyfile(times, temporary)


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


def engine_from_json(document: dict[str, Any]) -> Engine:
    """What ``asdict`` made of an engine.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    shapes = [
        ShapeRange(name=one["name"], **{key: tuple(one[key]) for key in ("smallest", "typical", "largest")})
        for one in document["shapes"]
    ]
    warnings = tuple(str(line) for line in document.get("warnings", ()))
    return Engine(**{**document, "shapes": tuple(shapes), "warnings": warnings})
