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
from accelerate.utils import broadcast, broadcast_object_list, gather_object
from torch import Tensor

from export.errors import UserError

BUCKET_BYTES = 4 * 2**20
"""Gradients that are reduced together: many small messages would be slow, and a single one would start last."""


def make_accelerator() -> Accelerator:
    """This process's device and communication with others; on CPUs Accelerate communicates only if ``cpu`` is set."""
    return Accelerator(cpu=not torch.accelerator.is_available())


@contextmanager
def fastest_convolutions() -> Iterator[None]:
    """Let cuDNN time its algorithms inside the block, once for every new shape, and use the fastest.

    On an H100 a search step at 64x64 with a batch of 128 took 59 instead of 73 ms (medians, docs/gpu.md). The choice
    depends on the timing, so two runs on a GPU may differ by the rounding of different algorithms.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class GradientAverage:
    """The mean of gradients over the processes, computed while the backward pass still computes other gradients.

    As in torch's DistributedDataParallel (arXiv 2006.15704) gradients are collected in buckets, and a full bucket is
    reduced asynchronously. That class expects the same parameters in every step, or searches the graph for absent ones.
    Here all processes must run the same graph in a step, so that their backward passes fill the same buckets.
    """

    def __init__(self, accelerator: Accelerator, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Observe the gradients of ``parameters``; a single process observes nothing."""
        self._processes = accelerator.num_processes
        self._bucket: list[Tensor] = []
        self._bytes = 0
        self._running: list[tuple[torch.distributed.Work, Tensor, list[Tensor]]] = []
        """Of every started bucket: the communication, the flat gradients, and the gradients."""
        if self._processes > 1:
            for parameter in parameters:
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(self._add)  # type: ignore[no-untyped-call]

    def finish(self) -> None:
        """Replace every gradient of the last backward pass by its mean over the processes."""
        if self._bucket:
            self._start()
        for work, flat, gradients in self._running:
            work.wait()
            parts = (flat / self._processes).split([gradient.numel() for gradient in gradients])
            means = [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
            torch._foreach_copy_(gradients, means)
        self._running.clear()

    def _add(self, parameter: Tensor) -> None:
        """Add a parameter's complete gradient to the bucket; the backward pass calls it."""
        assert parameter.grad is not None
        self._bucket.append(parameter.grad)
        self._bytes += parameter.grad.nbytes
        if self._bytes >= BUCKET_BYTES:
            self._start()

    def _start(self) -> None:
        """Start to add up the bucket over the processes."""
        flat = torch.cat([gradient.flatten() for gradient in self._bucket])
        work = torch.distributed.all_reduce(flat, async_op=True)
        assert work is not None
        self._running.append((work, flat, self._bucket))
        self._bucket, self._bytes = [], 0


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


def copy_from_first(accelerator: Accelerator, tensors: list[Tensor]) -> None:
    """Replace the tensors of every process, of one type, by those of the first."""
    if accelerator.num_processes == 1 or not tensors:
        return
    flat = broadcast(torch.cat([tensor.flatten() for tensor in tensors]))
    parts = flat.split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])


def united(accelerator: Accelerator, own: set[str]) -> set[str]:
    """The union of the texts of all processes; a single number is communicated where no process has any."""
    if accelerator.num_processes == 1:
        return own
    if not int(accelerator.reduce(torch.tensor(len(own), device=accelerator.device), "sum")):
        return set()
    everything: list[str] = gather_object(sorted(own))
    return set(everything)


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
