"""How a time is taken: warmed up, many runs, and all candidates in turns.

A shared or warming machine drifts by more than two blocks differ. So the runs are split into rounds, and every round
visits every call: whatever slows the machine for a while slows them all alike, and differences keep their sign.
Within a visit a call is warmed up first, since its weights left the cache while the others ran. The figures follow
trtexec (warm-up, a least number of runs and a least time; median and percentiles), except that the mean is not
reported: one pause of the operating system would own it.
"""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns

from export.errors import UserError

Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps in all."""

_TOO_SHORT_NS = 10_000
"""Below this a single run drowns in the timer's own cost, so several are timed together."""

_NORMAL_MAD = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The measuring protocol; two tables compare only if they share it."""

    repeats: int = 10
    """Rounds over all calls."""
    warmup_ms: float = 10.0
    """At each visit, before timing; at least one run."""
    min_ms: float = 70.0
    """Timed at each visit, at least."""
    min_runs: int = 5
    """Timed at each visit, at least."""

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.min_runs < 1:
            raise UserError(f"timing needs at least 1 repeat and 1 run, not {self.repeats} and {self.min_runs}")
        if not (0 <= self.warmup_ms < float("inf") and 0 <= self.min_ms < float("inf")):
            raise UserError(f"timing needs times of 0 ms or more, not {self.warmup_ms} and {self.min_ms}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was measured of one call, over the runs of all rounds."""

    latency_ms_median: float
    latency_ms_p90: float
    latency_ms_p99: float
    runs: int
    """Samples taken; each is one run, or the mean of a few where one is too short to time."""
    cv: float
    """Robust coefficient of variation: 1.4826 x median absolute deviation / median."""

    @classmethod
    def of(cls, samples_ms: list[float]) -> "Measurement":
        """Summarise samples in milliseconds, of which there must be one at least."""
        import numpy as np

        samples = np.asarray(samples_ms, dtype=np.float64)
        median, p90, p99 = (float(value) for value in np.percentile(samples, (50, 90, 99)))
        deviation = float(np.median(np.abs(samples - median)))
        return cls(
            latency_ms_median=median,
            latency_ms_p90=p90,
            latency_ms_p99=p99,
            runs=len(samples_ms),
            cv=_NORMAL_MAD * deviation / median,
        )


def measure_interleaved(
    calls: Mapping[str, Callable[[], None]], timing: Timing, progress: Progress | None = None
) -> dict[str, Measurement]:
    """Time every call by the protocol, in rounds over all of them; garbage collection is off meanwhile.

    Args:
        calls: by name; each must do the same work whenever it is called, and return when it is done.
        timing: the protocol.
        progress: told of every visit.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    total = timing.repeats * len(calls)
    with _no_garbage_collection():
        for repeat in range(timing.repeats):
            for index, (name, call) in enumerate(calls.items()):
                samples[name] += _visit(call, timing)
                if progress is not None:
                    progress("measure", repeat * len(calls) + index + 1, total)
    return {name: Measurement.of(values) for name, values in samples.items()}


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _visit(call: Callable[[], None], timing: Timing) -> list[float]:
    """Warm up, then sample for ``min_ms`` and ``min_runs`` at least; milliseconds a run."""
    inner = _warm_up(call, timing.warmup_ms)
    samples: list[float] = []
    start = perf_counter_ns()
    while len(samples) < timing.min_runs or perf_counter_ns() - start < timing.min_ms * 1e6:
        samples.append(_sample_ns(call, inner) / 1e6)
    return samples


def _warm_up(call: Callable[[], None], warmup_ms: float) -> int:
    """Run for ``warmup_ms``, once at least; returns how many runs one sample must hold to be long enough to time."""
    start = perf_counter_ns()
    last = _sample_ns(call, 1)
    while perf_counter_ns() - start < warmup_ms * 1e6:
        last = _sample_ns(call, 1)
    return max(1, round(2 * _TOO_SHORT_NS / last)) if last < _TOO_SHORT_NS else 1


def _sample_ns(call: Callable[[], None], inner: int) -> float:
    """Nanoseconds a run, over ``inner`` runs; 1 at least, the clock's own step."""
    runs = range(inner)
    start = perf_counter_ns()
    for _ in runs:
        call()
    return max(perf_counter_ns() - start, 1) / inner
