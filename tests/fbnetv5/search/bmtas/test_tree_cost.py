import time
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fbnetv5.search.bmtas.tree_cost import expected_cost, expected_groups


@cache
def all_choices(tasks: int) -> list[tuple[int, ...]]:
    return list(product(range(tasks), repeat=tasks))


@cache
def refined(groups: tuple[int, ...], choice: tuple[int, ...]) -> tuple[int, ...]:
    """The groups of a layer: each task's group is the number of the first task with its groups and its choice."""
    pairs = list(zip(groups, choice, strict=True))
    return tuple(pairs.index(pair) for pair in pairs)


def enumerated(probabilities: Tensor, costs: Tensor, needed: Tensor) -> Tensor:
    """The expected cost by running through all routings of every layer, with the groups so far as state."""
    layers, tasks, _ = probabilities.shape
    choices = torch.tensor(all_choices(tasks))
    states = {(0,) * tasks: torch.ones((), dtype=torch.double)}
    total = torch.zeros((), dtype=torch.double)
    for layer in range(layers):
        of_choices = probabilities[layer, torch.arange(tasks), choices].prod(1)
        after: dict[tuple[int, ...], list[Tensor]] = {}
        for groups, probability in states.items():
            numbers: dict[tuple[int, ...], list[int]] = {}
            for number, choice in enumerate(all_choices(tasks)):
                numbers.setdefault(refined(groups, choice), []).append(number)
            for key, members in numbers.items():
                after.setdefault(key, []).append(probability * of_choices[members].sum())
        states = {key: torch.stack(terms).sum() for key, terms in after.items()}
        for groups, probability in states.items():
            live = {group for task, group in enumerate(groups) if needed[layer, task]}
            total = total + probability * len(live) * costs[layer]
    return total


def random_case(seed: int, layers: int, tasks: int) -> tuple[Tensor, Tensor, Tensor]:
    """(logits, costs, needed) of random values; the last task may need fewer layers."""
    rng = np.random.default_rng(seed)
    needed = torch.ones(layers, tasks, dtype=torch.bool)
    needed[int(rng.integers(1, layers + 1)) :, -1] = False
    logits = torch.from_numpy(rng.normal(scale=3, size=(layers, tasks, tasks)))
    return logits, torch.from_numpy(rng.uniform(1, 9, layers)), needed


@given(seed=st.integers(0, 10**6), layers=st.integers(1, 3), tasks=st.integers(2, 4))
@settings(max_examples=30, deadline=None)
def test_the_expectation_and_its_gradient_equal_enumeration(seed: int, layers: int, tasks: int) -> None:
    logits, costs, needed = random_case(seed, layers, tasks)
    results = []
    for function in (expected_cost, enumerated):
        leaf = logits.clone().requires_grad_()
        value = function(leaf.softmax(-1), costs, needed)
        (gradient,) = torch.autograd.grad(value, leaf)
        results.append((value.detach(), gradient))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)


def test_five_tasks_equal_enumeration() -> None:
    logits, costs, needed = random_case(0, 2, 5)
    probabilities = logits.softmax(-1)
    torch.testing.assert_close(
        expected_cost(probabilities, costs, needed), enumerated(probabilities, costs, needed), rtol=1e-12, atol=0
    )


def test_certain_routings_have_the_groups_of_their_tree() -> None:
    copies = torch.tensor([[0, 0, 0], [1, 1, 0], [2, 0, 0], [1, 1, 1]])  # layer by task: together, 01|2, 0|1|2, apart
    groups = expected_groups(torch.nn.functional.one_hot(copies, 3).double(), torch.ones(4, 3, dtype=torch.bool))
    assert groups.tolist() == [1, 2, 3, 3]


@pytest.mark.parametrize(("tasks", "limit_ms"), [(8, 50), (12, 1000)])
def test_many_tasks_are_affordable(tasks: int, limit_ms: float) -> None:
    """Ten times the times that an idle core needs; enumeration of the routings of one layer would take 12**12 steps."""
    logits, costs, needed = random_case(1, 18, tasks)
    start = time.perf_counter()
    value = expected_cost(logits.softmax(-1), costs, needed)
    assert 1e3 * (time.perf_counter() - start) < limit_ms
    assert costs.sum() <= value <= tasks * costs.sum()
