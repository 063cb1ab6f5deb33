from collections.abc import Callable
from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.table import open_table, profile_options
from fbnetv5.spaces.four_path import FourPathSpace

MakeConfig = Callable[..., SearchConfig]
SPACE = FourPathSpace(stages=1, blocks_per_path=1)
BUDGETS = {"cls": (Budget(limit=20e6, unit="macs", resolution=(64, 64)),), "seg": (Budget(limit=250e6, unit="macs"),)}


def test_a_search_without_a_table_opens_none_and_a_missing_one_is_an_error(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(budgets=BUDGETS, space=SPACE)
    assert open_table(config) is None
    with pytest.raises(UserError, match="does not exist"):
        open_table(config.changed(table=str(tmp_path / "none.json")))


def test_the_profile_is_for_the_resolution_of_the_first_budget(make_config: MakeConfig) -> None:
    config = make_config(budgets=BUDGETS, space=SPACE)
    options = " --stages 1 --blocks-per-path 1 --resolution 64x64 --tasks cls"
    assert profile_options(config, Path("luts")) == options
