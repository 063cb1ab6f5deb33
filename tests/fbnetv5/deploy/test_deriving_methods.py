"""Kinds of runs with a method that derives networks; the methods are tested beside their modules."""

import re
from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import Budget, TaskBudgets
from fbnetv5.costs.cost_files import CostFile
from fbnetv5.deploy.deriving_methods import METHODS, known_costs, method_of
from fbnetv5.runs.derivation import DerivationConfig
from fbnetv5.search.nars import derive as nars
from fbnetv5.search.reinforce.config import SearchConfig
from tests.fbnetv5.search.nars.conftest import tiny_config


def test_the_method_is_that_of_the_kind_of_the_run(tmp_path: Path) -> None:
    tiny_config().save(tmp_path)
    assert method_of(tmp_path) is METHODS["nars"] is nars


def test_a_folder_of_another_kind_and_one_without_a_run_are_refused(tmp_path: Path) -> None:
    DerivationConfig(run="r", budget="9M", task_names=("cls",)).save(tmp_path)
    with pytest.raises(UserError, match="is the folder of a derivation; networks of another budget come from"):
        method_of(tmp_path)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'none'} is no run folder")):
        method_of(tmp_path / "none")


def test_the_cost_files_of_a_search_are_in_its_run_folder(tmp_path: Path) -> None:
    cost = CostFile(name="energy", unit="mJ", values={"stem": 1.0, "head": None})
    budgets: dict[str, TaskBudgets] = {"cls": (Budget(limit=5.0, unit="energy_mJ"),)}
    SearchConfig(budgets=budgets, costs=(cost,)).save(tmp_path)
    assert known_costs(tmp_path) == (cost,)
    tiny_config().save(tmp_path)
    with pytest.raises(UserError, match="is the folder of a nars; --cost is for runs of fbnetv5 search"):
        known_costs(tmp_path)
