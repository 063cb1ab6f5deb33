import weakref
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from latency import measure as module
from latency.journal import Journal
from latency.measure import Workload, measure_graphs, with_prefix
from latency.protocol import Sampler, Timing

BRIEF = Timing(repetitions=3, warmup_ms=0, min_ms=0, min_runs=2, max_cv=1e9, reference_ms=0)


class Counted:
    """A backend whose graphs take as many milliseconds as their content is long."""

    device, precision, threads = "cpu", "fp32", 1
    runtime = "counted"
    graph_form: Literal["onnx"] = "onnx"

    def __init__(self) -> None:
        self.order: list[bytes] = []
        self.opened: dict[bytes, int] = {}

    def fingerprint(self) -> dict[str, str | int]:
        return {}

    def open(self, content: bytes, inputs: Mapping[str, Any], *, copies: int = 1) -> Sampler:
        assert inputs["x"].shape == (1,)
        self.order.append(content)
        self.opened[content] = copies
        return lambda runs: float(len(content))

    def close(self) -> None:
        pass

    def conditions(self) -> dict[str, Any]:
        return {}


def source(content: bytes, *, cold_weights: bool = True) -> Workload:
    return Workload(content=content, inputs={"x": np.ones(1)}, size=len(content), cold_weights=cold_weights)


@pytest.mark.parametrize(("cold_weights", "copies"), [(True, {1: 12, 3: 4, 9: 2}), (False, {1: 1, 3: 1, 9: 1})])
def test_blocks_have_cold_weights_and_networks_have_not(
    monkeypatch: pytest.MonkeyPatch, cold_weights: bool, copies: dict[int, int]
) -> None:
    monkeypatch.setattr(module, "COLD_BYTES", 9 if not cold_weights else 12)
    backend = Counted()
    sources = {str(size): partial(source, b"x" * size, cold_weights=cold_weights) for size in copies}
    measured = measure_graphs(sources, lambda: source(b"22"), backend, BRIEF)
    assert {len(content): number for content, number in backend.opened.items() if content != b"22"} == copies
    assert backend.opened[b"22"] > 1
    assert {name: measurement.latency_ms_median for name, measurement in measured.items()} == {
        str(size): float(size) for size in copies
    }


def test_graphs_are_opened_in_both_orders() -> None:
    backend = Counted()
    sources = {name: partial(source, name.encode()) for name in "abc"}
    measure_graphs(sources, lambda: source(b"22"), backend, BRIEF)
    assert b"".join(backend.order) == b"abccba22"


class Counting(Counted):
    """A machine that becomes slower by a tenth of its first speed with each graph opened, and counts the open ones."""

    def __init__(self) -> None:
        super().__init__()
        self.open_now = self.most_open = 0

    def open(self, content: bytes, inputs: Mapping[str, Any], *, copies: int = 1) -> Sampler:
        super().open(content, inputs, copies=copies)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)

        def sample(runs: int) -> float:
            return len(content) * (1 + 0.1 * len(self.order))

        weakref.finalize(sample, self._close)
        return sample

    def _close(self) -> None:
        self.open_now -= 1


def test_many_graphs_are_measured_in_parts_at_one_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPEN", 3)
    backend, stages = Counting(), []
    sources = {str(size): partial(source, b"x" * size) for size in range(1, 8)}
    measured = measure_graphs(sources, lambda: source(b"x" * 9), backend, BRIEF, progress=lambda *s: stages.append(s))
    assert [len(content) for content in backend.order] == [1, 4, 7, 7, 4, 1, 9, 2, 5, 5, 2, 3, 6, 6, 3]
    assert backend.most_open == 2 * 3 + 1
    assert list(measured) == list(sources)
    one_ms = measured["1"].latency_ms_median
    assert all(measured[str(size)].latency_ms_median == pytest.approx(size * one_ms) for size in range(1, 8))
    assert ("part 1 of 3: open", 6, 6) in stages
    assert stages[-1] == ("part 3 of 3: measure", 6, 6)


def test_the_number_of_copies_is_limited() -> None:
    backend = Counted()
    measure_graphs({"a": lambda: source(b"1")}, lambda: source(b"22"), backend, BRIEF)
    assert backend.opened == {b"1": 16, b"22": 16}


def test_repetitions_in_the_journal_are_not_repeated(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "t.json", {})
    sources = {"a": lambda: source(b"1")}
    first = measure_graphs(sources, lambda: source(b"22"), Counted(), BRIEF, journal=journal)
    again = Journal(tmp_path / "t.json", {})
    assert len(again.repetitions["a"]) == 3
    slower = {"a": lambda: source(b"1" * 9)}
    assert measure_graphs(slower, lambda: source(b"22"), Counted(), BRIEF, journal=again) == first


def test_stages_of_progress_get_the_prefix() -> None:
    steps: list[tuple[str, int, int]] = []
    progress = with_prefix(lambda *step: steps.append(step), "blocks")
    measure_graphs({"a": lambda: source(b"1")}, lambda: source(b"22"), Counted(), BRIEF, progress=progress)
    expected = [("open", 1, 2), ("open", 2, 2), *(("measure", done, 3) for done in (1, 2, 3))]
    assert steps == [(f"blocks: {stage}", done, total) for stage, done, total in expected]
    assert with_prefix(None, "blocks") is None
