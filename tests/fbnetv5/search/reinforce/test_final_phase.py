from collections.abc import Callable

import numpy as np
import pytest

from fbnetv5.costs.budgets import AIMED_SHARE_OF_BUDGET
from fbnetv5.search.reinforce.controller import Controller
from fbnetv5.search.reinforce.final_phase import TaskResult, draw_near_budgets, find_networks, fit_panel, observe
from fbnetv5.search.reinforce.loop import SearchLoop

MakeLoop = Callable[..., SearchLoop]


def no_progress(*_: object) -> None:
    """Show nothing."""


def results_of(loop: SearchLoop) -> dict[str, TaskResult]:
    return find_networks(loop, observe(loop, no_progress), no_progress)


def test_finalists_meet_their_budget_and_the_best_has_the_lowest_loss(make_loop: MakeLoop) -> None:
    loop = make_loop("cls", "seg")
    results = results_of(loop)
    assert list(results) == ["cls", "seg"]
    for name, result in results.items():
        choices = np.array([finalist.choices for finalist in result.finalists])
        costs = np.array([finalist.costs for finalist in result.finalists])
        np.testing.assert_array_equal(costs[:, 0], loop.constraints[name].tables[0](choices))
        assert loop.constraints[name].in_window(choices).all()
        assert 1 <= len(set(map(tuple, choices.tolist()))) == len(choices) <= loop.config.finalists
        assert result.best.loss == min(finalist.loss for finalist in result.finalists)
        assert result.fit_quality.architectures == loop.config.panel_checks


def test_results_are_a_function_of_the_weights_policies_and_seed(make_loop: MakeLoop) -> None:
    loop = make_loop("cls")
    assert results_of(loop) == results_of(loop)


def test_draws_run_on_one_batch_and_checks_on_all_batches(make_loop: MakeLoop) -> None:
    loop = make_loop("cls", panel_draws=17)
    reports: list[tuple[str, int, int]] = []
    panel = observe(loop, lambda *report: reports.append(report))
    drawn, checks = panel.drawn, panel.checks
    batches = len(np.unique(checks.batches))
    assert len(drawn.choices) == 17
    assert len(checks.choices) == loop.config.panel_checks * batches
    assert (checks.choices.reshape(-1, batches, checks.choices.shape[1]) == checks.choices[::batches, None]).all()
    assert reports[-1] == ("running the panel", len(reports), 17 + len(checks.choices))
    models, qualities = fit_panel(loop, panel)
    assert models["cls"].table.unit == "loss"
    assert qualities["cls"].architectures == loop.config.panel_checks


def test_draws_cost_the_aimed_share_of_each_tasks_budget(make_loop: MakeLoop) -> None:
    loop = make_loop("cls", "seg")
    uniform = Controller(loop.supernet.space.choice_counts, 2, lr=1.0)
    choices = draw_near_budgets(uniform, loop.constraints, 400, np.random.default_rng(0))
    for task, own in enumerate(loop.constraints.values()):
        mean = own.tables[0](choices[task::2]).mean()
        assert mean == pytest.approx(AIMED_SHARE_OF_BUDGET * own.budgets[0].limit, rel=0.02)
