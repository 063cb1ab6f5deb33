"""The processes that share a search or a training: which device this one has, and its links to the others.

One process without links is the usual case. ``torchrun`` and ``accelerate launch`` start several.
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
    """This process's device and links to other processes; on processors Accelerate makes links only if told to."""
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
    """Do the work in the first process alone; all get the path that it gives.

    Raises:
        UserError: the work raised it; in every process, for the others would wait.
    """
    outcome: list[Any] = [None]
    if make_accelerator().is_main_process:
        try:
            outcome = [work()]
        except UserError as error:
            outcome = [error]
    (found,) = broadcast_object_list(outcome)
    if isinstance(found, UserError):
        raise found
    return Path(found)


def crew(accelerator: Accelerator) -> dict[str, Any]:
    """What of the processes decides a result, kept in checkpoints: they share out the images of a step."""
    return {"processes": accelerator.num_processes, "mixed_precision": accelerator.mixed_precision}


def same_again(command: str) -> str:
    """The line that starts the command in as many processes as this one is of."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    return f"fbnetv5 {command}" if count == 1 else f"torchrun --nproc_per_node {count} -m fbnetv5 {command}"


@contextmanager
def links_closed() -> Iterator[None]:
    """Take leave of the other processes at the end of the block.

    Left to the interpreter's own end, gloo's threads now and then abort a process that has done its work.
    """
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
