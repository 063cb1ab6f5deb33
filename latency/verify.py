"""Holds a table against networks measured now: the proof that its sums are what a network takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latency.correction import Report, proportion, report
from latency.devices import resolve
from latency.profile import Network, measure_networks
from latency.protocol import Progress
from latency.table import LatencyTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """How well a table predicts networks measured now."""

    report: Report
    """Of the networks' times at the speed that the machine had when the table was measured."""
    speed: float
    """How fast the machine is now beside then, by the yardstick; 1.05 is 5 % faster. 1 for a table without one."""

    def to_json(self) -> dict[str, Any]:
        """The form for users."""
        return {**self.report.to_json(), "speed": self.speed}


def verify(path: Path, networks: Sequence[Network], *, progress: Progress | None = None) -> Verified:
    """Measure ``networks`` by the table's own protocol and compare.

    Args:
        path: a table of this machine.
        networks: at least two, none of which the table was fitted on.
        progress: told of the stages "networks: open", "networks: measure" and so on.

    Raises:
        UserError: the table is damaged, of another machine, or lacks a block of a network.
        NotHere: its device is not.
        CheckFailed: a network cannot be exported.
    """
    table = LatencyTable.load(path)
    costs = table.values_ms(dict.fromkeys(key for network in networks for key in network.blocks))
    backend = resolve(table.device, precision=table.precision, threads=table.threads)
    measured, yardstick_ms = measure_networks(
        networks, backend=backend, timing=table.timing, usual_ms=table.yardstick_ms, progress=progress
    )
    known = list(table.networks.values())
    return Verified(
        report=report(costs, table.isolated_ms, measured, ms_per_mac=proportion(known) if known else None),
        speed=(table.yardstick_ms or yardstick_ms) / yardstick_ms,
    )
