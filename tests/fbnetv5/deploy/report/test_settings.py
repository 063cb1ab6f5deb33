import json
from pathlib import Path

from fbnetv5 import __version__
from fbnetv5.deploy.report.files import open_run
from fbnetv5.deploy.report.settings import key_facts, settings_items
from latency.page.content import Facts, Folded, Table


def test_the_first_facts_are_those_of_the_configuration(search_run: Path) -> None:
    facts = key_facts(open_run(search_run)).values
    assert facts["tasks"] == "cls, det, seg"
    assert facts["image size"] == "32x32, stretch"
    assert facts["budget of each task"] == "5.0M multiply-adds at 32x32"
    assert (facts["steps"], facts["seed"]) == ("40 of 40", "3")


def test_budgets_of_tasks_that_differ_are_listed(search_run: Path) -> None:
    config = json.loads((search_run / "config.json").read_text(encoding="utf-8"))
    config["budgets"]["det"]["limit"] = 7e6
    (search_run / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert key_facts(open_run(search_run)).values["budget of det"] == "7.0M multiply-adds at 32x32"


def test_all_settings_are_listed_and_the_versions(search_run: Path) -> None:
    folded, facts, _ = settings_items(open_run(search_run))
    assert isinstance(folded, Folded)
    assert isinstance(facts, Facts)
    (table,) = folded.items
    assert isinstance(table, Table)
    rows = {row[0]: row[1] for row in table.rows}
    assert rows["budgets.cls.limit"] == "5000000.0"
    assert rows["data.scenes"] == "24, 12, 16"
    assert rows["table"] == "none"
    assert facts.values["page written by"] == f"fbnetv5 {__version__}"
