"""Files of earlier schemas; ``tests/latency/test_table.py`` and ``tests/contract`` read whole stored files."""

from typing import Any

from latency.upgrade import upgrade_bundle, upgrade_estimated_table, upgrade_results, upgrade_table

OLD_TIMING = {"repeats": 10, "warmup_ms": 10.0, "yardstick_ms": 20.0}
TIMING = {"repetitions": 10, "warmup_ms": 10.0, "reference_ms": 20.0}


def test_the_fields_of_a_table_are_renamed_and_a_networks_task_is_stored() -> None:
    old = {
        "device": "cpu",
        "fingerprint": {"processor": "Some 9000", "cores": 2},
        "timing": OLD_TIMING,
        "networks": {"det@224x224_ab12": {"blocks": {}, "macs": 1, "measured": {}}},
        "correction": {"strength": 1.0, "held_out": {"isolated": {}, "predicted": {}}},
    }
    assert upgrade_table(old) == {
        "kind": "measured",
        "device": "cpu",
        "fingerprint": {"device_name": "Some 9000", "cores": 2},
        "timing": TIMING,
        "networks": {"det@224x224_ab12": {"task": "det", "blocks": {}, "macs": 1, "measurement": {}}},
        "correction": {"strength": 1.0, "held_out": {"standalone": {}, "predicted": {}}},
    }
    assert upgrade_table({**old, "correction": None})["correction"] is None


def test_an_estimated_table_gets_its_kind_and_a_floor_of_0() -> None:
    assert upgrade_estimated_table({"device": "orin", "entries": {"conv@8": {"macs": 1}}}) == {
        "device": "orin",
        "kind": "estimated",
        "kernel_floor_us": 0.0,
        "kernel_floor_source": "none",
        "entries": {"conv@8": {"macs": 1, "kernels": None}},
    }


def test_the_graphs_of_a_bundle_get_a_task() -> None:
    graphs: list[dict[str, Any]] = [
        {"key": "yardstick", "kind": "yardstick"},
        {"key": "conv@8", "kind": "block"},
        {"key": "seg@64x64_cd34", "kind": "network"},
    ]
    upgraded = upgrade_bundle({"timing": OLD_TIMING, "graphs": graphs})
    assert upgraded["timing"] == TIMING
    assert [(graph["kind"], graph["task"]) for graph in upgraded["graphs"]] == [
        ("reference", ""),
        ("block", ""),
        ("network", "seg"),
    ]


def test_the_fingerprint_of_results_is_renamed() -> None:
    assert upgrade_results({"fingerprint": {"processor": "x"}})["fingerprint"] == {"device_name": "x"}
