"""Converts the content of files of earlier schemas to the current one: tables, bundles and their results.

Table schema 2 and bundle schema 1 (version 0.1.0) had other names for some fields, and no task beside a network: its
task was the beginning of the network's key, such as "det@224x224_1a2b3c". Estimated tables of schemas 1 and 2 had no
kernel floor, and did not count kernels.
"""

from collections.abc import Mapping
from typing import Any

_TIMING = {"repeats": "repetitions", "yardstick_ms": "reference_ms"}
_FINGERPRINT = {"processor": "device_name"}
_NETWORK = {"measured": "measurement"}
_REPORT = {"isolated": "standalone"}


def upgrade_table(content: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the content of a measured table of schema 2."""
    correction = content["correction"]
    if correction is not None:
        correction = _with_renamed_report(correction)
    return {
        **content,
        "kind": "measured",
        "fingerprint": _renamed(content["fingerprint"], _FINGERPRINT),
        "timing": _renamed(content["timing"], _TIMING),
        "networks": _upgraded_networks(content["networks"]),
        "correction": correction,
    }


def upgrade_estimated_table(content: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the content of an estimated table of schema 1 or 2."""
    return {
        **content,
        "kind": "estimated",
        "kernel_floor_us": 0.0,
        "kernel_floor_source": "none",
        "entries": _without_kernel_counts(content.get("entries")),
    }


def upgrade_bundle(content: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the content of a ``bundle.json`` of schema 1."""
    return {
        **content,
        "timing": _renamed(content["timing"], _TIMING),
        "graphs": [_upgraded_graph(graph) for graph in content["graphs"]],
    }


def upgrade_results(content: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the content of a ``results.json`` of schema 1."""
    return {**content, "fingerprint": _renamed(content["fingerprint"], _FINGERPRINT)}


def _upgraded_networks(networks: Any) -> Any:
    if not isinstance(networks, Mapping):
        return networks
    return {
        key: {**_renamed(network, _NETWORK), "task": _task_of_key(key)} if isinstance(network, Mapping) else network
        for key, network in networks.items()
    }


def _without_kernel_counts(entries: Any) -> Any:
    if not isinstance(entries, Mapping):
        return entries
    return {key: {**entry, "kernels": None} if isinstance(entry, Mapping) else entry for key, entry in entries.items()}


def _with_renamed_report(correction: Any) -> Any:
    if not isinstance(correction, Mapping):
        return correction
    return {**correction, "held_out": _renamed(correction.get("held_out"), _REPORT)}


def _upgraded_graph(graph: Mapping[str, Any]) -> dict[str, Any]:
    kind = "reference" if graph["kind"] == "yardstick" else graph["kind"]
    return {**graph, "kind": kind, "task": _task_of_key(graph["key"]) if kind == "network" else ""}


def _task_of_key(key: str) -> str:
    return key.partition("@")[0]


def _renamed(record: Any, names: Mapping[str, str]) -> Any:
    """An object with other names of its fields; any other value as it is, for the check that follows."""
    if not isinstance(record, Mapping):
        return record
    return {names.get(name, name): value for name, value in record.items()}
