"""The one place that knows which TensorRT is installed, and the NVIDIA calls that the rest needs.

Two flavours share one API: ``tensorrt`` (10.12 to 11) and ``tensorrt_rtx``, which builds for NVIDIA's RTX GPUs and is
the only one whose parser and builder work without a GPU or a driver. TensorRT 11 dropped every precision flag, so
precision is what the ONNX file says, and networks are strongly typed. Neither flavour ships type stubs: the protocols
here name all that is used of them, and a contract test holds them against the module installed.

NVIDIA's code may crash or write to stdout, so the functions that reach it are called through ``export.isolated``, and
take and give what JSON can carry. None of them makes a Runtime, which without a driver can end the process.
"""

import ctypes
import re
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

from export.errors import NotHere

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


class Builder(Protocol):
    def create_network(self, flags: int) -> Any: ...


class TensorRT(Protocol):
    """What is used of the module itself."""

    __version__: str
    ILogger: Any
    NetworkDefinitionCreationFlag: Any

    def Builder(self, logger: Any) -> Builder: ...
    def OnnxParser(self, network: Any, logger: Any) -> OnnxParser: ...


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
    except ModuleNotFoundError:
        raise NotHere(f"{name} is not installed") from None
    except (ImportError, OSError, RuntimeError) as error:
        raise NotHere(f"{name} is installed and does not load ({error})") from None
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
    network = _network(flavour.module, builder)  # named, because the parser does not keep it alive
    parser = flavour.module.OnnxParser(network, logger)
    accepted = parser.parse_from_file(path)
    errors = [_describe(parser.get_error(index)) for index in range(parser.num_errors)]
    if not accepted and not errors:
        errors = [{"code": "UNKNOWN", "node": None, "name": "", "operator": "", "description": "no reason was given"}]
    return {"name": flavour.name, "version": flavour.version, "errors": errors, "warnings": logger.warnings}


def _logger(trt: TensorRT) -> Any:
    """A logger that keeps each warning once, in ``warnings``, and prints nothing; errors are raised or asked for."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            text = re.sub(r"^\w+\.cpp:\d+: ", "", message.strip())
            if severity == trt.ILogger.WARNING and text not in self.warnings:
                self.warnings.append(text)

    return Logger()


def _builder(flavour: Flavour, logger: Any) -> Builder:
    try:
        return flavour.module.Builder(logger)
    except TypeError:  # what the bindings make of a null pointer
        raise NotHere(
            f"{flavour.name} {flavour.version} makes no builder without an NVIDIA driver: {HOW_TO_GET}"
        ) from None


def _network(trt: TensorRT, builder: Builder) -> Any:
    """Empty, and strongly typed: the types are those of the ONNX file."""
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
