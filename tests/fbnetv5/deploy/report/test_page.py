import json
import shutil
from pathlib import Path

from export.files import write_json
from fbnetv5.deploy.report.files import open_run
from fbnetv5.deploy.report.limits import limits
from fbnetv5.deploy.report.page import make_page
from latency.page.content import Notes, Page, Table, Text
from tests.fbnetv5.deploy.report.conftest import entry, write_history


def words(page: Page) -> list[str]:
    return [sentence for item in page.lead if isinstance(item, Text) for sentence in item.paragraphs]


def test_the_page_of_a_search_has_every_section(search_run: Path) -> None:
    page = make_page(open_run(search_run))
    names = ["networks", "pareto", "course", "policies", "predictions", "deployment", "limits", "settings"]
    assert [section.name for section in page.sections] == names
    assert (page.title, page.kicker) == ("search", "fbnetv5 search for a network per task")
    assert words(page) == []
    result = next(item for item in page.lead if isinstance(item, Table))
    assert [row[0] for row in result.rows] == ["cls", "det", "seg"]


def test_the_page_of_a_later_task_has_the_training_of_its_head(search_run: Path) -> None:
    config = json.loads((search_run / "config.json").read_text(encoding="utf-8"))
    config |= {"kind": "later-task", "tasks": ["det"], "budgets": {"det": config["budgets"]["det"]}, "run": "/runs/s"}
    write_json(search_run / "config.json", config)
    write_history(search_run, [{"step": step, "losses": {"det": 1.0 / step}, "lr": 0.1} for step in (10, 20)])
    page = make_page(open_run(search_run))
    names = ["networks", "pareto", "course", "predictions", "deployment", "limits", "settings"]
    assert [section.name for section in page.sections] == names
    assert page.kicker == "fbnetv5 task added to a finished search"
    assert page.sections[-2].items == [Notes(items=limits(open_run(search_run)))]
    assert "Only the head learned" in limits(open_run(search_run))[0]


def test_a_search_without_a_signal_says_so(search_run: Path) -> None:
    file = search_run / "det.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    panel = {"architectures": 3, "rank_correlation": 0.1, "p_value": 0.4, "has_signal": False}
    document["provenance"]["panel"] = panel
    file.write_text(json.dumps(document), encoding="utf-8")
    assert words(make_page(open_run(search_run)))[0].startswith("The search found no signal for det: ")


def test_the_page_of_an_unfinished_run_shows_what_there_is(search_run: Path) -> None:
    for name in ("pareto.json", "cls.json", "det.json"):
        (search_run / name).unlink()
    page = make_page(open_run(search_run))
    assert "unfinished" in words(page)[0]
    assert "pareto" not in [section.name for section in page.sections]
    write_history(search_run, [entry(10, 0, policies=None)])
    assert "policies" not in [section.name for section in make_page(open_run(search_run)).sections]


def test_a_derived_network_has_a_page_with_its_tree(branched: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(branched.parent, tmp_path / "derived"))
    config = {"schema": 2, "kind": "derivation", "tasks": ["cls", "det", "seg"], "run": "/runs/b", "budget": "20M"}
    config |= {"data": {"folder": None, "size": [32, 32], "fit": "stretch", "scenes": [24, 12, 16]}}
    write_json(run / "config.json", config)
    page = make_page(open_run(run))
    assert words(page) == []
    assert [section.name for section in page.sections] == [
        "networks", "predictions", "deployment", "limits", "settings",
    ]  # fmt: skip
    result = next(item for item in page.lead if isinstance(item, Table))
    assert [row[2] != "" for row in result.rows] == [True, False, False]  # the costs are those of all tasks together


def test_a_run_that_has_only_begun_has_its_settings(search_run: Path) -> None:
    for file in search_run.glob("*.json*"):
        if file.name != "config.json":
            file.unlink()
    page = make_page(open_run(search_run))
    assert "unfinished" in words(page)[0]
    assert [section.name for section in page.sections] == ["predictions", "limits", "settings"]
