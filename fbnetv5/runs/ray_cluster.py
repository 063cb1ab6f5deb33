"""The connection to a Ray cluster, and independent tasks on it: as many at a time as its CPU cores, or GPUs, allow."""

import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from export.errors import UnavailableError

PROBE_SECONDS = 10.0
RETRIES = 3
"""How often a task whose worker or node was lost runs again."""
AHEAD = 2
"""Tasks that are submitted for every one that can run: a worker finds its next one there, and memory does not grow."""

K = TypeVar("K")


class LostWorkerError(Exception):
    """The worker of a task was lost in every attempt."""


def connect(address: str) -> Any:
    """The module ``ray``, connected to the cluster at an address; "auto" is that of this machine.

    Raises:
        UnavailableError: Ray is not installed, or no cluster is reachable at the address.
    """
    try:
        import ray
    except ImportError:
        raise UnavailableError("--ray needs Ray: install it with: pip install 'fbnetv5[ray]'") from None
    if not ray.is_initialized():
        try:
            _probe(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UnavailableError(
                f"no Ray cluster is reachable at {address!r} ({reason}). Start one with: ray start --head"
            ) from None
    return ray


def _probe(address: str) -> None:
    """Connect to HOST:PORT, or raise OSError; Ray itself would try for minutes and then end the process."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=PROBE_SECONDS).close()


def run_tasks(
    ray: Any, function: Callable[..., Any], inputs: Iterable[tuple[K, tuple[Any, ...]]], *, gpus: float
) -> Iterator[tuple[K, LostWorkerError | None]]:
    """Run a function on the cluster; yields every input's key when it has ended, and the error if its worker was lost.

    Args:
        ray: the connected module.
        function: importable on every node; runs in one process at a time of each worker.
        inputs: (key, arguments of the function) each; read as tasks end.
        gpus: of every task, fractions included; 0 for a CPU core alone.

    Raises:
        UserError: the function raised it; so do all its other errors.
        UnavailableError: no node has so many GPUs.
    """
    if gpus and not _fits_a_node(ray, gpus):
        raise UnavailableError(
            f"no node of the Ray cluster has the {gpus:g} GPUs of a task: add such a node, or set GPUs per task to 0"
        )
    task = ray.remote(function).options(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)
    waiting, running = iter(inputs), dict[Any, K]()
    while True:
        for key, arguments in waiting:
            running[task.remote(*arguments)] = key
            if len(running) >= AHEAD * _places(ray, gpus):
                break
        if not running:
            return
        (ended,), _ = ray.wait(list(running), num_returns=1)
        yield running.pop(ended), _error(ray, ended)


def _fits_a_node(ray: Any, gpus: float) -> bool:
    return any(node["Alive"] and node["Resources"].get("GPU", 0.0) >= gpus for node in ray.nodes())


def _places(ray: Any, gpus: float) -> int:
    """Tasks that the nodes of the cluster can run at a time."""
    resources = ray.cluster_resources()
    places = resources.get("CPU", 1.0) if not gpus else resources.get("GPU", 1.0) / gpus
    return max(1, int(places))


def _error(ray: Any, ended: Any) -> LostWorkerError | None:
    try:
        ray.get(ended)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        return LostWorkerError(str(error))
    return None
