import itertools
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fbnetv5.search.reinforce.controller import (
    EXPLORING_EXPONENT,
    FULL_BIAS,
    Controller,
    Floats,
    draw,
    expectation_gradient,
    uniform_controller,
)
from fbnetv5.spaces.space import Choices
from fbnetv5.spaces.wide import WideSpace

COUNTS = (2, 3, 2, 4)


def controller_of(counts: tuple[int, ...], logits: Floats) -> Controller:
    controller = Controller(counts, len(logits), lr=0.1)
    controller.logits.copy_(torch.from_numpy(logits))
    return controller


def random_controller(tasks: int = 3, *, seed: int = 0, spread: float = 1.0) -> Controller:
    logits = np.random.default_rng(seed).normal(0, spread, (tasks, len(COUNTS), max(COUNTS)))
    return controller_of(COUNTS, logits)


def plain_probability(controller: Controller, task: int, choices: Choices) -> float:
    """The product over variables, without logarithms."""
    product = 1.0
    for variable, choice in enumerate(choices):
        weights = controller.logits[task, variable, : controller.choice_counts[variable]].exp()
        product *= float(weights[choice] / weights.sum())
    return product


@st.composite
def controllers(draw_: st.DrawFn, *, largest: float) -> tuple[Controller, Choices]:
    counts = tuple(draw_(st.lists(st.integers(2, 4), min_size=1, max_size=60)))
    tasks, seed = draw_(st.integers(1, 6)), draw_(st.integers(0, 2**16))
    spread = draw_(st.floats(0, largest))
    rng = np.random.default_rng(seed)
    controller = controller_of(counts, rng.uniform(-spread, spread, (tasks, len(counts), max(counts))))
    return controller, rng.integers(0, counts, size=(5, len(counts)))


@given(controllers(largest=1e5))
@settings(max_examples=60, deadline=None)
def test_importance_weights_lie_in_their_range_and_sum_to_the_number_of_tasks(
    drawn: tuple[Controller, Choices],
) -> None:
    controller, choices = drawn
    gamma = controller.importance(choices)
    assert gamma.shape == (5, controller.tasks)
    assert (gamma >= 0).all()
    assert (gamma <= controller.tasks).all()
    np.testing.assert_allclose(gamma.sum(1), controller.tasks, rtol=1e-12)


@given(controllers(largest=2.0))
@settings(max_examples=30, deadline=None)
def test_importance_weights_are_policy_over_proposal(drawn: tuple[Controller, Choices]) -> None:
    controller, choices = drawn
    p = np.array([[plain_probability(controller, t, a) for t in range(controller.tasks)] for a in choices])
    np.testing.assert_allclose(controller.importance(choices), p / p.mean(1, keepdims=True), rtol=1e-9)


def flattened(controller: Controller) -> Controller:
    """A controller whose policies are proportional to the other's probabilities to the power of draws that explore."""
    return controller_of(tuple(controller.choice_counts.tolist()), EXPLORING_EXPONENT * controller.logits.numpy())


@given(controllers(largest=2.0), st.floats(0.01, 0.99))
@settings(max_examples=30, deadline=None)
def test_importance_weights_of_draws_that_explore_are_policy_over_proposal(
    drawn: tuple[Controller, Choices], exploring: float
) -> None:
    controller, choices = drawn
    p, explored = (
        np.array([[plain_probability(each, t, a) for t in range(controller.tasks)] for a in choices])
        for each in (controller, flattened(controller))
    )
    q = (1 - exploring) * p.mean(1, keepdims=True) + exploring * explored.mean(1, keepdims=True)
    np.testing.assert_allclose(controller.importance(choices, exploring=exploring), p / q, rtol=1e-9)


def test_a_choice_that_does_not_exist_has_probability_0() -> None:
    probabilities = random_controller(spread=50.0).probabilities()
    assert [(probabilities[:, variable, count:] == 0).all() for variable, count in enumerate(COUNTS)] == [True] * len(
        COUNTS
    )
    np.testing.assert_allclose(probabilities.sum(-1), 1.0)


def test_log_probabilities_of_all_architectures_add_up_to_one() -> None:
    everything = np.array(list(itertools.product(*map(range, COUNTS))))
    np.testing.assert_allclose(np.exp(random_controller().log_probs(everything)).sum(0), 1.0)


def test_draws_follow_the_probabilities() -> None:
    probabilities = random_controller(seed=4).probabilities()[1]
    drawn = draw(probabilities, 40_000, np.random.default_rng(0))
    frequency = (drawn[..., None] == np.arange(max(COUNTS))).mean(0)
    deviation = np.sqrt(probabilities * (1 - probabilities) / 40_000)
    assert (np.abs(frequency - probabilities) <= 4.5 * deviation).all()


