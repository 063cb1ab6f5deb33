"""An experiment's trials are done once, and a folder goes on only as it was begun."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import experiment as module
from benchmarks.experiment import Experiment, Trial, begin_experiment, hash_images, in_turns, trial_file
from export.errors import UserError
from fbnetv5.data.scenes import Scenes

TRIALS = [Trial(arm=arm, unit=str(unit), inputs={"values": (unit, 1)}) for arm in ("a", "b") for unit in range(2)]


def work(trial: Trial) -> dict[str, Any]:
    return {"sum": sum(trial.inputs["values"]), "threads": torch.get_num_threads()}


def refuse(trial: Trial) -> dict[str, Any]:
    raise UserError(f"{trial.arm} {trial.unit} was done again")


def ignore(trial: Trial, result: dict[str, Any]) -> None:
    """Report nothing."""


def begin(folder: Path, **changed: Any) -> Experiment:
    arguments: dict[str, Any] = {"name": "x", "data": "d", "threads": 1} | changed
    arguments["configuration"] = {"steps": 3, "size": (32, 32)} | changed.get("configuration", {})
    return begin_experiment(folder, **arguments)


@pytest.mark.parametrize("processes", [1, 2])
def test_every_trial_runs_once_with_the_requested_threads(tmp_path: Path, processes: int) -> None:
    experiment = begin(tmp_path)
    reported: list[Trial] = []
    results = experiment.run(TRIALS, work, processes=processes, report=lambda trial, result: reported.append(trial))
    assert [results[trial]["sum"] for trial in TRIALS] == [1, 2, 1, 2]
    assert {result["threads"] for result in results.values()} == {1}
    assert set(reported) == set(TRIALS)
    assert begin(tmp_path).run(TRIALS, refuse, processes=processes, report=ignore) == results


def test_an_interrupted_experiment_runs_the_remaining_trials(tmp_path: Path) -> None:
    experiment = begin(tmp_path)
    experiment.run(TRIALS[:3], work, processes=1, report=ignore)
    with pytest.raises(UserError, match="b 1 was done again"):
        experiment.run(TRIALS, refuse, processes=1, report=ignore)
    trial_file(tmp_path, TRIALS[0]).unlink()
    assert len(experiment.run(TRIALS, work, processes=1, report=ignore)) == 4


def test_a_trial_with_other_inputs_is_refused(tmp_path: Path) -> None:
    begin(tmp_path).run(TRIALS, work, processes=1, report=ignore)
    with pytest.raises(UserError, match=r"a/0\.json is a trial with other inputs"):
        begin(tmp_path).run([Trial(arm="a", unit="0", inputs={"values": [5]})], work, processes=1, report=ignore)


CHANGES: dict[str, dict[str, Any]] = {
    "steps: 3, now 4": {"configuration": {"steps": 4}},
    "data: d, now e": {"data": "e"},
    "threads: 1, now 2": {"threads": 2},
    "benchmark: x, now y": {"name": "y"},
    "extra: None, now 1": {"configuration": {"extra": 1}},
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_folder_is_resumed_with_its_own_settings_only(tmp_path: Path, message: str) -> None:
    begin(tmp_path)
    begin(tmp_path)
    with pytest.raises(UserError, match=f"was begun with other {message}"):
        begin(tmp_path, **CHANGES[message])


def test_another_cpu_or_torch_is_refused_and_another_day_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path)
    path = tmp_path / module.NAME
    document = json.loads(path.read_text())
    assert set(document) >= {"begun", "cpu", "torch", "threads", "data"}
    path.write_text(json.dumps(document | {"begun": "2020-01-01"}))
    begin(tmp_path)
    monkeypatch.setattr(module, "cpu_name", lambda: "another")
    with pytest.raises(UserError, match="other cpu"):
        begin(tmp_path)


def test_the_hash_of_images_follows_images_labels_and_order() -> None:
    scenes, others = (Scenes("train", size=(32, 32), count=2, seed=seed) for seed in (0, 1))
    assert hash_images(scenes, others) == hash_images(scenes, others)
    assert hash_images(scenes, others) != hash_images(others, scenes)
    whole = hash_images(scenes)
    scenes[1].targets["boxes"].labels[0] += 1
    assert hash_images(scenes) != whole


def test_an_interrupted_experiment_has_some_of_every_group() -> None:
    assert in_turns(TRIALS[:2], TRIALS[2:3]) == [TRIALS[0], TRIALS[2], TRIALS[1]]
