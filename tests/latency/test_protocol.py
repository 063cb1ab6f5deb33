import gc
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest

from export.errors import UserError
from latency import protocol
from latency.protocol import Measurement, Timing, measure_interleaved

BRIEF = Timing(repeats=3, warmup_ms=0, min_ms=0, min_runs=4)


class Clock:
    """A clock that only moves when told; stands in for the real one."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def call_of(self, *durations_ns: int) -> "Call":
        return Call(self, durations_ns)


class Call:
    """Takes each of its durations in turn, over and over."""

    def __init__(self, clock: Clock, durations_ns: tuple[int, ...]) -> None:
        self._clock, self._durations_ns, self.count = clock, durations_ns, 0

    def __call__(self) -> None:
        self._clock.now_ns += self._durations_ns[self.count % len(self._durations_ns)]
        self.count += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(protocol, "perf_counter_ns", clock)
    return clock


def test_every_round_visits_every_call(clock: Clock) -> None:
    made: list[str] = []

    def call_of(name: str) -> None:
        clock.now_ns += 1_000_000
        made.append(name)

    measure_interleaved({name: lambda name=name: call_of(name) for name in "abc"}, BRIEF)  # type: ignore[misc]
    assert "".join(name for name, _ in groupby(made)) == "abcabcabc"
    assert len(made) == 3 * 3 * (1 + 4)  # rounds, calls, one run to warm up and four timed


def test_figures_are_numpys(clock: Clock) -> None:
    durations = (5_000_000, 1_000_000, 2_000_000, 3_000_000, 9_000_000)
    measured = measure_interleaved({"a": clock.call_of(*durations)}, replace(BRIEF, max_cv=1.0))["a"]
    samples = [1.0, 2.0, 3.0, 9.0] * 3  # each round spends the first on warming up
    assert measured.latency_ms_median == 2.5
    assert measured.latency_ms_p90 == pytest.approx(np.percentile(samples, 90))
    assert measured.latency_ms_p99 == pytest.approx(np.percentile(samples, 99))
    assert measured.runs == 12
    # Distances from 2.5 are 1.5, 0.5, 0.5, 6.5: their median is 1.
    assert measured.cv == pytest.approx(1.4826 / 2.5)


def test_a_visit_lasts_as_long_as_asked(clock: Clock) -> None:
    timing = Timing(repeats=2, warmup_ms=10, min_ms=30, min_runs=1)
    call = clock.call_of(2_000_000)
    assert measure_interleaved({"a": call}, timing)["a"].runs == 2 * 15
    assert call.count == 2 * (5 + 15)


def test_a_call_too_short_to_time_is_looped(clock: Clock) -> None:
    call = clock.call_of(1_000)
    measured = measure_interleaved({"a": call}, BRIEF)["a"]
    assert measured.latency_ms_median == pytest.approx(0.001)
    assert measured.runs == 12
    assert call.count == 3 * (1 + 4 * 20)  # samples of 20 us


def test_garbage_collection_is_off_meanwhile_and_on_again_after_a_failure(clock: Clock) -> None:
    def fail() -> None:
        assert not gc.isenabled()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        measure_interleaved({"a": fail}, BRIEF)
    assert gc.isenabled()


def test_progress_counts_visits(clock: Clock) -> None:
    seen: list[tuple[str, int, int]] = []
    calls = {"a": clock.call_of(20_000), "b": clock.call_of(20_000)}
    measure_interleaved(calls, BRIEF, lambda *step: seen.append(step))
    assert seen == [("measure", done, 6) for done in range(1, 7)]


def test_drift_is_between_the_halves_of_the_rounds() -> None:
    assert Measurement.of([[2.0], [4.0]]).drift == pytest.approx(2 / 3)
    assert Measurement.of([[1.0, 9.0], [5.0], [5.0], [5.0, 5.0]]).drift == 0.0


def test_only_what_varies_too_much_is_visited_again_and_all_samples_count(clock: Clock) -> None:
    stages: list[tuple[str, int, int]] = []
    calls = {"calm": clock.call_of(1_000_000), "wild": clock.call_of(1_000_000, 2_000_000)}
    measured = measure_interleaved(calls, BRIEF, lambda *step: stages.append(step))
    assert measured["calm"].runs == 3 * 4
    assert measured["wild"].runs == 2 * 3 * 4
    assert stages[6:] == [("measure again", done, 3) for done in (1, 2, 3)]


def test_visits_made_earlier_are_not_made_again(clock: Clock) -> None:
    kept: list[tuple[str, Sequence[float]]] = []
    calls = {name: clock.call_of(1_000_000) for name in "ab"}
    earlier = {"a": [[2.0] * 4] * 2, "b": [[2.0] * 4]}
    measured = measure_interleaved(calls, BRIEF, earlier=earlier, keep=lambda *visit: kept.append(visit))
    assert [name for name, _ in kept] == ["b", "a", "b"]
    assert kept[0][1] == [1.0] * 4
    assert measured["a"] == Measurement.of([*earlier["a"], [1.0] * 4])


@pytest.mark.parametrize(
    "wrong", [{"repeats": 1}, {"min_runs": 0}, {"min_ms": -1.0}, {"warmup_ms": float("nan")}, {"max_cv": -0.1}]
)
def test_a_protocol_that_measures_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="timing needs"):
        Timing(**wrong)  # type: ignore[arg-type]
