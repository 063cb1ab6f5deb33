"""The correction on machines whose truth is known: networks made of blocks that save something at every border."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from export.errors import UserError
from latency.correction import Errors, MeasuredNetwork, correct, error_report, fit, predict_ms, proportion, split
from latency.protocol import Measurement

KEYS = [f"block{number}" for number in range(12)]


def measured(latency_ms: float, drift: float = 0.01) -> Measurement:
    return Measurement(
        latency_ms_median=latency_ms, latency_ms_p90=latency_ms, latency_ms_p99=latency_ms, runs=9, cv=0.01, drift=drift
    )


class Machine:
    """Blocks of known cost; each saves a part of its standalone time inside a network."""

    def __init__(self, seed: int, *, saving: tuple[float, float] = (0.0, 0.3), noise: float = 0.0) -> None:
        self._rng = np.random.default_rng(seed)
        standalone = self._rng.uniform(0.05, 2.0, len(KEYS))
        self.standalone_ms = dict(zip(KEYS, standalone.tolist(), strict=True))
        self.true_ms = dict(zip(KEYS, (standalone * (1 - self._rng.uniform(*saving, len(KEYS)))).tolist(), strict=True))
        self._noise = noise

    def networks(self, count: int) -> list[MeasuredNetwork]:
        """Random networks, measured."""
        return [self.network(self._rng.integers(0, 4, len(KEYS)).tolist()) for _ in range(count)]

    def network(self, counts: Sequence[int]) -> MeasuredNetwork:
        blocks = {key: number for key, number in zip(KEYS, counts, strict=True) if number} or {KEYS[0]: 1}
        true = sum(self.true_ms[key] * number for key, number in blocks.items())
        factor = 1 + self._noise * float(self._rng.standard_normal())
        macs = 10**8 * sum(blocks.values())
        return MeasuredNetwork(task="det", blocks=blocks, macs=macs, measurement=measured(true * factor))


def test_without_noise_the_true_costs_are_found() -> None:
    machine = Machine(0)
    costs = fit(machine.standalone_ms, machine.networks(60), 1e-9)
    assert costs == pytest.approx(machine.true_ms, rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_with_noise_the_correction_predicts_held_out_networks_best(seed: int) -> None:
    machine = Machine(seed, noise=0.01)
    correction = correct(machine.standalone_ms, machine.networks(48))
    report = correction.held_out
    assert correction.helps
    assert (correction.fitted_on, report.networks) == (32, 16)
    assert report.predicted.mape < 0.02
    assert report.predicted.within_10 == 1
    assert report.standalone.mape > 0.08
    assert report.standalone.bias == pytest.approx(report.standalone.mape)
    assert report.flops is not None
    assert report.flops.mape > report.predicted.mape
    assert report.noise == pytest.approx(0.01)


def test_a_correction_may_not_help_where_blocks_add_up_already() -> None:
    machines = [Machine(seed, saving=(0.0, 0.0), noise=0.2) for seed in range(12)]
    corrections = [correct(machine.standalone_ms, machine.networks(9)) for machine in machines]
    assert not all(correction.helps for correction in corrections)
    for correction in corrections:
        assert correction.helps == (correction.held_out.predicted.mape < correction.held_out.standalone.mape)


def test_the_errors_are_of_networks_outside_the_fit() -> None:
    machine = Machine(1, noise=0.02)
    networks = machine.networks(30)
    correction = correct(machine.standalone_ms, networks)
    reports = [
        error_report(correction.latency_ms, machine.standalone_ms, [network, networks[0]], ms_per_mac=None)
        for network in networks
    ]
    assert correction.held_out.networks == 10
    assert {report.flops for report in reports} == {None}
    spoiled = [
        MeasuredNetwork(
            task="det",
            blocks=network.blocks,
            macs=network.macs,
            measurement=measured(network.measurement.latency_ms_median * 3),
        )
        for network in networks
    ]
    held_out = set(np.random.default_rng(0).permutation(30)[:10].tolist())
    mixed = [spoiled[i] if i in held_out else networks[i] for i in range(30)]
    assert correct(machine.standalone_ms, mixed).latency_ms == correction.latency_ms


def test_a_split_is_complete_ordered_and_holds_out_the_reported_networks() -> None:
    machine = Machine(1, noise=0.02)
    fitted, held_out = split(list(range(30)))
    assert (fitted, held_out) == (sorted(fitted), sorted(held_out))
    assert sorted(fitted + held_out) == list(range(30))
    networks = machine.networks(30)
    correction = correct(machine.standalone_ms, networks)
    again = error_report(
        correction.latency_ms,
        machine.standalone_ms,
        [networks[index] for index in held_out],
        ms_per_mac=proportion([networks[index] for index in fitted]),
    )
    assert again == correction.held_out


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), strength=st.sampled_from([1e-6, 1e-3, 1.0]), count=st.integers(1, 20))
def test_costs_are_never_negative_and_do_not_depend_on_the_unit(seed: int, strength: float, count: int) -> None:
    machine = Machine(seed, saving=(0.0, 0.9), noise=0.3)
    networks = [network for network in machine.networks(count) if network.measurement.latency_ms_median > 0]
    costs = fit(machine.standalone_ms, networks, strength)
    assert min(costs.values()) >= 0
    finer = [
        MeasuredNetwork(
            task="det",
            blocks=network.blocks,
            macs=network.macs,
            measurement=measured(network.measurement.latency_ms_median * 1e3),
        )
        for network in networks
    ]
    standalone = {key: 1e3 * value for key, value in machine.standalone_ms.items()}
    again = fit(standalone, finer, strength)
    assert again == pytest.approx({key: 1e3 * value for key, value in costs.items()}, rel=1e-4, abs=1e-3)


def test_a_strong_pull_keeps_the_standalone_proportions_and_fits_the_scale() -> None:
    machine = Machine(2, saving=(0.2, 0.2))
    costs = fit(machine.standalone_ms, machine.networks(10), 1e6)
    assert costs == pytest.approx({key: 0.8 * value for key, value in machine.standalone_ms.items()}, rel=1e-4)


def test_a_block_in_no_network_gets_the_scale_of_the_others() -> None:
    machine = Machine(3, saving=(0.2, 0.2))
    networks = [machine.network([*(1 + (i + k) % 3 for k in range(11)), 0]) for i in range(9)]
    costs = fit(machine.standalone_ms, networks, 1e-3)
    assert costs["block11"] == pytest.approx(0.8 * machine.standalone_ms["block11"], rel=1e-3)


def test_errors_equal_an_independent_computation() -> None:
    rng = np.random.default_rng(0)
    actual = rng.uniform(1, 10, 50)
    predicted = actual * rng.uniform(0.85, 1.15, 50)
    report = Errors.of(predicted.tolist(), actual.tolist())
    relative = predicted / actual - 1
    assert report.mape == pytest.approx(np.abs(relative).mean())
    assert report.bias == pytest.approx(relative.mean())
    assert report.within_5 == pytest.approx((np.abs(relative) <= 0.05).mean())
    assert report.within_10 == pytest.approx((np.abs(relative) <= 0.1).mean())
    assert report.kendall_tau == pytest.approx(kendalltau(predicted, actual).statistic)


def test_error_texts_have_the_order_of_the_fields() -> None:
    errors = Errors(mape=0.0123, bias=-0.001, within_5=0.9, within_10=1.0, kendall_tau=0.98765)
    assert errors.texts() == ["1.23%", "-0.10%", "90%", "100%", "0.988"]


def test_the_proportion_to_multiply_adds_has_the_least_error() -> None:
    networks = Machine(4, noise=0.1).networks(20)

    def squared_error(ms_per_mac: float) -> float:
        return sum((n.macs * ms_per_mac / n.measurement.latency_ms_median - 1) ** 2 for n in networks)

    best = proportion(networks)
    assert squared_error(best) < min(squared_error(best * 1.01), squared_error(best * 0.99))


def test_the_json_of_a_report_has_the_predicted_errors_at_the_top() -> None:
    machine = Machine(5)
    shown = error_report(machine.true_ms, machine.standalone_ms, machine.networks(4), ms_per_mac=1e-8).to_json()
    errors = {"mape", "bias", "within_5", "within_10", "kendall_tau"}
    assert set(shown) == {"networks", "standalone", "flops", "noise"} | errors
    assert set(shown["standalone"]) == set(shown["flops"]) == errors
    assert shown["mape"] == pytest.approx(0)


def test_too_few_networks_and_unknown_blocks_are_refused() -> None:
    machine = Machine(6)
    with pytest.raises(UserError, match="at least 9 measured networks, not 8"):
        correct(machine.standalone_ms, machine.networks(8))
    with pytest.raises(UserError, match="block block0 of a measured network has no standalone time"):
        fit({}, [machine.network([1] * 12)], 1.0)
    assert predict_ms({"block0": 2.0}, machine.network([3] + [0] * 11)) == 6.0
