import numpy as np
import pytest

from fbnetv5.costs.ranges import CostRange, cost_range
from fbnetv5.costs.tables import Counter
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.tasks import make_tasks

SPACE = FourPathSpace(stages=1, blocks_per_path=1)
TASK = make_tasks(("cls",), {"label": ("a", "b", "c")})["cls"]


@pytest.mark.parametrize("unit", ["macs", "params"])
def test_ranges_span_what_networks_cost(unit: str) -> None:
    table = Counter((224, 224)).table(SPACE, TASK, unit)
    costs = cost_range("cls", table)
    drawn = table(np.random.default_rng(5).integers(0, 2, (4000, len(SPACE.variables))))
    assert costs.min_cost <= drawn.min()
    assert drawn.max() <= costs.max_cost
    assert costs.expected == pytest.approx(drawn.mean(), rel=0.02)


def test_a_range_is_one_line_that_names_parameters() -> None:
    figures = {"min_cost": 1e6, "expected": 2e6, "max_cost": 3e6}
    macs, params = (CostRange(task="cls", unit=unit, **figures).text for unit in ("macs", "params"))
    assert macs == "cls: networks of this space cost 1.0M to 3.0M, 2.0M on average"
    assert params == "cls: networks of this space cost 1.0M to 3.0M parameters, 2.0M on average"
