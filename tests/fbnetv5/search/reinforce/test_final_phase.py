import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from export.runners import torch_threads
from fbnetv5.costs.budgets import AIMED_SHARE_OF_BUDGET
from fbnetv5.costs.constraints import Constraints
from fbnetv5.data.colours import change_colours
from fbnetv5.data.config import DataConfig
from fbnetv5.data.loading import even_batches
from fbnetv5.runs import processes
from fbnetv5.search.reinforce.controller import Controller
from fbnetv5.search.reinforce.final_phase import TaskResult, draw_near_budgets, find_networks, fit_panel, observe
from fbnetv5.search.reinforce.loop import SearchLoop
from fbnetv5.search.reinforce.panel import Observations, Panel
from fbnetv5.search.scoring import batch_losses
from fbnetv5.spaces.space import Choices

MakeLoop = Callable[..., SearchLoop]


def no_progress(*_: object) -> None:
    """Show nothing."""


def only_in_the_main_thread(**options: Any) -> Accelerator:
    """An accelerator, which empties and restores the environment of the process when it is made."""
    assert threading.current_thread() is threading.main_thread()
    return Accelerator(**options)


def results_of(loop: SearchLoop) -> dict[str, TaskResult]:
    return find_networks(loop, observe(loop, no_progress), no_progress)


def with_effects(panel: Panel) -> Panel:
    """Losses that fall with every block, and hardly vary otherwise."""
    rng = np.random.default_rng(0)

    def changed(rows: Observations) -> Observations:
        losses = 2 - 0.1 * np.count_nonzero(rows.choices, axis=1)[:, None] + 0.01 * rng.normal(size=rows.losses.shape)
        return replace(rows, losses=np.where(np.isnan(rows.losses), np.nan, losses))

    return Panel(drawn=changed(panel.drawn), checks=changed(panel.checks))


def test_finalists_meet_their_budget_and_the_best_has_the_lowest_expected_loss(make_loop: MakeLoop) -> None:
    loop = make_loop("det", "seg")
    panel = with_effects(observe(loop, no_progress))
    results, models = find_networks(loop, panel, no_progress), fit_panel(loop, panel)[0]
    assert list(results) == ["det", "seg"]
    for name, result in results.items():
        choices = np.array([finalist.choices for finalist in result.finalists])
        costs = np.array([finalist.costs for finalist in result.finalists])
        np.testing.assert_array_equal(costs[:, 0], loop.constraints[name].tables[0](choices))
        assert loop.constraints[name].in_window(choices).all()
        assert 1 <= len(set(map(tuple, choices.tolist()))) == len(choices) <= loop.config.finalists
        assert result.fit_quality.has_effects
        assert result.best.expected_loss == min(finalist.expected_loss for finalist in result.finalists)
        means = [np.mean([getattr(each, name) for each in result.finalists]) for name in ("loss", "expected_loss")]
        assert means[0] == pytest.approx(means[1])
        expected = np.array([each.expected_loss for each in result.finalists])
        predicted = models[name].table(choices)
        np.testing.assert_allclose(expected - expected.mean(), predicted - predicted.mean(), atol=1e-9)
        assert result.fit_quality.architectures == loop.config.panel_checks


def test_a_network_is_drawn_from_the_policy_where_losses_have_no_effects(make_loop: MakeLoop) -> None:
    loop = make_loop("cls", "seg")
    panel = observe(loop, no_progress)
    networks = []
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        parts = (
            replace(part, losses=np.where(np.isnan(part.losses), np.nan, rng.normal(size=part.losses.shape)))
            for part in (panel.drawn, panel.checks)
        )
        results = find_networks(loop, Panel(drawn=next(parts), checks=next(parts)), no_progress)
        assert not any(result.fit_quality.has_effects or result.fit_quality.has_signal for result in results.values())
        networks.append({name: [each.choices for each in result.finalists] for name, result in results.items()})
    assert networks[0] == networks[1]  # the losses differ, and do not matter
    for name, constraints in loop.constraints.items():
        assert len(networks[0][name]) == 1
        assert constraints.in_window(np.array(networks[0][name])).all()


def test_results_are_a_function_of_the_weights_policies_and_seed(make_loop: MakeLoop) -> None:
    loop = make_loop("cls")
    assert results_of(loop) == results_of(loop)


