import pytest

from export.errors import UserError
from fbnetv5.architecture import make_architecture
from fbnetv5.costs.budgets import Budget
from fbnetv5.search.bmtas.prepare import Prepared, check_budget, prepare
from tests.fbnetv5.search.bmtas.conftest import TASKS, tiny_config


@pytest.mark.parametrize("separate", [False, True])
def test_the_extremes_are_counted_exactly(prepared: Prepared, separate: bool) -> None:
    layers = len(prepared.space.layers)
    choices = {task: (number * separate,) * layers for number, task in enumerate(TASKS)}
    classes = next(iter(prepared.tasks.values())).classes
    cost = make_architecture(prepared.space, choices, classes, (224, 224), provenance={}).cost
    assert cost.macs == (prepared.costs.all_separate if separate else prepared.costs.all_shared)


def test_the_expected_cost_at_first_lies_between_the_extremes(prepared: Prepared) -> None:
    costs = prepared.costs
    assert costs.all_shared < costs.uniform < costs.all_separate


@pytest.mark.parametrize("limit", [1e6, 1e12])
def test_a_budget_outside_the_range_is_refused(prepared: Prepared, limit: float) -> None:
    with pytest.raises(UserError, match=r"if all tasks share every layer, .* if they share none"):
        check_budget(tiny_config(budget=Budget(limit=limit, unit="macs")), prepared.costs)


@pytest.mark.parametrize("changes", [{"encoder": "fbnetv3-d", "width": 1.0}, {"width": 0.5}])
def test_a_latency_of_blocks_that_no_table_has_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(UserError, match="have the blocks of fbnetv3-a, fbnetv3-c, fbnetv3-f at full width"):
        prepare(tiny_config(budget=Budget(limit=9.0, unit="ms"), **changes))
