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
from latency.protocol import Measurement, Repetition, Timing, host_timed, repeat_interleaved, summarised

BRIEF = Timing(repetitions=3, warmup_ms=0, min_ms=0, min_runs=4)


def repetition(*samples_ms: float) -> Repetition:
    return Repetition(samples_ms=samples_ms)


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
    samplers = {name: [host_timed(call)] for name, call in calls.items()}
    return summarised(repeat_interleaved(samplers, timing, **others))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(protocol, "perf_counter_ns", clock)
    return clock


def test_every_repetition_times_every_graph_in_turn(clock: Clock) -> None:
    made: list[str] = []

    def call_of(name: str) -> None:
        clock.now_ns += 1_000_000
        made.append(name)

    measure({name: lambda name=name: call_of(name) for name in "abc"})  # type: ignore[misc]
    assert "".join(name for name, _ in groupby(made)) == "abcabcabc"
    assert len(made) == 3 * 3 * (1 + 4)  # repetitions, calls, one run to warm up and four timed


def test_statistics_equal_numpys(clock: Clock) -> None:
    durations = (5_000_000, 1_000_000, 2_000_000, 3_000_000, 9_000_000)
    measured = measure({"a": clock.call_of(*durations)}, replace(BRIEF, max_cv=1.0))["a"]
    samples = [1.0, 2.0, 3.0, 9.0] * 3  # each repetition spends the first on warming up
    assert measured.latency_ms_median == 2.5
    assert measured.latency_ms_p90 == pytest.approx(np.percentile(samples, 90))
    assert measured.latency_ms_p99 == pytest.approx(np.percentile(samples, 99))
    assert measured.runs == 12
    # Distances from 2.5 are 1.5, 0.5, 0.5, 6.5: their median is 1.
    assert measured.cv == pytest.approx(1.4826 / 2.5)


def test_repetitions_alternate_between_the_samplers_of_one_graph() -> None:
    timing = replace(BRIEF, repetitions=4, max_cv=1e9)
    measurement = summarised(repeat_interleaved({"a": [lambda runs: 1.0, lambda runs: 3.0]}, timing))["a"]
    assert measurement.latency_ms_median == 2.0
    assert measurement.runs == 4 * 4


def test_a_repetition_has_the_minimum_duration(clock: Clock) -> None:
    timing = Timing(repetitions=2, warmup_ms=10, min_ms=30, min_runs=1)
    call = clock.call_of(2_000_000)
    assert measure({"a": call}, timing)["a"].runs == 2 * 15
    assert call.count == 2 * (5 + 15)


def test_runs_too_short_to_time_are_timed_together(clock: Clock) -> None:
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


def test_progress_counts_repetitions(clock: Clock) -> None:
    seen: list[tuple[str, int, int]] = []
    calls = {"a": clock.call_of(20_000), "b": clock.call_of(20_000)}
    measure(calls, progress=lambda *step: seen.append(step))
    assert seen == [("measure", done, 6) for done in range(1, 7)]


def test_drift_is_between_the_halves_of_the_repetitions() -> None:
    assert Measurement.of([repetition(2.0), repetition(4.0)]).drift == pytest.approx(2 / 3)
    assert Measurement.of([repetition(1.0, 9.0), repetition(5.0), repetition(5.0), repetition(5.0, 5.0)]).drift == 0.0


def test_only_unstable_graphs_are_repeated_and_all_samples_count(clock: Clock) -> None:
    stages: list[tuple[str, int, int]] = []
    calls = {"calm": clock.call_of(1_000_000), "wild": clock.call_of(1_000_000, 2_000_000)}
    measured = measure(calls, progress=lambda *step: stages.append(step))
    assert measured["calm"].runs == 3 * 4
    assert measured["wild"].runs == 2 * 3 * 4
    assert stages[6:] == [("measure again", done, 3) for done in (1, 2, 3)]


