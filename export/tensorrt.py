"""The one place that knows which TensorRT is installed, and the NVIDIA calls that the rest needs.

Two flavours share one API: ``tensorrt`` (10.12 to 11) and ``tensorrt_rtx``, which is meant for NVIDIA's RTX GPUs and is
the only one whose parser and builder work without a GPU or a driver. TensorRT 11 dropped every precision flag, so
precision is what the ONNX file says, and networks are strongly typed. Neither flavour ships type stubs: the protocols
here name all that is used of them, and a contract test holds them against the module installed.

NVIDIA's code may crash or write to stdout, so the functions that reach it are called through ``export.isolated``, and
take and give what JSON can carry; ``EngineBuilder``, which they use, is for a process that also runs its engines. A
Runtime is made nowhere but in ``EngineBuilder.load`` and never without a driver, which can end the process.

The module is also copied into a file that measures on devices where the project is not installed: it imports nothing
but the standard library, and of this package names only.
"""

import ctypes
import re
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from export.errors import CheckFailed, NotHere

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


class BuilderConfig(Protocol):
    max_aux_streams: int
    num_compute_capabilities: int

    def clear_flag(self, flag: Any) -> None: ...
    def create_timing_cache(self, serialized: bytes) -> Any:
        """An empty one, given nothing."""

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool: ...
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

    def set_tensor_address(self, name: str, address: int) -> bool: ...
    def execute_async_v3(self, stream: int) -> bool:
        """Enqueue one run; False where that failed, and the logger has heard why."""


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

    def create_execution_context(self) -> ExecutionContext | None:
        """None where the GPU's memory does not suffice."""


class Runtime(Protocol):
    def deserialize_cuda_engine(self, plan: bytes) -> CudaEngine | None: ...


class TensorRT(Protocol):
    """What is used of the module itself."""

    __version__: str
    BuilderFlag: Any
    ComputeCapability: Any
    """Only TensorRT-RTX has it."""
    ILogger: Any
    NetworkDefinitionCreationFlag: Any

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


def load_driver() -> ctypes.CDLL | None:
    """NVIDIA's driver library, None where there is none: safe to ask anywhere, unlike TensorRT itself."""
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


def find_flavour() -> Flavour:
    """The flavour installed; of both, ``tensorrt`` where there is a driver and ``tensorrt_rtx`` where not.

    Raises:
        NotHere: neither is installed and whole.
    """
    reasons = []
    for name in NAMES if load_driver() else reversed(NAMES):
        try:
            return load(name)
        except NotHere as error:
            reasons.append(str(error))
    raise NotHere(f"{', '.join(reasons)}: {HOW_TO_GET}")


def load(name: str) -> Flavour:
    """The flavour of that name.

    Raises:
        NotHere: it is not installed, or not whole.
    """
    try:
        module = import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == name
        state = "is not installed" if absent else f"is installed and does not load ({error})"
        raise NotHere(f"{name} {state}") from None
    if not hasattr(module, "Builder"):
        raise NotHere(f"{name} is installed without its content, as a package of type stubs leaves it")
    return Flavour(name=name, module=cast(TensorRT, module))


def ready(name: str) -> str:
    """The version of the flavour of that name, once its builder has been made: then it can parse and build here.

    Raises:
        NotHere: it cannot.
    """
    flavour = load(name)
    _make_builder(flavour, _make_logger(flavour.module))
    return flavour.version


def parse(path: str) -> dict[str, Any]:
    """What NVIDIA's parser says of an ONNX file: ``{"name", "version", "errors": [...], "warnings": [...]}``.

    It takes some files that are not ONNX at all for empty networks: read them with onnx first.

    Raises:
        NotHere: there is no TensorRT here that can.
    """
    flavour = find_flavour()
    logger = _make_logger(flavour.module)
    builder = _make_builder(flavour, logger)
    network = _empty_network(flavour.module, builder, logger)  # named, because the parser does not keep it alive
    parser = flavour.module.OnnxParser(network, logger)
    accepted = parser.parse_from_file(path)
    errors = [_describe_error(parser.get_error(index)) for index in range(parser.num_errors)]
    if not accepted and not errors:
        errors = [{"code": "UNKNOWN", "node": None, "name": "", "operator": "", "description": "no reason was given"}]
    return {"name": flavour.name, "version": flavour.version, "errors": errors, "warnings": logger.warnings}


