"""The comparison at equal latency: which width is as fast, its verdict, and a tiny run from end to end."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import equal_latency, from_scratch
from benchmarks.architectures import random_matched
from benchmarks.equal_latency import (
    FOUND,
    PUBLISHED,
    WIDTHS,
    as_expected,
    as_fast,
    found_network,
    published_network,
    timed_network,
)
from export.errors import UserError
from fbnetv5.architecture import make_architecture
from fbnetv5.data.scenes import CLASSES
from fbnetv5.spaces.four_path import FourPathSpace
from tests.benchmarks.conftest import BUDGET, counted, record

SPACE = FourPathSpace()


def times_of(encoder: str, ms: Mapping[float, float]) -> dict[str, Any]:
    """The times of all widths: ``ms``, and 1 elsewhere."""
    return {published_network(encoder, width).name: {"latency_ms": ms.get(width, 1.0)} for width in WIDTHS}


def test_no_published_network_has_noticeably_less_time_than_the_found_ones() -> None:
    times = times_of("efficientnet-lite0", {0.9: 4.9, 1.0: 5.6, 1.1: 7.0})
    assert as_fast("efficientnet-lite0", 5.0, times).name == "efficientnet-lite0 x1"
    assert as_fast("efficientnet-lite0", 5.6, times).name == "efficientnet-lite0 x1"
    assert as_fast("efficientnet-lite0", 5.64, times).name == "efficientnet-lite0 x1"
    assert as_fast("efficientnet-lite0", 5.7, times).name == "efficientnet-lite0 x1.1"
    with pytest.raises(UserError, match=r"efficientnet-lite0 x1.6 takes less than 8.00 ms; derive for a lower latency"):
        as_fast("efficientnet-lite0", 8.0, times)


@pytest.mark.parametrize(("others", "lowest"), [(([2.0, 2.0], [3.0, 3.0]), True), (([2.0, 0.9], [3.0, 3.0]), False)])
def test_the_found_network_must_be_best_for_every_seed(others: tuple[list[float], list[float]], lowest: bool) -> None:
    groups = {FOUND: {"loss": [1.0, 1.0]}} | {
        name: {"loss": losses} for name, losses in zip(PUBLISHED, others, strict=True)
    }
    assert as_expected(groups) is lowest


def test_published_networks_have_the_task_s_head_and_more_multiply_adds_the_wider_they_are() -> None:
    macs = [timed_network(published_network(PUBLISHED[1], width), "seg", (224, 224)).macs for width in (0.5, 1.0, 1.6)]
    assert macs == sorted(macs)
    assert macs[1] == pytest.approx(385e6, rel=0.05)  # its blocks have 364M


def test_a_network_of_another_task_or_data_set_is_refused(tmp_path: Path) -> None:
    seg = tmp_path / "seg.json"
    record(SPACE, "seg", SPACE.empty()).save(seg)
    with pytest.raises(UserError, match="not a network for det on the demo scenes"):
        found_network(seg, "det", 0)
    classes = CLASSES | {"mask": ("background", "cat")}
    make_architecture(SPACE, {"seg": SPACE.empty()}, classes, BUDGET.resolution, provenance={}).save(seg)
    with pytest.raises(UserError, match="not a network for seg on the demo scenes"):
        found_network(seg, "seg", 0)


@pytest.mark.slow
def test_a_comparison_runs_from_end_to_end_and_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equal_latency, "WIDTHS", (0.5, 1.6))
    monkeypatch.setattr(equal_latency, "SIZE", (32, 32))
    monkeypatch.setattr(equal_latency, "REPETITIONS", 2)
    runs = [tmp_path / f"s{number}" for number in range(2)]
    for run, choices in zip(runs, random_matched(counted(SPACE, "det"), BUDGET, 2, seed=3), strict=True):
        run.mkdir()
        record(SPACE, "det", np.array(choices)).save(run / "det.json")
    command = [*map(str, runs), "--output", str(tmp_path / "x"), "--processes", "1", "--batch", "4"]
    equal_latency.main(command := [*command, "--test", "8", "--steps", "2"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {name: len(figures["loss"]) for name, figures in report["groups"].items()} == dict.fromkeys(
        (FOUND, *PUBLISHED), 2
    )
    found = [row["latency_ms"] for name, row in report["networks"].items() if name.startswith(FOUND)]
    others = [row["latency_ms"] for name, row in report["networks"].items() if not name.startswith(FOUND)]
    assert (len(found), len(others)) == (2, 2)
    assert min(others) >= max(found)
    monkeypatch.setattr(equal_latency, "measure_networks", lambda *arguments, **_: pytest.fail("it timed again"))
    monkeypatch.setattr(from_scratch, "train", lambda *arguments: pytest.fail("a network was trained again"))
    equal_latency.main(command)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == report
    with pytest.raises(UserError, match="times of other networks"):
        equal_latency.main([command[0], *command[2:]])
