"""Runners execute a network: the torch module, or its ONNX graph in ONNX Runtime, on the CPU or a GPU.

``export/trt/engine_runner.py`` adds TensorRT engines. All have named numpy arrays as inputs and outputs, so
that one comparison serves every runtime. Torch is loaded only to run a torch module: ONNX graphs run without it.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
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
"""Number of modules in the name of a block, such as "backbone/s1_p8_0"."""
_WRAPPER = "network"
"""A module that only prepares the input of another module has the other as attribute of this name."""

# ONNX Runtime has its own names of types: "tensor(float)".
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
# TF32 keeps 10 of the 23 bits of a fraction, and ONNX Runtime uses it for float32 on GPUs by default.
_CUDA = ("CUDAExecutionProvider", {"use_tf32": "0"})
_TENSORRT = "TensorrtExecutionProvider"
PROVIDERS: dict[str, list[Any]] = {"cpu": [_CPU], "cuda": [_CUDA, _CPU], "tensorrt": [_TENSORRT, _CUDA, _CPU]}
"""Name -> ONNX Runtime's providers; an operator that the first cannot run is run by the next."""
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
    """A string is a dynamic axis, e.g. "batch"."""
    dtype: str
    """numpy's name, e.g. "float32"."""


class Runner(Protocol):
    """Executes one network."""

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network: all inputs by name -> all outputs by name."""


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """A context in which torch's operators use ``count`` CPU threads; None changes nothing."""
    import torch

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TorchRunner:
    """Runs a torch module on the CPU in eval mode; inputs are copied, because layers may overwrite them."""

    def __init__(
        self,
        module: "nn.Module",
        input_names: Sequence[str],
        output_names: Sequence[str],
        *,
        threads: int | None = None,
    ) -> None:
        """Set the module to eval mode.

        Args:
            module: the network.
            input_names: of its arguments, in order.
            output_names: of its results, in order.
            threads: CPU threads that an operator may use; None for as many as torch is set to.
        """
        self._module = module.eval()
        self._input_names = tuple(input_names)
        self._output_names = tuple(output_names)
        self._threads = threads

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import torch

        with torch.inference_mode(), torch_threads(self._threads):
            result = self._module(*(torch.tensor(inputs[name]) for name in self._input_names))
        tensors = (result,) if isinstance(result, torch.Tensor) else tuple(result)
        return {name: tensor.numpy() for name, tensor in zip(self._output_names, tensors, strict=True)}

    def blocks(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of all blocks, by the block names of the exported graph (``export/graph_blocks.py``)."""
        values: dict[str, Array] = {}

        def keep(block: str) -> Callable[..., None]:
            def hook(_module: Any, _inputs: Any, output: Any) -> None:
                if hasattr(output, "numpy"):
                    values[block] = output.numpy().copy()  # a copy, because a later layer may overwrite it in place

            return hook

        modules = dict(self._module.named_modules())
        scopes = {name: strip_wrapper(_scope(name, modules)) for name in modules}
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
    """Runs an ONNX graph in ONNX Runtime, one operator after the other.

    On a GPU, float32 is computed without TF32; only the provider "tensorrt" has TensorRT's default, which uses TF32.
    Idle threads do not spin: a measurement keeps many sessions open, and the spinning threads of one session would
    occupy the cores of another. With one thread, the default, nothing spins.
    """

    def __init__(
        self,
        model: Path | bytes,
        *,
        threads: int = 1,
        shares_memory: bool = False,
        provider: str = "cpu",
        provider_options: Mapping[str, str] | None = None,
    ) -> None:
        """Load a graph.

        Args:
            model: an ONNX file or its content.
            threads: CPU threads that one operator may use.
            shares_memory: allocate from a pool that all such runners of this process share. They must not run at the
                same time. The memory of a graph is then in the cache, as if it were the only graph that is loaded.
            provider: cpu, cuda or tensorrt.
            provider_options: further options of ONNX Runtime for this provider, by name.

        Raises:
            UserError: the file is missing, or ONNX Runtime refuses the graph. Running the graph raises it for inputs
                that do not fit.
            UnavailableError: this ONNX Runtime has no such provider, or there is no GPU for it.
        """
        import onnxruntime as ort

        check_provider(provider)
        self.provider = provider
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if shares_memory:
            _make_shared_memory()
            options.add_session_config_entry("session.use_env_allocators", "1")
        options.log_severity_level = 3  # log errors only; they are raised as well
        name = "the ONNX graph" if isinstance(model, bytes) else str(model)
        try:
            content = model if isinstance(model, bytes) else model.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {name}: {error.strerror or error}") from None
        with _convert_errors(name), _missing_tensorrt(provider):
            # ONNX Runtime's own fallback would print to stdout and use the CPU.
            self._session = ort.InferenceSession(
                content, options, providers=_providers(provider, provider_options or {}), enable_fallback=0
            )
            self.inputs = tuple(_spec(value) for value in self._session.get_inputs())
            self.outputs = tuple(_spec(value) for value in self._session.get_outputs())
        _check_started(provider, self._session.get_providers())

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        with _convert_errors("these inputs"):
            arrays = self._session.run(None, dict(inputs))
        return {spec.name: array for spec, array in zip(self.outputs, arrays, strict=True)}

    def bound(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """A function that runs the graph on ``inputs`` without returning the outputs: the function to time.

        It skips the conversion of inputs and outputs at each call, about 2 of 14 microseconds on a small block. It is
        called once here, so that inputs that do not fit raise an error at once.
        """
        session = self._session
        binding = session.io_binding()

        def run() -> None:
            session.run_with_iobinding(binding)

        with _convert_errors("these inputs"):
            for name, array in inputs.items():
                binding.bind_cpu_input(name, np.ascontiguousarray(array))
            for spec in self.outputs:
                binding.bind_output(spec.name, "cpu")
            run()
        return run

    def bound_on(self, inputs: Mapping[str, Array], device: str, index: int = 0) -> Callable[[], None]:
        """A function that starts a run on ``inputs``, with inputs and outputs in the memory of a device.

        On a GPU the function returns when the run is enqueued, unless ONNX Runtime replays a CUDA graph, which it waits
        for. It is called once here, so that inputs that do not fit raise an error at once.

        Args:
            inputs: by name; they are cast to the input types of the graph, whose shapes must be fixed.
            device: cpu or cuda.
            index: number of the device.
        """
        import onnxruntime as ort

        session, options = self._session, ort.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        binding = session.io_binding()

        def run() -> None:
            session.run_with_iobinding(binding, options)

        dtypes = {spec.name: spec.dtype for spec in self.inputs}
        with _convert_errors("these inputs"):
            for name, array in inputs.items():
                values = np.ascontiguousarray(array, dtype=dtypes.get(name))
                binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(values, device, index))
            for spec in self.outputs:
                output = ort.OrtValue.ortvalue_from_shape_and_type(spec.shape, np.dtype(spec.dtype), device, index)
                binding.bind_ortvalue_output(spec.name, output)
            run()
        return run


def strip_wrapper(scope: Sequence[str]) -> Sequence[str]:
    """The names of nested modules, outermost first, without a module that only wraps the network."""
    return scope[1:] if scope[:1] == [_WRAPPER] else scope


def _scope(name: str, modules: "Mapping[str, nn.Module]") -> list[str]:
    """The exporter's name of a module: the called modules around it and itself, outermost first."""
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


def check_provider(provider: str) -> None:
    """Raise UserError for an unknown provider, and UnavailableError for one that this machine does not have."""
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
    from export.cuda import find_gpus

    if not find_gpus():
        raise UnavailableError(f"provider {provider!r} needs an NVIDIA GPU, and none was found on this machine")
    if hasattr(ort, "preload_dlls"):  # loads CUDA and cuDNN where pip installed them; ONNX Runtime 1.21 and newer
        with redirect_stdout(sys.stderr):  # it prints what it misses
            ort.preload_dlls()


def _check_started(provider: str, started: Sequence[str]) -> None:
    """Raise UnavailableError if ONNX Runtime dropped the provider, as it does for a missing library."""
    if _provider_name(provider) not in started:
        raise UnavailableError(
            f"ONNX Runtime's {_provider_name(provider)} does not start here, only {', '.join(started)}; the "
            f"missing library is on stderr. {_HOW_TO_GET_PROVIDER[provider]}"
        )


@contextmanager
def _missing_tensorrt(provider: str) -> Iterator[None]:
    """Raise UnavailableError for TensorRT's missing libraries: onnxruntime-gpu lists the provider without them."""
    try:
        yield
    except RuntimeError as error:
        if provider == "tensorrt" and "install TensorRT libraries" in str(error):
            raise UnavailableError(
                f"TensorRT's libraries are not on this machine: {_HOW_TO_GET_PROVIDER[provider]}"
            ) from None
        raise


def _providers(provider: str, options: Mapping[str, str]) -> list[Any]:
    """ONNX Runtime's providers of this name, with further options for the first."""
    first, *others = PROVIDERS[provider]
    if not options:
        return [first, *others]
    name, usual = (first, {}) if isinstance(first, str) else first
    return [(name, {**usual, **options}), *others]


def _provider_name(provider: str) -> str:
    first = PROVIDERS[provider][0]
    return str(first if isinstance(first, str) else first[0])


@cache
def _make_shared_memory() -> None:
    """Create the pool once per process: ONNX Runtime refuses a second pool."""
    import onnxruntime as ort

    kind = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(kind, None)


def _spec(value: Any) -> TensorSpec:
    """Convert ONNX Runtime's description of an input or output, which has None for an axis without a name."""
    shape = tuple("unknown" if axis is None else axis for axis in value.shape)
    return TensorSpec(name=value.name, shape=shape, dtype=_DTYPES.get(value.type, value.type))


@contextmanager
def _convert_errors(subject: str) -> Iterator[None]:
    """Raise ONNX Runtime's errors as UserError; its own exceptions have no common base except Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
    errors: tuple[type[Exception], ...] = (ValueError, RuntimeError, *(getattr(state, name) for name in names))
    try:
        yield
    except errors as error:
        raise UserError(f"ONNX Runtime refuses {subject}: {str(error).strip().splitlines()[0]}") from error
