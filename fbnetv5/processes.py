"""The processes that share a search or a training: which device this one has, and its links to the others.

One process without links is the usual case. ``torchrun`` and ``accelerate launch`` start several.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator


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
