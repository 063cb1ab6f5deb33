"""The one place that knows which TensorRT is installed, and the NVIDIA calls that the rest needs.

Two flavours share one API: ``tensorrt`` (10.12 to 11) and ``tensorrt_rtx``, which is meant for NVIDIA's RTX GPUs and is
the only one whose parser and builder work without a GPU or a driver. TensorRT 11 dropped every precision flag, so
precision is what the ONNX file says, and networks are strongly typed. Neither flavour ships type stubs: the protocols
here name all that is used of them, and a contract test holds them against the module installed.

NVIDIA's code may crash or write to stdout, so ``ready`` and ``parse``, which reach it, are called through
``export.subprocesses``, and take and give what JSON can carry. What builds and loads engines is in
``export/trt/builder.py``.

The module is also copied into a file that measures on devices where the project is not installed: it imports nothing
but the standard library, and of this package names only.
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
    """One node, or the file as a whole, that the ONNX parser does not take."""

    def code(self) -> Any:
        """An ErrorCode."""

    def desc(self) -> str: ...
    def node(self) -> int:
        """Index in the ONNX graph; negative for the file as a whole."""

    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class OnnxParser(Protocol):
    num_errors: int

    def parse(self, content: bytes, path: str | None) -> bool:
        """``path`` is where the content is from, beside which weights in files of their own are looked for."""

    def parse_from_file(self, path: str) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...


class Tensor(Protocol):
    """An input of the network, or what a layer gives."""

    name: str
    dtype: Any
    """A DataType."""


class Layer(Protocol):
    num_outputs: int

    def get_output(self, index: int) -> Tensor: ...


class Network(Protocol):
    num_layers: int

    def get_layer(self, index: int) -> Layer: ...


class OptimizationProfile(Protocol):
    def set_shape(self, name: str, smallest: Sequence[int], typical: Sequence[int], largest: Sequence[int]) -> None:
        """For one input; an unknown name and a wrong order are not complained about."""


class TimingCache(Protocol):
    """The times of kernels that the builder tried."""

    def serialize(self) -> Any:
        """As a buffer."""


class BuilderConfig(Protocol):
    builder_optimization_level: int
    hardware_compatibility_level: Any
    max_aux_streams: int
    num_compute_capabilities: int
    profiling_verbosity: Any
    """What an engine keeps for an inspector."""
    progress_monitor: Any
    """An IProgressMonitor."""

    def set_flag(self, flag: Any) -> None: ...
    def clear_flag(self, flag: Any) -> None: ...
    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        """In bytes."""

    def create_timing_cache(self, serialized: bytes) -> TimingCache:
        """An empty one, given nothing or what cannot be read; the logger has heard of the latter."""

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        """False where it is of another GPU or TensorRT."""

    def set_compute_capability(self, capability: Any, index: int) -> bool: ...
    def add_optimization_profile(self, profile: OptimizationProfile) -> int:
        """Its index; -1 if it is not valid."""


class Builder(Protocol):
    def create_network(self, flags: int) -> Network: ...
    def create_builder_config(self) -> BuilderConfig: ...
    def create_optimization_profile(self) -> OptimizationProfile: ...
    def build_serialized_network(self, network: Network, config: BuilderConfig) -> Any | None:
        """The engine as a buffer; None where it cannot be built, and the logger has heard why."""


class ExecutionContext(Protocol):
    """Runs an engine; it owns the memory of what layers pass on."""

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        """False where it is outside the optimisation profile, and the logger has heard why."""

    def infer_shapes(self) -> Sequence[str]:
        """The inputs that outputs' shapes depend on and that are not set."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """With the inputs' shapes set; -1 for an axis that depends on values."""

    def set_tensor_address(self, name: str, address: int) -> bool: ...
    def execute_async_v3(self, stream: int) -> bool:
        """Enqueue one run; False where that failed, and the logger has heard why."""


class EngineInspector(Protocol):
    """Tells what an engine's layers are."""

    execution_context: ExecutionContext

    def get_engine_information(self, form: Any) -> str:
        """In a LayerInformationFormat."""


class CudaEngine(Protocol):
    """An engine on the GPU."""

    num_io_tensors: int

    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_mode(self, name: str) -> Any:
        """A TensorIOMode."""

    def get_tensor_dtype(self, name: str) -> Any:
        """A DataType."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """-1 for an axis that may vary."""

    def get_tensor_profile_shape(self, name: str, profile: int) -> Sequence[Sequence[int]]:
        """(smallest, typical, largest) of an input, in an optimisation profile."""

    def get_tensor_location(self, name: str) -> Any:
        """A TensorLocation."""

    def get_tensor_format(self, name: str) -> Any:
        """A TensorFormat."""

    def create_engine_inspector(self) -> EngineInspector: ...
    def create_execution_context(self) -> ExecutionContext | None:
        """None where the GPU's memory does not suffice."""


class Runtime(Protocol):
    engine_host_code_allowed: bool
    """An engine may bring code that runs on the processor."""

    def deserialize_cuda_engine(self, plan: bytes) -> CudaEngine | None: ...


