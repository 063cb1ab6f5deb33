"""What executes a network: the torch module itself, or its ONNX graph in ONNX Runtime on the processor.

Both take and give named numpy arrays, so that one comparison serves every runtime. Torch is loaded only to run a torch
module: ONNX graphs are run where there is none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from export.errors import UserError

if TYPE_CHECKING:
    from torch import nn

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

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


class OrtRunner:
    """An ONNX graph in ONNX Runtime's CPU provider, operators one after the other.

    Threads do not spin while idle: a measurement holds many sessions open, and the waiting threads of one would take
    the cores of another. With one thread, the default, there is nothing to spin.
    """

    def __init__(self, model: Path | bytes, *, threads: int = 1, shares_memory: bool = False) -> None:
        """Load a graph.

        Args:
            model: an ONNX file or its content.
            threads: processor threads one operator may use.
            shares_memory: take memory from the pool of all runners of this process that share theirs. They must not
                run at once. A graph then finds that memory in the cache, as it would if it were the only one loaded.

        Raises:
            UserError: the file is missing, or ONNX Runtime refuses the graph; both ways to run raise it for inputs
                that do not fit.
        """
        import onnxruntime as ort

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
            self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
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
