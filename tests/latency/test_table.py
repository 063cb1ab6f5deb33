import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from latency import checksum
from latency.checksum import write_checksummed
from latency.correction import Correction, ErrorReport, Errors, MeasuredNetwork
from latency.devices import resolve
from latency.protocol import Measurement, Timing
from latency.table import NULL_KEY, LatencyTable, measured_tables, table_path


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


def corrected(mape: float, standalone: float) -> LatencyTable:
    """The table with a correction of that held-out error, beside that of the plain sum."""
    report = ErrorReport(networks=3, predicted=errors(mape), standalone=errors(standalone), flops=None, noise=0.01)
    costs = {"conv@56": 1.2, "pool@56": 0.125}
    return TABLE.changed(
        entries={**TABLE.entries, NULL_KEY: measured(0.01)},
        networks={"net": MeasuredNetwork(task="det", blocks={"conv@56": 2}, macs=10, measurement=measured(2.4))},
        correction=Correction(latency_ms=costs, strength=0.01, fitted_on=6, held_out=report),
    )


def edited(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite_checksum(path: Path) -> None:
    """Make the checksum fit the edited content, so that only the values can be wrong."""
    document = json.loads(path.read_text())
    content = {name: value for name, value in document.items() if name not in ("schema", "sha256")}
    edited(path, sha256=checksum._checksum(content))


def test_total_adds_medians_as_often_as_a_key_is_given() -> None:
    assert TABLE.total_ms(["conv@56", "conv@56", "pool@56"]) == 3.25


def test_corrected_values_are_used_where_the_correction_helps() -> None:
    keys = ["conv@56", "pool@56"]
    assert (corrected(0.01, 0.05).values_kind, corrected(0.01, 0.05).total_ms(keys)) == ("corrected", 1.325)
    assert (corrected(0.05, 0.01).values_kind, corrected(0.05, 0.01).total_ms(keys)) == ("standalone", 1.75)
    assert (TABLE.values_kind, TABLE.total_ms(keys)) == ("standalone", 1.75)
    assert corrected(0.01, 0.05).standalone_ms == TABLE.standalone_ms


def test_the_empty_graph_is_not_a_block() -> None:
    table = corrected(0.01, 0.05)
    assert table.overhead_ms == 0.01
    with pytest.raises(UserError, match="1 of 1 blocks have no entry"):
        table.values_ms([NULL_KEY])


def test_the_error_for_missing_blocks_has_count_first_block_and_command() -> None:
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
        ({"fitted_on": 0}, "correction.fitted_on: must be greater than or equal to 1, not 0"),
        (
            {"latency_ms": {"conv@56": -1.0}},
            "correction.latency_ms.conv@56: must be greater than or equal to 0, not -1.0",
        ),
        ({"held_out": None}, "correction.held_out: must be a valid dictionary"),
    ],
)
def test_a_wrong_correction_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "t.json"
    corrected(0.01, 0.05).save(path)
    edited(path, correction={**json.loads(path.read_text())["correction"], **changes})
    rewrite_checksum(path)
    with pytest.raises(UserError, match=message):
        LatencyTable.load(path, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latency_ms_median": 0.0}, r"latency_ms_median: must be greater than 0, not 0\.0"),
        ({"latency_ms_median": -1.0}, "latency_ms_median: must be greater than 0"),
        ({"latency_ms_p90": float("nan")}, "latency_ms_p90: must be a finite number, not nan"),
        ({"latency_ms_p99": float("inf")}, "latency_ms_p99: must be a finite number, not inf"),
        ({"latency_ms_median": "1.5"}, "latency_ms_median: must be a valid number, not '1.5'"),
        ({"latency_ms_median": True}, "latency_ms_median: must be a valid number, not True"),
        ({"runs": 0}, "runs: must be greater than or equal to 1, not 0"),
        ({"unit": "us"}, "unit"),
    ],
)
def test_a_wrong_entry_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "t.json"
    TABLE.save(path)
    entries = json.loads(path.read_text())["entries"]
    edited(path, entries={**entries, "conv@56": {**entries["conv@56"], **changes}})
    rewrite_checksum(path)
    with pytest.raises(UserError, match=f"t.json is damaged: latency table: .*entries.conv@56.{message}"):
        LatencyTable.load(path, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": None}, "device: must be a valid string"),
        ({"timing": {}}, "timing.repetitions is missing"),
        ({"timing": {**asdict(Timing()), "repetitions": 1}}, "at least 2 repetitions"),
        ({"entries": []}, "entries: must be a valid dictionary"),
        ({"correction": 1.1}, "correction: must be a valid dictionary"),
        ({"networks": None}, "networks: must be a valid dictionary"),
        ({"networks": {"n": {}}}, "networks.n.task is missing"),
        ({"conditions": {}}, "conditions: must be a valid tuple"),
    ],
)
def test_a_wrong_document_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "t.json"
    TABLE.save(path)
    edited(path, **changes)
    rewrite_checksum(path)
    with pytest.raises(UserError, match=f"t.json is damaged: .*{message}"):
        LatencyTable.load(path, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 1}, "reads schema 2 and 3"),
        ({"threads": 2}, "was edited or damaged: checksums differ"),
        ({"sha256": None}, "has no checksum"),
        ({"scale": 1.1}, "checksums differ"),
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


