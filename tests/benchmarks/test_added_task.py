"""Networks of tasks that were added to searches: which can be judged together, and a tiny run from end to end."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import added_task, judge
from export.errors import UserError
from export.manifest import file_sha256
from fbnetv5.runs.checkpoint import save_checkpoint
from fbnetv5.runs.loop import CHECKPOINT
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.later.command import add_task
from fbnetv5.search.reinforce.later.config import LaterConfig
from fbnetv5.spaces.four_path import FourPathSpace
from tests.benchmarks.conftest import BUDGET, tiny_judge


def test_a_task_that_was_added_with_other_settings_or_in_another_space_is_refused(tmp_path: Path) -> None:
    runs = [tmp_path / name for name in "ab"]
    config = LaterConfig(run="s0", budgets={"depth": (BUDGET,)}, space=FourPathSpace(), steps=3)
    of_judge = SearchConfig(budgets={"seg": (BUDGET,)})
    for run, seed in zip(runs, (0, 1), strict=True):
        run.mkdir()
        config.changed(seed=seed).save(run)
    assert added_task.added_config(runs, of_judge).steps == 3
    with pytest.raises(UserError, match="in another space than the judge's"):
        added_task.added_config(runs, of_judge.changed(space=FourPathSpace(stages=2)))
    config.changed(steps=4).save(runs[1])
    with pytest.raises(UserError, match="with another steps than to"):
        added_task.added_config(runs, of_judge)


def test_heads_are_put_only_on_finished_supernets(tmp_path: Path) -> None:
    config = SearchConfig(budgets={"seg": (BUDGET,)}, warmup_steps=3, steps=0)
    for seed, step in (("1000", 3), ("1001", 2)):
        save_checkpoint(tmp_path / "supernets" / seed / CHECKPOINT, step, {"weights/a": torch.ones(1)}, {})
    with pytest.raises(UserError, match=r"1 of the 2 supernets in .* are trained; finish the judge first"):
        added_task.trained_trunks(tmp_path, config, 2)
    save_checkpoint(tmp_path / "supernets" / "1001" / CHECKPOINT, 3, {"weights/a": torch.ones(1)}, {})
    assert [trunk.name for trunk in added_task.trained_trunks(tmp_path, config, 2)] == ["1000", "1001"]
    with pytest.raises(UserError, match="2 of the 3 supernets"):
        added_task.trained_trunks(tmp_path, config, 3)


@pytest.mark.slow
def test_an_added_task_is_judged_from_end_to_end_and_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run, folder = tiny_judge(tmp_path, supernets=2)
    before = {file: file_sha256(file) for file in run.rglob("*") if file.is_file()}
    add_task("depth", run=run, config={"steps": 2})
    assert {file: file_sha256(file) for file in before} == before
    command = [str(run), "--judge", str(folder), "--output", str(tmp_path / "depth")]
    command += ["--count", "3", "--processes", "1"]
    added_task.main(command)
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report["steps"], report["cases"], set(report["tasks"])) == (2, 1, {"depth"})
    of_depth = report["tasks"]["depth"]
    assert of_depth["random"]["networks"] == 3
    assert of_depth["random"]["loss_sd"] > 0
    trunks = [judge.Judge(each).supernets for each in (folder, tmp_path / "depth")]
    for before_head, after in zip(*trunks, strict=True):
        expected, trained = before_head.blocks.state_dict(), after.blocks.state_dict()
        weights = [name for name in expected if "running" not in name and "num_batches" not in name]
        assert all(expected[name].equal(trained[name]) for name in weights)
    monkeypatch.setattr(added_task, "LaterLoop", lambda *_: pytest.fail("a head was trained again"))
    monkeypatch.setattr(judge, "open_judge", lambda *_, **__: pytest.fail("a network was scored again"))
    added_task.main(command)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == report
