from collections.abc import Callable

import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.prepare import prepare

MakeConfig = Callable[..., SearchConfig]


def test_a_search_has_its_images_tasks_and_a_cost_table_per_task(make_config: MakeConfig) -> None:
    prepared = prepare(make_config("cls", "seg"))
    assert list(prepared.tasks) == list(prepared.constraints) == ["cls", "seg"]
    assert (len(prepared.splits.weights), len(prepared.splits.policies), len(prepared.splits.test)) == (24, 24, 16)
    assert {own.tables[0].unit for own in prepared.constraints.values()} == {"macs"}
    assert prepared.table is None


def test_a_missing_latency_table_is_named(make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match=r"nowhere\.json does not exist"):
        prepare(make_config("cls", table="nowhere.json"))


def test_a_budget_in_milliseconds_needs_a_latency_table(make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match="a budget in milliseconds needs a latency table"):
        prepare(make_config("cls", budgets={"cls": Budget(limit=8.0, unit="ms")}))
