"""The rows of the comparison with timm, published costs of its networks, and a tiny comparison from end to end."""

import json
from pathlib import Path

import pytest

from benchmarks import timm_latency
from benchmarks.timm_latency import PUBLISHED, networks_of_runs, published_network, row, within_published
from export.errors import UserError
from latency.correction import MeasuredNetwork
from latency.protocol import Measurement
from tests.benchmarks.test_branched_latency import save_run


def measured(ms: float, macs: int) -> MeasuredNetwork:
    measurement = Measurement(latency_ms_median=ms, latency_ms_p90=ms, latency_ms_p99=ms, runs=9, cv=0, drift=0)
    return MeasuredNetwork(task="cls", blocks={}, macs=macs, measurement=measurement)


@pytest.mark.parametrize(("searched", "inside"), [(4.0, True), (1.9, False), (6.1, False)])
def test_a_searched_classifier_is_compared_by_time_per_multiply_add(searched: float, inside: bool) -> None:
    rows = [row(PUBLISHED[0], measured(2.0, 10**9)), row(PUBLISHED[1], measured(12.0, 2 * 10**9))]
    assert [of["ms_per_gmac"] for of in rows] == [2.0, 6.0]
    assert within_published([*rows, row("run cls", measured(searched, 10**9))]) is inside


@pytest.mark.parametrize(("name", "macs"), [("mobilenetv3_large_100", 219e6), ("efficientnet_lite0", 407e6)])
def test_multiply_adds_are_those_that_the_papers_state(name: str, macs: float) -> None:
    """ArXiv 1905.02244, table 3; the release of EfficientNet-Lite states 407M."""
    assert published_network(name, (224, 224)).macs == pytest.approx(macs, rel=0.06)


def test_runs_of_several_resolutions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = save_run(tmp_path / "first", together=5)
    monkeypatch.setattr("tests.benchmarks.test_branched_latency.SIZE", (32, 64))
    with pytest.raises(UserError, match="several resolutions"):
        networks_of_runs([first, save_run(tmp_path / "other", together=5)])


@pytest.mark.slow
def test_a_comparison_ends_in_one_json_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = save_run(tmp_path / "run", together=5)
    timm_latency.main([str(run), "--published", "mobilenetv3_large_100", "--repetitions", "2"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["rows"][-1]["name"] == "mobilenetv3_large_100"
    assert all(of["latency_ms_p50"] > 0 for of in report["rows"])