def test_earlier_repetitions_are_not_repeated(clock: Clock) -> None:
    repetitions: list[tuple[str, Repetition]] = []
    calls = {name: clock.call_of(1_000_000) for name in "ab"}
    twos, ones = repetition(2.0, 2.0, 2.0, 2.0), repetition(1.0, 1.0, 1.0, 1.0)
    earlier = {"a": [twos, twos], "b": [twos]}
    measured = measure(calls, earlier=earlier, on_repetition=lambda name, made: repetitions.append((name, made)))
    assert [name for name, _ in repetitions] == ["b", "a", "b"]
    assert repetitions[0][1] == ones
    assert measured["a"] == Measurement.of([twos, twos, ones])


def at_varying_speed(clock: Clock, work_ns: int, slowness: Sequence[float]) -> Callable[[], None]:
    """A call on a machine that slows down and recovers: the slowness of each moment is that of ``now_ns``."""

    def call() -> None:
        clock.now_ns += round(work_ns * slowness[clock.now_ns // 100_000_000 % len(slowness)])

    return call


@pytest.mark.slow
@given(slowness=st.lists(st.floats(1.0, 2.0), min_size=1, max_size=30))
def test_a_slowdown_of_all_graphs_is_removed(slowness: list[float]) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "perf_counter_ns", clock)
        calls = {name: at_varying_speed(clock, ns, slowness) for name, ns in (("a", 1_000_000), ("b", 3_000_000))}
        reference = host_timed(at_varying_speed(clock, 2_000_000, slowness))
        timing = Timing(repetitions=10, warmup_ms=0, min_ms=20, reference_ms=4)
        measured = measure(calls, timing, reference=reference)
    # Some speeds change within a repetition, and the reference workload sees only half of the change.
    ratio = measured["b"].latency_ms_median / measured["a"].latency_ms_median
    assert ratio == pytest.approx(3.0, rel=0.25)


def test_samples_are_scaled_to_the_typical_time_of_the_reference(clock: Clock) -> None:
    alternately_slower = host_timed(clock.call_of(2_000_000, 2_000_000, 4_000_000, 4_000_000))
    calls = {
        "a": clock.call_of(*[1_000_000] * 10, *[2_000_000] * 10)
    }  # two repetitions of a warm-up and four runs at each
    timing = Timing(repetitions=4, warmup_ms=0, min_ms=0, min_runs=4, max_cv=1e9, reference_ms=0)
    unscaled, scaled = (measure(calls, timing, reference=reference)["a"] for reference in (None, alternately_slower))
    assert unscaled.latency_ms_median == 1.5
    assert unscaled.drift == pytest.approx(1 / 1.5)
    # The reference took 2, 2, 4, 4 and 2 ms, so 2, 3, 4 and 3 ms beside the repetitions, and typically 3 ms.
    assert scaled.latency_ms_median == pytest.approx(np.median([3 / 2, 3 / 3, 2 * 3 / 4, 2 * 3 / 3]))


def test_a_measurement_at_another_speed_keeps_its_shape() -> None:
    measurement = Measurement.of([repetition(1.0, 2.0, 3.0), repetition(2.0)])
    twice = measurement.at_speed(2.0)
    assert (twice.latency_ms_median, twice.latency_ms_p99) == (
        2 * measurement.latency_ms_median,
        2 * measurement.latency_ms_p99,
    )
    assert (twice.cv, twice.drift, twice.runs) == (measurement.cv, measurement.drift, measurement.runs)


@pytest.mark.parametrize(
    "wrong",
    [
        {"repetitions": 1},
        {"min_runs": 0},
        {"min_ms": -1.0},
        {"warmup_ms": float("nan")},
        {"max_cv": -0.1},
        {"reference_ms": -1.0},
    ],
)
def test_a_protocol_without_measurements_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="timing needs"):
        Timing(**wrong)  # type: ignore[arg-type]
