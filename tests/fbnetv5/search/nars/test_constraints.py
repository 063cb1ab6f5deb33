from collections.abc import Callable

import numpy as np
import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.search.nars.constraints import Constraints
from fbnetv5.search.nars.prepare import Prepared
from tests.fbnetv5.search.nars.conftest import PAIRS, SIZE, SPACE, draw

MakeConstraints = Callable[..., Constraints]


def test_a_share_is_that_of_the_tightest_budget(constrain: MakeConstraints) -> None:
    constraints = constrain(macs=0.3, params=0.6)
    architectures = PAIRS.architectures(draw(PAIRS, 8))
    for architecture, share in zip(architectures, constraints.shares(architectures), strict=True):
        ratios = [
            t.cost_of(architecture) / b.limit for t, b in zip(constraints.tables, constraints.budgets, strict=True)
        ]
        assert share == max(ratios)


def test_the_excess_is_the_distance_from_the_window(prepared: Prepared) -> None:
    table = prepared.cost("macs")
    cost = table.cost_of(SPACE.empty())
    for share, excess in ((1.0, 0.0), (0.85, 0.0), (1.25, 0.25), (0.8, 0.05)):
        budget = Budget(limit=cost / share, unit="macs", resolution=SIZE)
        constraints = Constraints(budgets=[budget], tables=[table])
        assert constraints.excess(SPACE.empty()[None]) == pytest.approx([excess], abs=1e-12)


def test_without_a_budget_everything_is_refused_or_met_as_the_search_says(prepared: Prepared) -> None:
    constraints = prepared.constraints(())
    constraints.check()
    constraints.check_architecture(SPACE.full())


@pytest.mark.parametrize("share", [-0.01, 1.01])
def test_a_budget_outside_of_the_range_is_refused_with_the_range(constrain: MakeConstraints, share: float) -> None:
    constrain(macs=0.0, params=1.0).check()
    with pytest.raises(
        UserError, match=r"budget \d.* at 32x32 is outside what FBNetV3's stages of width 0.25 offers: "
    ):
        constrain(macs=share).check()


def test_an_architecture_that_exceeds_a_budget_is_refused(constrain: MakeConstraints) -> None:
    constraints = constrain(macs=0.5)
    constraints.check_architecture(SPACE.empty())
    largest = np.array(SPACE.choice_counts) - 1
    with pytest.raises(UserError, match=r"the architecture costs 4\.\d+M, more than the budget of 2\.\d+M"):
        constraints.check_architecture(largest)
