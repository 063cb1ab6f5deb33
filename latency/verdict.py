"""What a table's figures mean, in sentences: how far its sums can be trusted, and what speaks against it."""

from collections.abc import Sequence

from latency.correction import Correction, Errors, predict_ms, split
from latency.table import LatencyTable

RESTLESS = 0.05
"""Where networks' own repeats differ by more than this on average, the machine was not steady."""
AS_GOOD = 2.0
"""Predictions err hardly more than another measurement would, up to this many times the repeats' difference."""
CLOSE = 0.05
"""Mean error up to which sums serve as times; above it, to compare networks at most."""

NAMED = 6
"""At most so many unstable measurements are named."""


def verdict(table: LatencyTable) -> list[str]:
    """Sentences for who considers using ``table``, the most important first."""
    if not table.networks:
        return [
            "Unproven: no whole network was measured.",
            "The table adds up blocks timed alone, which as a rule is not what a network takes. "
            "Profile whole networks too, to correct the blocks and to see how far their sums are off.",
            _steadiness(table),
        ]
    if table.correction is None:
        return [
            "Unproven: too few whole networks were measured to correct the blocks and to check the result.",
            _steadiness(table),
        ]
    return [_judgement(table.correction), _errors(table, table.correction), *_objections(table), _steadiness(table)]


def prediction_errors(table: LatencyTable, names: Sequence[str]) -> dict[str, float]:
    """By name of a measured network: how far the table's sum is from its time, as a fraction of it."""
    values = table.values_ms(table.isolated_ms)
    networks = {name: table.networks[name] for name in names}
    return {name: predict_ms(values, one) / one.measured.latency_ms_median - 1 for name, one in networks.items()}


def _judgement(correction: Correction) -> str:
    error, noise = _used(correction).mape, correction.held_out.noise
    if noise > RESTLESS:
        return "Measured on a restless machine: read every figure with care, or profile again when it is idle."
    if error <= AS_GOOD * noise:
        return "Sums of this table come about as close to a network's time as measuring it again."
    if error <= CLOSE:
        return "Sums of this table come close to a network's time."
    return "Sums of this table are rough: use them to compare networks, not as times."


def _errors(table: LatencyTable, correction: Correction) -> str:
    found, used = correction.held_out, _used(correction)
    worst = max(map(abs, prediction_errors(table, split(list(table.networks))[1]).values()))
    return (
        f"On {found.networks} networks that took no part in the fit they err by {used.mape:.1%} on average and by "
        f"{worst:.1%} at worst; a network's own repeats differ by {found.noise:.1%}. "
        "This holds for networks of this space, on this machine as it ran then."
    )


def _objections(table: LatencyTable) -> list[str]:
    """What an expectation would be disappointed by; nothing if all is as it should be."""
    assert table.correction is not None
    found, used = table.correction.held_out, _used(table.correction)
    objections = []
    if not table.correction.helps:
        objections.append(
            f"Correcting the blocks on {table.correction.fitted_on} networks did not help "
            f"({found.predicted.mape:.1%} against {found.isolated.mape:.1%}), so the table adds up blocks timed alone."
        )
    if found.flops is not None and found.flops.mape <= used.mape:
        objections.append("Counting multiply-adds predicts these networks at least as well.")
    return objections


def _used(correction: Correction) -> Errors:
    """Errors of the values that the table adds up."""
    return correction.held_out.predicted if correction.helps else correction.held_out.isolated


def _steadiness(table: LatencyTable) -> str:
    limit = f"{table.timing.max_cv:.0%}"
    if not table.unstable:
        return f"No measurement varied by more than {limit}."
    shown = ", ".join(table.unstable[:NAMED])
    more = f" and {len(table.unstable) - NAMED} more" if len(table.unstable) > NAMED else ""
    return f"Varied by more than {limit}, for all their further rounds: {shown}{more}."
