"""Networks of other budgets: the verdict, and a tiny run from end to end."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import other_budgets
from benchmarks.experiment import NAME
from benchmarks.other_budgets import as_expected, share_beaten
from export.errors import UserError
from fbnetv5.architecture import load_architecture
from fbnetv5.spaces.four_path import FourPathSpace
from tests.benchmarks.conftest import tiny_judge


def test_a_lower_loss_beats_a_random_network() -> None:
    assert share_beaten([1.0, 0.9, 1.1, 1.2, 1.3]) == 0.75


@pytest.mark.parametrize(("better", "seconds", "expected"), [(8, 300, True), (7, 300, False), (8, 301, False)])
def test_eight_of_ten_budgets_of_every_task_must_be_better_than_nine_of_ten(
    better: int, seconds: float, expected: bool
) -> None:
    shares = {f"{number}M": 0.95 if number < better else 0.9 for number in range(10)}
    assert as_expected({"cls": dict.fromkeys(shares, 1.0), "det": shares}, seconds) is expected


@pytest.mark.slow
def test_budgets_are_compared_from_end_to_end_and_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run, folder = tiny_judge(tmp_path, supernets=1)
    command = [str(run), "--judge", str(folder), "--output", str(tmp_path / "others"), "--budgets", "230M,260M"]
    command += ["--count", "3", "--processes", "1"]
    other_budgets.main(command)
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report["share_beaten"]["seg"]) == {"230M", "260M"}
    assert [len(losses) for losses in report["losses"].values()] == [4, 4]
    for budget in ("230M", "260M"):
        macs = load_architecture(tmp_path / "others" / "derived" / budget / "seg.json").cost.macs
        assert 0.85 <= macs / (float(budget[:-1]) * 1e6) <= 1
    monkeypatch.setattr(other_budgets, "derive", lambda *_, **__: pytest.fail("a budget was derived again"))
    other_budgets.main(command)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == report
    with pytest.raises(UserError, match=r"fresh/experiment.json"):
        other_budgets.main([*command, "--scenes", "both"])
    (folder / "fresh").mkdir()
    (folder / "fresh" / NAME).write_text((folder / NAME).read_text())
    of_kinds = [report]
    for scenes in ("fresh", "both"):
        other_budgets.main([*command, "--scenes", scenes])
        of_kinds.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    on_test, on_fresh, on_both = (np.array(of_kind["losses"]["seg 230M"]) for of_kind in of_kinds)
    assert (on_test != on_fresh).all()
    np.testing.assert_allclose(on_both, (on_test + on_fresh) / 2)
    with pytest.raises(UserError, match="has no task dets; it has seg"):
        other_budgets.main([*command, "--tasks", "dets"])
    config.changed(space=FourPathSpace(stages=2)).save(folder)
    with pytest.raises(UserError, match="was searched in another space than the judge's"):
        other_budgets.main(command)
