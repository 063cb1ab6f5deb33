"""Builds a TensorRT engine from an ONNX file, for given shapes and a given precision.

Without a GPU the engine is built ahead of time and not loaded: then it is verified that it builds, not that it runs.
With a GPU the engine is loaded and the types of its layers are read from it. ``export/trt/engine_runner.py`` runs it.
tensorrt-rtx builds without a GPU, and its engine is for compute capability 8.0, 8.6, 8.9 and 12.0, which is NVIDIA's
default (docs.nvidia.com/deeplearning/tensorrt-rtx, "CPU-Only AOT"). The builder runs in a subprocess. The shapes are
checked before it starts, because the builder accepts shapes of inputs that do not exist.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from export.document import Document, JsonTuple, PlainName
from export.errors import UnavailableError, UserError, VerificationError
from export.files import atomic_write
from export.progress import Progress
from export.subprocesses import SubprocessFailedError, run_in_subprocess
from export.trt import builder
from export.trt.onnx_file import read_onnx
from export.trt.options import EngineOptions, options_from_json
from export.trt.precision_check import ENGINE_TYPES, check_types

if TYPE_CHECKING:
    import onnx

NAME = "model.engine"
_TIMEOUT_S = 7200.0
"""Longer than TensorRT's longest search on a small device; the user sees its progress and may interrupt it."""


class ShapeRange(Document):
    """The shapes that an engine accepts for one input; it is fastest at the typical shape."""

    title: ClassVar[str] = "shapes"
    name: str
    """Name of the input."""
    smallest: JsonTuple[int]
    typical: JsonTuple[int]
    largest: JsonTuple[int]

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        axes = list(zip(self.smallest, self.typical, self.largest, strict=True))
        if not all(1 <= low <= middle <= high for low, middle, high in axes):
            raise ValueError(
                f"of {self.name!r} are smallest {list(self.smallest)}, typical {list(self.typical)}, largest "
                f"{list(self.largest)}: each axis must be positive and must not shrink from one to the next"
            )
        return self


class Engine(Document):
    """A built engine, as the manifest describes it."""

    title: ClassVar[str] = "engine"
    file: PlainName
    """Its name in the folder."""
    runtime: Literal["tensorrt", "tensorrt_rtx"]
    """The engine loads in this runtime only."""
    version: str
    """Version of the runtime that built it: the engine loads in this version only."""
    precision: str
    """The requested precision; every layer was checked to have its types."""
    layers: dict[str, int]
    """Number of layers by the type of their output."""
    shapes: JsonTuple[ShapeRange]
    """Shapes of the one optimisation profile, number 0."""
    ran: bool
    """Whether it has been run on this machine."""
    layers_source: Literal["network", "engine"] = "network"
    """Where ``layers`` was read: "network", the strongly typed network; "engine", the engine's inspector as well."""
    warnings: JsonTuple[str] = ()
    """TensorRT's warnings during the build."""
    gpu: str | None = None
    """The GPU that it was built or run on; None without a GPU."""
    options: dict[str, int | str | bool] = Field(default={})
    """The options of its build that are not TensorRT's defaults."""

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        options_from_json(self.options)
        return self

    @property
    def build_options(self) -> EngineOptions:
        """The options that it was built with, without the timing cache."""
        return options_from_json(self.options)

    def check_code(self) -> None:
        """Raise UnavailableError if it contains code for the CPU, as version-compatible engines do.

        A command runs such an engine only if it has built it itself.
        """
        if self.build_options.version_compatible:
            raise UnavailableError(
                f"{self.file} was built version compatible and contains code that would run on the CPU; if you trust "
                "its source, open it in Python: export.trt.engine_runner.open_engine(..., version_compatible=True)"
            )


def build_engine(
    onnx_path: Path,
    path: Path,
    shapes: Sequence[ShapeRange],
    *,
    precision: str = "fp32",
    options: EngineOptions | None = None,
    progress: Progress | None = None,
) -> Engine:
    """Build the engine of an ONNX file with an atomic write; an interrupt stops the builder.

    Args:
        onnx_path: the ONNX file.
        path: file to write the engine to.
        shapes: one per input, in the graph's order.
        precision: precision of the graph; the engine's layers must have its types.
        options: how it is built.
        progress: called with TensorRT's phases. Phases are nested: a phase reports its parts while it lasts.

    Raises:
        UserError: the ONNX file or the timing cache cannot be read, the shapes do not fit the graph, there is no such
            precision, or the installed TensorRT does not support an option.
        UnavailableError: no TensorRT that can build is installed.
        VerificationError: the parser or the builder refuses or crashes, or the engine does not have that precision.
    """
    if precision not in ENGINE_TYPES:
        raise UserError(f"there is no precision {precision!r}; known are {', '.join(ENGINE_TYPES)}")
    check_shapes(read_onnx(onnx_path).graph, shapes)
    options = options or EngineOptions()
    profile = {shape.name: (shape.smallest, shape.typical, shape.largest) for shape in shapes}
    with atomic_write(path) as temporary, tempfile.TemporaryDirectory(prefix="fbnetv5-") as folder:
        cache = Path(folder) / "timing_cache"
        arguments = (str(onnx_path), str(temporary), profile, options.to_json(), str(cache))
        try:
            built = run_in_subprocess(builder.build, *arguments, timeout_s=_TIMEOUT_S, progress=progress)
        except SubprocessFailedError as error:
            raise VerificationError(f"TensorRT's builder made no engine of {onnx_path}: it {error}") from None
        for layers in (built["layers"], built["inspected"]):
            if layers:
                check_types(layers, precision)
        _save_timing_cache(cache, options.timing_cache)
    return Engine(
        file=path.name,
        runtime=built["name"],
        version=built["version"],
        precision=precision,
        layers=built["inspected"] or built["layers"],
        shapes=tuple(shapes),
        ran=False,
        layers_source="engine" if built["inspected"] else "network",
        warnings=tuple(built["warnings"]),
        gpu=built["gpu"],
        options=options.recorded(),
    )


def check_options(options: EngineOptions) -> None:
    """Raise UserError if the installed TensorRT supports one of the options not; without one nothing is known.

    ``build_engine`` checks them too, after the graph was made.
    """
    if not options.recorded():
        return
    try:
        run_in_subprocess(builder.check_options, options.to_json(), timeout_s=_TIMEOUT_S)
    except (SubprocessFailedError, UnavailableError):
        return  # the build says why


def _save_timing_cache(cache: Path, path: Path | None) -> None:
    """Copy the timing cache of the build, if it wrote one, to the path that the user asked for, if any."""
    if path is not None and cache.exists():
        with atomic_write(path) as temporary:
            shutil.copyfile(cache, temporary)


def check_shapes(graph: "onnx.GraphProto", shapes: Sequence[ShapeRange]) -> None:
    """Raise UserError unless ``shapes`` are of the graph's inputs, in its order, and vary on dynamic axes only."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    input_names, shape_names = [value.name for value in inputs], [shape.name for shape in shapes]
    if input_names != shape_names:
        raise UserError(f"the graph has inputs {input_names}, where shapes are given for {shape_names}")
    for value, shape_range in zip(inputs, shapes, strict=True):
        # An axis without a number has a name, or nothing at all: then dim_value is 0.
        axes = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for shape in (shape_range.smallest, shape_range.typical, shape_range.largest):
            fits = len(axes) == len(shape) and all(fixed in (0, side) for fixed, side in zip(axes, shape, strict=False))
            if not fits:
                accepted = [fixed or "any" for fixed in axes]
                raise UserError(f"input {shape_range.name!r} accepts {accepted}, and {list(shape)} does not fit")
