import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from export.errors import UserError
from fbnetv5.cost import Budget, CostTable
from fbnetv5.search.controller import Controller, Floats
from fbnetv5.search.derive import (
    Scored,
    best,
    candidates_for,
    find_tilt,
    pareto_front,
    sample_within,
    score_candidates,
)
from fbnetv5.space import Choices, Space

SPACE = Space(stages=2, blocks_per_path=1, strict=True)
EVERYTHING: Choices = np.array(list(itertools.product(range(2), repeat=len(SPACE.slots))))


def cost_table(seed: int = 0) -> CostTable:
    values = np.random.default_rng(seed).uniform(5, 15, (len(SPACE.nodes), 1))
    fixed = np.array([node.slot is None for node in SPACE.nodes])
    values[fixed] = 0.1
    return CostTable(space=SPACE, paths=(4, 8, 16, 32), unit="macs", blocks=values, head=1.0)


def make_controller(seed: int = 0) -> Controller:
    controller = Controller(SPACE.choice_counts, 2, lr=0.1)
    controller.logits.copy_(torch.from_numpy(np.random.default_rng(seed).normal(size=controller.logits.shape)))
    return controller


def expected_cost(probabilities: Floats, table: CostTable) -> tuple[float, float]:
    """Mean and standard deviation over all architectures."""
    p = probabilities[np.arange(len(SPACE.slots)), EVERYTHING].prod(1)
    costs = table(EVERYTHING)
    mean = float(p @ costs)
    return mean, float(np.sqrt(p @ (costs - mean) ** 2))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_a_tilt_brings_the_expected_cost_to_the_aim(share: float) -> None:
    controller, table = make_controller(), cost_table()
    aim = table.cheapest + share * (table.dearest - table.cheapest)
    tilt = find_tilt(controller, 1, table, aim, np.random.default_rng(0))
    mean, deviation = expected_cost(controller.tilted(1, tilt), table)
    assert abs(mean - aim) < 4 * deviation / np.sqrt(256)


@pytest.mark.parametrize(("aim", "bound"), [(0.0, -12.0), (1e9, 12.0)], ids=["below all", "above all"])
def test_a_tilt_stays_bounded_where_the_aim_is_out_of_reach(aim: float, bound: float) -> None:
    found = find_tilt(make_controller(), 0, cost_table(), aim, np.random.default_rng(0))
    assert found == pytest.approx(bound, abs=1e-3)


def test_samples_are_distinct_and_within_the_window() -> None:
    table, rng = cost_table(), np.random.default_rng(0)
    limit = 0.7 * table.dearest
    found = sample_within(make_controller().probabilities()[0], table, Budget(limit=limit, unit="macs"), 9, rng)
    assert len({tuple(choices) for choices in found}) == len(found) == 9
    costs = table(np.stack(found))
    assert (costs <= limit).all()
    assert (costs >= 0.85 * limit).all()


def test_all_that_fit_are_found_where_there_are_few() -> None:
    table, rng = cost_table(), np.random.default_rng(0)
    limit = table.dearest
    fitting = int((table(EVERYTHING) >= 0.85 * limit).sum())
    uniform = np.full((len(SPACE.slots), 2), 0.5)
    assert len(sample_within(uniform, table, Budget(limit=limit, unit="macs"), 10**6, rng)) == fitting


def test_a_budget_that_no_network_meets_is_refused() -> None:
    table = cost_table()
    budget = Budget(limit=table.cheapest / 2, unit="macs")
    with pytest.raises(UserError, match=r"no network for det costs between .* choose a larger budget"):
        candidates_for(make_controller(), unknown, 0, "det", table, budget, 3, np.random.default_rng(0))


def unknown(choices: Choices, task: int) -> Floats:
    """No opinion on losses."""
    return np.zeros(len(choices))


