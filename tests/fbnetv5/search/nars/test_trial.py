import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from export.errors import UserError
from fbnetv5.architecture import load_architecture
from fbnetv5.runs.checkpoint import load_tensors
from fbnetv5.search.nars.prepare import Prepared
from fbnetv5.search.nars.results import pair_architecture
from fbnetv5.search.nars.trial import ATTEMPT, TrialResult, make_trial, read_result, train_trial
from fbnetv5.training.loop import TrainLoop
from tests.fbnetv5.search.nars.conftest import draw

RECIPE = {"lr": 1e-3, "optimizer": "adamw", "mixup": 0.0}


def make(folder: Path, prepared: Prepared, *, stop_at: int | None = None, **recipe: Any) -> Path:
    architecture = pair_architecture(prepared, draw(prepared.pairs, 1)[0])
    make_trial(folder, architecture, prepared.config.train_config({**RECIPE, **recipe}, stop_at=stop_at))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, prepared: Prepared) -> Path:
    """A trial that was trained to its end, which no test may change."""
    folder = make(tmp_path_factory.mktemp("trials") / "000", prepared)
    train_trial(folder)
    return folder


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "000"))


def test_a_trial_has_the_scores_of_its_history(trained: Path) -> None:
    result = read_result(trained)
    assert result is not None
    lines = [json.loads(line) for line in (trained / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["step"]: line["scores"]["cls"] for line in lines if line["step"]} == dict(
        zip(result.steps, result.scores, strict=True)
    )
    assert (result.steps, result.failure, result.last_step) == ((2, 4), None, 4)
    assert result.seconds > 0


def test_a_trial_that_was_stopped_early_ends_as_if_it_had_not(
    tmp_path: Path, prepared: Prepared, trained: Path
) -> None:
    folder = make(tmp_path / "000", prepared, stop_at=2)
    stopped = train_trial(folder)
    assert (stopped.steps, stopped.failure) == ((2,), None)
    make(folder, prepared)
    whole, expected = train_trial(folder), read_result(trained)
    assert expected is not None
    assert (whole.steps, whole.scores) == (expected.steps, expected.scores)
    assert whole.seconds > stopped.seconds
    assert (folder / "cls.safetensors").read_bytes() == (trained / "cls.safetensors").read_bytes()
    final, other = (load_tensors(path / "checkpoint" / "step-4.safetensors") for path in (folder, trained))
    assert all(torch.equal(value, other[name]) for name, value in final.items())


def test_a_folder_is_made_whole_or_not_at_all(tmp_path: Path, prepared: Prepared, monkeypatch: Any) -> None:
    def killed(self: Any, folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fbnetv5.training.config.TrainConfig.save", killed)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "000", prepared)
    assert not (tmp_path / "000").exists()
    folder = make(tmp_path / "000", prepared)
    assert {path.name for path in folder.iterdir()} == {"cls.json", "cls.safetensors", "config.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["000"]
    assert load_architecture(folder / "cls.json").task == "cls"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, prepared: Prepared) -> None:
    (tmp_path / "trials").touch()
    with pytest.raises(UserError, match=r"cannot make .*trials/\.000\.new: "):
        make(tmp_path / "trials" / "000", prepared)


def test_a_training_that_diverges_is_a_result(tmp_path: Path, prepared: Prepared) -> None:
    result = train_trial(make(tmp_path / "000", prepared, lr=1e12, optimizer="sgd", max_skipped=0))
    assert result.failure is not None
    assert "is not finite" in result.failure
    assert read_result(tmp_path / "000") == result


def test_a_score_that_is_not_finite_is_a_failure(copy: Path) -> None:
    (copy / "result.json").unlink()
    history = copy / "history.jsonl"
    history.write_text(history.read_text(encoding="utf-8").replace('"step": 4', '"step": 4', 1), encoding="utf-8")
    lines = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    lines[-1]["scores"]["cls"] = float("nan")
    history.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    result = train_trial(copy)
    assert (result.steps, result.failure) == ((2,), "its score is not finite at step 4")


def test_a_lost_result_is_that_of_the_checkpoint(copy: Path, trained: Path) -> None:
    (copy / "result.json").unlink()
    result, expected = train_trial(copy), read_result(trained)
    assert expected is not None
    assert (result.steps, result.scores) == (expected.steps, expected.scores)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "half a result": (lambda folder: cut(folder / "result.json"), "is not valid JSON"),
    "a result of no steps": (
        lambda folder: write(folder, {"scores": []}),
        "result.json is damaged: .*steps is missing",
    ),
    "more steps than scores": (lambda folder: write(folder, {"steps": [1], "scores": []}), "do not fit 0 scores"),
    "a score of text": (lambda folder: write(folder, {"steps": [1], "scores": ["a"]}), "result.json is damaged"),
    "half a configuration": (lambda folder: cut(folder / "config.json"), "is not valid JSON"),
    "half a network": (lambda folder: cut(folder / "cls.json"), "is not valid JSON"),
    "no network": (lambda folder: (folder / "cls.json").unlink(), "does not exist"),
    "no weights": (lambda folder: (folder / "cls.safetensors").unlink(), "cls.safetensors does not exist"),
    "half of the weights": (lambda folder: cut(folder / "cls.safetensors"), "is damaged or half-written"),
    "no checkpoint": (lambda folder: shutil.rmtree(folder / "checkpoint"), "has no checkpoint of a training that had"),
    "half a checkpoint": (lambda folder: cut(folder / "checkpoint/step-4.safetensors"), "is damaged or half-written"),
    "no tensors": (lambda folder: (folder / "checkpoint/step-4.safetensors").unlink(), "does not exist"),
    "half a history": (lambda folder: cut(folder / "history.jsonl"), "history.jsonl is damaged: it lacks evaluations"),
    "no history": (lambda folder: (folder / "history.jsonl").unlink(), "it lacks evaluations"),
}


def write(folder: Path, document: dict[str, Any]) -> None:
    (folder / "result.json").write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_one_line_with_the_folder_and_the_way_out(
    copy: Path, damage: Callable[[Path], Any], message: str
) -> None:
    damage(copy)
    with pytest.raises(UserError, match=f"{message}.*Remove the folder {copy} to train this trial again, then resume"):
        train_trial(copy)


def test_a_trial_without_a_result_has_none(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None


def test_a_result_without_evaluations_ended_at_step_0() -> None:
    assert TrialResult(steps=(), scores=(), failure="out of memory").last_step == 0


@pytest.mark.parametrize(
    ("error", "is_result"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error"), False),
    ],
    ids=["gpu", "cpu", "cublas", "worker"],
)
def test_only_a_lack_of_memory_is_a_result_for_good(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch, error: RuntimeError, *, is_result: bool
) -> None:
    def fail(loop: TrainLoop) -> None:
        raise error

    folder = tmp_path / "000"
    pair = draw(prepared.pairs, 1)[0]
    make_trial(folder, pair_architecture(prepared, pair), prepared.config.train_config(prepared.pairs.recipe(pair)))
    monkeypatch.setattr(TrainLoop, "step", fail)
    if is_result:
        assert train_trial(folder).failure == str(error)
        return
    with pytest.raises(
        UserError, match=r"the training of .*000 failed: DataLoader worker .* Correct that, then resume"
    ):
        train_trial(folder)
    assert read_result(folder) is None
    assert train_trial(folder).failure == str(error)  # it failed once more when it was resumed: the search goes on


def test_a_trial_that_succeeds_may_fail_once_again(tmp_path: Path, prepared: Prepared) -> None:
    folder = make(tmp_path / "000", prepared)
    (folder / ATTEMPT).touch()
    assert train_trial(folder).failure is None
    assert not (folder / ATTEMPT).exists()
