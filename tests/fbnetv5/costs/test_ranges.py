import numpy as np
import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.ranges import CostRange, check_budgets, cost_ranges, cost_tables
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.tasks import make_tasks

SPACE = FourPathSpace(stages=1, blocks_per_path=1)
CLASSES = {"label": ("a", "b", "c")}


def test_ranges_span_what_networks_cost() -> None:
    tables = cost_tables(SPACE, make_tasks(("cls",), CLASSES), {"cls": Budget(limit=250e6, unit="macs")}, None)
    (cost_range,) = cost_ranges(tables)
    drawn = np.random.default_rng(5).integers(0, 2, (4000, len(SPACE.variables)))
    costs = tables["cls"](drawn)
    assert cost_range.min_cost <= costs.min()
    assert costs.max() <= cost_range.max_cost
    assert cost_range.expected == pytest.approx(costs.mean(), rel=0.02)


@pytest.mark.parametrize(("limit", "fits"), [(99.0, False), (100.0, True), (300.0, True), (301.0, False)])
def test_a_budget_must_lie_within_its_range(limit: float, fits: bool) -> None:
    cost_range = CostRange(task="cls", unit="macs", min_cost=100.0, expected=200.0, max_cost=300.0)
    budgets = {"cls": Budget(limit=limit, unit="macs")}
    if fits:
        check_budgets([cost_range], budgets)
        return
    with pytest.raises(UserError, match="Choose a budget inside this range, or another variant or resolution"):
        check_budgets([cost_range], budgets)


def test_a_budget_in_milliseconds_needs_a_table() -> None:
    with pytest.raises(UserError, match="needs a latency table"):
        cost_tables(SPACE, {}, {"cls": Budget(limit=2.0, unit="ms")}, None)
