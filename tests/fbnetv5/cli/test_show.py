import json
from pathlib import Path

import pytest

from fbnetv5.cli.show import print_network, shape_text
from fbnetv5.deploy.show import show
from tests.command_line import assert_refused, document

WRONG = {
    "unknown network": ("fbnetv3-z", "unknown network 'fbnetv3-z'"),
    "no such file": ("runs/none/det.json", "does not exist"),
}


@pytest.mark.parametrize(("network", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, network: str, message: str) -> None:
    assert_refused(["show", network], message, cwd=tmp_path)


@pytest.mark.parametrize("task", ["cls", "det", "seg"])
def test_show_agrees_with_the_file_and_the_budget(work: Path, task: str) -> None:
    shown = document("show", f"runs/latest/{task}.json", cwd=work)
    stored = json.loads((work / "runs" / "one" / f"{task}.json").read_text())
    assert shown["macs"] == stored["cost"]["macs"]
    assert 0.85 * 15e6 <= shown["macs"] <= 15e6
    assert stored["cost"]["latency_ms"]["value"] > 0


def test_the_table_has_a_row_per_block(capsys: pytest.CaptureFixture[str]) -> None:
    network = show("fbnetv3-a").to_json()
    print_network(network)
    total, header, *rows = capsys.readouterr().out.splitlines()
    assert total == "fbnetv3-a at 224x224: 356.598280M multiply-adds, 8.542224M params"
    assert "output shape" in header
    assert [row.split()[0] for row in rows] == [block["name"] for block in network["blocks"]]


def test_shapes_are_written_as_products() -> None:
    assert (shape_text([16, 56, 56]), shape_text(None)) == ("16x56x56", "")
