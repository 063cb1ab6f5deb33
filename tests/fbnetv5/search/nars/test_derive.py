import shutil
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.search.nars.config import NarsConfig
from fbnetv5.search.nars.derive import DerivedPair, derive, with_budgets
from tests.fbnetv5.search.nars.conftest import SIZE, SPACE, tiny_config


def derived_from(run: Path) -> DerivedPair:
    config = with_budgets(run, {"macs": "1.6M"})
    return derive(run, config, table=None, other_machine=False, progress=lambda *_: None)


def test_a_pair_meets_the_other_budget_and_tells_what_is_expected_of_it(finished: Path) -> None:
    derived = derived_from(finished)
    assert 0.85 * 1.6e6 <= derived.architecture.cost.macs <= 1.6e6
    assert derived.architecture.resolution == SIZE
    assert derived.architecture.provenance["predicted"].keys() == {"score", "mean_error", "step"}
    assert derived.recipe.keys() == {*NarsConfig.load(finished).recipes, "weight_decay"}
    assert derived_from(finished) == derived


def test_an_unfinished_search_is_refused_with_the_command(finished: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    (copy / "trials" / "005" / "result.json").unlink()
    with pytest.raises(UserError, match=r"is unfinished\. Finish it with: fbnetv5 nars --resume"):
        derived_from(copy)


def test_one_architecture_has_no_other_budget(tmp_path: Path) -> None:
    tiny_config(fixed=tuple(SPACE.full().tolist())).save(tmp_path)
    with pytest.raises(UserError, match="which has no other budget"):
        with_budgets(tmp_path, {"macs": "1.6M"})


def test_a_table_is_needed_for_a_latency_alone(finished: Path, tmp_path: Path) -> None:
    config = with_budgets(finished, {"macs": "1.6M"}).changed(table=str(tmp_path / "moved.json"))
    options: dict[str, Any] = {"table": None, "other_machine": False, "progress": lambda *_: None}
    assert derive(finished, config, **options).architecture.cost.latency_ms is None
    slow = config.changed(budgets=(Budget(limit=9.0, unit="ms", resolution=SIZE),))
    with pytest.raises(UserError, match=r"moved\.json does not exist"):
        derive(finished, slow, **options)
