"""Holds a table against networks measured now: the proof that its sums are what a network takes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from export.progress import Progress
from latency.correction import Report, proportion, report
from latency.devices import resolve
from latency.profile import Network, anchors_of, measure_networks, speed_of
from latency.table import LatencyTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """How well a table predicts networks measured now."""

    report: Report
    """Of the networks' times at the speed that the machine had when the table was measured."""
    speed: float
    """How fast the machine is now beside then, by networks measured both times; 1.05 is 5 % faster."""

    def to_json(self) -> dict[str, Any]:
        """The form for users."""
        return {**self.report.to_json(), "speed": self.speed}


def verify(
    path: Path, networks: Sequence[Network], known: Sequence[Network] = (), *, progress: Progress | None = None
) -> Verified:
    """Measure ``networks`` by the table's own protocol and compare.

    Args:
        path: a table of this machine.
        networks: at least two, none of which the table was fitted on.
        known: networks of which some are in the table; a dozen of those are measured again, to tell the machine's
            speed from the table's errors. Without any the machine is taken to be as fast as it was.
        progress: told of the stages "networks: open", "networks: measure" and so on.

    Raises:
        UserError: the table is damaged, of another machine, or lacks a block of a network.
        UnavailableError: its device is not.
        VerificationError: a network cannot be exported.
    """
    table = LatencyTable.load(path)
    costs = table.values_ms(dict.fromkeys(key for network in networks for key in network.blocks))
    backend = resolve(table.device, precision=table.precision, threads=table.threads)
    then = {key: network.measured for key, network in table.networks.items()}
    judged = {network.key for network in networks}
    anchors = anchors_of([network for network in known if network.key not in judged], then)
    now = measure_networks([*networks, *anchors.values()], backend=backend, timing=table.timing, progress=progress)
    speed = speed_of(then, {key: now[key].measured for key in anchors})
    at_then = [replace(now[one.key], measured=now[one.key].measured.at_speed(speed)) for one in networks]
    fitted = list(table.networks.values())
    return Verified(
        report=report(costs, table.isolated_ms, at_then, ms_per_mac=proportion(fitted) if fitted else None),
        speed=speed,
    )
