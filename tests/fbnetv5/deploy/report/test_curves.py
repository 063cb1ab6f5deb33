from pathlib import Path
from typing import Any

import pytest

from fbnetv5.deploy.report.curves import (
    LOSSES,
    SEARCH,
    Series,
    by_step,
    cost_figure,
    learning_rate_figure,
    score_figure,
    series_figure,
)
from fbnetv5.deploy.report.files import open_run

TRAINING: list[dict[str, Any]] = [
    {"step": 0, "lr": 0.0, "losses": None, "scores": {"det": 0.1}, "best": {"det": 0.1}, "best_step": 0},
    {"step": 5, "lr": 0.1, "losses": {"det": 3.0}, "scores": None, "best": {"det": 0.1}, "best_step": 0},
    {"step": 9, "lr": 0.05, "losses": {"det": 2.0}, "scores": {"det": 0.3}, "best": {"det": 0.3}, "best_step": 9},
]


@pytest.mark.parametrize("series", [LOSSES, *SEARCH], ids=lambda series: series.field)
def test_curves_have_the_values_of_the_history(search_run: Path, series: Series) -> None:
    history = open_run(search_run).history
    figure = series_figure(history, series)
    assert figure is not None
    assert figure.table is not None
    for trace in figure.plot.data:
        assert list(trace.y) == [entry[series.field][trace.name] for entry in history]
        assert list(trace.x) == [entry["step"] for entry in history]
    assert len(figure.table.rows) == len(history)


def test_expected_costs_are_in_millions_beside_the_budget(search_run: Path) -> None:
    history = open_run(search_run).history
    figure = cost_figure(history, dict.fromkeys(("cls", "det", "seg"), 5e6), "macs")
    assert figure is not None
    *tasks, budget = figure.plot.data
    assert [trace.name for trace in tasks] == ["cls", "det", "seg"]
    assert tasks[0].y[0] == pytest.approx(history[0]["expected_cost"]["cls"] / 1e6)
    assert (budget.x, budget.y) == ((10, 40), (5.0, 5.0))


def test_costs_of_each_unit_have_a_figure_of_their_own() -> None:
    history = [{"step": step, "expected_cost": {"cls": 4e6, "det/macs": 6e6, "det/ms": 7.0}} for step in (1, 2)]
    macs, ms = cost_figure(history, {"cls": 5e6, "det/macs": 6e6}, "macs"), cost_figure(history, {"det/ms": 8.0}, "ms")
    assert macs is not None
    assert ms is not None
    assert [trace.name for trace in macs.plot.data] == ["cls", "det/macs", "budget", "budget"]
    assert [list(trace.y) for trace in ms.plot.data] == [[7.0, 7.0], [8.0, 8.0]]
    assert macs.plot.data[1].line.color == ms.plot.data[0].line.color  # the colour of the task


def test_a_value_without_tasks_is_one_curve() -> None:
    history = [{"step": 1, "temperature": 5.0}, {"step": 2, "temperature": 4.0}]
    assert by_step(history, "temperature") == {"": {1: 5.0, 2: 4.0}}
    figure = series_figure(history, Series(field="temperature", title="T", caption="c", label="l"))
    assert figure is not None
    assert list(figure.plot.data[0].y) == [5.0, 4.0]


def test_scores_are_those_of_the_evaluations_and_the_best_is_marked() -> None:
    figure = score_figure(TRAINING, "det")
    assert figure is not None
    curve, best = figure.plot.data
    assert dict(zip(curve.x, curve.y, strict=True)) == {0: 0.1, 9: 0.3}
    assert (best.x, best.y) == ((9,), (0.3,))
    rates = learning_rate_figure(TRAINING)
    assert rates is not None
    assert list(rates.plot.data[0].y) == [0.0, 0.1, 0.05]


def test_a_run_that_has_not_begun_has_no_curve() -> None:
    assert series_figure([], LOSSES) is None
    assert cost_figure([], {"cls": 1.0}, "macs") is None
    assert score_figure([], "det") is None
