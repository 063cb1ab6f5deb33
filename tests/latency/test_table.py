import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from latency import parsing
from latency.correction import Correction, Errors, MeasuredNetwork, Report
from latency.devices import resolve
from latency.protocol import Measurement, Timing
from latency.table import NULL_KEY, LatencyTable, table_path


def measured(median: float) -> Measurement:
    return Measurement(
        latency_ms_median=median, latency_ms_p90=median * 1.1, latency_ms_p99=median * 1.2, runs=50, cv=0.01, drift=0.02
    )


TABLE = LatencyTable(
    device="cpu",
    fingerprint=resolve("cpu").fingerprint(),
    timing=Timing(),
    entries={"conv@56": measured(1.5), "pool@56": measured(0.25)},
)


def errors(mape: float) -> Errors:
    return Errors(mape=mape, bias=-mape, within_5=1.0, within_10=1.0, kendall_tau=0.9)


def corrected(mape: float, isolated: float) -> LatencyTable:
    """The table with a correction of that held-out error, beside that of the plain sum."""
    report = Report(networks=3, predicted=errors(mape), isolated=errors(isolated), flops=None, noise=0.01)
    costs = {"conv@56": 1.2, "pool@56": 0.125}
    return replace(
        TABLE,
        entries={**TABLE.entries, NULL_KEY: measured(0.01)},
        networks={"net": MeasuredNetwork(blocks={"conv@56": 2}, macs=10, measured=measured(2.4))},
        correction=Correction(latency_ms=costs, strength=0.01, fitted_on=6, held_out=report),
    )


def edited(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def sealed_anew(path: Path) -> None:
    """Make the checksum fit what the file holds, so that nothing but the values themselves can be wrong."""
    document = json.loads(path.read_text())
    content = {name: value for name, value in document.items() if name not in ("schema", "sha256")}
    edited(path, sha256=parsing._checksum(content))


def test_total_adds_medians_as_often_as_a_key_is_given() -> None:
    assert TABLE.total_ms(["conv@56", "conv@56", "pool@56"]) == 3.25


def test_a_correction_counts_where_it_helps_and_the_plain_sum_where_not() -> None:
    keys = ["conv@56", "pool@56"]
    assert (corrected(0.01, 0.05).kind, corrected(0.01, 0.05).total_ms(keys)) == ("corrected", 1.325)
    assert (corrected(0.05, 0.01).kind, corrected(0.05, 0.01).total_ms(keys)) == ("isolated", 1.75)
    assert (TABLE.kind, TABLE.total_ms(keys)) == ("isolated", 1.75)
    assert corrected(0.01, 0.05).isolated_ms == TABLE.isolated_ms


def test_a_call_that_does_nothing_is_no_block() -> None:
    table = corrected(0.01, 0.05)
    assert table.overhead_ms == 0.01
    with pytest.raises(UserError, match="1 of 1 blocks have no entry"):
        table.values_ms([NULL_KEY])


def test_missing_blocks_are_counted_the_first_named_and_the_command_given() -> None:
    message = r"2 of 3 blocks have no entry in the cpu table, first: a\. .*fbnetv5 profile --device cpu"
    with pytest.raises(UserError, match=message):
        TABLE.total_ms(["conv@56", "a", "b", "a"])


def test_a_saved_table_is_loaded_again(tmp_path: Path) -> None:
    path = table_path(tmp_path, "cpu")
    TABLE.save(path)
    assert path.name == "cpu-fp32-b1.json"
    assert LatencyTable.load(path, device="cpu") == TABLE


def test_a_corrected_table_is_loaded_again(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    corrected(0.01, 0.05).save(path)
    assert LatencyTable.load(path, device="cpu") == corrected(0.01, 0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fitted_on": 0}, "'correction' in latency table .* is 0, where a whole number"),
        ({"latency_ms": {"conv@56": -1.0}}, "block 'conv@56' of 'correction' .* is -1.0"),
        ({"held_out": None}, "'correction' .* is not an object of"),
    ],
)
def test_a_wrong_correction_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "t.json"
    corrected(0.01, 0.05).save(path)
    edited(path, correction={**json.loads(path.read_text())["correction"], **changes})
    sealed_anew(path)
    with pytest.raises(UserError, match=message):
        LatencyTable.load(path, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
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
def test_a_wrong_entry_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "t.json"
    TABLE.save(path)
    entries = json.loads(path.read_text())["entries"]
    edited(path, entries={**entries, "conv@56": {**entries["conv@56"], **changes}})
    sealed_anew(path)
    with pytest.raises(UserError, match=message):
        LatencyTable.load(path, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": None}, "'device' in latency table"),
        ({"timing": {}}, "'timing' in latency table"),
        ({"entries": []}, "'entries' in latency table"),
        ({"correction": 1.1}, "'correction' in latency table .* is not an object of"),
        ({"networks": None}, "'networks' in latency table"),
        ({"conditions": {}}, "'conditions' in latency table .* is not a list"),
    ],
)
def test_a_wrong_document_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "t.json"
    TABLE.save(path)
    edited(path, **changes)
    sealed_anew(path)
    with pytest.raises(UserError, match=message):
        LatencyTable.load(path, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 1}, "reads schema 2"),
        ({"threads": 2}, "was edited or damaged: checksums differ"),
        ({"sha256": None}, "checksums differ"),
        ({"scale": 1.1}, "does not know 'scale'"),
    ],
)
def test_an_edited_table_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "t.json"
    TABLE.save(path)
    edited(path, **changes)
    with pytest.raises(UserError, match=message):
        LatencyTable.load(path, device="cpu")


