"""The architectures that searched ones are compared with."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.architectures import (
    MATCHED,
    PLANS,
    architecture_key,
    best_by_shuffled_fit,
    matched,
    planted_bad,
    random_matched,
    scaled_fbnetv3,
    shuffled,
    stage_zero,
    worst_by_fit,
)
from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.search.local import prune
from fbnetv5.search.reinforce.panel import PANEL, Panel
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.wide import WideSpace
from tests.benchmarks.conftest import BUDGET, counted, late_blocks

TASKS = ["cls", "det", "seg"]
SPACE = FourPathSpace()


@pytest.mark.parametrize("task", TASKS)
def test_random_architectures_are_distinct_within_the_window_and_repeatable(task: str) -> None:
    table = counted(SPACE, task)
    networks = np.stack(random_matched(table, BUDGET, 40, seed=1))
    costs = table(networks) / BUDGET.limit
    assert ((costs >= MATCHED[0]) & (costs <= MATCHED[1])).all()
    assert len(np.unique(networks, axis=0)) == 40
    np.testing.assert_array_equal(networks[:5], random_matched(table, BUDGET, 5, seed=1))
    assert (networks[:5] != random_matched(table, BUDGET, 5, seed=2)).any()
    np.testing.assert_array_equal(prune(networks, table), networks)
    assert random_matched(table, BUDGET, 0, seed=1) == []


@pytest.mark.parametrize("task", TASKS)
def test_planted_architectures_have_the_same_cost_and_other_blocks(task: str) -> None:
    table = counted(SPACE, task)
    networks = np.stack(planted_bad(task, table, BUDGET, 15, seed=1))
    assert matched(table(networks), BUDGET).all()
    assert len(np.unique(networks, axis=0)) == 15
    coarse = [node.stage == 0 and node.stride >= 16 for node in SPACE.skippable]
    assert not networks[:, coarse].any()


@pytest.mark.parametrize("task", ["det", "seg"])
def test_the_worst_network_by_fit_is_worse_than_random_ones_of_its_cost(task: str, runs: list[Path]) -> None:
    table = counted(SPACE, task)
    worst = worst_by_fit(runs[0], task)[None]
    assert matched(table(worst), BUDGET).all()
    np.testing.assert_array_equal(prune(worst, table), worst)
    others = np.stack(random_matched(table, BUDGET, 64, seed=1))
    assert late_blocks(table, worst)[0] > late_blocks(table, others).max()


@pytest.mark.parametrize("task", ["det", "seg"])
def test_the_best_network_by_a_shuffled_fit_is_as_good_as_a_random_one(task: str, runs: list[Path]) -> None:
    table = counted(SPACE, task)
    best = best_by_shuffled_fit(runs[0], task)[None]
    assert matched(table(best), BUDGET).all()
    late = late_blocks(table, np.stack([best[0], *random_matched(table, BUDGET, 64, seed=1)]))
    assert late[1:].min() < late[0] < late[1:].max()  # a panel's own fit finds fewer late blocks than any of them


def test_shuffled_losses_stay_on_their_batch_and_leave_their_architecture(runs: list[Path]) -> None:
    panel = Panel.load(runs[0] / PANEL, variables=len(SPACE.variables), tasks=2)
    before, after = panel.drawn, shuffled(panel.drawn)
    np.testing.assert_array_equal(after.choices, before.choices)
    np.testing.assert_array_equal(after.batches, before.batches)
    for batch in np.unique(before.batches):
        of_batch = before.batches == batch
        assert sorted(after.losses[of_batch].tolist()) == sorted(before.losses[of_batch].tolist())
    assert (after.losses != before.losses).mean() > 0.5


def test_a_space_or_task_without_a_plan_is_refused() -> None:
    small = FourPathSpace(stages=1)
    with pytest.raises(UserError, match="were found within"):
        planted_bad("seg", counted(small, "seg"), BUDGET, 1, seed=1)
    with pytest.raises(UserError, match="no plan of bad networks for depth"):
        planted_bad("depth", counted(small, "seg"), BUDGET, 1, seed=1)
    assert set(PLANS) == set(TASKS)


def test_dead_blocks_are_skipped_without_a_change() -> None:
    table = counted(SPACE, "cls")
    choices = np.random.default_rng(0).integers(0, 2, (5, len(SPACE.variables)))
    live = prune(choices, table)
    assert (live.sum(1) < choices.sum(1)).all()
    np.testing.assert_array_equal(table(live), table(choices))
    assert prune(SPACE.full()[None], counted(SPACE, "seg")).all()


def test_a_key_names_the_choices() -> None:
    assert architecture_key([1, 0, 2]) == architecture_key(np.array([1, 0, 2]))
    assert architecture_key([1, 0, 2]) != architecture_key([1, 2, 0])


@pytest.mark.parametrize("task", TASKS)
def test_fbnetv3_is_shortened_by_the_one_repeat_that_leaves_it_nearest_below_the_budget(task: str) -> None:
    macs = counted(SPACE, task)
    full = stage_zero(SPACE)
    assert full.sum() == sum(node.stage == 0 for node in SPACE.skippable)
    assert macs.cost_of(full) > 400e6
    scaled = scaled_fbnetv3(macs, 400e6)
    assert full.sum() - scaled.sum() == 1
    assert (scaled <= full).all()
    assert 390e6 < macs.cost_of(scaled) <= 400e6
    np.testing.assert_array_equal(scaled_fbnetv3(macs, 450e6), full)


def test_a_budget_far_below_fbnetv3_is_refused() -> None:
    with pytest.raises(UserError, match="larger budget"):
        scaled_fbnetv3(counted(SPACE, "cls"), Budget(limit=200e6, unit="macs").limit)


def test_fbnetv3_is_not_compared_with_networks_of_the_wide_space() -> None:
    with pytest.raises(UserError, match="for the default and the strict space, not for variant a, wide"):
        stage_zero(WideSpace())
