from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.later.config import LaterConfig
from fbnetv5.spaces.four_path import FourPathSpace

BUDGET = Budget(limit=300e6, unit="macs")


def later(**changes: Any) -> LaterConfig:
    fields: dict[str, Any] = {"run": "/runs/s", "budgets": {"depth": (BUDGET,)}, "space": FourPathSpace(stages=2)}
    return LaterConfig(**fields | changes)


def test_a_saved_configuration_is_loaded_again(tmp_path: Path) -> None:
    config = later(steps=7, weight_lr=0.01, seed=5, table="/luts/cpu.json")
    config.save(tmp_path)
    assert LaterConfig.load(tmp_path) == config
    assert config.tasks == ("depth",)


def test_the_final_phase_is_that_of_a_search_of_the_task_alone() -> None:
    search = later(steps=7, seed=5, finalists=3, panel_draws=20).as_search()
    assert (search.tasks, search.total_steps, search.seed) == (("depth",), 7, 5)
    assert (search.finalists, search.panel_draws, search.space) == (3, 20, FourPathSpace(stages=2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budgets": {}}, "a single task"),
        ({"budgets": {"depth": (BUDGET,), "edges": (BUDGET,)}}, "a single task"),
        ({"steps": 0}, "steps: must be greater than or equal to 1"),
        ({"panel_draws": 15}, "panel_draws: must be greater than or equal to 16"),
        ({"warmup_steps": 3}, "there is no field 'warmup_steps'"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        later(**fields)


@pytest.mark.parametrize(("load", "save", "message"), [
    (SearchConfig.load, lambda: later(), "is the folder of a later-task, not of a search"),
    (LaterConfig.load, lambda: SearchConfig(budgets={"cls": (BUDGET,)}), "folder of a search, not of a later-task"),
], ids=["search", "later task"])  # fmt: skip
def test_the_folder_of_the_other_kind_is_refused(
    load: Callable[[Path], Any], save: Callable[[], Any], message: str, tmp_path: Path
) -> None:
    save().save(tmp_path)
    with pytest.raises(UserError, match=message):
        load(tmp_path)