@pytest.mark.parametrize("places", [("entries", "conv@56", "latency_ms_median"), ("correction", "strength")])
def test_an_edited_figure_is_refused(tmp_path: Path, places: tuple[str, ...]) -> None:
    path = tmp_path / "t.json"
    corrected(0.01, 0.05).save(path)
    document = json.loads(path.read_text())
    *outer, last = places
    inner = document
    for place in outer:
        inner = inner[place]
    inner[last] *= 0.99
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match="was edited or damaged: checksums differ"):
        LatencyTable.load(path, device="cpu")


def test_blocks_of_another_machines_table_cannot_be_mixed_in(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    TABLE.save(ours)
    replace(TABLE, device="a100", entries={"other@56": measured(0.1)}).save(theirs)
    entries = [json.loads(path.read_text())["entries"] for path in (ours, theirs)]
    edited(ours, entries=entries[0] | entries[1])
    with pytest.raises(UserError, match="checksums differ"):
        LatencyTable.load(ours, device="cpu", foreign=True)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    TABLE.save(path)
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 97):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="damaged or half-written"):
            LatencyTable.load(path, device="cpu")


@pytest.mark.parametrize(("name", "value"), [("processor", "Other 9000"), ("runtime_version", "0.1"), ("threads", 7)])
def test_what_was_measured_elsewhere_is_refused_unless_meant(tmp_path: Path, name: str, value: str | int) -> None:
    path = tmp_path / "t.json"
    foreign = replace(TABLE, fingerprint={**TABLE.fingerprint, name: value})
    foreign.save(path)
    with pytest.raises(UserError, match=f"another machine: {name} is {value!r} there.*--table"):
        LatencyTable.load(path, device="cpu")
    assert LatencyTable.load(path, device="cpu", foreign=True) == foreign


def test_a_table_is_kept_under_what_it_is(tmp_path: Path) -> None:
    path = table_path(tmp_path, "cpu", threads=2)
    two = replace(TABLE, threads=2, fingerprint=resolve("cpu", threads=2).fingerprint())
    two.save(path)
    assert path.name == "cpu-fp32-b1-t2.json"
    assert LatencyTable.load_kept(path) == two
    path.rename(tmp_path / "cpu-fp32-b1.json")
    with pytest.raises(UserError, match="holds the table cpu-fp32-b1-t2, another precision, batch or thread count"):
        LatencyTable.load_kept(tmp_path / "cpu-fp32-b1.json")


def test_a_foreign_gpus_table_serves_where_that_gpu_is_not(tmp_path: Path) -> None:
    path = table_path(tmp_path, "a100", "fp16", 8)
    replace(TABLE, device="a100", precision="fp16", batch=8, fingerprint={}).save(path)
    assert path.name == "a100-fp16-b8.json"
    assert LatencyTable.load(path, device="a100", foreign=True).total_ms(["conv@56"]) == 1.5
    with pytest.raises(UserError, match="of device 'a100', not 'cpu'"):
        LatencyTable.load(path, device="cpu", foreign=True)