class Highest:
    """Stands for a generator whose every number is the largest below 1."""

    def random(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return np.full(shape, np.nextafter(1.0, 0.0))


@pytest.mark.parametrize(
    "row", [[0.5, 0.5, 0.0], [0.5, 0.5 - 2**-53, 0.0], [1.0, 0.0, 0.0]], ids=["whole", "rounded down", "certain"]
)
def test_a_choice_of_probability_0_is_never_drawn(row: list[float]) -> None:
    (drawn,) = draw(np.array([row]), 1, cast(np.random.Generator, Highest()))
    assert row[drawn[0]] > 0


def test_the_proposal_is_the_uniform_mixture() -> None:
    controller, rng = random_controller(2, spread=2.0), np.random.default_rng(1)
    drawn = np.stack([controller.propose(rng) for _ in range(6000)])
    mixture = controller.probabilities().mean(0)
    frequency = (drawn[..., None] == np.arange(max(COUNTS))).mean(0)
    assert np.abs(frequency - mixture).max() < 4.5 * 0.5 / np.sqrt(6000)


def test_a_share_of_the_proposals_explores() -> None:
    controller, rng = random_controller(2, spread=4.0), np.random.default_rng(1)
    drawn = np.stack([controller.propose(rng, exploring=0.4) for _ in range(6000)])
    mixture = 0.6 * controller.probabilities().mean(0) + 0.4 * flattened(controller).probabilities().mean(0)
    frequency = (drawn[..., None] == np.arange(max(COUNTS))).mean(0)
    assert np.abs(frequency - mixture).max() < 4.5 * 0.5 / np.sqrt(6000)


@pytest.mark.parametrize("task", range(3))
def test_score_is_the_gradient_of_the_log_probability(task: int) -> None:
    controller = random_controller()
    choices = np.array([1, 2, 0, 3])
    logits = controller.logits[task].clone().requires_grad_()
    hidden = torch.from_numpy(~controller.exists)
    table = logits.masked_fill(hidden, -torch.inf).log_softmax(-1)
    table[torch.arange(len(COUNTS)), torch.from_numpy(choices)].sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    np.testing.assert_allclose(controller.score(choices[None], task)[0], logits.grad, atol=1e-14)


def test_entropy_of_uniform_policies_is_that_of_their_choices() -> None:
    controller = Controller(COUNTS, 2, lr=0.1)
    np.testing.assert_allclose(controller.entropy(), np.log(COUNTS).mean())


def test_a_logit_bias_changes_the_odds_of_skipping_alone() -> None:
    controller = random_controller()
    before, after = controller.probabilities()[0], controller.biased_probabilities(0, 1.5)
    odds = [(1 - p[:, 0]) / p[:, 0] for p in (before, after)]
    np.testing.assert_allclose(odds[1], odds[0] * np.exp(1.5))
    np.testing.assert_allclose(after[1, 1] / after[1, 2], before[1, 1] / before[1, 2])


def test_a_logit_bias_moves_variables_that_skip_nothing_once_all_or_no_blocks_run() -> None:
    controller = Controller((2, 3), 1, lr=0.1, skipping=np.array([True, False]))
    moderate, large = (controller.biased_probabilities(0, bias) for bias in (FULL_BIAS, FULL_BIAS + 1))
    np.testing.assert_allclose(moderate[1], 1 / 3)
    np.testing.assert_allclose(large[1, 1:] / large[1, :-1], np.e)
    small = controller.biased_probabilities(0, -FULL_BIAS - 1)
    np.testing.assert_allclose(small[1, :-1] / small[1, 1:], np.e)
    assert 0.997 < moderate[0, 1] < large[0, 1]


def test_uniform_policies_know_which_variables_skip_nothing() -> None:
    space = WideSpace(stages=1, blocks_per_path=1)
    controller = uniform_controller(space, 2)
    probabilities = controller.biased_probabilities(1, -4.0)
    np.testing.assert_allclose(probabilities[~space.skipping, 0], 1 / controller.choice_counts[~space.skipping])
    assert probabilities[space.skipping, 1].max() < 0.02


def test_a_step_goes_down_the_gradient() -> None:
    controller = Controller(COUNTS, 1, lr=0.1)
    gradient = np.zeros((1, len(COUNTS), max(COUNTS)))
    gradient[0, 0, :2] = [1.0, -1.0]
    controller.step(gradient)
    np.testing.assert_allclose(controller.logits[0, 0, :2], [-0.1, 0.1], rtol=1e-6)
    assert not controller.logits[0, 1:].any()


def test_the_gradient_is_that_of_the_expected_sum() -> None:
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    effects = torch.randn(3, 4, dtype=torch.float64)
    (logits.softmax(-1) * effects).sum().backward()  # type: ignore[no-untyped-call]
    gradient = expectation_gradient(logits.detach().softmax(-1).numpy(), effects.numpy())
    assert logits.grad is not None
    np.testing.assert_allclose(gradient, logits.grad.numpy(), atol=1e-12)


def test_a_policy_is_set_to_probabilities() -> None:
    controller, wanted = random_controller(), random_controller(seed=5).probabilities()[2]
    before = controller.probabilities()
    controller.set_policy(1, wanted)
    np.testing.assert_allclose(controller.probabilities()[1], wanted)
    np.testing.assert_array_equal(controller.probabilities()[[0, 2]], before[[0, 2]])
