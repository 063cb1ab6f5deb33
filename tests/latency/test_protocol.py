import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.errors import UserError
from latency import protocol
from latency.protocol import Measurement, Timing, Visit, measure_interleaved, timed_here

BRIEF = Timing(repeats=3, warmup_ms=0, min_ms=0, min_runs=4)


def visit(*samples_ms: float) -> Visit:
    return Visit(samples_ms=samples_ms)


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


def measure(calls: Mapping[str, Callable[[], None]], timing: Timing = BRIEF, **others: Any) -> dict[str, Measurement]:
    return measure_interleaved({name: [timed_here(call)] for name, call in calls.items()}, timing, **others)


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

    measure({name: lambda name=name: call_of(name) for name in "abc"})  # type: ignore[misc]
    assert "".join(name for name, _ in groupby(made)) == "abcabcabc"
    assert len(made) == 3 * 3 * (1 + 4)  # rounds, calls, one run to warm up and four timed


def test_figures_are_numpys(clock: Clock) -> None:
    durations = (5_000_000, 1_000_000, 2_000_000, 3_000_000, 9_000_000)
    measured = measure({"a": clock.call_of(*durations)}, replace(BRIEF, max_cv=1.0))["a"]
    samples = [1.0, 2.0, 3.0, 9.0] * 3  # each round spends the first on warming up
    assert measured.latency_ms_median == 2.5
    assert measured.latency_ms_p90 == pytest.approx(np.percentile(samples, 90))
    assert measured.latency_ms_p99 == pytest.approx(np.percentile(samples, 99))
    assert measured.runs == 12
    # Distances from 2.5 are 1.5, 0.5, 0.5, 6.5: their median is 1.
    assert measured.cv == pytest.approx(1.4826 / 2.5)


def test_rounds_take_turns_at_the_samplers_of_one_work() -> None:
    found = measure_interleaved({"a": [lambda runs: 1.0, lambda runs: 3.0]}, replace(BRIEF, repeats=4, max_cv=1e9))["a"]
    assert found.latency_ms_median == 2.0
    assert found.runs == 4 * 4


def test_a_visit_lasts_as_long_as_asked(clock: Clock) -> None:
    timing = Timing(repeats=2, warmup_ms=10, min_ms=30, min_runs=1)
    call = clock.call_of(2_000_000)
    assert measure({"a": call}, timing)["a"].runs == 2 * 15
    assert call.count == 2 * (5 + 15)


def test_a_call_too_short_to_time_is_looped(clock: Clock) -> None:
    call = clock.call_of(1_000)
    measured = measure({"a": call})["a"]
    assert measured.latency_ms_median == pytest.approx(0.001)
    assert measured.runs == 12
    assert call.count == 3 * (1 + 4 * 20)  # samples of 20 us


def test_garbage_collection_is_off_meanwhile_and_on_again_after_a_failure(clock: Clock) -> None:
    def fail() -> None:
        assert not gc.isenabled()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        measure({"a": fail})
    assert gc.isenabled()


def test_progress_counts_visits(clock: Clock) -> None:
    seen: list[tuple[str, int, int]] = []
    calls = {"a": clock.call_of(20_000), "b": clock.call_of(20_000)}
    measure(calls, progress=lambda *step: seen.append(step))
    assert seen == [("measure", done, 6) for done in range(1, 7)]


def test_drift_is_between_the_halves_of_the_rounds() -> None:
    assert Measurement.of([visit(2.0), visit(4.0)]).drift == pytest.approx(2 / 3)
    assert Measurement.of([visit(1.0, 9.0), visit(5.0), visit(5.0), visit(5.0, 5.0)]).drift == 0.0


def test_only_what_varies_too_much_is_visited_again_and_all_samples_count(clock: Clock) -> None:
    stages: list[tuple[str, int, int]] = []
    calls = {"calm": clock.call_of(1_000_000), "wild": clock.call_of(1_000_000, 2_000_000)}
    measured = measure(calls, progress=lambda *step: stages.append(step))
    assert measured["calm"].runs == 3 * 4
    assert measured["wild"].runs == 2 * 3 * 4
    assert stages[6:] == [("measure again", done, 3) for done in (1, 2, 3)]


