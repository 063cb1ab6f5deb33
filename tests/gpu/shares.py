"""Where the time of a step goes, from a trace of torch's profiler.

The trace is in Chrome's format: complete events ("ph" is "X") with a category, a name, and start and duration in
microseconds. The categories are those of github.com/pytorch/kineto, libkineto/src/ActivityType.cpp. Every instant of
the steps belongs to the first of these that holds:

- ``kernels``: the GPU is busy with a kernel, a copy or a fill;
- ``data``: the GPU is idle, and the CPU waits for the next batch;
- ``launches``: the GPU is idle, and the CPU is in a call that launches GPU work;
- ``rest``: the GPU is idle, and the CPU runs Python, torch's dispatcher or the autograd engine.

So the four shares add up to 1, and all but ``kernels`` is time in which the GPU waits. The profiler slows the CPU down:
``launches`` and ``rest`` are upper limits.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

STEPS = "gpu-report: steps"
"""Name of the range around all profiled steps and the synchronisation after them."""
DATA = "gpu-report: data"
"""Name of the range around each wait for a batch."""
GPU_CATEGORIES = {"kernel", "gpu_memcpy", "gpu_memset"}
CALL_CATEGORIES = {"cuda_runtime", "cuda_driver"}
LAUNCHES = ("Launch", "MemcpyAsync", "MemsetAsync")
"""Parts of the names of calls that launch GPU work, such as cudaLaunchKernel and cuLaunchKernelEx."""
TOP_KERNELS = 10

Interval = tuple[float, float]
"""Start and end, in microseconds."""


def shares_of(events: Iterable[Mapping[str, Any]], steps: int) -> dict[str, Any]:
    """The shares of a trace of ``steps`` steps, and the kernels that take most of the time.

    Raises:
        ValueError: the trace has no range named ``STEPS``.
    """
    complete = [event for event in events if event.get("ph") == "X"]
    windows = [interval_of(event) for event in complete if event["name"] == STEPS and is_range(event)]
    if not windows:
        raise ValueError(f"the trace has no range {STEPS!r}")
    window = union(windows)
    total = length(window)
    on_gpu = [event for event in complete if event.get("cat") in GPU_CATEGORIES]
    calls = [event for event in complete if event.get("cat") in CALL_CATEGORIES]
    launch_calls = [event for event in calls if any(part in event["name"] for part in LAUNCHES)]
    kernels = intersection(union(map(interval_of, on_gpu)), window)
    data = intersection(
        union(interval_of(event) for event in complete if event["name"] == DATA and is_range(event)), window
    )
    launches = intersection(union(map(interval_of, launch_calls)), window)
    waiting = difference(data, kernels)
    launching = difference(difference(launches, kernels), data)
    parts = {"kernels": length(kernels), "data": length(waiting), "launches": length(launching)}
    parts["rest"] = total - sum(parts.values())
    return {
        "shares": {name: part / total for name, part in parts.items()},
        "profiled_step_ms": total / steps / 1e3,
        "cpu_time_in_launches": length(launches) / total,
        "cpu_time_in_data": length(data) / total,
        "gpu_operations_per_step": len(on_gpu) / steps,
        "top_kernels": top_kernels(on_gpu, steps),
    }


def is_range(event: Mapping[str, Any]) -> bool:
    """Whether the event is a named range on the CPU: its copy on the GPU has another category."""
    return bool(event.get("cat") == "user_annotation")


def interval_of(event: Mapping[str, Any]) -> Interval:
    """Start and end of an event."""
    return float(event["ts"]), float(event["ts"]) + float(event["dur"])


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same instants as disjoint intervals in order."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def intersection(first: Sequence[Interval], second: Sequence[Interval]) -> list[Interval]:
    """The instants that are in both; each argument is disjoint and in order."""
    common: list[Interval] = []
    i = j = 0
    while i < len(first) and j < len(second):
        start, end = max(first[i][0], second[j][0]), min(first[i][1], second[j][1])
        if start < end:
            common.append((start, end))
        if first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1
    return common


def difference(first: Sequence[Interval], second: Sequence[Interval]) -> list[Interval]:
    """The instants of ``first`` that are not in ``second``; each argument is disjoint and in order."""
    edges = [float("-inf"), *(edge for interval in second for edge in interval), float("inf")]
    gaps = list(zip(edges[::2], edges[1::2], strict=True))
    return intersection(first, gaps)


def length(intervals: Iterable[Interval]) -> float:
    """Total length of disjoint intervals, in microseconds."""
    return sum(end - start for start, end in intervals)


def top_kernels(on_gpu: Sequence[Mapping[str, Any]], steps: int) -> list[dict[str, Any]]:
    """The GPU operations with the longest total time, with milliseconds and calls per step."""
    times: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for event in on_gpu:
        times[event["name"]] += float(event["dur"])  # type: ignore[assignment]  # a Counter of floats works too
        counts[event["name"]] += 1
    return [
        {"name": name[:160], "ms_per_step": time / steps / 1e3, "calls_per_step": counts[name] / steps}
        for name, time in times.most_common(TOP_KERNELS)
    ]
