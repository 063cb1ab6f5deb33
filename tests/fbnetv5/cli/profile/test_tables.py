from pathlib import Path

import pytest

from fbnetv5.cli.profile.tables import print_profile
from fbnetv5.deploy.latency_tables import MeasuredTable
from latency.profile import ProfileResult
from latency.table import NULL_KEY, LatencyTable
from tests.contract.stored import STORED


def measured(table: LatencyTable, keys: list[str]) -> MeasuredTable:
    result = ProfileResult(table=table, measured=())
    return MeasuredTable(path=Path("t.json"), report=Path("t.html"), result=result, keys=keys)


def test_a_corrected_table_is_printed_with_its_errors(capsys: pytest.CaptureFixture[str]) -> None:
    table = LatencyTable.load(STORED / "tables" / "cpu-fp32-b1.json", other_machine=True)
    keys = [key for key in table.entries if key != NULL_KEY]
    print_profile(measured(table, keys), as_json=False)
    printed = capsys.readouterr().out
    assert f"t.json: {len(keys)} blocks and {len(table.networks)} whole networks, 0 measured now" in printed
    assert "plain sum of blocks" in printed
    assert printed.splitlines()[-1] == "HTML report: t.html"


def test_without_networks_the_missing_correction_is_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    table = LatencyTable.load(STORED / "tables" / "cpu-fp32-b1.json", other_machine=True)
    bare = table.changed(networks={}, correction=None)
    print_profile(measured(bare, []), as_json=False)
    assert "not corrected, since no whole network was measured" in capsys.readouterr().out
