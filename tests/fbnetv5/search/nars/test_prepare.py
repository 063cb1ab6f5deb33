from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.search.nars.prepare import Prepared, check, check_trainings, prepare
from fbnetv5.search.nars.recipes import RecipeVariable
from tests.fbnetv5.search.nars.conftest import MACS, PAIRS, SIZE, SPACE, draw, tiny_config


def test_the_statistics_are_the_costs_of_the_network(prepared: Prepared) -> None:
    architectures = PAIRS.architectures(draw(PAIRS, 4))
    statistics = prepared.statistics_of(architectures)
    assert statistics[:, 0].tolist() == prepared.cost("macs")(architectures).tolist()
    assert statistics[:, 1].tolist() == prepared.cost("params")(architectures).tolist()
    assert statistics.shape == (4, 2)


def test_budgets_in_several_units_have_a_table_each(prepared: Prepared) -> None:
    params = Budget(limit=1e6, unit="params", resolution=SIZE)
    constraints = prepared.constraints((MACS, params))
    assert [table.unit for table in constraints.tables] == ["macs", "params"]
    assert prepared.resolution == SIZE


def test_a_metric_of_which_lower_values_are_better_has_a_negative_sign(prepared: Prepared) -> None:
    assert prepared.sign == 1.0
    assert prepare(tiny_config(task_name="depth")).sign == -1.0


def test_the_only_architecture_is_compared_with_the_budgets(prepared: Prepared) -> None:
    largest = tuple((np.array(SPACE.choice_counts) - 1).tolist())
    own = replace(prepared, config=tiny_config(fixed=largest))
    with pytest.raises(UserError, match="more than the budget of"):
        check(own, own.constraints((MACS,)))
    check(own, own.constraints(()))


def test_a_budget_out_of_range_is_refused(prepared: Prepared) -> None:
    with pytest.raises(UserError, match="is outside what"):
        check(prepared, prepared.constraints((Budget(limit=1.0, unit="macs", resolution=SIZE),)))


@pytest.mark.parametrize(
    ("task", "field", "message"),
    [("depth", "label_smoothing", "label_smoothing has no effect on the loss of depth"), ("det", "cutmix", "cutmix")],
)
def test_a_value_that_does_not_suit_the_task_is_refused_before_any_training(
    task: str, field: str, message: str
) -> None:
    recipes = {"lr": RecipeVariable(values=(0.1, 0.2)), field: RecipeVariable(values=(0.0, 0.1))}
    with pytest.raises(UserError, match=f"(?i){message}"):
        check_trainings(prepare(tiny_config(task_name=task, recipes=recipes)))


def test_a_latency_table_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        prepare(tiny_config(table=str(tmp_path / "none.json")))