def build(onnx_path: str, engine_path: str, profile: dict[str, tuple[Sequence[int], ...]]) -> dict[str, Any]:
    """Write the engine of an ONNX file: ``{"name", "version", "layers": {DataType: count}, "warnings": [...]}``.

    Args:
        onnx_path: the graph.
        engine_path: written there; it is left to the caller that this be whole or not at all.
        profile: (smallest, typical, largest) shape of every input.

    Raises:
        NotHere: there is no TensorRT here that can.
        CheckFailed: the parser or the builder refuses.
    """
    flavour = find_flavour()
    built = EngineBuilder(flavour).build(Path(onnx_path).read_bytes(), path=onnx_path, profile=profile)
    Path(engine_path).write_bytes(built.plan)
    return {
        "name": flavour.name,
        "version": flavour.version,
        "layers": built.layers,
        "warnings": list(built.warnings),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """An engine in memory."""

    plan: bytes
    """What an engine file holds."""
    layers: dict[str, int]
    """How many layers of the strongly typed network give each type."""
    warnings: tuple[str, ...]


class EngineBuilder:
    """Builds engines of ONNX graphs one after another, all in one way, and loads them where there is a GPU.

    They share a timing cache: a layer that occurs again gets the kernel that was found fastest before, so that equal
    parts of two graphs take equal times. TF32, which TensorRT uses for float32 unless told otherwise, is off: it keeps
    10 of the 23 bits of a fraction. There are no auxiliary streams: which branches ran side by side would differ
    between a block alone and the same block in a network.
    """

    def __init__(self, flavour: Flavour, *, compute_capability: tuple[int, int] | None = None) -> None:
        """Make the builder.

        Args:
            flavour: of TensorRT.
            compute_capability: the GPU's that the engines are for. TensorRT always builds for the GPU that is here;
                TensorRT-RTX builds for it alone if told so, and for a choice of NVIDIA's otherwise.

        Raises:
            NotHere: the flavour makes no builder here, or none for that GPU.
        """
        self.flavour = flavour
        self._target = None if compute_capability is None else _rtx_target(flavour, compute_capability)
        self._logger = _make_logger(flavour.module)
        self._builder = _make_builder(flavour, self._logger)
        self._timing_cache: Any = None
        self._runtime: Runtime | None = None

    def build(
        self,
        content: bytes,
        *,
        path: str | None = None,
        profile: Mapping[str, tuple[Sequence[int], ...]] | None = None,
    ) -> BuiltEngine:
        """The engine of an ONNX graph.

        Args:
            content: the graph.
            path: the file it is from, where its weights may lie in files beside that.
            profile: (smallest, typical, largest) shape of every input; None for a graph of fixed shapes.

        Raises:
            CheckFailed: the parser or the builder refuses, and why.
        """
        name, trt, what = self.flavour.name, self.flavour.module, path or "the ONNX graph"
        self._logger.forget()
        network = _empty_network(trt, self._builder, self._logger)
        parser = trt.OnnxParser(network, self._logger)  # named, because the network's weights are the parser's
        if not parser.parse(content, path):
            advice = "" if path is None else f"; all of it: fbnetv5 check {path}"
            raise CheckFailed(f"{name}'s parser refuses {what}: {_first_error(parser)}{advice}")
        config = self._config()
        if profile is not None:
            self._add_profile(config, profile)
        plan = self._builder.build_serialized_network(network, config)
        if plan is None:
            raise CheckFailed(f"{name} builds no engine of {what}: {self.complaint()}")
        return BuiltEngine(plan=bytes(plan), layers=_layer_types(network), warnings=tuple(self._logger.warnings))

    def load(self, plan: bytes) -> CudaEngine:
        """The engine on the current GPU, where it lives no longer than this builder.

        Raises:
            NotHere: there is no driver.
            CheckFailed: the engine is of another GPU or TensorRT, or does not fit into the GPU's memory.
        """
        self._logger.forget()
        if self._runtime is None:
            self._runtime = _open_runtime(self.flavour.module, self._logger)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise CheckFailed(f"{self.flavour.name} does not load the engine: {self.complaint()}")
        return engine

    def _config(self) -> BuilderConfig:
        trt = self.flavour.module
        config = self._builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        config.max_aux_streams = 0
        if self._target is not None:
            config.num_compute_capabilities = 1
            config.set_compute_capability(self._target, 0)
        with warnings.catch_warnings():
            # TensorRT-RTX has no use for a timing cache, takes it all the same and says that this is deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            if self._timing_cache is None:
                self._timing_cache = config.create_timing_cache(b"")
            config.set_timing_cache(self._timing_cache, False)
        return config

    def _add_profile(self, config: BuilderConfig, profile: Mapping[str, tuple[Sequence[int], ...]]) -> None:
        shapes = self._builder.create_optimization_profile()
        for name, (smallest, typical, largest) in profile.items():
            shapes.set_shape(name, smallest, typical, largest)
        if config.add_optimization_profile(shapes) != 0:
            raise CheckFailed(f"{self.flavour.name} refuses the shapes {profile}")

    def complaint(self) -> str:
        """What TensorRT logged as errors since the last build or load began."""
        return " ".join(self._logger.errors) or "it says not why"


def _rtx_target(flavour: Flavour, compute_capability: tuple[int, int]) -> Any:
    """TensorRT-RTX's ComputeCapability for it; None for TensorRT, which builds for the GPU that is here."""
    if flavour.name != "tensorrt_rtx":
        return None
    trt = flavour.module
    known = trt.ComputeCapability.__members__
    major, minor = compute_capability
    if f"SM{major}{minor}" not in known:
        others = ", ".join(name for name in known if name.startswith("SM"))
        raise NotHere(
            f"{flavour.name} {flavour.version} builds for no GPU of compute capability {major}.{minor}, only for "
            f"{others}: pip install 'fbnetv5[tensorrt]' instead"
        )
    return known[f"SM{major}{minor}"]


def _layer_types(network: Network) -> dict[str, int]:
    """How many layers give each type; of a strongly typed network, these are the types it will be run in."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return dict(Counter(layer.get_output(0).dtype.name for layer in layers if layer.num_outputs))


def _make_logger(trt: TensorRT) -> Any:
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


def _make_builder(flavour: Flavour, logger: Any) -> Builder:
    try:
        return flavour.module.Builder(logger)
    except TypeError:  # what the bindings make of a null pointer
        raise NotHere(
            f"{flavour.name} {flavour.version} makes no builder without an NVIDIA driver: {HOW_TO_GET}"
        ) from None


def _open_runtime(trt: TensorRT, logger: Any) -> Runtime:
    if load_driver() is None:
        raise NotHere("an engine runs only where there is an NVIDIA driver, and none was found on this machine")
    try:
        return trt.Runtime(logger)
    except TypeError:  # what the bindings make of a null pointer
        raise NotHere(f"TensorRT {trt.__version__} finds no GPU to run engines on: {' '.join(logger.errors)}") from None


def _empty_network(trt: TensorRT, builder: Builder, logger: Any) -> Network:
    """Empty, and strongly typed: the types are those of the ONNX file, which may use NVIDIA's own plugins."""
    trt.init_libnvinfer_plugins(logger, "")
    return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


def _first_error(parser: OnnxParser) -> str:
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
