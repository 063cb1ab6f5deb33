"""What executes a network: the torch module itself, or its ONNX graph in ONNX Runtime, on the processor or a GPU.

``export/trt/engine_runner.py`` adds TensorRT engines. All take and give named numpy arrays, so that one comparison
serves every runtime. Torch is loaded only to run a torch module: ONNX graphs are run where there is none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from export.errors import UnavailableError, UserError

if TYPE_CHECKING:
    from torch import nn

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

BLOCK_DEPTH = 2
"""Modules in the name of a block, such as "backbone/s1_p8_0"."""
_WRAPPER = "network"
"""A module that only prepares the input of another bears this name for it."""

# ONNX Runtime names types its own way: "tensor(float)".
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(bool)": "bool",
}

_CPU = "CPUExecutionProvider"
# TF32 keeps 10 of the 23 bits of a fraction, and ONNX Runtime uses it for float32 on GPUs unless told otherwise.
_CUDA = ("CUDAExecutionProvider", {"use_tf32": "0"})
_TENSORRT = "TensorrtExecutionProvider"
PROVIDERS: dict[str, list[Any]] = {"cpu": [_CPU], "cuda": [_CUDA, _CPU], "tensorrt": [_TENSORRT, _CUDA, _CPU]}
"""ONNX Runtime's own, by name here; what the first cannot do falls to the next, operator by operator."""
_HOW_TO_GET_GPU = "pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'"
_HOW_TO_GET_PROVIDER = {
    "cuda": _HOW_TO_GET_GPU,
    "tensorrt": f"{_HOW_TO_GET_GPU} and the version of tensorrt that its release notes name",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output of a network."""

    name: str
    shape: tuple[int | str, ...]
    """A string is an axis that may vary, e.g. "batch"."""
    dtype: str
    """numpy's name, e.g. "float32"."""


class Runner(Protocol):
    """Executes one network."""

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, given all inputs by name."""


class TorchRunner:
    """A torch module on the processor, put in eval mode; inputs are copied, since layers may overwrite them."""

    def __init__(self, module: "nn.Module", input_names: Sequence[str], output_names: Sequence[str]) -> None:
        self._module = module.eval()
        self._input_names = tuple(input_names)
        self._output_names = tuple(output_names)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import torch

        with torch.inference_mode():
            result = self._module(*(torch.tensor(inputs[name]) for name in self._input_names))
        tensors = (result,) if isinstance(result, torch.Tensor) else tuple(result)
        return {name: tensor.numpy() for name, tensor in zip(self._output_names, tensors, strict=True)}

    def blocks(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of all blocks, by the names that ``export/graph_blocks.py`` gives blocks of the exported graph."""
        values: dict[str, Array] = {}

        def keep(block: str) -> Callable[..., None]:
            def hook(_module: Any, _inputs: Any, output: Any) -> None:
                if hasattr(output, "numpy"):
                    values[block] = output.numpy().copy()  # a later layer may overwrite it in place

            return hook

        modules = dict(self._module.named_modules())
        scopes = {name: within_wrapper(_scope(name, modules)) for name in modules}
        hooks = [
            modules[name].register_forward_hook(keep("/".join(scope)))
            for name, scope in scopes.items()
            if len(scope) == BLOCK_DEPTH
        ]
        try:
            self(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return values


class OrtRunner:
    """An ONNX graph in ONNX Runtime, operators one after the other; ``provider`` tells where.

    On a GPU float32 is float32, without TF32; only the provider "tensorrt" has TensorRT's own default, which uses it.
    Threads do not spin while idle: a measurement holds many sessions open, and the waiting threads of one would take
    the cores of another. With one thread, the default, there is nothing to spin.
    """

    def __init__(
        self, model: Path | bytes, *, threads: int = 1, shares_memory: bool = False, provider: str = "cpu"
    ) -> None:
        """Load a graph.

        Args:
            model: an ONNX file or its content.
            threads: processor threads one operator may use.
            shares_memory: take memory from the pool of all runners of this process that share theirs. They must not
                run at once. A graph then finds that memory in the cache, as it would if it were the only one loaded.
            provider: cpu, cuda or tensorrt.

        Raises:
            UserError: the file is missing, or ONNX Runtime refuses the graph; both ways to run raise it for inputs
                that do not fit.
            UnavailableError: ONNX Runtime has no such provider here, or there is no GPU for it.
        """
        import onnxruntime as ort

        _check_provider(provider)
        self.provider = provider
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if shares_memory:
            _make_shared_memory()
            options.add_session_config_entry("session.use_env_allocators", "1")
        options.log_severity_level = 3  # errors; they are raised as well
        name = "the ONNX graph" if isinstance(model, bytes) else str(model)
        try:
            content = model if isinstance(model, bytes) else model.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {name}: {error.strerror or error}") from None
        with _refusals(name):
            # ONNX Runtime's own fallback would print to stdout and take the processor.
            self._session = ort.InferenceSession(content, options, providers=PROVIDERS[provider], enable_fallback=0)
        _check_started(provider, self._session.get_providers())
        self.inputs = tuple(_spec(value) for value in self._session.get_inputs())
        self.outputs = tuple(_spec(value) for value in self._session.get_outputs())

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        with _refusals("these inputs"):
            arrays = self._session.run(None, dict(inputs))
        return {spec.name: array for spec, array in zip(self.outputs, arrays, strict=True)}

    def bound(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """A call that runs on ``inputs`` over and over and keeps its outputs inside: what a timing should time.

        It spares the conversion of inputs and outputs at each call, about 2 of 14 microseconds on a small block. It is
        run once here, so that inputs that do not fit are refused at once.
        """
        session = self._session
        binding = session.io_binding()

        def run() -> None:
            session.run_with_iobinding(binding)

        with _refusals("these inputs"):
            for name, array in inputs.items():
                binding.bind_cpu_input(name, np.ascontiguousarray(array))
            for spec in self.outputs:
                binding.bind_output(spec.name, "cpu")
            run()
        return run


def within_wrapper(scope: Sequence[str]) -> Sequence[str]:
    """The modules around something, from the outermost, without what only wraps the network."""
    return scope[1:] if scope[:1] == [_WRAPPER] else scope


def _scope(name: str, modules: "Mapping[str, nn.Module]") -> list[str]:
    """How the exporter names what a module does: the modules above it that are called, from the outermost."""
    scope: list[str] = []
    path, above = "", ""
    for part in name.split(".") if name else []:
        path, parent = f"{path}.{part}".strip("."), path
        kind = type(modules[parent]).__name__ if parent else ""
        label = f"{above}.{part}" if kind in ("Sequential", "ModuleList") else part
        above = part
        if type(modules[path]).__name__ not in ("ModuleDict", "ModuleList"):
            scope.append(label)
    return scope


def _check_provider(provider: str) -> None:
    """Raise UserError where there is none of that name, and UnavailableError where it cannot work on this machine."""
    import onnxruntime as ort

    if provider not in PROVIDERS:
        raise UserError(f"there is no provider {provider!r}; known are {', '.join(PROVIDERS)}")
    if provider == "cpu":
        return
    available = ort.get_available_providers()
    if _provider_name(provider) not in available:
        raise UnavailableError(
            f"ONNX Runtime {ort.__version__} has no {_provider_name(provider)} here, only {', '.join(available)}: "
            f"{_HOW_TO_GET_PROVIDER[provider]}"
        )
    from export.cuda import found_gpus

    if not found_gpus():
        raise UnavailableError(f"provider {provider!r} needs an NVIDIA GPU, and none was found on this machine")


def _check_started(provider: str, started: Sequence[str]) -> None:
    """Raise UnavailableError if ONNX Runtime dropped the provider without an error, as it does for a missing one."""
    if _provider_name(provider) not in started:
        raise UnavailableError(
            f"ONNX Runtime's {_provider_name(provider)} does not start here, only {', '.join(started)}; what it lacks "
            f"is on stderr. {_HOW_TO_GET_PROVIDER[provider]}"
        )


def _provider_name(provider: str) -> str:
    first = PROVIDERS[provider][0]
    return str(first if isinstance(first, str) else first[0])


@cache
def _make_shared_memory() -> None:
    """Once a process: ONNX Runtime refuses a second pool."""
    import onnxruntime as ort

    kind = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(kind, None)


def _spec(value: Any) -> TensorSpec:
    """From ONNX Runtime's description of an input or output; it has None where an axis has no name."""
    shape = tuple("unknown" if axis is None else axis for axis in value.shape)
    return TensorSpec(name=value.name, shape=shape, dtype=_DTYPES.get(value.type, value.type))


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """What ONNX Runtime raises becomes UserError; its own exceptions have no common base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
    refusals: tuple[type[Exception], ...] = (ValueError, RuntimeError, *(getattr(state, name) for name in names))
    try:
        yield
    except refusals as error:
        raise UserError(f"ONNX Runtime refuses {what}: {str(error).strip().splitlines()[0]}") from error
