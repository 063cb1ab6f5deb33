"""Both backends have the members of the interface, with the same parameters."""

import inspect

import pytest

from latency.backend import Backend
from latency.cpu import CpuBackend
from latency.gpu import GpuBackend

METHODS = ("fingerprint", "open", "conditions")


def test_the_interface_has_these_members() -> None:
    public = {name for name in vars(Backend) if not name.startswith("_")}
    assert public == {"device", "precision", "threads", *METHODS}


@pytest.mark.parametrize("backend", [CpuBackend, GpuBackend])
@pytest.mark.parametrize("method", METHODS)
def test_a_backend_has_the_methods_of_the_interface(backend: type, method: str) -> None:
    parameters, expected = (inspect.signature(getattr(owner, method)).parameters for owner in (backend, Backend))
    assert [(p.name, p.kind, p.default) for p in parameters.values()] == [
        (p.name, p.kind, p.default) for p in expected.values()
    ]
