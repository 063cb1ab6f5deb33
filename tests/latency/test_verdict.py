from dataclasses import replace

import pytest

from latency.correction import Correction, Errors, MeasuredNetwork, Report
from latency.protocol import Measurement, Timing
from latency.table import NULL_KEY, LatencyTable
from latency.verdict import verdict


def measured(median: float, cv: float = 0.01) -> Measurement:
    return Measurement(
        latency_ms_median=median, latency_ms_p90=median, latency_ms_p99=median, runs=50, cv=cv, drift=0.01
    )


def errors(mape: float) -> Errors:
    return Errors(mape=mape, bias=0.0, within_5=1.0, within_10=1.0, kendall_tau=1.0)


def judged(table: float, plain: float, flops: float, noise: float) -> LatencyTable:
    """A table of nine equal networks, predicted 20 % too low, with these held-out errors."""
    report = Report(networks=3, predicted=errors(table), isolated=errors(plain), flops=errors(flops), noise=noise)
    return LatencyTable(
        device="cpu",
        fingerprint={},
        timing=Timing(),
        entries={NULL_KEY: measured(0.01), "conv": measured(1.0)},
        networks={
            f"net{number}": MeasuredNetwork(blocks={"conv": 1}, macs=10, measured=measured(1.25)) for number in range(9)
        },
        correction=Correction(latency_ms={"conv": 1.0}, strength=1.0, fitted_on=6, held_out=report),
    )


HEADLINES = [
    ((0.015, 0.1, 0.05, 0.01), "about as close to a network's time as measuring it again"),
    ((0.04, 0.1, 0.05, 0.01), "come close to a network's time"),
    ((0.09, 0.1, 0.5, 0.01), "are rough"),
    ((0.015, 0.1, 0.5, 0.06), "restless machine"),
    ((0.1, 0.02, 0.5, 0.01), "about as close"),
]


@pytest.mark.parametrize(("figures", "headline"), HEADLINES)
def test_the_headline_is_of_the_error_that_counts_beside_the_noise(
    figures: tuple[float, float, float, float], headline: str
) -> None:
    said = verdict(judged(*figures))
    assert headline in said[0]
    assert f"err by {min(figures[:2]):.1%} on average and by 20.0% at worst" in said[1]


def test_a_correction_that_does_not_help_and_a_better_simpler_predictor_are_objected_to() -> None:
    good = " ".join(verdict(judged(0.02, 0.1, 0.05, 0.01)))
    assert "did not help" not in good
    assert "multiply-adds" not in good
    bad = " ".join(verdict(judged(0.1, 0.03, 0.02, 0.01)))
    assert "on 6 networks did not help (10.0% against 3.0%)" in bad
    assert "Counting multiply-adds predicts these networks at least as well" in bad


def test_without_networks_nothing_is_claimed() -> None:
    table = replace(judged(0.02, 0.1, 0.05, 0.01), networks={}, correction=None)
    assert verdict(table)[0] == "Unproven: no whole network was measured."
    unfitted = replace(judged(0.02, 0.1, 0.05, 0.01), correction=None)
    assert verdict(unfitted)[0].startswith("Unproven: too few whole networks")


def test_what_varied_is_named_up_to_a_number() -> None:
    table = judged(0.02, 0.1, 0.05, 0.01)
    assert verdict(table)[-1] == "No measurement varied by more than 10%."
    restless = {f"block{number}": measured(1.0, cv=0.3) for number in range(8)}
    said = verdict(replace(table, entries={**table.entries, **restless}))[-1]
    assert said.endswith("block4, block5 and 2 more.")
    assert "conv" not in said
