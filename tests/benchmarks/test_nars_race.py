from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks import nars_race
from benchmarks.nars_race import (
    CONTROLS,
    SEARCHERS,
    World,
    _scores_by_time,
    against_random,
    early_stopping,
    load_world,
    pretraining,
    random_best,
    summarise_race,
)
from benchmarks.nars_race_peers import nearest

COUNT = 16


@pytest.fixture(scope="module")
def world() -> World:
    """The first stored trainings."""
    whole = load_world()
    quick = replace(whole.settings, members=2, frozen_epochs=5, joint_epochs=5)
    return replace(
        whole, choices=whole.choices[:64], curves=whole.curves[:64], seconds=whole.seconds[:64], settings=quick
    )


@pytest.mark.parametrize("name", [name for name in SEARCHERS if name not in ("optuna tpe", "botorch gp")])
def test_a_searcher_trains_different_pairs_and_starts_like_random_search(world: World, name: str) -> None:
    order = SEARCHERS[name](world, COUNT, 3)
    assert len(set(order)) == COUNT
    assert order[:8] == SEARCHERS["random"](world, COUNT, 3)[:8]
    assert order == SEARCHERS[name](world, COUNT, 3)


def test_a_masked_predictor_does_not_see_the_other_part(world: World) -> None:
    changed = world.choices.copy()
    changed[:, world.pairs.size :] = 0
    other = replace(world, choices=changed)
    assert SEARCHERS["architecture alone"](other, COUNT, 0) == SEARCHERS["architecture alone"](world, COUNT, 0)


def test_the_correlation_of_the_last_evaluation_with_itself_is_1(world: World) -> None:
    report = early_stopping(world, range(2), 0.92)
    assert report["correlation_of_all"][-1] == pytest.approx(1.0)
    expected = spearmanr(world.curves[:, 0], world.final).statistic
    assert report["correlation_of_all"][0] == pytest.approx(expected)
    assert all(step in world.steps for step in report["stop_at"])


def test_predictors_are_compared_on_the_trainings_that_they_have_not_seen(world: World) -> None:
    taus = pretraining(world, range(1))
    assert set(taus) == {"8", "16", "32"}
    assert all(-1 <= tau <= 1 for of_count in taus.values() for tau in np.ravel(list(of_count.values())))


def test_a_searcher_that_finds_the_same_has_no_difference(world: World) -> None:
    best = {"nars, thompson": [[-1.0] * 4, [-0.9] * 4], "random": [[-1.0] * 4, [-0.9] * 4]}
    rows = summarise_race(world, best)
    assert rows["random"]["8"]["nars_less_this"]["value"] == 0.0
    assert rows["random"]["8"]["mean"] == pytest.approx(-0.95)


def test_the_distribution_of_random_search_is_that_over_all_subsets() -> None:
    scores = np.random.default_rng(0).normal(size=9)
    for count in (1, 3, 9):
        subsets = [max(subset) for subset in combinations(scores.tolist(), count)]
        best, shares = random_best(scores, count)
        assert shares.tolist() == pytest.approx([np.mean(np.array(subsets) == score) for score in best])


def test_random_search_is_not_distinguishable_from_random_search(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nars_race, "CONTROLS", {"random": SEARCHERS["random"], "oracle": oracle})
    rows = against_random(world, range(40))
    assert all(row["p"] > 0.02 for row in list(rows["random"].values())[:3])  # all 64 pairs are the same for all
    assert rows["oracle"]["8"]["p"] < 0.001
    assert rows["oracle"]["8"]["gain"]["low"] > 0


def oracle(world: World, count: int, seed: int) -> list[int]:
    """The best pairs first."""
    rows: list[int] = np.argsort(-world.final)[:count].tolist()
    return rows


def test_a_control_does_not_depend_on_the_scores(world: World) -> None:
    """Random numbers in place of scores: other scores, the same choices; the search itself chooses others."""
    reversed_scores = replace(world, curves=-world.curves)
    assert CONTROLS["nars, random numbers"](world, COUNT, 1) == CONTROLS["nars, random numbers"](
        reversed_scores, COUNT, 1
    )
    assert CONTROLS["nars, thompson"](world, COUNT, 1) != CONTROLS["nars, thompson"](reversed_scores, COUNT, 1)


def test_the_nearest_row_is_not_one_that_was_taken() -> None:
    vectors = np.array([[0.0], [1.0], [2.0]], dtype=np.float32)
    assert nearest(vectors, np.array([0.9], dtype=np.float32), []) == 1
    assert nearest(vectors, np.array([0.9], dtype=np.float32), [1]) == 0


def test_stopped_trainings_cost_their_share_and_the_score_is_that_of_the_end(world: World) -> None:
    curves = world.curves.copy()
    curves[:, :-1] = curves[:, -1:]  # the first evaluation ranks as the last, so trainings stop at an eighth
    early = replace(world, curves=curves, seconds=np.full(len(curves), 8.0))
    order = SEARCHERS["random"](early, 64, 0)
    found = _scores_by_time(early, SEARCHERS["random"], 0, 0.9, np.array([0.0, 64.0, 64.0 + 8.0, 1e9]))
    assert found == [early.final[order[:count]].max() for count in (8, 8, 16, 64)]
