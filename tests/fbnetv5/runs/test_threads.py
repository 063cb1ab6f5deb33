"""Networks that run side by side on a CPU."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from export.runners import torch_threads
from fbnetv5.runs.threads import MAX_WORKERS, map_in_threads

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    """Give torch threads, whatever the machine has."""
    with torch_threads(4):
        yield


def test_as_many_items_run_at_a_time_as_torch_has_threads_with_one_thread_each() -> None:
    together = threading.Barrier(4, timeout=30)  # passed only if four threads wait for it

    def work(item: int) -> tuple[int, int]:
        together.wait()
        return item * item, torch.get_num_threads()

    assert list(map_in_threads(work, range(8), CPU)) == [(number * number, 1) for number in range(8)]
    assert torch.get_num_threads() == 4


def test_many_threads_are_shared_among_the_largest_number_of_workers() -> None:
    with torch_threads(2 * MAX_WORKERS):
        assert set(map_in_threads(lambda _: torch.get_num_threads(), range(4), CPU)) == {2}


def test_a_gpu_has_one_item_at_a_time_in_this_thread() -> None:
    own = list(map_in_threads(lambda _: threading.get_ident(), range(3), torch.device("meta")))
    assert own == 3 * [threading.get_ident()]


def test_an_error_ends_the_work_and_restores_the_threads() -> None:
    finished = []

    def work(item: int) -> None:
        if item == 1:
            raise ValueError("unreadable")
        time.sleep(0.02)
        finished.append(item)

    with pytest.raises(ValueError, match="unreadable"):
        list(map_in_threads(work, range(100), CPU))
    assert len(finished) < 50  # of those that had not begun, none runs
    assert torch.get_num_threads() == 4
