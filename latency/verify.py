"""Compares the sums of a table with the latencies of whole networks measured now."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from export.errors import UserError
from export.progress import Progress
from latency.backends import open_backend
from latency.correction import ErrorReport, error_report, proportion, split
from latency.profile import Network, measure_networks, pick_remeasured, relative_speed
from latency.table import LatencyTable

MIN_COMPARED = 2
"""Networks that an error report needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How well a table predicts networks measured now."""

    report: ErrorReport
    """Errors, with the networks' times scaled to the speed of the machine when the table was measured."""
    speed: float | None
    """Speed of the machine now relative to then, by networks measured both times; 1.05 is 5 % faster. None if there
    are no such networks: then times are not scaled."""

    def to_json(self) -> dict[str, Any]:
        """The verification as ``--json`` prints it."""
        return {**self.report.to_json(), "speed": self.speed}


def verify(
    table: LatencyTable,
    networks: Sequence[Network],
    earlier: Sequence[Network] = (),
    *,
    progress: Progress | None = None,
) -> Verification:
    """Measure ``networks`` by the protocol of the table and compare.

    Args:
        table: a table of this machine.
        networks: those that the table was fitted on are left out.
        earlier: networks that may be in the table; up to a dozen of those in it are measured again, to separate the
            speed of the machine from the errors of the table. Without any the machine is assumed to be as fast as then.
        progress: called in the stages "networks: open", "networks: measure" and so on.

    Raises:
        UserError: the table lacks a block of a network, or was fitted on all but one of them or on all.
        UnavailableError: the device of the table is not on this machine.
        VerificationError: a network cannot be exported.
    """
    stored = list(table.networks.items())
    fitted = dict(stored if table.correction is None else split(stored)[0])
    if table.correction is not None:
        networks = [network for network in networks if network.key not in fitted]
    if len(networks) < MIN_COMPARED:
        raise UserError(
            f"of these networks {len(networks)} took no part in the fit of the table, and at least {MIN_COMPARED} are "
            "needed to verify it. Verify it on fresh networks, without --run"
        )
    costs = table.values_ms(key for network in networks for key in network.blocks)
    measurements = {key: network.measurement for key, network in table.networks.items()}
    keys = {network.key for network in networks}
    remeasured = pick_remeasured([network for network in earlier if network.key not in keys], measurements)
    opened = open_backend(table.device, runtime=table.runtime, precision=table.precision, threads=table.threads)
    with closing(opened) as backend:
        measured = [*networks, *remeasured.values()]
        now = measure_networks(measured, backend=backend, timing=table.timing, progress=progress)
    speed = relative_speed(measurements, {key: now[key].measurement for key in remeasured})
    scaled = [
        now[network.key].model_copy(update={"measurement": now[network.key].measurement.at_speed(speed)})
        for network in networks
    ]
    return Verification(
        report=error_report(
            costs, table.standalone_ms, scaled, ms_per_mac=proportion([*fitted.values()]) if fitted else None
        ),
        speed=speed if remeasured else None,
    )
