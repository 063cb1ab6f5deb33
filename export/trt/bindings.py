"""The installed TensorRT module: its two variants, typed protocols of its classes, and the calls that other files need.

Two variants share one API: ``tensorrt`` (10.12 to 11) and ``tensorrt_rtx``, which is made for NVIDIA's RTX GPUs and is
the only one whose parser and builder work without a GPU or a driver. TensorRT 11 removed every precision flag, so the
ONNX file sets the precision, and networks are strongly typed. Neither variant has type stubs: the protocols here name
everything that this project uses, and a contract test compares them with the installed module.

NVIDIA's code may crash or write to stdout. ``probe_builder``, which calls it, is therefore called through
``export.subprocesses``. ``export/trt/builder.py`` builds and loads engines.

The module is also copied into a file that measures on devices where the project is not installed: it imports only the
standard library and names of this package.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

from export.cuda import load_driver
from export.errors import UnavailableError

HOW_TO_GET = (
    "pip install 'fbnetv5[rtx]' works on Linux and Windows on x86-64, without a GPU; "
    "pip install 'fbnetv5[tensorrt]' needs a GPU to be of use"
)

NAMES = ("tensorrt", "tensorrt_rtx")


class ParserError(Protocol):
    """One node, or the file as a whole, that the ONNX parser refuses."""

    def code(self) -> Any:
        """An ErrorCode."""

    def desc(self) -> str: ...
    def local_function_stack(self) -> Sequence[str]:
        """The nodes that contain the node, such as ["head (If)", "then (then_branch)"], outermost first."""

    def node(self) -> int:
        """Index, in the main graph, of the node or of the one that contains it; negative for the file as a whole."""

    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class OnnxParser(Protocol):
    num_errors: int

    def parse(self, content: bytes, path: str | None) -> bool:
        """``path`` is the file of the content; weights in other files are searched in its folder."""

    def parse_from_file(self, path: str) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...


class Tensor(Protocol):
    """An input of the network, or an output of a layer."""

    name: str
    dtype: Any
    """A DataType."""
    is_shape_tensor: bool
    """The values set sizes of other tensors. Of inputs only, and known when the parser is done."""
    shape: Sequence[int]
    """The length of each axis; -1 for a dynamic one."""


class Layer(Protocol):
    metadata: str
    """The ONNX node that the parser made it of, such as "[ONNX Layer: NODE | BRANCH (then_branch) | NODE (If)]"."""
    name: str
    num_inputs: int
    num_outputs: int
    type: Any
    """A LayerType."""

    def get_input(self, index: int) -> Tensor | None:
        """None for an optional input that is not given."""

    def get_output(self, index: int) -> Tensor: ...


class Network(Protocol):
    num_inputs: int
    num_layers: int

    def get_input(self, index: int) -> Tensor: ...
    def get_layer(self, index: int) -> Layer: ...


class OptimizationProfile(Protocol):
    def set_shape(self, name: str, smallest: Sequence[int], typical: Sequence[int], largest: Sequence[int]) -> None:
        """Set the shapes of one input; an unknown name or a wrong order raises no error."""

    def set_shape_input(
        self, name: str, smallest: Sequence[int], typical: Sequence[int], largest: Sequence[int]
    ) -> None:
        """Set the values of one input that is a shape tensor."""


class TimingCache(Protocol):
    """The times of the kernels that the builder tried."""

    def serialize(self) -> Any:
        """The cache as a buffer."""


class BuilderConfig(Protocol):
    builder_optimization_level: int
    hardware_compatibility_level: Any
    max_aux_streams: int
    num_compute_capabilities: int
    profiling_verbosity: Any
    """How much an engine keeps for an inspector."""
    progress_monitor: Any
    """An IProgressMonitor."""

    def set_flag(self, flag: Any) -> None: ...
    def clear_flag(self, flag: Any) -> None: ...
    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        """In bytes."""

    def create_timing_cache(self, serialized: bytes) -> TimingCache:
        """A cache; empty for empty or unreadable bytes, which the logger then reports."""

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        """False if the cache is of another GPU or TensorRT."""

    def set_compute_capability(self, capability: Any, index: int) -> bool: ...
    def add_optimization_profile(self, profile: OptimizationProfile) -> int:
        """Index of the profile; -1 if it is not valid."""


class Builder(Protocol):
    def create_network(self, flags: int) -> Network: ...
    def create_builder_config(self) -> BuilderConfig: ...
    def create_optimization_profile(self) -> OptimizationProfile: ...
    def build_serialized_network(self, network: Network, config: BuilderConfig) -> Any | None:
        """The engine as a buffer; None if it cannot be built, and the logger has the reason."""


class ExecutionContext(Protocol):
    """Runs an engine; it owns the memory of the activations."""

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        """False if the shape is outside the optimisation profile, and the logger has the reason."""

    def infer_shapes(self) -> Sequence[str]:
        """The inputs that the outputs' shapes depend on and that are not set."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """The shape for the input shapes that were set; -1 for an axis that depends on values."""

    def set_tensor_address(self, name: str, address: int) -> bool: ...
    def execute_async_v3(self, stream: int) -> bool:
        """Enqueue one run; False if that failed, and the logger has the reason."""


class EngineInspector(Protocol):
    """Describes the layers of an engine."""

    execution_context: ExecutionContext

    def get_engine_information(self, form: Any) -> str:
        """The description, in a LayerInformationFormat."""