def test_draws_run_on_one_batch_and_checks_on_several(make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbnetv5.search.reinforce.final_phase.CHECK_BATCHES", 2)
    loop = make_loop("cls", panel_draws=33, data=DataConfig(size=(32, 32), scenes=(24, 200, 16)))
    reports: list[tuple[str, int, int]] = []
    panel = observe(loop, lambda *report: reports.append(report))
    drawn, checks = panel.drawn, panel.checks
    assert np.bincount(drawn.batches).tolist() == [9, 8, 8, 8]
    assert checks.batches.tolist() == loop.config.panel_checks * [0, 2]
    assert (checks.choices.reshape(-1, 2, checks.choices.shape[1]) == checks.choices[::2, None]).all()
    assert reports == [("running the panel", number, 32) for number in range(1, 33)]
    models, qualities = fit_panel(loop, panel)
    assert models["cls"].table.unit == "loss"
    assert qualities["cls"].architectures == loop.config.panel_checks


def test_large_images_are_as_many_in_smaller_batches(make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbnetv5.search.reinforce.final_phase.BATCHES", 2)
    monkeypatch.setattr("fbnetv5.data.loading.MAX_PIXELS", 32 * 32 * 32)
    loop = make_loop("cls", panel_draws=40, data=DataConfig(size=(32, 32), scenes=(24, 200, 16)))
    assert np.bincount(observe(loop, no_progress).drawn.batches).tolist() == [10, 10, 10, 10]  # of 32 images


def test_losses_of_the_panel_are_those_of_their_architectures_tasks_and_images(make_loop: MakeLoop) -> None:
    loop = make_loop("cls", "det", "seg", data=DataConfig(size=(32, 32), scenes=(24, 100, 16)))
    panel = observe(loop, no_progress)
    rows = panel.drawn.joined(panel.checks)
    as_they_are = list(even_batches(loop.splits.policies, batch=64, count=2))
    assert len(as_they_are) == 2
    assert {index for batch in as_they_are for index in batch.indices.tolist()} == set(range(100))
    seeds = [[loop.config.seed, loop.config.total_steps, number] for number in (2, 3)]
    changed = [
        replace(batch, images=change_colours(batch.images, np.random.default_rng(seed)))
        for batch, seed in zip(as_they_are, seeds, strict=True)
    ]
    assert np.bincount(panel.drawn.batches).tolist() == [8, 8, 8, 8]
    of_cls = rows.batches >= 2
    np.testing.assert_array_equal(np.isnan(rows.losses), np.stack([~of_cls, of_cls, of_cls], axis=1))
    for number in np.flatnonzero(of_cls)[[0, 7, -1]].tolist() + np.flatnonzero(~of_cls)[[0, 7, -1]].tolist():
        batch = (as_they_are + changed)[rows.batches[number]]
        with torch_threads(1):  # as in the panel; with more, sums are rounded otherwise
            expected = batch_losses(loop.supernet, batch, rows.choices[[number]], loop.accelerator)[0]
        measured = rows.losses[number]
        np.testing.assert_array_equal(measured[~np.isnan(measured)], expected[~np.isnan(measured)])


def test_draws_are_for_the_tasks_that_run_them_and_checks_for_all(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn_for = []

    def recorded(controller: Controller, constraints: Mapping[int, Constraints], *rest: Any) -> Choices:
        drawn_for.append(list(constraints))
        return draw_near_budgets(controller, constraints, *rest)

    monkeypatch.setattr("fbnetv5.search.reinforce.final_phase.draw_near_budgets", recorded)
    observe(make_loop("cls", "det", "seg"), no_progress)
    everywhere = [0, 1, 2]
    assert drawn_for == [[1, 2], [1, 2], everywhere, [0], [0], everywhere]  # from policies, at random, and as checks


def test_draws_cost_the_aimed_share_of_each_tasks_budget(make_loop: MakeLoop) -> None:
    loop = make_loop("cls", "seg")
    uniform = Controller(loop.supernet.space.choice_counts, 2, lr=1.0)
    constraints = dict(enumerate(loop.constraints.values()))
    choices = draw_near_budgets(uniform, constraints, 400, np.random.default_rng(0))
    for task, own in constraints.items():
        mean = own.tables[0](choices[task::2]).mean()
        assert mean == pytest.approx(AIMED_SHARE_OF_BUDGET * own.budgets[0].limit, rel=0.02)


def test_results_do_not_depend_on_the_number_of_threads(make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make_loop("cls", "det", data=DataConfig(size=(32, 32), scenes=(24, 100, 16)))
    before = {name: value.clone() for name, value in loop.supernet.state_dict().items()}
    results, panels = [], []
    monkeypatch.setattr(processes, "Accelerator", only_in_the_main_thread)
    for threads in (1, 2, 3):
        with torch_threads(threads):
            panels.append(observe(loop, no_progress))
            results.append(find_networks(loop, panels[-1], no_progress))
    assert results[0] == results[1] == results[2]
    for panel in panels[1:]:
        np.testing.assert_array_equal(panel.drawn.losses, panels[0].drawn.losses)
    assert all(torch.equal(value, before[name]) for name, value in loop.supernet.state_dict().items())
