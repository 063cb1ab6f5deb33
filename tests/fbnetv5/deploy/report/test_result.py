from pathlib import Path

from export.files import write_json
from fbnetv5.deploy.report.files import open_run
from fbnetv5.deploy.report.result import number_text, result_items
from latency.page.content import Table


def test_a_network_has_its_costs_and_its_metric(search_run: Path) -> None:
    files = open_run(search_run)
    (table,) = result_items(files)
    assert isinstance(table, Table)
    network = files.architectures["det"]
    costs = [f"{network.cost.macs / 1e6:.1f}", f"{network.cost.params / 1e6:.2f}", "-"]
    assert table.rows[1] == ["det", "det.json", *costs, "held-out ap", "0.0000"]
    assert (number_text(None), number_text(0.12345)) == ("-", "0.1235")


def test_the_figures_on_the_test_images_replace_those_of_held_out_images(search_run: Path) -> None:
    tests = {task: {"test": {"metric": {"value": 0.25}}} for task in ("cls", "det", "seg")}
    write_json(search_run / "evaluation.json", {"schema": 1, "kind": "evaluation", "tasks": tests})
    (table,) = result_items(open_run(search_run))
    assert isinstance(table, Table)
    assert [row[-2:] for row in table.rows][1] == ["test ap", "0.2500"]