def test_candidates_are_those_expected_to_be_best() -> None:
    table = cost_table()
    budget = Budget(limit=(table.cheapest + table.dearest) / 2, unit="macs")
    drawn = (make_controller(), unknown, 0, "det", table, budget, 64, np.random.default_rng(0))
    pool = np.stack(candidates_for(*drawn))

    def by_number(choices: Choices, task: int) -> Floats:
        numbers: Floats = (choices @ 2.0 ** np.arange(choices.shape[1])) * (1 if task == 1 else -1)
        return numbers

    best = candidates_for(make_controller(), by_number, 1, "det", table, budget, 4, np.random.default_rng(0))
    assert by_number(np.stack(best), 1).tolist() == sorted(by_number(pool, 1))[:4]


def scored(costs: Sequence[float], scores: Sequence[float]) -> list[Scored]:
    rows = enumerate(zip(costs, scores, strict=True))
    return [Scored(choices=(number,), costs={"cls": cost}, scores={"cls": score}) for number, (cost, score) in rows]


points = st.lists(st.tuples(st.integers(70, 110), st.integers(0, 6)), min_size=1, max_size=25)


@given(points)
def test_the_front_holds_whatever_is_not_beaten(drawn: list[tuple[int, int]]) -> None:
    found = pareto_front(scored(*zip(*drawn, strict=True)), "cls")
    beaten = {
        (cost, score) for cost, score in drawn for c, s in drawn if c <= cost and s >= score and (c, s) != (cost, score)
    }
    assert [(s.costs["cls"], s.scores["cls"]) for s in found] == sorted(set(drawn) - beaten)


@given(points)
def test_the_best_scores_highest_within_the_window_and_is_the_cheapest_of_those(drawn: list[tuple[int, int]]) -> None:
    fitting = [point for point in drawn if 85 <= point[0] <= 100]
    if not fitting:
        return
    highest = max(score for _, score in fitting)
    cheapest = min(cost for cost, score in fitting if score == highest)
    found = best(scored(*zip(*drawn, strict=True)), "cls", Budget(limit=100.0, unit="macs"))
    assert (found.costs["cls"], found.scores["cls"]) == (cheapest, highest)


class TwoRounds:
    """A scorer whose first round ranks by how many slots are kept, and whose second ranks the other way round."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[tuple[int, ...]], int]] = []

    def __call__(self, pool: Sequence[Choices], pictures: int) -> list[dict[str, float]]:
        self.calls.append(([tuple(choices) for choices in pool], pictures))
        sign = 1 if len(self.calls) == 1 else -1
        return [{"cls": sign * float(choices.sum()), "seg": 0.5} for choices in pool]


def test_the_better_part_is_scored_again_and_keeps_the_second_scores() -> None:
    table, scorer = cost_table(), TwoRounds()
    budget = Budget(limit=0.8 * table.dearest, unit="macs")
    pool = list(EVERYTHING[::5])
    found = score_candidates(pool, {"cls": table}, {"cls": budget}, scorer, pictures=(16, 64), keep=3)
    costs = table(np.stack(pool))
    inside = [a for a, cost in zip(pool, costs, strict=True) if 0.85 * budget.limit <= cost <= budget.limit]
    kept = sorted((int(a.sum()) for a in inside), reverse=True)[:3]
    assert [pictures for _, pictures in scorer.calls] == [16, 64]
    assert sorted((sum(s.choices) for s in found), reverse=True) == kept
    assert [s.scores["cls"] for s in found] == [-float(sum(s.choices)) for s in found]
    np.testing.assert_allclose([s.costs["cls"] for s in found], table(np.array([s.choices for s in found])))


def test_every_task_keeps_a_finalist_in_its_own_window() -> None:
    tables = {"cls": cost_table(0), "seg": cost_table(1)}
    limits = {"cls": 0.5 * tables["cls"].dearest, "seg": 0.95 * tables["seg"].dearest}
    budgets = {task: Budget(limit=limit, unit="macs") for task, limit in limits.items()}
    found = score_candidates(list(EVERYTHING), tables, budgets, TwoRounds(), pictures=(1, 1), keep=2)
    for task, limit in limits.items():
        assert 0.85 * limit <= best(found, task, budgets[task]).costs[task] <= limit
