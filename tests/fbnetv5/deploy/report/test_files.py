import json
from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.deploy.report.files import open_run, read_history
from fbnetv5.deploy.report.settings import key_facts
from tests.fbnetv5.deploy.report.conftest import TASKS


def test_a_run_folder_has_everything_that_was_written(search_run: Path) -> None:
    files = open_run(search_run)
    assert (files.kind, files.tasks, files.finished) == ("search", TASKS, True)
    assert list(files.architectures) == list(TASKS)
    assert [entry["step"] for entry in files.history] == [10, 20, 30, 40]
    assert files.variables == files.architectures["cls"].space.variables
    assert {budget["limit"] for budget in files.budgets.values()} == {5e6}
    assert (files.exports, files.trials, files.evaluation) == ({}, {}, None)


def test_several_budgets_have_the_names_of_their_costs(search_run: Path) -> None:
    config = json.loads((search_run / "config.json").read_text(encoding="utf-8"))
    macs = config["budgets"]["det"]
    config["budgets"]["det"] = [macs, {**macs, "limit": 8.0, "unit": "ms"}]
    (search_run / "config.json").write_text(json.dumps(config), encoding="utf-8")
    files = open_run(search_run)
    limits = {name: budget["limit"] for name, budget in files.budgets.items()}
    assert limits == {"cls": 5e6, "det/macs": 5e6, "det/ms": 8.0, "seg": 5e6}
    budgets = key_facts(files).values
    assert budgets["budget of det"] == "5.0M multiply-adds at 32x32 and 8 ms at 32x32"
    assert budgets["budget of cls"] == "5.0M multiply-adds at 32x32"


def test_a_run_without_results_is_unfinished_and_has_nothing_yet(search_run: Path) -> None:
    for name in ("pareto.json", "history.jsonl", *(f"{task}.json" for task in TASKS)):
        (search_run / name).unlink()
    files = open_run(search_run)
    assert not files.finished
    assert (files.history, files.pareto, files.architectures) == ([], None, {})


def test_a_labelling_is_unfinished_until_its_labels_are_written(tmp_path: Path) -> None:
    (tmp_path / ".labeling").mkdir()
    settings = tmp_path / ".labeling" / "settings.json"
    settings.write_text(json.dumps({"schema": 1, "settings": {"images": "/images"}}), encoding="utf-8")
    files = open_run(tmp_path)
    assert (files.kind, files.finished, files.config["settings"]["images"]) == ("label", False, "/images")


def test_the_half_line_of_a_killed_run_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste', encoding="utf-8")
    assert read_history(path) == [{"step": 1}, {"step": 2}]
    assert read_history(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("line", ["{", "[]", '{"step": "1"}', "null"])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"history\.jsonl is damaged in line 2"):
        read_history(path)
