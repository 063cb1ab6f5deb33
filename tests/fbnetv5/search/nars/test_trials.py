import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.errors import UserError, VerificationError
from fbnetv5.search.nars.trial import TrialResult
from fbnetv5.search.nars.trials import Batch, Trials, load_trials, score_at

COUNTS = np.array([3, 2])


def made(folder: Path) -> Trials:
    trials = Trials(folder)
    trials.add(Batch(pairs=((0, 0), (2, 1))))
    trials.continued = (1,)
    trials.add(Batch(pairs=((1, 1),), stop_at=4))
    return trials


def result(*scores: float, failure: str | None = None) -> TrialResult:
    return TrialResult(steps=tuple(range(2, 2 + 2 * len(scores), 2)), scores=scores, failure=failure)


def test_stored_trials_are_loaded_as_they_were(tmp_path: Path) -> None:
    trials, loaded = made(tmp_path), load_trials(tmp_path, COUNTS)
    assert (loaded.batches, loaded.continued, loaded.results) == (trials.batches, (1,), [])
    assert loaded.pairs.tolist() == [[0, 0], [2, 1], [1, 1]]
    assert [list(loaded.numbers(batch)) for batch in (0, 1)] == [[0, 1], [2]]
    assert loaded.trial_folder(12) == tmp_path / "trials" / "012"


def test_trials_of_another_identity_are_refused_where_the_search_goes_on(tmp_path: Path) -> None:
    trials = Trials(tmp_path, identity={"images": {"test": 7}, "latencies": "a"})
    trials.add(Batch(pairs=((0, 0),)))
    assert load_trials(tmp_path, COUNTS, {"images": {"test": 7}, "latencies": "a"}).batches == trials.batches
    assert load_trials(tmp_path, COUNTS).batches == trials.batches
    with pytest.raises(UserError, match=rf"{tmp_path} was made with other latencies: a, now b\. .* a new nars"):
        load_trials(tmp_path, COUNTS, {"images": {"test": 7}, "latencies": "b"})


def test_a_new_run_has_no_trials(tmp_path: Path) -> None:
    assert load_trials(tmp_path, COUNTS).batches == []


def test_scores_are_those_of_a_step_and_failures_have_the_lowest(tmp_path: Path) -> None:
    trials = made(tmp_path)
    trials.results = [result(0.1, 0.5), result(0.2, failure="no memory"), result(0.3)]
    assert trials.scores_at(2, 1.0).tolist() == [0.1, 0.1, 0.3]
    assert trials.scores_at(2, -1.0).tolist() == [-0.1, -0.3, -0.3]
    assert trials.scores_at(4, 1.0, impute=False).tolist() == pytest.approx([0.5, np.nan, np.nan], nan_ok=True)
    assert np.isnan(score_at(trials.results[0], 3))


def test_the_failure_of_all_trainings_is_a_failed_check_with_the_reasons(tmp_path: Path) -> None:
    trials = made(tmp_path)
    trials.results = [result(failure="no memory"), result(0.2, failure="diverged"), result(failure="no memory")]
    with pytest.raises(VerificationError, match=rf"all 3 trainings of {tmp_path} failed: diverged; no memory"):
        trials.scores_at(2, 1.0)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another schema": ({"schema": 7}, "has schema 7"),
    "no batches": ({"batches": None}, "is damaged"),
    "a batch that is no object": ({"batches": [3]}, "is damaged"),
    "a batch of another field": ({"batches": [{"pair": []}]}, "is damaged: batch of trials"),
    "a pair that is too short": ({"batches": [{"pairs": [[0]]}]}, "pair 0 does not fit the space"),
    "a choice out of range": ({"batches": [{"pairs": [[0, 0], [0, 2]]}]}, "pair 1 does not fit the space"),
    "a trial that does not exist": ({"continued": [3]}, "there is no trial 3 to continue"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_a_damaged_file_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    made(tmp_path)
    path = tmp_path / "trials.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_trials(tmp_path, COUNTS)
