import json
import math

import pytest

from export.errors import VerificationError
from fbnetv5.data.scenes import CLASSES
from fbnetv5.tasks import make_tasks
from fbnetv5.training.best import Best, mean_gain

TASKS = make_tasks(("seg", "depth"), CLASSES)
METRICS = {name: task.metric for name, task in TASKS.items()}


def test_the_gain_is_relative_and_turned_where_lower_is_better() -> None:
    before, after = {"seg": 0.4, "depth": 2.0}, {"seg": 0.5, "depth": 1.0}
    assert mean_gain(before, after, METRICS) == pytest.approx((0.2 + 0.5) / 2)
    assert mean_gain(after, before, METRICS) == pytest.approx(-(0.2 + 0.5) / 2)
    assert mean_gain(before, before, METRICS) == 0


def test_a_score_of_zero_is_as_bad_or_as_good_as_possible() -> None:
    worst, some, best = {"seg": 0.0, "depth": 9.0}, {"seg": 0.1, "depth": 9.0}, {"seg": 0.1, "depth": 0.0}
    assert mean_gain(worst, some, METRICS) == mean_gain(some, best, METRICS) == 0.5
    assert mean_gain(worst, best, METRICS) == 1 == -mean_gain(best, worst, METRICS)
    assert mean_gain(worst, worst, METRICS) == 0


@pytest.mark.parametrize(
    ("task", "scores", "kept"),
    [("seg", [0.0, 0.0, 0.2, 0.1, 0.3], [0, 2, 4]), ("depth", [3.0, 4.0, 2.0, 2.0], [0, 2])],
)
def test_one_task_keeps_its_best_score(task: str, scores: list[float], kept: list[int]) -> None:
    best = Best({task: TASKS[task]})
    assert [step for step, score in enumerate(scores) if best.replace({task: score}, step)] == kept
    assert (best.initial, best.scores, best.step) == ({task: scores[0]}, {task: scores[kept[-1]]}, kept[-1])


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_first_scores_must_be_finite(score: float) -> None:
    best = Best(TASKS)
    with pytest.raises(VerificationError, match=rf"the score of depth before the first step is {score}: .*--init"):
        best.replace({"seg": 0.1, "depth": score}, 0)
    assert best.state() == Best(TASKS).state()


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_of_one_task_that_is_not_finite_replaces_no_score(score: float) -> None:
    tasks = make_tasks(("seg", "saliency", "depth"), CLASSES)
    best = Best(tasks)
    best.replace({"seg": 0.0, "saliency": 0.0, "depth": 2.0}, 0)
    assert not best.replace({"seg": 0.9, "saliency": 0.9, "depth": score}, 1)


WRITTEN = {"seg": 0.5, "depth": 1.0}
RESUMED: dict[str, tuple[list[float], list[float], int]] = {
    "as before": ([0.1, 0.5], [0.5, 1.0], 4),
    "rounded otherwise": ([0.1, 0.1], [0.5, 1.0], 4),
    "rounded otherwise, better": ([0.1, 0.6], [0.6, 1.0], 4),
    "better before": ([0.4, 0.3], [0.4, 1.0], 2),
}


@pytest.mark.parametrize(("resumed", "expected", "step"), RESUMED.values(), ids=RESUMED)
def test_weights_written_after_the_checkpoint_are_the_best_until_others_are_written(
    resumed: list[float], expected: list[float], step: int
) -> None:
    best = Best(TASKS)
    best.load({"best": {"seg": 0.2, "depth": 1.0}, "best_step": 0, "first": {"seg": 0.2, "depth": 1.0}})
    best.resume(WRITTEN, 4)
    for number, score in zip((2, 4), resumed, strict=True):
        best.replace({"seg": score, "depth": 1.0}, number)
    assert (list(best.scores.values()), best.step) == (expected, step)


def test_the_state_is_restored_also_that_of_an_older_checkpoint() -> None:
    best, restored = Best(TASKS), Best(TASKS)
    best.replace({"seg": 0.1, "depth": 2.0}, 0)
    best.replace({"seg": 0.2, "depth": 2.1}, 5)
    restored.load(json.loads(json.dumps(best.state())))
    assert (
        restored.state()
        == best.state()
        == {
            "best": {"seg": 0.2, "depth": 2.1},
            "best_step": 5,
            "first": {"seg": 0.1, "depth": 2.0},
        }
    )
    older = Best({"seg": TASKS["seg"]})
    older.load({"best": 0.3, "best_step": 7, "first": 0.1})
    assert (older.scores, older.step, older.initial) == ({"seg": 0.3}, 7, {"seg": 0.1})
