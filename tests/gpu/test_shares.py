from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gpu.shares import DATA, STEPS, Interval, difference, intersection, shares_of, union

INTERVALS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: (min(pair), max(pair))))


def event(category: str, name: str, start: float, end: float) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "ts": start, "dur": end - start}


TRACE = [
    {"ph": "M", "name": "process_name"},
    event("user_annotation", STEPS, 0, 1000),
    event("gpu_user_annotation", STEPS, 0, 1000),
    event("user_annotation", DATA, 0, 100),
    event("gpu_user_annotation", DATA, 0, 400),
    event("cuda_runtime", "cudaMemcpyAsync", 50, 90),
    event("cuda_runtime", "cudaLaunchKernel", 150, 250),
    event("cuda_driver", "cuLaunchKernelEx", 850, 900),
    event("cuda_runtime", "cudaStreamSynchronize", 900, 1000),
    event("cpu_op", "aten::conv2d", 100, 300),
    event("kernel", "conv", 200, 500),
    event("kernel", "norm", 400, 600),
    event("gpu_memcpy", "Memcpy HtoD", 60, 80),
    event("kernel", "conv", 1000, 1200),
]


def test_every_instant_counts_once() -> None:
    shares = shares_of(TRACE, steps=2)["shares"]
    # The GPU is busy in 60..80 and 200..600; launches of an idle GPU are 150..200 and 850..900.
    assert shares == pytest.approx({"kernels": 0.42, "data": 0.08, "launches": 0.1, "rest": 0.4})


def test_cpu_times_and_kernels_are_of_the_whole_trace() -> None:
    figures = shares_of(TRACE, steps=2)
    assert figures["cpu_time_in_launches"] == pytest.approx(0.19)
    assert figures["cpu_time_in_data"] == pytest.approx(0.1)
    assert figures["profiled_step_ms"] == pytest.approx(0.5)
    assert figures["gpu_operations_per_step"] == 2
    assert figures["top_kernels"][0] == {"name": "conv", "ms_per_step": pytest.approx(0.25), "calls_per_step": 1}


def test_a_trace_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="has no range"):
        shares_of([event("kernel", "conv", 0, 1)], steps=1)


def instants(intervals: list[Interval]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether each unit of time is in an interval."""
    inside = np.zeros(40, bool)
    for start, end in intervals:
        inside[int(start) : int(end)] = True
    return inside


@given(INTERVALS, INTERVALS)
def test_interval_arithmetic_equals_that_of_sets(first: list[Interval], second: list[Interval]) -> None:
    a, b = union(first), union(second)
    assert (instants(a) == instants(first)).all()
    assert (instants(intersection(a, b)) == (instants(first) & instants(second))).all()
    assert (instants(difference(a, b)) == (instants(first) & ~instants(second))).all()
