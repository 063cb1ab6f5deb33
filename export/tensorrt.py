"""The one place that knows which TensorRT is installed, and the NVIDIA calls that the rest needs.

Two flavours share one API: ``tensorrt`` (10.12 to 11) and ``tensorrt_rtx``, which is meant for NVIDIA's RTX GPUs and is
the only one whose parser and builder work without a GPU or a driver. TensorRT 11 dropped every precision flag, so
precision is what the ONNX file says, and networks are strongly typed. Neither flavour ships type stubs: the protocols
here name all that is used of them, and a contract test holds them against the module installed.

NVIDIA's code may crash or write to stdout, so the functions that reach it are called through ``export.isolated``, and
take and give what JSON can carry. None of them makes a Runtime, which without a driver can end the process.
"""

import ctypes
import re
import sys
from collections import Counter
from collections.abc import Sequence
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
    def clear_flag(self, flag: Any) -> None: ...
    def add_optimization_profile(self, profile: OptimizationProfile) -> int:
        """Its index; -1 if it is not valid."""


class Builder(Protocol):
    def create_network(self, flags: int) -> Network: ...
    def create_builder_config(self) -> BuilderConfig: ...
    def create_optimization_profile(self) -> OptimizationProfile: ...
    def build_serialized_network(self, network: Network, config: BuilderConfig) -> Any | None:
        """The engine as a buffer; None where it cannot be built, and the logger has heard why."""


class TensorRT(Protocol):
    """What is used of the module itself."""

    __version__: str
    BuilderFlag: Any
    ILogger: Any
    NetworkDefinitionCreationFlag: Any

    def Builder(self, logger: Any) -> Builder: ...
    def init_libnvinfer_plugins(self, logger: Any, namespace: str) -> bool: ...
    def OnnxParser(self, network: Network, logger: Any) -> OnnxParser: ...


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
    _builder(flavour, _logger(flavour.module))
    return flavour.version


def parse(path: str) -> dict[str, Any]:
    """What NVIDIA's parser says of an ONNX file: ``{"name", "version", "errors": [...], "warnings": [...]}``.

    It takes some files that are not ONNX at all for empty networks: read them with onnx first.

    Raises:
        NotHere: there is no TensorRT here that can.
    """
    flavour = find_flavour()
    logger = _logger(flavour.module)
    builder = _builder(flavour, logger)
    network = _network(flavour.module, builder, logger)  # named, because the parser does not keep it alive
    parser = flavour.module.OnnxParser(network, logger)
    accepted = parser.parse_from_file(path)
    errors = [_describe(parser.get_error(index)) for index in range(parser.num_errors)]
    if not accepted and not errors:
        errors = [{"code": "UNKNOWN", "node": None, "name": "", "operator": "", "description": "no reason was given"}]
    return {"name": flavour.name, "version": flavour.version, "errors": errors, "warnings": logger.warnings}


def build(onnx_path: str, engine_path: str, profile: dict[str, tuple[Sequence[int], ...]]) -> dict[str, Any]:
    """Write the engine of an ONNX file: ``{"name", "version", "layers": {DataType: count}, "warnings": [...]}``.

    TF32, which TensorRT uses for float32 unless told otherwise, is off: it keeps 10 of the 23 bits of a fraction.

    Args:
        onnx_path: the graph.
        engine_path: written there; it is left to the caller that this be whole or not at all.
        profile: (smallest, typical, largest) shape of every input.

    Raises:
        NotHere: there is no TensorRT here that can.
        CheckFailed: the parser or the builder refuses.
    """
    flavour = find_flavour()
    trt = flavour.module
    logger = _logger(trt)
    builder = _builder(flavour, logger)
    network = _network(trt, builder, logger)
    parser = trt.OnnxParser(network, logger)  # named, because the network's weights are the parser's
    if not parser.parse_from_file(onnx_path):
        raise CheckFailed(f"{flavour.name}'s parser refuses {onnx_path}; say: fbnetv5 check {onnx_path}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    shapes = builder.create_optimization_profile()
    for name, (smallest, typical, largest) in profile.items():
        shapes.set_shape(name, smallest, typical, largest)
    if config.add_optimization_profile(shapes) != 0:
        raise CheckFailed(f"{flavour.name} refuses the shapes {profile}")
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise CheckFailed(
            f"{flavour.name} builds no engine of {onnx_path}: {' '.join(logger.errors) or 'it says not why'}"
        )
    Path(engine_path).write_bytes(engine)
    return {"name": flavour.name, "version": flavour.version, "layers": _types(network), "warnings": logger.warnings}


def _types(network: Network) -> dict[str, int]:
    """How many layers give each type; of a strongly typed network, these are the types it will be run in."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return dict(Counter(layer.get_output(0).dtype.name for layer in layers if layer.num_outputs))


def _logger(trt: TensorRT) -> Any:
    """A logger that keeps each message once, in ``warnings`` and ``errors``, and prints nothing."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
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


def _builder(flavour: Flavour, logger: Any) -> Builder:
    try:
        return flavour.module.Builder(logger)
    except TypeError:  # what the bindings make of a null pointer
        raise NotHere(
            f"{flavour.name} {flavour.version} makes no builder without an NVIDIA driver: {HOW_TO_GET}"
        ) from None


def _network(trt: TensorRT, builder: Builder, logger: Any) -> Network:
    """Empty, and strongly typed: the types are those of the ONNX file, which may use NVIDIA's own plugins."""
    trt.init_libnvinfer_plugins(logger, "")
    return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


def _describe(error: ParserError) -> dict[str, Any]:
    # Without a driver every other error is followed by a remark that CUDA found none, which is not the cause.
    lines = [line for line in error.desc().splitlines() if "cudaError 35" not in line]
    return {
        "code": error.code().name,
        "node": error.node() if error.node() >= 0 else None,
        "name": error.node_name(),
        "operator": error.node_operator(),
        "description": " ".join(lines),
    }
