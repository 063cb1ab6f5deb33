"""How much time does one branched network save over a network per task, beside its multiply-adds?

The networks are the tree of a run, the tree in which all tasks share every layer, the tree in which they share only
the stem, and one network of the same encoder per task, which run one after the other. All have their heads and random
weights, at the resolution of the run. Each is exported to ONNX in float32 for images of one size and timed by ONNX
Runtime by the protocol of latency tables (``latency/protocol.py``): in one process, in turns, beside a reference
workload that removes the drift of a busy machine.

    python -m benchmarks.branched_latency runs/latest

Expected: the ratio of every tree's time to that of the networks of single tasks is within 10 % of the ratio of their
multiply-adds, and the tree without sharing takes as long as these networks. Some three minutes of one core for five
tasks at 224x224. Prints a table and one JSON line.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.experiment import machine
from export.errors import UserError
from fbnetv5.deploy.profile import Scope
from fbnetv5.deploy.profile_networks import found_networks, networks_to_fit
from fbnetv5.spaces.branching import BranchingSpace
from latency.backends import open_backend
from latency.correction import MeasuredNetwork
from latency.profile import Network, measure_networks
from latency.protocol import Timing

REPETITIONS = 16
TOLERANCE = 0.1
"""Maximum relative difference between a ratio of times and that of multiply-adds."""
TREES = ("all shared", "tree of the run", "only the stem shared")


def trees_of(networks: Sequence[Network]) -> dict[str, Network]:
    """The trees by their names in ``TREES``, from all networks of a run, of which the run's own is the first.

    Raises:
        UserError: the run's tree shares all or nothing.
    """
    shared, separate = min(networks, key=_macs), max(networks, key=_macs)
    if networks[0] in (shared, separate):
        raise UserError("the tasks of this run share all layers or none: its tree is one of the two extremes")
    return dict(zip(TREES, (shared, networks[0], separate), strict=True))


def _macs(network: Network) -> int:
    return network.macs


def alone(scope: Scope, task: str) -> Network:
    """The network of one task: with a single task the space has a single tree.

    Raises:
        UserError: the space is not that of branched networks.
    """
    if not isinstance(scope.space, BranchingSpace):
        raise UserError("this needs a run of fbnetv5 branch")
    space = scope.space.changed(copies=1)
    of_task = Scope(space=space, tasks=(task,), classes=scope.classes, resolution=scope.resolution)
    return networks_to_fit(of_task, 1)[0]


def row(name: str, networks: Sequence[MeasuredNetwork]) -> dict[str, Any]:
    """Times and multiply-adds of networks that run one after the other; "cv" is that of the most variable one."""
    measurements = [network.measurement for network in networks]
    return {
        "name": name,
        "macs": sum(network.macs for network in networks),
        "latency_ms_p50": sum(measurement.latency_ms_median for measurement in measurements),
        "cv": max(measurement.cv for measurement in measurements),
        "runs": min(measurement.runs for measurement in measurements),
    }


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their multiply-adds and times as shares of those of the last row."""
    last = rows[-1]
    return [
        {
            **of_row,
            "share_of_macs": of_row["macs"] / last["macs"],
            "share_of_latency": of_row["latency_ms_p50"] / last["latency_ms_p50"],
        }
        for of_row in rows
    ]


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a line per network."""
    print(f"{'network':>24} {'M macs':>8} {'ms p50':>8} {'cv':>6} {'macs':>7} {'ms':>7}")
    for of_row in rows:
        figures = f"{of_row['macs'] / 1e6:8.1f} {of_row['latency_ms_p50']:8.2f}"
        shares = f"{of_row['share_of_macs']:7.1%} {of_row['share_of_latency']:7.1%}"
        print(f"{of_row['name']:>24} {figures} {of_row['cv']:6.1%} {shares}")


def main(line: Sequence[str] | None = None) -> None:
    """Export, time, print a table and one JSON line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run of fbnetv5 branch")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, help="turns over all networks")
    parser.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime")
    arguments = parser.parse_args(line)
    scope, networks = found_networks(arguments.run)
    singles = {task: alone(scope, task) for task in scope.tasks}
    trees = trees_of(networks)
    timing, backend = Timing(repetitions=arguments.repetitions), open_backend("cpu", threads=arguments.threads)
    measured = measure_networks([*trees.values(), *singles.values()], backend=backend, timing=timing)
    alone_rows = [row(f"{task} alone", [measured[network.key]]) for task, network in singles.items()]
    tree_rows = [row(name, [measured[network.key]]) for name, network in trees.items()]
    together = row(f"{len(singles)} networks, summed", [measured[network.key] for network in singles.values()])
    rows = summarise([*alone_rows, *tree_rows, together])
    print_table(rows)
    of_trees = rows[len(singles) : -1]
    report = {
        "benchmark": "branched_latency",
        "as_expected": all(abs(of["share_of_latency"] / of["share_of_macs"] - 1) <= TOLERANCE for of in of_trees),
        "space": scope.space.label,
        "resolution": scope.resolution,
        "runtime": backend.fingerprint(),
        "timing": asdict(timing),
        **backend.conditions(),
        **machine(arguments.threads),
        "rows": rows,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
