"""Moves loaded batches to the device of a run.

On a CUDA device each copy runs on a stream of its own while the batch before it is used, as torch recommends for pinned
memory: https://docs.pytorch.org/tutorials/intermediate/pinmem_nonblock.html. Elsewhere a batch is moved when it is
asked for.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

from export.errors import UserError
from fbnetv5.data.sample import Batch

T = TypeVar("T")


def on_device(items: Iterable[Batch | UserError], device: torch.device) -> Iterator[Batch | UserError]:
    """The items in their order, batches on ``device``, errors as they are; copies are faster from pinned memory."""
    if device.type == "cuda":
        return _copied_ahead(items, device)
    return (item if isinstance(item, UserError) else item.to(device) for item in items)


def one_ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items; each is computed before the item in front of it is used."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def _copied_ahead(items: Iterable[Batch | UserError], device: torch.device) -> Iterator[Batch | UserError]:
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for item, copied in one_ahead(_start_copy(item, copies) for item in items):
        if isinstance(item, Batch):
            user = torch.cuda.current_stream(device)
            user.wait_event(copied)
            for tensor in item.tensors:
                tensor.record_stream(user)  # else a later copy could take its memory while the user still reads it
        yield item


def _start_copy(item: Batch | UserError, copies: torch.cuda.Stream) -> tuple[Batch | UserError, torch.cuda.Event]:
    """The item on the stream's device, and the event that marks the end of its copy."""
    with torch.cuda.stream(copies):
        on_gpu = item if isinstance(item, UserError) else item.to(copies.device)
    return on_gpu, copies.record_event()
