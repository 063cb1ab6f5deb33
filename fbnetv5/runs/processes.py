"""The processes of a distributed search or training: this process's device and its communication with the others.

The usual case is a single process without communication. ``torchrun`` and ``accelerate launch`` start several.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from export.errors import UserError


def make_accelerator() -> Accelerator:
    """This process's device and communication with others; on CPUs Accelerate communicates only if ``cpu`` is set."""
    return Accelerator(cpu=not torch.accelerator.is_available())


def average_gradients(accelerator: Accelerator, parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes; all must have gradients for the same parameters."""
    if accelerator.num_processes == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def in_first_process(work: Callable[[], Path]) -> Path:
    """Run ``work`` in the first process alone, and return its path in every process.

    Raises:
        UserError: ``work`` raised it; raised in every process, because the others would wait for the path.
    """
    outcome: list[Any] = [None]
    if make_accelerator().is_main_process:
        try:
            outcome = [work()]
        except UserError as error:
            outcome = [error]
    (result,) = broadcast_object_list(outcome)
    if isinstance(result, UserError):
        raise result
    return Path(result)


def distributed_state(accelerator: Accelerator) -> dict[str, Any]:
    """Settings of the processes that change results, stored in checkpoints: processes split a step's images."""
    return {"processes": accelerator.num_processes, "mixed_precision": accelerator.mixed_precision}


def relaunch_command(command: str) -> str:
    """The command line that starts a command in the current number of processes."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    return f"fbnetv5 {command}" if count == 1 else f"torchrun --nproc_per_node {count} -m fbnetv5 {command}"


@contextmanager
def process_group_cleanup() -> Iterator[None]:
    """Destroy the process group at the end of the block.

    Without it gloo's threads sometimes abort a finished process while the interpreter exits.
    """
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
