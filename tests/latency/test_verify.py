from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from export.errors import UserError
from latency import verify as module
from latency.correction import MeasuredNetwork, split
from latency.devices import resolve
from latency.profile import Network
from latency.protocol import Measurement, Timing
from latency.table import LatencyTable
from latency.verify import verify


def measured(latency_ms: float) -> Measurement:
    return Measurement(
        latency_ms_median=latency_ms, latency_ms_p90=latency_ms, latency_ms_p99=latency_ms, runs=9, cv=0.01, drift=0.03
    )


def network(blocks: dict[str, int]) -> Network:
    return Network(key=str(blocks), build=nn.Identity, input_shapes=((3, 8, 8),), task="det", blocks=blocks, macs=100)


TABLE = LatencyTable(
    device="cpu",
    fingerprint=resolve("cpu").fingerprint(),
    timing=Timing(repetitions=3),
    entries={"a": measured(1.0), "b": measured(2.0)},
    networks={"known": MeasuredNetwork(task="det", blocks={"a": 1}, macs=50, measurement=measured(2.0))},
)
TIMES_MS = {str(blocks): time for blocks, time in (({"a": 1, "b": 1}, 4.0), ({"a": 2, "b": 2}, 6.0))} | {"known": 1.0}
FRESH = [network({"a": 1, "b": 1}), network({"a": 2, "b": 2})]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table's file, on a machine where the fresh networks take 4 and 6 ms."""

    def measure(networks: list[Network], *, timing: Timing, **_: object) -> dict[str, MeasuredNetwork]:
        assert timing == TABLE.timing
        return {
            n.key: MeasuredNetwork(
                task=n.task, blocks=dict(n.blocks), macs=n.macs, measurement=measured(TIMES_MS[n.key])
            )
            for n in networks
        }

    monkeypatch.setattr(module, "measure_networks", measure)
    TABLE.save(tmp_path / "t.json")
    return tmp_path / "t.json"


def test_the_tables_sums_are_compared_with_times_measured_now(path: Path) -> None:
    before = path.read_bytes()
    verified = verify(LatencyTable.load(path), FRESH)
    assert verified.speed is None  # no network was measured both times
    report = verified.report
    assert report.networks == 2
    assert report.noise == pytest.approx(0.03)
    assert report.predicted.mape == pytest.approx((1 / 4 + 0) / 2)  # 3 and 6 ms are predicted
    assert report.predicted.bias == pytest.approx(-1 / 8)
    assert report.flops is not None
    assert report.flops.within_10 == 0.5  # 2 ms for 50 multiply-adds makes 4 ms for 100
    assert path.read_bytes() == before


def test_networks_of_the_table_separate_the_machines_speed_from_the_tables_errors(path: Path) -> None:
    earlier = replace(FRESH[0], key="known")  # 2 ms in the table and 1 now: the machine is twice as fast
    verified = verify(LatencyTable.load(path), FRESH, [earlier, replace(earlier, key="unknown")])
    assert verified.speed == pytest.approx(2.0)
    assert verified.report.networks == 2
    assert verified.report.predicted.bias == pytest.approx((3 / 8 + 6 / 12) / 2 - 1)


def test_a_compared_network_is_not_remeasured_as_a_reference(path: Path) -> None:
    earlier = replace(FRESH[0], key="known")
    verified = verify(LatencyTable.load(path), [earlier, FRESH[1]], [earlier])
    assert (verified.report.networks, verified.speed) == (2, None)


def test_networks_that_the_table_was_fitted_on_are_not_compared(path: Path) -> None:
    blocks = [{"a": number, "b": 10 - number} for number in range(1, 10)]
    known = {str(each): MeasuredNetwork(task="det", blocks=each, macs=50, measurement=measured(2.0)) for each in blocks}
    TABLE.changed(networks=known).corrected().save(path)
    fitted, held_out = split(list(known))
    table = LatencyTable.load(path)
    with pytest.raises(UserError, match="of these networks 1 took no part in the fit of the table"):
        verify(table, [*(replace(FRESH[0], key=key) for key in fitted), FRESH[1]])
    assert verify(table, [*(replace(FRESH[0], key=key) for key in fitted), *FRESH]).report.networks == 2
    assert len(held_out) == 3


def test_a_table_without_networks_has_no_proportion_to_multiply_adds(path: Path) -> None:
    TABLE.changed(networks={}).save(path)
    assert verify(LatencyTable.load(path), FRESH).report.flops is None


def test_a_missing_block_is_named_before_anything_is_measured(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure_networks", pytest.fail)
    with pytest.raises(UserError, match="1 of 3 blocks have no entry in the cpu table, first: c"):
        verify(LatencyTable.load(path), [*FRESH, network({"c": 1})])


def test_another_machines_table_is_refused(path: Path) -> None:
    TABLE.changed(fingerprint={**TABLE.fingerprint, "device_name": "Other 9000"}).save(path)
    with pytest.raises(UserError, match="another machine"):
        verify(LatencyTable.load(path), FRESH)
