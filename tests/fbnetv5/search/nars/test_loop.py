import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from export.errors import UserError, VerificationError
from fbnetv5.data.config import DataConfig
from fbnetv5.search.nars.entry import NarsEntry
from fbnetv5.search.nars.loop import NarsLoop
from fbnetv5.search.nars.prepare import Prepared, prepare
from fbnetv5.search.nars.recipes import RecipeVariable
from fbnetv5.search.nars.run import run_nars
from fbnetv5.search.nars.trial import read_result, train_trial
from fbnetv5.search.nars.trials import load_trials
from tests.fbnetv5.search.nars.conftest import SIZE, search, tiny_config

FILES = ("cls.json", "cls.safetensors", "recipe.json", "trials.json", "pareto.json")


def test_an_interrupted_and_resumed_search_has_the_same_files(
    tmp_path: Path, prepared: Prepared, finished: Path
) -> None:
    trained: list[Path] = []

    def interrupted(folders: Sequence[Path]) -> None:
        for folder in folders:
            if len(trained) == 4:
                raise KeyboardInterrupt
            trained.append(folder)
            train_trial(folder)

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "run", prepared, runner=interrupted)
    assert not (tmp_path / "run" / "recipe.json").exists()
    repeated: list[Path] = []

    def run(folders: Sequence[Path]) -> None:
        repeated.extend(folders)
        for folder in folders:
            train_trial(folder)

    entries: list[NarsEntry] = []
    run_nars(tmp_path / "run", prepared, run, entries.append)
    assert not set(repeated[:1]) & set(trained)
    for file in FILES:
        assert (tmp_path / "run" / file).read_bytes() == (finished / file).read_bytes()
    assert [entry.step for entry in entries] == [3, 5, 6]


def test_a_search_is_not_resumed_with_other_images(finished: Path, tmp_path: Path) -> None:
    def unexpected(_: object) -> NoReturn:
        raise AssertionError

    shutil.copytree(finished, tmp_path / "run")
    fewer = prepare(tiny_config(data=DataConfig(size=SIZE, scenes=(48, 24, 15))))
    with pytest.raises(UserError, match=r"run was made with other images: .*'test': 16}, now .* a new nars"):
        run_nars(tmp_path / "run", fewer, unexpected, unexpected)


def test_later_trainings_stop_where_the_ranking_is_final_and_finalists_do_not(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NarsLoop, "stop_at", 2)
    search(tmp_path / "run", prepared)
    trials = load_trials(tmp_path / "run", prepared.pairs.counts)
    assert [batch.stop_at for batch in trials.batches] == [None, 2, None]
    results = [read_result(trials.trial_folder(number)) for number in range(6)]
    last = [result.last_step if result else None for result in results]
    (continued,) = trials.continued
    assert continued in (3, 4)
    assert last == [4, 4, 4, *(4 if number == continued else 2 for number in (3, 4)), 4]


def test_the_best_trial_is_the_best_of_those_trained_to_the_end(finished: Path, prepared: Prepared) -> None:
    trials = load_trials(finished, prepared.pairs.counts)
    finals = {}
    for number in range(6):
        result = read_result(trials.trial_folder(number))
        if result is not None and result.last_step == 4:
            finals[number] = result.scores[-1]
    document = (finished / "cls.json").read_text(encoding="utf-8")
    best = max(finals, key=lambda number: finals[number])
    assert f'"trial": {best}' in document


def test_a_metric_of_which_lower_is_better_is_minimised(tmp_path: Path) -> None:
    config = tiny_config(task_name="depth", iterations=1)
    of_depth = prepare(config)
    result = search(tmp_path / "run", of_depth)
    trials = load_trials(tmp_path / "run", of_depth.pairs.counts)
    finals = [read_result(trials.trial_folder(number)) for number in range(len(trials.pairs))]
    assert result.score == min(final.scores[-1] for final in finals if final is not None)


def test_a_search_survives_trainings_that_diverge(tmp_path: Path, prepared: Prepared) -> None:
    config = tiny_config(
        recipes={"lr": RecipeVariable(values=(1e-3, 1e12)), "mixup": RecipeVariable(values=(0.0, 0.2))},
        training={**tiny_config().training, "max_skipped": 0},
    )
    own = replace(prepared, config=config)
    result = search(tmp_path / "run", own)
    assert result.recipe["lr"] == 1e-3
    trials = load_trials(tmp_path / "run", own.pairs.counts)
    failures = [read_result(trials.trial_folder(number)) for number in range(len(trials.pairs))]
    assert any(result and result.failure for result in failures)


def test_a_search_whose_trainings_all_diverge_ends_with_the_reason(tmp_path: Path, prepared: Prepared) -> None:
    recipes = {"lr": RecipeVariable(values=(1e11, 1e10)), "optimizer": RecipeVariable(values=("sgd",))}
    training = {**tiny_config().training, "max_skipped": 0}
    config = tiny_config(recipes=recipes, first_batch=2, training=training)
    with pytest.raises(VerificationError, match=r"all 2 trainings of .* failed: .*is not finite"):
        search(tmp_path / "run", replace(prepared, config=config))