def test_blocks_of_the_table_of_another_machine_cannot_be_mixed_in(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    TABLE.save(ours)
    TABLE.changed(device="a100", entries={"other@56": measured(0.1)}).save(theirs)
    entries = [json.loads(path.read_text())["entries"] for path in (ours, theirs)]
    edited(ours, entries=entries[0] | entries[1])
    with pytest.raises(UserError, match="checksums differ"):
        LatencyTable.load(ours, device="cpu", other_machine=True)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    TABLE.save(path)
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 97):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="damaged or half-written"):
            LatencyTable.load(path, device="cpu")


@pytest.mark.parametrize(("name", "value"), [("device_name", "Other 9000"), ("runtime_version", "0.1"), ("threads", 7)])
def test_a_table_of_another_machine_is_refused_unless_allowed(tmp_path: Path, name: str, value: str | int) -> None:
    path = tmp_path / "t.json"
    table = TABLE.changed(fingerprint={**TABLE.fingerprint, name: value})
    table.save(path)
    with pytest.raises(UserError, match=f"another machine: {name} is {value!r} there.*--table"):
        LatencyTable.load(path, device="cpu")
    assert LatencyTable.load(path, device="cpu", other_machine=True) == table


def test_a_table_must_have_the_file_name_of_its_settings(tmp_path: Path) -> None:
    path = table_path(tmp_path, "cpu", threads=2)
    two = TABLE.changed(threads=2, fingerprint=resolve("cpu", threads=2).fingerprint())
    two.save(path)
    assert path.name == "cpu-fp32-b1-t2.json"
    assert LatencyTable.load(path).check_name(path) == two
    path.rename(tmp_path / "cpu-fp32-b1.json")
    with pytest.raises(UserError, match="contains the table cpu-fp32-b1-t2, with another runtime, precision, batch"):
        LatencyTable.load(tmp_path / "cpu-fp32-b1.json").check_name(tmp_path / "cpu-fp32-b1.json")


def test_a_table_of_a_remote_gpu_is_read_on_a_machine_without_it(tmp_path: Path) -> None:
    path = table_path(tmp_path, "a100", "fp16", 8)
    TABLE.changed(device="a100", precision="fp16", batch=8, fingerprint={}).save(path)
    assert path.name == "a100-fp16-b8.json"
    assert LatencyTable.load(path, device="a100", other_machine=True).total_ms(["conv@56"]) == 1.5
    with pytest.raises(UserError, match="of device 'a100', not 'cpu'"):
        LatencyTable.load(path, device="cpu", other_machine=True)


def test_a_table_of_schema_2_is_upgraded(tmp_path: Path) -> None:
    stored = Path(__file__).parent.parent / "data" / "v1" / "tables" / "cpu-fp32-b1.json"
    table = LatencyTable.load(stored, other_machine=True)
    document = json.loads(stored.read_text())
    assert table.fingerprint["device_name"] == document["fingerprint"]["processor"]
    assert (table.timing, table.kind) == (Timing(), "measured")
    assert {key: network.task for key, network in table.networks.items()} == {
        key: key.partition("@")[0] for key in document["networks"]
    }
    assert table.correction is not None
    assert table.correction.held_out.standalone.mape == document["correction"]["held_out"]["isolated"]["mape"]
    table.save(tmp_path / "t.json")
    assert LatencyTable.load(tmp_path / "t.json", other_machine=True) == table


def test_measured_tables_of_a_device_are_found_without_the_estimated(tmp_path: Path) -> None:
    for name, document in {
        "orin-fp16-b1": {"schema": 2},
        "orin-int8-b1": {"kind": "measured"},
        "orin-int8-b1-estimated": {"schema": 1, "peak_tflops": 1.0},
        "orin-fp16-b1-estimated": {"kind": "estimated"},
        "orin-torch-fp16-b1": {"kind": "measured", "fingerprint": {"runtime": "torch"}},
        "orin-fp16-b8": {"kind": "measured", "fingerprint": None},
        "a100-fp16-b1": {"kind": "measured"},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    assert [path.stem for path in measured_tables(tmp_path, "orin")] == ["orin-fp16-b1", "orin-int8-b1"]


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "estimated", "entries": {}},
        {"fingerprint": {}, "latency_ms": {}},
        {"kind": "measured"},
        {"kind": "measured", "entries": {}, "networks": {}, "timing": {}, "correction": None},
    ],
    ids=["estimated", "results of a bundle", "half", "of no machine"],
)
@pytest.mark.parametrize("schema", [2, 3])
def test_checksummed_files_of_another_kind_are_refused(content: dict[str, Any], schema: int, tmp_path: Path) -> None:
    write_checksummed(tmp_path / "t.json", content, schema=schema)
    with pytest.raises(UserError, match=r"t\.json is not a measured latency table"):
        LatencyTable.load(tmp_path / "t.json")


@pytest.mark.parametrize("name", ["fingerprint", "timing", "networks", "correction"])
def test_a_checksummed_table_of_schema_2_with_an_odd_value_is_refused(name: str, tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "device": "cpu",
        "entries": {},
        "networks": {},
        "timing": {},
        "correction": None,
        "fingerprint": {},
    }
    write_checksummed(tmp_path / "t.json", content | {name: 3}, schema=2)
    with pytest.raises(UserError, match=r"t\.json is damaged: "):
        LatencyTable.load(tmp_path / "t.json")


def test_a_file_without_a_checksum_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"schema": 3, "space": {}}', encoding="utf-8")
    with pytest.raises(UserError, match=r"t\.json is not a latency table, or it is damaged: it has no checksum"):
        LatencyTable.load(tmp_path / "t.json")
