"""All backends have the members of the interface, with the same parameters."""

import inspect

import pytest

from latency.backend import Backend
from latency.runtimes.onnxruntime import CpuBackend, OrtGpuBackend
from latency.runtimes.tensorrt import TensorRTBackend
from latency.runtimes.torch import TorchCpuBackend, TorchGpuBackend

METHODS = ("fingerprint", "open", "close", "conditions")


def test_the_interface_has_these_members() -> None:
    public = {name for name in vars(Backend) if not name.startswith("_")}
    assert public == {"device", "runtime", "graph_form", "precision", "threads", *METHODS}


@pytest.mark.parametrize("backend", [CpuBackend, OrtGpuBackend, TensorRTBackend, TorchCpuBackend, TorchGpuBackend])
@pytest.mark.parametrize("method", METHODS)
def test_a_backend_has_the_methods_of_the_interface(backend: type, method: str) -> None:
    parameters, expected = (inspect.signature(getattr(owner, method)).parameters for owner in (backend, Backend))
    assert [(p.name, p.kind, p.default) for p in parameters.values()] == [
        (p.name, p.kind, p.default) for p in expected.values()
    ]
