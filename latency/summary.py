"""The summary of a latency table in sentences: how accurate its sums are, and which reasons speak against it."""

from collections.abc import Sequence

from latency.correction import Correction, Errors, predict_ms, split
from latency.table import LatencyTable

UNSTEADY_NOISE = 0.05
"""Above this mean difference between the repetitions of a network, the machine was not steady."""
NOISE_FACTOR = 2.0
"""Up to this multiple of the measurement noise, predictions are about as accurate as another measurement."""
ACCURATE_ERROR = 0.05
"""Up to this mean error the sums are usable as times; above it only for comparing networks."""

MAX_NAMED = 6
"""Maximum number of unstable measurements that are named."""


def summary(table: LatencyTable) -> list[str]:
    """Summarise how far ``table`` can be trusted, the most important sentence first."""
    if not table.networks:
        return [
            "Not verified: no whole network was measured.",
            "The table adds up standalone blocks, and their sum usually differs from the time of a network. "
            "Profile whole networks too, to correct the blocks and to measure the error of their sums.",
            _steadiness(table),
        ]
    if table.correction is None:
        return [
            "Not verified: too few whole networks were measured to correct the blocks and to check the result.",
            _steadiness(table),
        ]
    return [
        _accuracy(table.correction),
        _error_figures(table, table.correction),
        *_weaknesses(table),
        _steadiness(table),
    ]


def prediction_errors(table: LatencyTable, keys: Sequence[str]) -> dict[str, float]:
    """The relative error of the table's sum for each named network, by key."""
    values = table.values_ms(table.standalone_ms)
    networks = {key: table.networks[key] for key in keys}
    return {
        key: predict_ms(values, network) / network.measurement.latency_ms_median - 1
        for key, network in networks.items()
    }


def _accuracy(correction: Correction) -> str:
    error, noise = _errors_in_use(correction).mape, correction.held_out.noise
    if noise > UNSTEADY_NOISE:
        return (
            "Measured on an unsteady machine: read every figure with care, or profile again when the machine is idle."
        )
    if error <= NOISE_FACTOR * noise:
        return "Sums of this table are about as accurate as measuring a network again."
    if error <= ACCURATE_ERROR:
        return "Sums of this table are close to the time of a network."
    return "Sums of this table are rough: use them to compare networks, not as times."


def _error_figures(table: LatencyTable, correction: Correction) -> str:
    report, errors = correction.held_out, _errors_in_use(correction)
    worst = max(map(abs, prediction_errors(table, split(list(table.networks))[1]).values()))
    return (
        f"On {report.networks} networks that took no part in the fit the mean error is {errors.mape:.1%} and the "
        f"maximum error {worst:.1%}; repetitions of one network differ by {report.noise:.1%}. "
        "These figures apply to networks of this space, on this machine in its state during the profile."
    )


def _weaknesses(table: LatencyTable) -> list[str]:
    """The reasons against using the table; empty if there are none."""
    assert table.correction is not None
    report, errors = table.correction.held_out, _errors_in_use(table.correction)
    weaknesses = []
    if not table.correction.helps:
        weaknesses.append(
            f"Correcting the blocks on {table.correction.fitted_on} networks did not help "
            f"({report.predicted.mape:.1%} against {report.standalone.mape:.1%}), "
            "so the table adds up standalone blocks."
        )
    if report.flops is not None and report.flops.mape <= errors.mape:
        weaknesses.append("A time proportional to multiply-adds predicts these networks at least as well.")
    return weaknesses


def _errors_in_use(correction: Correction) -> Errors:
    """The errors of the values that the table adds up."""
    return correction.held_out.predicted if correction.helps else correction.held_out.standalone


def _steadiness(table: LatencyTable) -> str:
    limit = f"{table.timing.max_cv:.0%}"
    if not table.unstable:
        return f"No measurement varied by more than {limit}."
    shown = ", ".join(table.unstable[:MAX_NAMED])
    more = f" and {len(table.unstable) - MAX_NAMED} more" if len(table.unstable) > MAX_NAMED else ""
    return f"Varied by more than {limit}, after the further repetitions too: {shown}{more}."
