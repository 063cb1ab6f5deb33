import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from latency.devices import resolve
from latency.protocol import Measurement, Timing
from latency.table import LatencyTable, table_path


def measured(median: float) -> Measurement:
    return Measurement(
        latency_ms_median=median, latency_ms_p90=median * 1.1, latency_ms_p99=median * 1.2, runs=50, cv=0.01, drift=0.02
    )


TABLE = LatencyTable(
    device="cpu",
    fingerprint=resolve("cpu").fingerprint(threads=1),
    timing=Timing(),
    entries={"conv@56": measured(1.5), "pool@56": measured(0.25)},
)


def edited(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_total_adds_medians_as_often_as_a_key_is_given() -> None:
    assert TABLE.total_ms(["conv@56", "conv@56", "pool@56"]) == 3.25


def test_missing_blocks_are_counted_the_first_named_and_the_command_given() -> None:
    message = r"2 of 3 blocks have no entry in the cpu table, first: a\. .*fbnetv5 profile --device cpu"
    with pytest.raises(UserError, match=message):
        TABLE.total_ms(["conv@56", "a", "b", "a"])


def test_a_saved_table_is_loaded_again(tmp_path: Path) -> None:
    path = table_path(tmp_path, "cpu")
    TABLE.save(path)
    assert path.name == "cpu-fp32-b1.json"
    assert LatencyTable.load(path, device="cpu") == TABLE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latency_ms_median": 1.4}, "was edited or damaged: checksums differ"),
        ({"latency_ms_median": 0.0}, r"block 'conv@56' in latency table .* is 0\.0, where a positive finite"),
        ({"latency_ms_median": -1.0}, "block 'conv@56'"),
        ({"latency_ms_p90": float("nan")}, "block 'conv@56' .* is nan"),
        ({"latency_ms_p99": float("inf")}, "block 'conv@56' .* is inf"),
        ({"latency_ms_median": "1.5"}, "block 'conv@56' .* is '1.5'"),
        ({"latency_ms_median": True}, "block 'conv@56' .* is True"),
        ({"runs": 0}, "block 'conv@56' .* is 0, where a whole number"),
        ({"unit": "us"}, "block 'conv@56' .* is not an object of"),
    ],
)
def test_an_edited_entry_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "t.json"
    TABLE.save(path)
    entries = json.loads(path.read_text())["entries"]
    edited(path, entries={**entries, "conv@56": {**entries["conv@56"], **changes}})
    with pytest.raises(UserError, match=message):
        LatencyTable.load(path, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "reads schema 1"),
        ({"device": None}, "'device' in latency table"),
        ({"timing": {}}, "'timing' in latency table"),
        ({"entries": []}, "'entries' in latency table"),
        ({"threads": 2}, "checksums differ"),
        ({"correction": 1.1}, "'correction' in latency table .* is not an object of"),
        ({"scale": 1.1}, "does not know 'scale'"),
        ({"networks": None}, "'networks' in latency table"),
        ({"sha256": None}, "checksums differ"),
    ],
)
def test_an_edited_document_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "t.json"
    TABLE.save(path)
    edited(path, **changes)
    with pytest.raises(UserError, match=message):
        LatencyTable.load(path, device="cpu")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    TABLE.save(path)
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 97):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="damaged or half-written"):
            LatencyTable.load(path, device="cpu")


def test_another_machines_table_is_refused_unless_meant(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    foreign = replace(TABLE, fingerprint={**TABLE.fingerprint, "processor": "Other 9000"})
    foreign.save(path)
    with pytest.raises(UserError, match="another machine: processor is 'Other 9000' there"):
        LatencyTable.load(path, device="cpu")
    assert LatencyTable.load(path, device="cpu", foreign=True) == foreign


def test_a_foreign_gpus_table_serves_where_that_gpu_is_not(tmp_path: Path) -> None:
    path = table_path(tmp_path, "a100", "fp16", 8)
    replace(TABLE, device="a100", precision="fp16", batch=8, fingerprint={}).save(path)
    assert path.name == "a100-fp16-b8.json"
    assert LatencyTable.load(path, device="a100", foreign=True).total_ms(["conv@56"]) == 1.5
    with pytest.raises(UserError, match="of device 'a100', not 'cpu'"):
        LatencyTable.load(path, device="cpu", foreign=True)
