import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from fbnetv5.runs.checkpoint import load_tensors
from fbnetv5.search.nars.jobs import in_processes, in_this_process, record_loss, stage_name
from fbnetv5.search.nars.prepare import Prepared
from fbnetv5.search.nars.trial import read_result
from tests.fbnetv5.search.nars.conftest import silent
from tests.fbnetv5.search.nars.test_trial import make


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process and each of two jobs have one thread."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@contextmanager
def killing(is_time: Callable[[], bool], *, once: bool) -> Iterator[None]:
    """Kill the processes that this one started, whenever it is time."""
    ended = threading.Event()

    def kill() -> None:
        while not ended.is_set():
            children = multiprocessing.active_children()
            if children and is_time():
                for child in children:
                    child.kill()
                if once:
                    return
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def scores(folder: Path) -> Any:
    result = read_result(folder)
    assert result is not None
    assert result.failure is None
    return result.steps, result.scores


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "checkpoint" / "step-4.safetensors")


@pytest.mark.usefixtures("one_thread")
def test_several_processes_train_what_one_trains(tmp_path: Path, prepared: Prepared) -> None:
    runners = {"one": in_this_process(silent), "two": in_processes(2, silent)}
    for name, runner in runners.items():
        runner([make(tmp_path / name / f"{n:03d}", prepared, lr=10.0 ** -(n + 2)) for n in range(2)])
    for number in ("000", "001"):
        one, two = (tmp_path / name / number for name in runners)
        assert scores(one) == scores(two)
        tensors = weights(two)
        assert all(torch.equal(value, tensors[key]) for key, value in weights(one).items())


def test_progress_counts_the_trials_of_a_batch(tmp_path: Path, prepared: Prepared) -> None:
    seen: list[tuple[str, int, int]] = []
    folders = [make(tmp_path / name, prepared) for name in ("003", "004")]
    in_this_process(lambda *progress: seen.append(progress))(folders)
    assert seen == [("trials 003 to 004", done, 2) for done in range(3)]
    assert stage_name(folders) == "trials 003 to 004"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_trial_whose_process_is_killed_continues_in_another(tmp_path: Path, prepared: Prepared) -> None:
    whole, killed = (make(tmp_path / name, prepared) for name in ("000", "001"))
    in_this_process(silent)([whole])
    with killing((killed / "history.jsonl").exists, once=True):
        in_processes(2, silent)([killed])
    assert scores(killed) == scores(whole)
    tensors = weights(killed)
    assert all(torch.equal(value, tensors[key]) for key, value in weights(whole).items())


@pytest.mark.slow
def test_a_trial_that_is_always_killed_is_recorded_and_those_after_it_are_trained(
    tmp_path: Path, prepared: Prepared
) -> None:
    folders = [make(tmp_path / name, prepared) for name in ("000", "001")]
    with killing(lambda: not (folders[0] / "result.json").exists(), once=False):
        in_processes(1, silent)(folders)
    lost, trained = map(read_result, folders)
    assert lost is not None
    assert lost.failure is not None
    assert "its process was killed in every attempt" in lost.failure
    assert trained is not None
    assert trained.failure is None


def test_a_lost_trial_keeps_the_scores_that_it_had(tmp_path: Path, prepared: Prepared) -> None:
    folder = make(tmp_path / "000", prepared, stop_at=2)
    in_this_process(silent)([folder])
    before = read_result(folder)
    record_loss(folder)
    after = read_result(folder)
    assert before is not None
    assert after == before.changed(failure="its process was killed in every attempt, perhaps for lack of memory")
