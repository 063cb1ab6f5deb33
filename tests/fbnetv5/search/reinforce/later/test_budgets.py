from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import Budget, TaskBudgets
from fbnetv5.costs.cost_files import CostFile
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.later.budgets import budgets_of_task

SIZE, NONE, RUN = (64, 96), (None, None, None), Path("runs/one")
OWN = (Budget(limit=4e6, unit="macs", resolution=SIZE),)


ENERGY = CostFile(name="energy", unit="mJ", values={})


def search(**others: TaskBudgets) -> SearchConfig:
    return SearchConfig(budgets={"cls": OWN, **others}, costs=(ENERGY,))


def test_without_budgets_those_of_the_run_hold() -> None:
    assert budgets_of_task(search(det=OWN), RUN, "depth", NONE) == ((ENERGY,), OWN)
    with pytest.raises(UserError, match="the tasks of runs/one have different budgets: set that of depth by --flops"):
        budgets_of_task(search(det=(Budget(limit=9e6, unit="macs", resolution=SIZE),)), RUN, "depth", NONE)


def test_other_budgets_have_the_resolution_of_the_run_and_may_name_its_costs() -> None:
    costs, budgets = budgets_of_task(search(), RUN, "depth", ("3M", None, None), {"energy": "depth=5"}, 8e6)
    assert costs == (ENERGY,)
    assert [(budget.unit, budget.limit) for budget in budgets] == [("macs", 3e6), ("energy_mJ", 5.0), ("bytes", 8e6)]
    assert {budget.resolution for budget in budgets} == {SIZE}
    elsewhere = search(det=(Budget(limit=9e6, unit="macs", resolution=(32, 32)),))
    with pytest.raises(UserError, match="different resolutions: write the budget as 3M@224x224"):
        budgets_of_task(elsewhere, RUN, "depth", ("3M", None, None))


def test_memory_alone_is_refused() -> None:
    with pytest.raises(UserError, match="--memory only limits what another budget allows"):
        budgets_of_task(search(), RUN, "depth", NONE, memory="8MB")