class CudaEngine(Protocol):
    """An engine on the GPU."""

    num_io_tensors: int

    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_mode(self, name: str) -> Any:
        """A TensorIOMode."""

    def get_tensor_dtype(self, name: str) -> Any:
        """A DataType."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """The shape; -1 for a dynamic axis."""

    def get_tensor_profile_shape(self, name: str, profile: int) -> Sequence[Sequence[int]]:
        """(smallest, typical, largest) shape of an input in an optimisation profile."""

    def get_tensor_location(self, name: str) -> Any:
        """A TensorLocation."""

    def get_tensor_format(self, name: str) -> Any:
        """A TensorFormat."""

    def create_engine_inspector(self) -> EngineInspector: ...
    def create_execution_context(self) -> ExecutionContext | None:
        """A context; None if the GPU has too little memory."""


class Runtime(Protocol):
    engine_host_code_allowed: bool
    """Engines may contain code that runs on the CPU."""

    def deserialize_cuda_engine(self, plan: bytes) -> CudaEngine | None: ...


class TensorRT(Protocol):
    """The names of the module itself."""

    __version__: str
    BuilderFlag: Any
    ComputeCapability: Any
    """TensorRT-RTX only."""
    HardwareCompatibilityLevel: Any
    ILogger: Any
    IProgressMonitor: Any
    LayerInformationFormat: Any
    MemoryPoolType: Any
    NetworkDefinitionCreationFlag: Any
    ProfilingVerbosity: Any

    def Builder(self, logger: Any) -> Builder: ...
    def init_libnvinfer_plugins(self, logger: Any, namespace: str) -> bool: ...
    def OnnxParser(self, network: Network, logger: Any) -> OnnxParser: ...
    def Runtime(self, logger: Any) -> Runtime: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRTVariant:
    """An installed TensorRT."""

    name: str
    """Name of the module: tensorrt or tensorrt_rtx."""
    module: TensorRT

    @property
    def version(self) -> str:
        return str(self.module.__version__)


def find_variant() -> TensorRTVariant:
    """The installed variant; if both are installed, ``tensorrt`` with a driver and ``tensorrt_rtx`` without.

    Raises:
        UnavailableError: neither is installed completely.
    """
    reasons = []
    for name in NAMES if load_driver() else reversed(NAMES):
        try:
            return load_variant(name)
        except UnavailableError as error:
            reasons.append(str(error))
    raise UnavailableError(f"{', '.join(reasons)}: {HOW_TO_GET}")


def load_variant(name: str) -> TensorRTVariant:
    """The variant of that name.

    Raises:
        UnavailableError: the variant is not installed, or not completely, or is too old.
    """
    try:
        module = import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == name
        state = "is not installed" if missing else f"is installed and does not load ({error})"
        raise UnavailableError(f"{name} {state}") from None
    if not hasattr(module, "Builder"):
        raise UnavailableError(f"{name} is installed without its content, as by a package of type stubs")
    if not hasattr(getattr(module, "NetworkDefinitionCreationFlag", None), "STRONGLY_TYPED"):
        raise UnavailableError(f"{name} {module.__version__} is too old: strongly typed networks need version 10")
    return TensorRTVariant(name=name, module=cast(TensorRT, module))


def probe_builder(name: str) -> str:
    """Create the builder of a variant, which shows that it can parse and build here, and return its version.

    Raises:
        UnavailableError: the variant cannot build here.
    """
    variant = load_variant(name)
    make_builder(variant, make_logger(variant.module))
    return variant.version


def make_logger(trt: TensorRT) -> Any:
    """A logger that stores each message once, in ``warnings`` and ``errors``, and prints nothing."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.clear()

        def clear(self) -> None:
            self.warnings: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.WARNING:
                messages = self.warnings
            elif severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                messages = self.errors
            else:
                return
            text = re.sub(r"^\w+\.cpp:\d+: ", "", message.strip())
            if text not in messages:
                messages.append(text)

    return Logger()


def make_builder(variant: TensorRTVariant, logger: Any) -> Builder:
    try:
        return variant.module.Builder(logger)
    except TypeError:  # raised by the bindings for a null pointer
        if load_driver() is not None:
            raise UnavailableError(
                f"{variant.name} {variant.version} creates no builder with this NVIDIA driver, which may be older than "
                f"its CUDA: {' '.join(logger.errors)}"
            ) from None
        raise UnavailableError(
            f"{variant.name} {variant.version} creates no builder without an NVIDIA driver: {HOW_TO_GET}"
        ) from None


def open_runtime(trt: TensorRT, logger: Any) -> Runtime:
    if load_driver() is None:
        raise UnavailableError("engines run only with an NVIDIA driver, and none was found on this machine")
    try:
        return trt.Runtime(logger)
    except TypeError:  # raised by the bindings for a null pointer
        raise UnavailableError(
            f"TensorRT {trt.__version__} finds no GPU to run engines on: {' '.join(logger.errors)}"
        ) from None


def empty_network(trt: TensorRT, builder: Builder, logger: Any) -> Network:
    """An empty, strongly typed network: its types will be those of the ONNX file, which may use NVIDIA's plugins."""
    trt.init_libnvinfer_plugins(logger, "")
    return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


def first_error(parser: OnnxParser) -> str:
    """The first node that the parser refuses, and the reason."""
    if parser.num_errors == 0:
        return "the parser gave no reason"
    error = parser.get_error(0)
    description = describe_error(error)
    return f"{error.node_operator()} {error.node_name()!r}: {description}" if error.node_operator() else description


def describe_error(error: ParserError) -> str:
    """NVIDIA's text in one line."""
    # Without a driver every other error is followed by a line that CUDA found no driver, which is not the cause.
    return " ".join(line for line in error.desc().splitlines() if "cudaError 35" not in line)
