"""Networks that run side by side on a CPU.

Small feature maps keep one core busier than several: two passes in two threads take less time than two passes one after
the other in which torch shares every operator among the cores. torch's operators release Python's global lock.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from export.runners import torch_threads

T = TypeVar("T")
R = TypeVar("R")

MAX_WORKERS = 8
"""Each has a network of its own in memory."""


def map_in_threads(work: Callable[[T], R], items: Sequence[T], device: torch.device) -> Iterator[R]:
    """The results of ``work`` on each item, in order; on a CPU as many at a time as torch has threads, up to a limit.

    With one of torch's threads each, which is the case below twice ``MAX_WORKERS``, results do not depend on the number
    of cores. What ``work`` changes must belong to its thread; it must not make an ``Accelerator``, which empties and
    restores the environment of the process.

    Args:
        work: runs on ``device``.
        items: its arguments.
        device: a GPU has one item at a time, in this thread.
    """
    threads = torch.get_num_threads()
    workers = min(threads, MAX_WORKERS)
    if device.type != "cpu" or workers == 1:
        yield from map(work, items)
        return
    with torch_threads(None), ThreadPoolExecutor(workers, initializer=_use, initargs=(threads // workers,)) as pool:
        yield from pool.map(work, items)


def _use(threads: int) -> None:
    """Set the number of torch's threads in this thread."""
    torch.set_num_threads(threads)
