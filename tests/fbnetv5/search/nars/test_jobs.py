import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from export.errors import UserError
from fbnetv5.search.nars import jobs
from fbnetv5.search.nars.jobs import in_processes, in_this_process, record_loss
from fbnetv5.search.nars.prepare import Prepared
from fbnetv5.search.nars.results import pair_architecture
from fbnetv5.search.nars.trial import TrialResult, make_trial, read_result, train_trial
from tests.fbnetv5.search.nars.conftest import draw, silent

KILLS = "kills-its-process"
"""File in a trial's folder with the number of attempts that still end in a kill."""


def make(folder: Path, prepared: Prepared, numbers: range) -> list[Path]:
    pairs, folders = draw(prepared.pairs, 4), []
    for number in numbers:
        folders.append(folder / f"{number:03d}")
        recipe = prepared.pairs.recipe(pairs[number])
        make_trial(folders[-1], pair_architecture(prepared, pairs[number]), prepared.config.train_config(recipe))
    return folders


def train_or_die(folder: Path) -> TrialResult:
    """``train_trial``, whose process is killed as often as the file says."""
    kills = folder / KILLS
    if kills.exists() and (left := int(kills.read_text())):
        kills.write_text(str(left - 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return train_trial(folder)


def test_progress_is_that_of_the_batch(tmp_path: Path, prepared: Prepared) -> None:
    lines: list[tuple[str, int, int]] = []
    in_this_process(lambda *line: lines.append(line))(make(tmp_path, prepared, range(2)))
    assert lines == [("trials 000 to 001", done, 2) for done in range(3)]


@pytest.mark.parametrize(("threads", "jobs", "expected"), [(6, 2, 3), (1, 2, 1)])
def test_processes_share_the_threads_of_this_one(
    monkeypatch: pytest.MonkeyPatch, threads: int, jobs: int, expected: int
) -> None:
    counts: list[int] = []

    def run_pool(folders: list[Path], jobs: int, threads: int, progress: object) -> list[Path]:
        counts.append(threads)
        return []

    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("fbnetv5.search.nars.jobs._run_pool", run_pool)
    in_processes(jobs, silent)([])
    assert counts == [expected]


def wait_or_fail(folder: Path) -> None:
    """A training that takes minutes, or one with an error of the user."""
    if folder.name == "wrong":
        raise UserError("wrong")
    (folder / "began").touch()
    time.sleep(600)


@pytest.mark.slow
def test_an_error_ends_the_other_trainings_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "train_trial", wait_or_fail)
    folders = [tmp_path / name for name in ("slow", "wrong", "next", "last")]
    for folder in folders:
        folder.mkdir()
    before = set(multiprocessing.active_children())
    with pytest.raises(UserError, match=r"^wrong$"):
        in_processes(2, silent)(folders)
    deadline = time.monotonic() + 20
    while set(multiprocessing.active_children()) - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not set(multiprocessing.active_children()) - before  # each of them would wait for minutes
    assert not (tmp_path / "last" / "began").exists()


@pytest.mark.slow
def test_several_processes_give_the_results_of_one(tmp_path: Path, prepared: Prepared) -> None:
    runners = {"one": in_this_process(silent), "two": in_processes(os.cpu_count() or 1, silent)}
    results = {}
    for name, run in runners.items():
        folders = make(tmp_path / name, prepared, range(3))
        run(folders)
        results[name] = [(folder / "cls.safetensors").read_bytes() for folder in folders]
    assert results["one"] == results["two"]


@pytest.mark.slow
def test_a_killed_process_is_repeated_and_recorded_in_the_end(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "train_trial", train_or_die)
    fine, once, always = make(tmp_path, prepared, range(3))
    (once / KILLS).write_text("1")
    (always / KILLS).write_text("99")
    in_processes(2, silent)([fine, once])
    in_processes(2, silent)([fine, always])  # not with the others: it could break their pool before ``once`` is killed
    results = [read_result(folder) for folder in (fine, once, always)]
    assert [result and result.failure for result in results[:2]] == [None, None]
    assert results[2] is not None
    assert "process was killed" in str(results[2].failure)


def test_a_lost_trial_keeps_the_scores_that_it_had(tmp_path: Path) -> None:
    document = {"steps": [2], "scores": [0.5], "seconds": 3.0}
    (tmp_path / "result.json").write_text(json.dumps(document), encoding="utf-8")
    record_loss(tmp_path)
    result = read_result(tmp_path)
    assert result is not None
    assert (result.steps, result.scores, result.seconds) == ((2,), (0.5,), 3.0)
    assert result.failure is not None
