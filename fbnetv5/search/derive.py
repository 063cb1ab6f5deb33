"""From policies to architectures: sample, keep what fits the budget, score with the shared weights, keep the best.

Candidates come from each task's policy, tilted so that its expected cost meets the budget: a policy that stopped a
little beside it still yields candidates, and one that met it is left as it is. Of those drawn, the ones are kept whose
loss the search's estimator expects to be lowest, if it expects anything. Every candidate runs once for all tasks;
each task compares those whose own live network fits its own budget. Scores are the tasks' metrics on held-out pictures,
batch norm recalibrated per candidate; the better part is scored again on more pictures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.errors import UserError
from fbnetv5.cost import WINDOW, Budget, CostTable, format_cost
from fbnetv5.search.controller import Controller, Floats, draw
from fbnetv5.space import Choices

AIM = 0.95
"""The part of the budget that expected costs are steered to: inside ``WINDOW``, with room for a draw's spread."""

SURPLUS = 16
"""Architectures drawn per candidate kept."""

Expected = Callable[[Choices, int], Floats]
"""(architectures [K, S], task) -> what their losses are expected to be, up to a constant."""

Scorer = Callable[[Sequence[Choices], int], list[dict[str, float]]]
"""(architectures, how many pictures) -> each one's metric per task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A candidate and what was measured of it."""

    choices: tuple[int, ...]
    costs: Mapping[str, float]
    """Cost of each task's live network, in its budget's unit."""
    scores: Mapping[str, float]
    """Each task's metric, 0..1."""


def in_window(costs: Floats, budget: Budget) -> NDArray[np.bool_]:
    """Which costs lie within the part of the budget that a derived network may cost."""
    return (costs >= WINDOW[0] * budget.limit) & (costs <= WINDOW[1] * budget.limit)


def find_tilt(controller: Controller, task: int, table: CostTable, aim: float, rng: np.random.Generator) -> float:
    """What to add to the logits of all but skipping, so that the task's expected cost is ``aim``; within +-12."""
    low, high = -12.0, 12.0
    seed = int(rng.integers(2**32))  # the same uniform numbers at every tilt make the mean cost grow with it
    for _ in range(24):
        middle = (low + high) / 2
        drawn = draw(controller.tilted(task, middle), 256, np.random.default_rng(seed))
        if table(drawn).mean() > aim:
            high = middle
        else:
            low = middle
    return (low + high) / 2


def sample_within(
    probabilities: Floats, table: CostTable, budget: Budget, count: int, rng: np.random.Generator, *, tries: int = 40
) -> list[Choices]:
    """Up to ``count`` distinct architectures whose cost lies in the budget's window, in the order drawn."""
    found: dict[bytes, Choices] = {}
    for _ in range(tries):
        drawn = draw(probabilities, 512, rng)
        for choices in drawn[in_window(table(drawn), budget)]:
            found.setdefault(choices.tobytes(), choices)
            if len(found) == count:
                return list(found.values())
    return list(found.values())


def candidates_for(
    controller: Controller,
    expected: Expected,
    task: int,
    name: str,
    table: CostTable,
    budget: Budget,
    count: int,
    rng: np.random.Generator,
) -> list[Choices]:
    """Architectures from a task's policy that fit its budget, best expected first; of equals, the first drawn.

    Raises:
        UserError: none was found in the window.
    """
    tilt = find_tilt(controller, task, table, AIM * budget.limit, rng)
    found = sample_within(controller.tilted(task, tilt), table, budget, SURPLUS * count, rng)
    if not found:
        low, high = (format_cost(part * budget.limit, budget.unit) for part in WINDOW)
        raise UserError(f"no network for {name} costs between {low} and {high}; choose a larger budget or space")
    order = expected(np.stack(found), task).argsort(kind="stable")
    return [found[index] for index in order[:count]]


def score_candidates(
    pool: Sequence[Choices],
    tables: Mapping[str, CostTable],
    budgets: Mapping[str, Budget],
    scorer: Scorer,
    *,
    pictures: tuple[int, int],
    keep: int,
) -> list[Scored]:
    """Score the pool on ``pictures[0]`` held-out pictures, then each task's ``keep`` best on ``pictures[1]``.

    Returns:
        The candidates of the second round; every task has at least one within its window if the pool has.
    """
    first = _scored(pool, tables, scorer(pool, pictures[0]))
    chosen: dict[tuple[int, ...], None] = {}
    for task, budget in budgets.items():
        fitting = [scored for scored in first if in_window(np.array(scored.costs[task]), budget)]
        for scored in sorted(fitting, key=lambda s: -s.scores[task])[:keep]:
            chosen[scored.choices] = None
    finalists = [np.array(choices, dtype=np.int64) for choices in chosen]
    return _scored(finalists, tables, scorer(finalists, pictures[1]))


def best(scored: Sequence[Scored], task: str, budget: Budget) -> Scored:
    """The best-scored candidate in the task's window; of equals, the cheaper."""
    fitting = [s for s in scored if in_window(np.array(s.costs[task]), budget)]
    return max(fitting, key=lambda s: (s.scores[task], -s.costs[task]))


def pareto_front(scored: Sequence[Scored], task: str) -> list[Scored]:
    """Those that no other beats in both cost and score, cheapest first."""
    front: list[Scored] = []
    for candidate in sorted(scored, key=lambda s: (s.costs[task], -s.scores[task])):
        if not front or candidate.scores[task] > front[-1].scores[task]:
            front.append(candidate)
    return front


def _scored(
    pool: Sequence[Choices], tables: Mapping[str, CostTable], scores: Sequence[Mapping[str, float]]
) -> list[Scored]:
    stacked = np.stack(pool)
    costs = {task: table(stacked) for task, table in tables.items()}
    return [
        Scored(
            choices=tuple(int(choice) for choice in choices),
            costs={task: float(column[row]) for task, column in costs.items()},
            scores=scores[row],
        )
        for row, choices in enumerate(pool)
    ]
