"""How a time is taken: warmed up, many runs, and all candidates in turns.

A shared or warming machine drifts by more than two blocks differ. So the runs are split into rounds, and every round
visits every call: whatever slows the machine for a while slows them all alike, and differences keep their sign.
Within a visit a call is warmed up first, since its weights left the cache while the others ran. The figures follow
trtexec (warm-up, a least number of runs and a least time; median and percentiles), except that the mean is not
reported: one pause of the operating system would own it. Calls that vary more than the protocol allows are visited in
further rounds, and all their samples count: picking the calmer ones would flatter the machine.
"""

import gc
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns

from export.errors import UserError

Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps in all."""

Visits = Mapping[str, Sequence[Sequence[float]]]
"""By call: the samples of each visit, in milliseconds."""

KeepVisit = Callable[[str, Sequence[float]], None]
"""Called with the name of a call and the samples of a visit, in milliseconds."""

_TOO_SHORT_NS = 10_000
"""Below this a single run drowns in the timer's own cost, so several are timed together."""

_NORMAL_MAD = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The measuring protocol; two tables compare only if they share it."""

    repeats: int = 10
    """Rounds over all calls, at least two; a call that varies too much is visited in as many again."""
    warmup_ms: float = 10.0
    """At each visit, before timing; at least one run."""
    min_ms: float = 70.0
    """Timed at each visit, at least."""
    min_runs: int = 5
    """Timed at each visit, at least."""
    max_cv: float = 0.1
    """Above this coefficient of variation a call varies too much."""

    def __post_init__(self) -> None:
        if self.repeats < 2 or self.min_runs < 1:
            raise UserError(f"timing needs at least 2 repeats and 1 run, not {self.repeats} and {self.min_runs}")
        if not all(0 <= value < float("inf") for value in (self.warmup_ms, self.min_ms, self.max_cv)):
            raise UserError(
                f"timing needs times and a variation of 0 or more, not {self.warmup_ms}, {self.min_ms}, {self.max_cv}"
            )


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
    drift: float
    """How far the median of the later half of the rounds is from that of the earlier half, relative to the median."""

    @classmethod
    def of(cls, visits: Sequence[Sequence[float]]) -> "Measurement":
        """Summarise the samples of two visits at least, in milliseconds."""
        import numpy as np

        samples = np.concatenate([np.asarray(visit, dtype=np.float64) for visit in visits])
        half = len(visits) // 2
        earlier, later = (float(np.median(np.concatenate(part))) for part in (visits[:half], visits[half:]))
        median, p90, p99 = (float(value) for value in np.percentile(samples, (50, 90, 99)))
        deviation = float(np.median(np.abs(samples - median)))
        return cls(
            latency_ms_median=median,
            latency_ms_p90=p90,
            latency_ms_p99=p99,
            runs=len(samples),
            cv=_NORMAL_MAD * deviation / median,
            drift=abs(later - earlier) / median,
        )


def measure_interleaved(
    calls: Mapping[str, Callable[[], None]],
    timing: Timing,
    progress: Progress | None = None,
    *,
    earlier: Visits | None = None,
    keep: KeepVisit | None = None,
) -> dict[str, Measurement]:
    """Time every call by the protocol, in rounds over all of them; garbage collection is off meanwhile.

    Args:
        calls: by name; each must do the same work whenever it is called, and return when it is done.
        timing: the protocol.
        progress: told of every visit, in the stages "measure" and "measure again".
        earlier: visits of these calls that were made already and are not made again.
        keep: given every visit as soon as it is made.
    """
    rounds = _Rounds(calls, timing, progress, earlier or {}, keep)
    with _no_garbage_collection():
        rounds.visit(calls, 0, timing.repeats, "measure")
        rounds.visit(rounds.unstable(), timing.repeats, 2 * timing.repeats, "measure again")
    return {name: Measurement.of(visits) for name, visits in rounds.visits.items()}


class _Rounds:
    """The visits of a measurement, those made earlier and those made now."""

    def __init__(
        self,
        calls: Mapping[str, Callable[[], None]],
        timing: Timing,
        progress: Progress | None,
        earlier: Visits,
        keep: KeepVisit | None,
    ) -> None:
        self.visits = {name: list(earlier.get(name, ())) for name in calls}
        self._calls, self._timing, self._progress, self._keep = calls, timing, progress, keep

    def visit(self, names: Collection[str], first: int, last: int, stage: str) -> None:
        """Make those of rounds ``first`` to ``last - 1`` that were not made, over the calls of these names."""
        visits = [(number, name) for number in range(first, last) for name in names]
        for done, (number, name) in enumerate(visits, 1):
            if len(self.visits[name]) <= number:
                samples = _visit(self._calls[name], self._timing)
                self.visits[name].append(samples)
                if self._keep is not None:
                    self._keep(name, samples)
            if self._progress is not None:
                self._progress(stage, done, len(visits))

    def unstable(self) -> list[str]:
        """The calls that varied too much in the ordinary rounds."""
        usual = {name: Measurement.of(visits[: self._timing.repeats]) for name, visits in self.visits.items()}
        return [name for name, measured in usual.items() if measured.cv > self._timing.max_cv]


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
