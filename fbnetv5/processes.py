"""The processes that share a search or a training: which device this one has, and its links to the others.

One process without links is the usual case. ``torchrun`` and ``accelerate launch`` start several.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator


def make_accelerator() -> Accelerator:
    """This process's device and links to other processes; on processors Accelerate makes links only if told to."""
    return Accelerator(cpu=not torch.accelerator.is_available())


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
