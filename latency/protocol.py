"""How a time is taken: warmed up, many runs, all candidates in turns, and beside a yardstick.

A shared or warming machine drifts by more than two blocks differ. So the runs are split into rounds, and every round
visits every call: whatever slows the machine for a while slows them all alike, and differences keep their sign.
Within a visit a call is warmed up first, since its weights left the cache while the others ran. The figures follow
trtexec (warm-up, a least number of runs and a least time; median and percentiles), except that the mean is not
reported: one pause of the operating system would own it. Calls that vary more than the protocol allows are visited in
further rounds, and all their samples count: picking the calmer ones would flatter the machine.

Within a round the drift is taken out too. The same yardstick, a graph whose time nobody needs, is timed beside every
visit, and the visit's samples are given at the yardstick's usual time: if that took 5 % longer just then, the samples
count for 5 % less.

Standard library and numpy only: this file is part of what measures on devices that have neither torch nor this package.
"""

import gc
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from statistics import median
from time import perf_counter_ns

from export.errors import UserError
from export.progress import Progress

Sampler = Callable[[int], float]
"""Runs its work so many times on end and gives the milliseconds a run; the work is the same whenever it is called."""

_TOO_SHORT_MS = 0.01
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
    yardstick_ms: float = 20.0
    """For which the yardstick is timed between two visits; once at least."""

    def __post_init__(self) -> None:
        if self.repeats < 2 or self.min_runs < 1:
            raise UserError(f"timing needs at least 2 repeats and 1 run, not {self.repeats} and {self.min_runs}")
        numbers = (self.warmup_ms, self.min_ms, self.max_cv, self.yardstick_ms)
        if not all(0 <= value < float("inf") for value in numbers):
            raise UserError(f"timing needs times and a variation of 0 or more, not {', '.join(map(str, numbers))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Some runs of one call on end."""

    samples_ms: tuple[float, ...]
    yardstick_ms: float = 1.0
    """What the yardstick took just before and after."""


Visits = Mapping[str, Sequence[Visit]]
"""By call, in the order they were made."""

KeepVisit = Callable[[str, Visit], None]
"""Called with the name of a call and a visit."""


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
    def of(cls, visits: Sequence[Visit], usual_ms: float = 1.0) -> "Measurement":
        """Summarise two visits at least, at the yardstick's usual time."""
        import numpy as np

        parts = [np.asarray(visit.samples_ms) * (usual_ms / visit.yardstick_ms) for visit in visits]
        samples = np.concatenate(parts)
        half = len(visits) // 2
        earlier, later = (float(np.median(np.concatenate(some))) for some in (parts[:half], parts[half:]))
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

    def at_speed(self, speed: float) -> "Measurement":
        """What it would have been on a machine so many times as slow."""
        return replace(
            self,
            latency_ms_median=self.latency_ms_median * speed,
            latency_ms_p90=self.latency_ms_p90 * speed,
            latency_ms_p99=self.latency_ms_p99 * speed,
        )


def measure_interleaved(
    samplers: Mapping[str, Sequence[Sampler]],
    timing: Timing,
    progress: Progress | None = None,
    *,
    yardstick: Sampler | None = None,
    earlier: Visits | None = None,
    keep: KeepVisit | None = None,
) -> dict[str, Measurement]:
    """Time every call by the protocol, in rounds over all of them; garbage collection is off meanwhile. By name.

    Args:
        samplers: of the calls, by name; where one has several, for the same work, every round takes the next.
        timing: the protocol.
        progress: told of every visit, in the stages "measure" and "measure again".
        yardstick: timed between the visits; without one the samples are given as they were.
        earlier: visits of these calls that were made already, beside the same yardstick, and are not made again.
        keep: given every visit as soon as it is made.
    """
    rounds = _Rounds(samplers, timing, progress, yardstick, earlier or {}, keep)
    with _no_garbage_collection():
        rounds.visit(samplers, 0, timing.repeats, "measure")
        rounds.visit(rounds.unstable(), timing.repeats, 2 * timing.repeats, "measure again")
    return rounds.measurements()


def timed_here(call: Callable[[], None]) -> Sampler:
    """A sampler by this machine's clock, of a call that returns when its work is done."""

    def sample(runs: int) -> float:
        numbers = range(runs)
        start = perf_counter_ns()
        for _ in numbers:
            call()
        return max(perf_counter_ns() - start, 1) / runs / 1e6  # 1: the clock's own step

    return sample


def in_turns(samplers: Sequence[Sampler]) -> Sampler:
    """A sampler each of whose runs is another one's."""
    if len(samplers) == 1:
        return samplers[0]
    turns = cycle(samplers)
    return lambda runs: sum(next(turns)(1) for _ in range(runs)) / runs


class _Rounds:
    """The visits of a measurement, those made earlier and those made now."""

    def __init__(
        self,
        samplers: Mapping[str, Sequence[Sampler]],
        timing: Timing,
        progress: Progress | None,
        yardstick: Sampler | None,
        earlier: Visits,
        keep: KeepVisit | None,
    ) -> None:
        self._visits = {name: list(earlier.get(name, ())) for name in samplers}
        self._samplers, self._timing, self._progress, self._keep = samplers, timing, progress, keep
        self._yardstick = yardstick
        self._before_ms: float | None = None

    def visit(self, names: Collection[str], first: int, last: int, stage: str) -> None:
        """Make those of rounds ``first`` to ``last - 1`` that were not made, over the calls of these names."""
        visits = [(number, name) for number in range(first, last) for name in names]
        for done, (number, name) in enumerate(visits, 1):
            if len(self._visits[name]) <= number:
                visit = self._make(self._samplers[name][number % len(self._samplers[name])])
                self._visits[name].append(visit)
                if self._keep is not None:
                    self._keep(name, visit)
            if self._progress is not None:
                self._progress(stage, done, len(visits))

    def _make(self, sampler: Sampler) -> Visit:
        before_ms = self._before_ms if self._before_ms is not None else self._yardstick_ms()
        samples = _samples(sampler, self._timing)
        self._before_ms = self._yardstick_ms()
        return Visit(samples_ms=tuple(samples), yardstick_ms=(before_ms + self._before_ms) / 2)

    def _yardstick_ms(self) -> float:
        """Its time now; 1 where there is none, which leaves samples as they are."""
        if self._yardstick is None:
            return 1.0
        samples: list[float] = []
        start = perf_counter_ns()
        while not samples or perf_counter_ns() - start < self._timing.yardstick_ms * 1e6:
            samples.append(self._yardstick(1))
        return median(samples)

    def unstable(self) -> list[str]:
        """The calls that varied too much in the ordinary rounds."""
        found = self.measurements(self._timing.repeats)
        return [name for name, measured in found.items() if measured.cv > self._timing.max_cv]

    def measurements(self, rounds: int | None = None) -> dict[str, Measurement]:
        """Of every call, over the first so many rounds or all."""
        usual_ms = median(visit.yardstick_ms for visits in self._visits.values() for visit in visits)
        return {name: Measurement.of(visits[:rounds], usual_ms) for name, visits in self._visits.items()}


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


def _samples(sampler: Sampler, timing: Timing) -> list[float]:
    """Warm up, then sample for ``min_ms`` and ``min_runs`` at least; milliseconds a run."""
    runs = _warm_up(sampler, timing.warmup_ms)
    samples: list[float] = []
    start = perf_counter_ns()
    while len(samples) < timing.min_runs or perf_counter_ns() - start < timing.min_ms * 1e6:
        samples.append(sampler(runs))
    return samples


def _warm_up(sampler: Sampler, warmup_ms: float) -> int:
    """Run for ``warmup_ms``, once at least; returns how many runs one sample must hold to be long enough to time."""
    start = perf_counter_ns()
    last_ms = sampler(1)
    while perf_counter_ns() - start < warmup_ms * 1e6:
        last_ms = sampler(1)
    return max(1, round(2 * _TOO_SHORT_MS / last_ms)) if last_ms < _TOO_SHORT_MS else 1
