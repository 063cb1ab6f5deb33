"""Holds a table against networks measured now: the proof that its sums are what a network takes."""

from collections.abc import Sequence
from pathlib import Path

from latency.correction import Report, proportion, report
from latency.profile import Network, measure_networks
from latency.protocol import Progress
from latency.table import LatencyTable


def verify(path: Path, networks: Sequence[Network], *, progress: Progress | None = None) -> Report:
    """Measure ``networks`` by the table's own protocol and compare.

    Args:
        path: a table of this machine.
        networks: at least two, none of which the table was fitted on.
        progress: told of the stages "networks: export", "networks: measure" and so on.

    Raises:
        UserError: the table is damaged, of another machine, or lacks a block of a network.
        CheckFailed: a network cannot be exported.
    """
    table = LatencyTable.load(path)
    costs = table.values_ms(dict.fromkeys(key for network in networks for key in network.blocks))
    measured = measure_networks(networks, timing=table.timing, threads=table.threads, progress=progress)
    known = list(table.networks.values())
    return report(costs, table.isolated_ms, measured, ms_per_mac=proportion(known) if known else None)
