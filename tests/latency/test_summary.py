import pytest

from latency.correction import Correction, ErrorReport, Errors, MeasuredNetwork
from latency.protocol import Measurement, Timing
from latency.summary import summary
from latency.table import NULL_KEY, LatencyTable


def measured(median: float, cv: float = 0.01) -> Measurement:
    return Measurement(
        latency_ms_median=median, latency_ms_p90=median, latency_ms_p99=median, runs=50, cv=cv, drift=0.01
    )


def errors(mape: float) -> Errors:
    return Errors(mape=mape, bias=0.0, within_5=1.0, within_10=1.0, kendall_tau=1.0)


def judged(table: float, plain: float, flops: float, noise: float) -> LatencyTable:
    """A table of nine equal networks, predicted 20 % too low, with these held-out errors."""
    report = ErrorReport(
        networks=3, predicted=errors(table), standalone=errors(plain), flops=errors(flops), noise=noise
    )
    return LatencyTable(
        device="cpu",
        fingerprint={},
        timing=Timing(),
        entries={NULL_KEY: measured(0.01), "conv": measured(1.0)},
        networks={
            f"net{number}": MeasuredNetwork(task="det", blocks={"conv": 1}, macs=10, measurement=measured(1.25))
            for number in range(9)
        },
        correction=Correction(latency_ms={"conv": 1.0}, strength=1.0, fitted_on=6, held_out=report),
    )


HEADLINES = [
    ((0.015, 0.1, 0.05, 0.01), "about as accurate as measuring a network again"),
    ((0.04, 0.1, 0.05, 0.01), "are close to the time of a network"),
    ((0.09, 0.1, 0.5, 0.01), "are rough"),
    ((0.015, 0.1, 0.5, 0.06), "unsteady machine"),
    ((0.1, 0.02, 0.5, 0.01), "about as accurate"),
]


@pytest.mark.parametrize(("figures", "headline"), HEADLINES)
def test_the_headline_depends_on_the_error_in_use_and_the_noise(
    figures: tuple[float, float, float, float], headline: str
) -> None:
    sentences = summary(judged(*figures))
    assert headline in sentences[0]
    assert f"the mean error is {min(figures[:2]):.1%} and the maximum error 20.0%" in sentences[1]


def test_a_useless_correction_and_a_better_simpler_predictor_are_reported() -> None:
    good = " ".join(summary(judged(0.02, 0.1, 0.05, 0.01)))
    assert "did not help" not in good
    assert "multiply-adds" not in good
    bad = " ".join(summary(judged(0.1, 0.03, 0.02, 0.01)))
    assert "on 6 networks did not help (10.0% against 3.0%)" in bad
    assert "A time proportional to multiply-adds predicts these networks at least as well" in bad


def test_a_table_without_networks_is_not_verified() -> None:
    table = judged(0.02, 0.1, 0.05, 0.01).changed(networks={}, correction=None)
    assert summary(table)[0] == "Not verified: no whole network was measured."
    unfitted = judged(0.02, 0.1, 0.05, 0.01).changed(correction=None)
    assert summary(unfitted)[0].startswith("Not verified: too few whole networks")


def test_unstable_measurements_are_named_up_to_a_maximum() -> None:
    table = judged(0.02, 0.1, 0.05, 0.01)
    assert summary(table)[-1] == "No measurement varied by more than 10%."
    unstable = {f"block{number}": measured(1.0, cv=0.3) for number in range(8)}
    sentences = summary(table.changed(entries={**table.entries, **unstable}))[-1]
    assert sentences.endswith("block4, block5 and 2 more.")
    assert "conv" not in sentences