def test_visits_made_earlier_are_not_made_again(clock: Clock) -> None:
    kept: list[tuple[str, Visit]] = []
    calls = {name: clock.call_of(1_000_000) for name in "ab"}
    twos, ones = visit(2.0, 2.0, 2.0, 2.0), visit(1.0, 1.0, 1.0, 1.0)
    earlier = {"a": [twos, twos], "b": [twos]}
    measured = measure(calls, earlier=earlier, keep=lambda name, made: kept.append((name, made)))
    assert [name for name, _ in kept] == ["b", "a", "b"]
    assert kept[0][1] == ones
    assert measured["a"] == Measurement.of([twos, twos, ones])


def at_varying_speed(clock: Clock, work_ns: int, slowness: Sequence[float]) -> Callable[[], None]:
    """A call on a machine that slows down and recovers: the slowness of each moment is that of ``now_ns``."""

    def call() -> None:
        clock.now_ns += round(work_ns * slowness[clock.now_ns // 100_000_000 % len(slowness)])

    return call


@given(slowness=st.lists(st.floats(1.0, 2.0), min_size=1, max_size=30))
def test_what_slows_all_alike_is_taken_out(slowness: list[float]) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "perf_counter_ns", clock)
        calls = {name: at_varying_speed(clock, ns, slowness) for name, ns in (("a", 1_000_000), ("b", 3_000_000))}
        yardstick = timed_here(at_varying_speed(clock, 2_000_000, slowness))
        timing = Timing(repeats=10, warmup_ms=0, min_ms=20, yardstick_ms=4)
        measured = measure(calls, timing, yardstick=yardstick)
    # Speeds change within a visit now and then, which the yardstick beside it sees by halves.
    ratio = measured["b"].latency_ms_median / measured["a"].latency_ms_median
    assert ratio == pytest.approx(3.0, rel=0.25)


def test_samples_are_given_at_the_yardsticks_usual_time(clock: Clock) -> None:
    slower_in_turns = timed_here(clock.call_of(2_000_000, 2_000_000, 4_000_000, 4_000_000))
    calls = {"a": clock.call_of(*[1_000_000] * 10, *[2_000_000] * 10)}  # two visits of a warm-up and four runs at each
    timing = Timing(repeats=4, warmup_ms=0, min_ms=0, min_runs=4, max_cv=1e9, yardstick_ms=0)
    alone, beside = (measure(calls, timing, yardstick=yardstick)["a"] for yardstick in (None, slower_in_turns))
    assert alone.latency_ms_median == 1.5
    assert alone.drift == pytest.approx(1 / 1.5)
    # The yardstick took 2, 2, 4, 4 and 2 ms, so 2, 3, 4 and 3 ms beside the visits, and 3 ms as a rule.
    assert beside.latency_ms_median == pytest.approx(np.median([3 / 2, 3 / 3, 2 * 3 / 4, 2 * 3 / 3]))


def test_a_measurement_at_another_speed_keeps_its_shape() -> None:
    found = Measurement.of([visit(1.0, 2.0, 3.0), visit(2.0)])
    twice = found.at_speed(2.0)
    assert (twice.latency_ms_median, twice.latency_ms_p99) == (2 * found.latency_ms_median, 2 * found.latency_ms_p99)
    assert (twice.cv, twice.drift, twice.runs) == (found.cv, found.drift, found.runs)


@pytest.mark.parametrize(
    "wrong",
    [
        {"repeats": 1},
        {"min_runs": 0},
        {"min_ms": -1.0},
        {"warmup_ms": float("nan")},
        {"max_cv": -0.1},
        {"yardstick_ms": -1.0},
    ],
)
def test_a_protocol_that_measures_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="timing needs"):
        Timing(**wrong)  # type: ignore[arg-type]
