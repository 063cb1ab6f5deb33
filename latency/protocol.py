"""The measuring protocol: warm up, time many runs, interleave all graphs, and time a reference workload beside them.

A shared or warming machine drifts by more than two blocks differ. The runs are therefore split into repetitions, and
every repetition times all graphs in turn: whatever slows the machine for a while slows all graphs alike, and the sign
of a difference stays right. Each graph is warmed up first in each repetition, because its weights left the cache while
the other graphs ran. The statistics follow NVIDIA's trtexec (warm-up, a minimum number of runs and a minimum time;
median and percentiles), except that the mean is not reported: one pause of the operating system would dominate it.
Graphs that vary more than the protocol allows are timed in further repetitions, and all their samples count: choosing
the calmer samples would flatter the machine.

The drift within a repetition is removed too. One reference workload, a graph whose time nobody needs, is timed before
and after every graph, and the samples of the graph are scaled to the typical time of the reference workload: if the
reference workload took 5 % longer at that moment, the samples are reduced by 5 %.

Standard library and numpy only: this file is part of the script that measures on devices which have neither torch nor
this package.
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
"""A function that runs one workload ``n`` times in a row and returns the mean milliseconds of a run.

The workload is the same in every call.
"""

_TOO_SHORT_MS = 0.01
"""Below this time a single run drowns in the cost of the timer itself, so several runs are timed together."""

_NORMAL_MAD = 1.4826
"""Factor from the median absolute deviation to the standard deviation of a normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Parameters of the measuring protocol; two tables are comparable only if they share them."""

    repetitions: int = 10
    """Passes over all graphs, at least two; a graph that varies too much is timed in as many again."""
    warmup_ms: float = 10.0
    """Warm-up time of a graph in each repetition; at least one run."""
    min_ms: float = 70.0
    """Minimum timed duration of a graph in each repetition."""
    min_runs: int = 5
    """Minimum number of timed runs of a graph in each repetition."""
    max_cv: float = 0.1
    """A graph above this coefficient of variation varies too much."""
    reference_ms: float = 20.0
    """How long the reference workload is timed between two graphs; at least one run."""

    def __post_init__(self) -> None:
        if self.repetitions < 2 or self.min_runs < 1:
            raise UserError(
                f"timing needs at least 2 repetitions and 1 run, not {self.repetitions} and {self.min_runs}"
            )
        numbers = (self.warmup_ms, self.min_ms, self.max_cv, self.reference_ms)
        if not all(0 <= value < float("inf") for value in numbers):
            raise UserError(f"timing needs times and a variation of 0 or more, not {', '.join(map(str, numbers))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """The samples of one graph in one repetition."""

    samples_ms: tuple[float, ...]
    reference_ms: float = 1.0
    """Time of the reference workload, mean of just before and just after."""


Repetitions = Mapping[str, Sequence[Repetition]]
"""By graph, in the order of measuring."""

OnRepetition = Callable[[str, Repetition], None]
"""A callback that receives the name of a graph and its new repetition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Statistics of one graph over the runs of all repetitions."""

    latency_ms_median: float
    latency_ms_p90: float
    latency_ms_p99: float
    runs: int
    """Number of samples; each is one run, or the mean of a few runs where one is too short to time."""
    cv: float
    """Robust coefficient of variation: 1.4826 x median absolute deviation / median."""
    drift: float
    """Difference between the medians of the later and the earlier half of the repetitions, relative to the median."""

    @classmethod
    def of(cls, repetitions: Sequence[Repetition], typical_reference_ms: float = 1.0) -> "Measurement":
        """Summarise at least two repetitions, scaled to the typical time of the reference workload."""
        import numpy as np

        parts = [np.asarray(rep.samples_ms) * (typical_reference_ms / rep.reference_ms) for rep in repetitions]
        samples = np.concatenate(parts)
        half = len(repetitions) // 2
        earlier, later = (float(np.median(np.concatenate(side))) for side in (parts[:half], parts[half:]))
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

    def at_speed(self, slowdown: float) -> "Measurement":
        """Scale the times to a machine that is slower by the factor ``slowdown``."""
        return replace(
            self,
            latency_ms_median=self.latency_ms_median * slowdown,
            latency_ms_p90=self.latency_ms_p90 * slowdown,
            latency_ms_p99=self.latency_ms_p99 * slowdown,
        )


def repeat_interleaved(
    samplers: Mapping[str, Sequence[Sampler]],
    timing: Timing,
    progress: Progress | None = None,
    *,
    reference: Sampler | None = None,
    earlier: Repetitions | None = None,
    on_repetition: OnRepetition | None = None,
) -> Repetitions:
    """Time all graphs by the protocol, interleaved, with garbage collection off; returns repetitions by name.

    Args:
        samplers: of the graphs, by name; where a graph has several samplers, the repetitions alternate between them.
        timing: the protocol.
        progress: called after every graph, in the stages "measure" and "measure again".
        reference: sampler of the reference workload; without one the samples are not scaled.
        earlier: repetitions of these graphs by an interrupted run, beside the same reference workload; not repeated.
        on_repetition: called with every repetition as soon as it is measured.
    """
    interleaved = _Interleaved(samplers, timing, progress, reference, earlier or {}, on_repetition)
    with _no_garbage_collection():
        interleaved.measure(samplers, 0, timing.repetitions, "measure")
        interleaved.measure(interleaved.unstable(), timing.repetitions, 2 * timing.repetitions, "measure again")
    return interleaved.repetitions


def summarised(repetitions: Repetitions) -> dict[str, Measurement]:
    """The measurement of every graph, scaled to the typical time of the one reference workload beside all of them."""
    typical_ms = median(rep.reference_ms for of_graph in repetitions.values() for rep in of_graph)
    return {name: Measurement.of(of_graph, typical_ms) for name, of_graph in repetitions.items()}


def host_timed(call: Callable[[], None]) -> Sampler:
    """Make a sampler by the clock of this machine, of a call that returns when its work is done."""

    def sample(runs: int) -> float:
        numbers = range(runs)
        start = perf_counter_ns()
        for _ in numbers:
            call()
        return max(perf_counter_ns() - start, 1) / runs / 1e6  # 1: the clock's own step

    return sample


def alternating(samplers: Sequence[Sampler]) -> Sampler:
    """Make a sampler whose runs go round the given samplers, one run each.

    Every run is timed alone, so the times of short graphs include the cost of the timer. Several runs of one copy in a
    row would find its weights in the cache. A round over all copies, timed as a whole, would be as cold, but its times
    would not compare with those of earlier tables of the same protocol, and on a GPU the launch of a run would overlap
    the run before. The entry of the empty graph has the same cost.
    """
    if len(samplers) == 1:
        return samplers[0]
    turns = cycle(samplers)
    return lambda runs: sum(next(turns)(1) for _ in range(runs)) / runs


class _Interleaved:
    """The repetitions of all graphs of one measurement: those of an interrupted run and new ones."""

    def __init__(
        self,
        samplers: Mapping[str, Sequence[Sampler]],
        timing: Timing,
        progress: Progress | None,
        reference: Sampler | None,
        earlier: Repetitions,
        on_repetition: OnRepetition | None,
    ) -> None:
        self.repetitions = {name: list(earlier.get(name, ())) for name in samplers}
        self._samplers, self._timing, self._progress = samplers, timing, progress
        self._reference, self._on_repetition = reference, on_repetition
        self._last_reference_ms: float | None = None

    def measure(self, names: Collection[str], first: int, last: int, stage: str) -> None:
        """Measure what is missing of repetitions ``first`` to ``last - 1`` of these graphs."""
        steps = [(number, name) for number in range(first, last) for name in names]
        for done, (number, name) in enumerate(steps, 1):
            if len(self.repetitions[name]) <= number:
                repetition = self._repeat(self._samplers[name][number % len(self._samplers[name])])
                self.repetitions[name].append(repetition)
                if self._on_repetition is not None:
                    self._on_repetition(name, repetition)
            if self._progress is not None:
                self._progress(stage, done, len(steps))

    def _repeat(self, sampler: Sampler) -> Repetition:
        before_ms = self._last_reference_ms if self._last_reference_ms is not None else self._time_reference()
        samples = _samples(sampler, self._timing)
        self._last_reference_ms = self._time_reference()
        return Repetition(samples_ms=tuple(samples), reference_ms=(before_ms + self._last_reference_ms) / 2)

    def _time_reference(self) -> float:
        """Median time of the reference workload now; 1 without a reference workload, which scales nothing."""
        if self._reference is None:
            return 1.0
        samples: list[float] = []
        start = perf_counter_ns()
        while not samples or perf_counter_ns() - start < self._timing.reference_ms * 1e6:
            samples.append(self._reference(1))
        return median(samples)

    def unstable(self) -> list[str]:
        """The graphs that varied too much in the ordinary repetitions."""
        ordinary = {name: of_graph[: self._timing.repetitions] for name, of_graph in self.repetitions.items()}
        return [name for name, measured in summarised(ordinary).items() if measured.cv > self._timing.max_cv]


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
    """Warm up, then sample for at least ``min_ms`` and ``min_runs``; returns milliseconds a run."""
    runs = _warm_up(sampler, timing.warmup_ms)
    samples: list[float] = []
    start = perf_counter_ns()
    while len(samples) < timing.min_runs or perf_counter_ns() - start < timing.min_ms * 1e6:
        samples.append(sampler(runs))
    return samples


def _warm_up(sampler: Sampler, warmup_ms: float) -> int:
    """Run for ``warmup_ms``, at least once; returns how many runs make one sample long enough to time."""
    start = perf_counter_ns()
    last_ms = sampler(1)
    while perf_counter_ns() - start < warmup_ms * 1e6:
        last_ms = sampler(1)
    return max(1, round(2 * _TOO_SHORT_MS / last_ms)) if last_ms < _TOO_SHORT_MS else 1
