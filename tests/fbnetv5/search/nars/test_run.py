from dataclasses import replace
from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.runs.config import Run
from fbnetv5.search.nars.prepare import Prepared, prepare
from fbnetv5.search.nars.run import start_nars
from tests.fbnetv5.search.nars.conftest import SIZE, search, tiny_config
from tests.fbnetv5.search.test_scoring import Few


def test_the_result_is_a_run_that_other_commands_read(finished: Path) -> None:
    run = Run.load(finished)
    assert (run.kind, run.tasks) == ("nars", ("cls",))
    assert (finished.parent / "latest").resolve() == finished.resolve()
    assert len((finished / "history.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_a_budget_out_of_range_leaves_no_folder(tmp_path: Path) -> None:
    config = tiny_config(budgets=(Budget(limit=1.0, unit="macs", resolution=SIZE),))
    with pytest.raises(UserError, match="is outside what"):
        start_nars(config, tmp_path / "run", lambda constraints: None, lambda line: None)
    assert not (tmp_path / "run").exists()


def test_images_to_score_trials_on_that_have_no_label_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third of 24 images has the only mask; trials are scored on 16 of them, the third not included."""
    own = prepare(tiny_config(task_name="seg"))
    splits = replace(own.splits, policies=Few(own.splits.policies, labelled={2}))
    monkeypatch.setattr("fbnetv5.search.nars.run.prepare", lambda config: replace(own, splits=splits))
    with pytest.raises(UserError, match="none of the 16 images to hold out has labels for seg"):
        start_nars(own.config, tmp_path / "run", lambda constraints: None, lambda line: None)
    assert not (tmp_path / "run").exists()


def test_a_search_for_the_recipe_of_one_architecture_keeps_it(tmp_path: Path, prepared: Prepared) -> None:
    fixed = tuple(prepared.config.space.empty().tolist())
    limit = prepared.cost("macs").cost_of(prepared.config.space.empty())
    config = tiny_config(fixed=fixed, budgets=(Budget(limit=limit, unit="macs", resolution=SIZE),))
    result = search(tmp_path / "run", prepare(config))
    assert result.architecture.choices["cls"] == fixed
    assert result.architecture.cost.macs == limit
