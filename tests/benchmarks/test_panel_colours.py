"""Panels on images of other colours: the figures, and a tiny run from end to end."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import panel_colours
from benchmarks.experiment import Trial
from benchmarks.panel_colours import ARMS, AS_THEY_ARE, standardised, summarise, with_colours
from export.errors import UserError
from export.progress import Progress
from fbnetv5.data.scenes import CLASSES
from fbnetv5.search.reinforce.final_phase import FinishedLoop, observe
from fbnetv5.search.reinforce.panel import Panel
from fbnetv5.tasks import make_tasks
from tests.benchmarks.conftest import tiny_judge


def test_networks_are_compared_in_the_other_supernets() -> None:
    others = np.array([[9.0, 1.0, 3.0], [5.0, 3.0, 5.0], [7.0, 5.0, 7.0]])  # means without the first: 2, 4, 6
    networks = np.array([[0.0, 1.0, 1.0], [0.0, 2.0, 2.0]])  # 1 and 2
    assert standardised(networks, others, 0) == pytest.approx((-1.5 - 1.0) / 2)
    assert standardised(networks, others, 2) == pytest.approx((-4.5 - 4.0) / 2)  # means 5, 4, 6; .5 and 1


def test_a_lower_z_with_other_colours_is_a_gain() -> None:
    plain, changed = [-1.0, -1.2, -0.8, -1.1, -0.9, -1.0, -1.3, -0.9], [-1.5, -1.6, -1.4, -1.5, -1.2, -1.6, -1.9, -1.2]
    summary = summarise({AS_THEY_ARE: plain, "other colours": changed})
    assert summary["difference"]["other colours"]["value"] == pytest.approx(np.mean(changed) - np.mean(plain))
    assert summary["p_value"]["other colours"] < 0.01
    back = summarise({AS_THEY_ARE: changed, "other colours": plain})
    assert back["p_value"]["other colours"] > 0.99


def test_an_arm_gives_all_tasks_its_colours_or_leaves_them_theirs() -> None:
    tasks = make_tasks(("cls", "seg"), CLASSES)
    colours = {
        arm: [task.panel_colours for task in with_colours(tasks, changed).values()] for arm, changed in ARMS.items()
    }
    assert colours == {AS_THEY_ARE: [False, False], "other colours": [True, True], "by task": [True, False]}
    assert tasks["cls"].panel_colours


@pytest.mark.slow
def test_panels_are_compared_from_end_to_end_and_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, folder = tiny_judge(tmp_path, supernets=2)
    command = ["--judge", str(folder), "--output", str(tmp_path / "colours"), "--networks", "1", "--count", "3"]
    command += ["--processes", "1"]
    panels: list[tuple[int, bool]] = []

    def recorded(loop: FinishedLoop, progress: Progress) -> Panel:
        panels.append((loop.config.seed, loop.supernet.tasks["seg"].panel_colours))
        return observe(loop, progress)

    monkeypatch.setattr(panel_colours, "observe", recorded)
    panel_colours.main(command)
    expected = [(1000, False), (1000, False), (1000, True), (1001, False), (1001, False), (1001, True)]
    assert sorted(panels) == expected  # segmentation's own panel is one of images as they are
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [len(z) for z in report["tasks"]["seg"]["z"].values()] == [2, 2, 2]
    assert report["tasks"]["seg"]["difference"]["by task"]["value"] == 0
    searched = panel_colours.Searching(judge=folder)(Trial(arm="other colours", unit="1000"))
    stored = json.loads((tmp_path / "colours" / "trials" / "other colours" / "1000.json").read_text())["gave"]
    assert searched["networks"] == stored["networks"]
    monkeypatch.setattr(panel_colours, "observe", lambda *_: pytest.fail("a panel was run again"))
    panel_colours.main(command)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == report
    (folder / "supernets" / "1001").rename(tmp_path / "1001")
    with pytest.raises(UserError, match="has a single supernet"):
        panel_colours.main(command)