class TensorRT(Protocol):
    """What is used of the module itself."""

    __version__: str
    BuilderFlag: Any
    ComputeCapability: Any
    """Only TensorRT-RTX has it."""
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
class Flavour:
    """The TensorRT that is installed."""

    name: str
    """Of the module: tensorrt or tensorrt_rtx."""
    module: TensorRT

    @property
    def version(self) -> str:
        return str(self.module.__version__)


def find_flavour() -> Flavour:
    """The flavour installed; of both, ``tensorrt`` where there is a driver and ``tensorrt_rtx`` where not.

    Raises:
        UnavailableError: neither is installed and whole.
    """
    reasons = []
    for name in NAMES if load_driver() else reversed(NAMES):
        try:
            return load(name)
        except UnavailableError as error:
            reasons.append(str(error))
    raise UnavailableError(f"{', '.join(reasons)}: {HOW_TO_GET}")


def load(name: str) -> Flavour:
    """The flavour of that name.

    Raises:
        UnavailableError: it is not installed, or not whole.
    """
    try:
        module = import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == name
        state = "is not installed" if absent else f"is installed and does not load ({error})"
        raise UnavailableError(f"{name} {state}") from None
    if not hasattr(module, "Builder"):
        raise UnavailableError(f"{name} is installed without its content, as a package of type stubs leaves it")
    return Flavour(name=name, module=cast(TensorRT, module))


def ready(name: str) -> str:
    """The version of the flavour of that name, once its builder has been made: then it can parse and build here.

    Raises:
        UnavailableError: it cannot.
    """
    flavour = load(name)
    make_builder(flavour, make_logger(flavour.module))
    return flavour.version


def parse(path: str) -> dict[str, Any]:
    """What NVIDIA's parser says of an ONNX file: ``{"name", "version", "errors": [...], "warnings": [...]}``.

    It takes some files that are not ONNX at all for empty networks: read them with onnx first.

    Raises:
        UnavailableError: there is no TensorRT here that can.
    """
    flavour = find_flavour()
    logger = make_logger(flavour.module)
    builder = make_builder(flavour, logger)
    network = empty_network(flavour.module, builder, logger)  # named, because the parser does not keep it alive
    parser = flavour.module.OnnxParser(network, logger)
    accepted = parser.parse_from_file(path)
    errors = [_describe_error(parser.get_error(index)) for index in range(parser.num_errors)]
    if not accepted and not errors:
        errors = [{"code": "UNKNOWN", "node": None, "name": "", "operator": "", "description": "no reason was given"}]
    return {"name": flavour.name, "version": flavour.version, "errors": errors, "warnings": logger.warnings}


def make_logger(trt: TensorRT) -> Any:
    """A logger that keeps each message once, in ``warnings`` and ``errors``, and prints nothing."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.forget()

        def forget(self) -> None:
            self.warnings: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.WARNING:
                kept = self.warnings
            elif severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                kept = self.errors
            else:
                return
            text = re.sub(r"^\w+\.cpp:\d+: ", "", message.strip())
            if text not in kept:
                kept.append(text)

    return Logger()


def make_builder(flavour: Flavour, logger: Any) -> Builder:
    try:
        return flavour.module.Builder(logger)
    except TypeError:  # what the bindings make of a null pointer
        raise UnavailableError(
            f"{flavour.name} {flavour.version} makes no builder without an NVIDIA driver: {HOW_TO_GET}"
        ) from None


def open_runtime(trt: TensorRT, logger: Any) -> Runtime:
    if load_driver() is None:
        raise UnavailableError(
            "an engine runs only where there is an NVIDIA driver, and none was found on this machine"
        )
    try:
        return trt.Runtime(logger)
    except TypeError:  # what the bindings make of a null pointer
        raise UnavailableError(
            f"TensorRT {trt.__version__} finds no GPU to run engines on: {' '.join(logger.errors)}"
        ) from None


def empty_network(trt: TensorRT, builder: Builder, logger: Any) -> Network:
    """Empty, and strongly typed: the types are those of the ONNX file, which may use NVIDIA's own plugins."""
    trt.init_libnvinfer_plugins(logger, "")
    return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


def first_error(parser: OnnxParser) -> str:
    """Where the parser stops first, and why."""
    if parser.num_errors == 0:
        return "it says not why"
    first = _describe_error(parser.get_error(0))
    return (
        f"{first['operator']} {first['name']!r}: {first['description']}" if first["operator"] else first["description"]
    )


def _describe_error(error: ParserError) -> dict[str, Any]:
    # Without a driver every other error is followed by a remark that CUDA found none, which is not the cause.
    lines = [line for line in error.desc().splitlines() if "cudaError 35" not in line]
    return {
        "code": error.code().name,
        "node": error.node() if error.node() >= 0 else None,
        "name": error.node_name(),
        "operator": error.node_operator(),
        "description": " ".join(lines),
    }
