"""Runs trials on a Ray cluster: as many at a time as its CPU cores, or GPUs, allow.

A trial whose worker or node is lost runs again on another one, from its last checkpoint. All nodes must see the run
folder under the same path.
"""

import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.errors import UnavailableError
from export.progress import Progress
from fbnetv5.search.nars.jobs import Runner, record_loss, stage_name
from fbnetv5.search.nars.trial import train_trial

PROBE_SECONDS = 10.0
RETRIES = 3
"""How often a trial whose worker was lost runs again."""


def on_cluster(address: str, gpus_per_trial: float, progress: Progress) -> Runner:
    """A runner on the cluster at an address; "auto" is that of this machine.

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

    def run(folders: Sequence[Path]) -> None:
        task = ray.remote(train_trial).options(num_cpus=1, num_gpus=gpus_per_trial, max_retries=RETRIES)
        running = {task.remote(folder.resolve()): folder for folder in folders}
        while running:
            progress(stage_name(folders), len(folders) - len(running), len(folders))
            (finished,), _ = ray.wait(list(running), num_returns=1)
            _collect(ray, finished, running.pop(finished))
        progress(stage_name(folders), len(folders), len(folders))

    return run


def _probe(address: str) -> None:
    """Connect to HOST:PORT, or raise OSError; Ray itself would try for minutes and then end the process."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=PROBE_SECONDS).close()


def _collect(ray: Any, finished: Any, folder: Path) -> None:
    """Wait for a trial that has ended; record one whose worker was lost in every attempt.

    Raises:
        UserError: the trial's folder is damaged.
    """
    try:
        ray.get(finished)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError:
        record_loss(folder)
