"""Panels on images of other colours: the figures, and a tiny run from end to end."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import judge, panel_colours
from benchmarks.experiment import Trial
from benchmarks.panel_colours import ARMS, standardised, summarise
from export.errors import UserError
from fbnetv5.data.config import DataConfig
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.prepare import prepare
from fbnetv5.search.reinforce.run import run_search, start_run
from fbnetv5.spaces.four_path import FourPathSpace
from tests.benchmarks.conftest import BUDGET


def quiet(*_: object) -> None:
    """Say nothing."""


def test_networks_are_compared_in_the_other_supernets() -> None:
    others = np.array([[9.0, 1.0, 3.0], [5.0, 3.0, 5.0], [7.0, 5.0, 7.0]])  # means without the first: 2, 4, 6
    networks = np.array([[0.0, 1.0, 1.0], [0.0, 2.0, 2.0]])  # 1 and 2
    assert standardised(networks, others, 0) == pytest.approx((-1.5 - 1.0) / 2)
    assert standardised(networks, others, 2) != pytest.approx(standardised(networks, others, 0))


def test_a_lower_z_with_other_colours_is_a_gain() -> None:
    plain, changed = [-1.0, -1.2, -0.8, -1.1, -0.9, -1.0, -1.3, -0.9], [-1.5, -1.6, -1.4, -1.5, -1.2, -1.6, -1.9, -1.2]
    summary = summarise(dict(zip(ARMS, (plain, changed), strict=True)))
    assert summary["difference"]["value"] == pytest.approx(np.mean(changed) - np.mean(plain))
    assert summary["p_value"] < 0.01
    back = summarise(dict(zip(ARMS, (changed, plain), strict=True)))
    assert back["p_value"] > 0.99


@pytest.mark.slow
def test_panels_are_compared_from_end_to_end_and_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SearchConfig(
        budgets={"seg": (BUDGET.changed(limit=250e6),)},
        space=FourPathSpace(stages=1, blocks_per_path=1),
        data=DataConfig(size=(32, 32), scenes=(16, 8, 8)),
        batch=4,
        warmup_steps=1,
        steps=1,
        panel_draws=16,
        panel_checks=3,
        finalists=2,
        score_images=8,
    )
    run = start_run(config, tmp_path / "s0", quiet, quiet)[0]
    run_search(run, prepare(config), quiet, quiet)
    folder = tmp_path / "judge"
    judging = [str(run), "--output", str(folder), "--steps", "1", "--images", "8", "--supernets", "2", "--count", "2"]
    judge.main([*judging, "--controls", "0", "--planted", "0", "--processes", "1"])
    command = ["--judge", str(folder), "--output", str(tmp_path / "colours"), "--networks", "1", "--count", "3"]
    command += ["--processes", "1"]
    panel_colours.main(command)
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [len(z) for z in report["tasks"]["seg"]["z"].values()] == [2, 2]
    searched = panel_colours.Searching(judge=folder)(Trial(arm="other colours", unit="1000"))
    stored = json.loads((tmp_path / "colours" / "trials" / "other colours" / "1000.json").read_text())["gave"]
    assert searched["networks"] == stored["networks"]
    monkeypatch.setattr(panel_colours, "observe", lambda *_: pytest.fail("a panel was run again"))
    panel_colours.main(command)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == report
    (folder / "supernets" / "1001").rename(tmp_path / "1001")
    with pytest.raises(UserError, match="has a single supernet"):
        panel_colours.main(command)
