"""Expectations of the estimates, over every architecture, against gradients from automatic differentiation."""

import itertools

import numpy as np
import pytest
import torch

from fbnetv5.cost import CostTable
from fbnetv5.search.controller import Controller, Floats
from fbnetv5.search.estimators import MovingAverage, PictureBaseline, cost_gradient, reinforce
from fbnetv5.space import Choices, Space

COUNTS = (2, 2, 3, 2, 2)
TASKS = 3
EVERYTHING: Choices = np.array(list(itertools.product(*map(range, COUNTS))))
SPACE = Space(stages=1, blocks_per_path=1, strict=True)


def make_controller(counts: tuple[int, ...] = COUNTS, tasks: int = TASKS, *, seed: int = 0) -> Controller:
    controller = Controller(counts, tasks, lr=0.1)
    controller.logits.copy_(torch.from_numpy(np.random.default_rng(seed).normal(size=controller.logits.shape)))
    return controller


def probabilities_of(controller: Controller, task: int, choices: Choices, logits: torch.Tensor) -> torch.Tensor:
    """[B]: of each architecture, as products; differentiable in ``logits`` [S, C]."""
    rows = [logits[slot, :count].softmax(0) for slot, count in enumerate(controller.choice_counts)]
    return torch.stack([row[torch.from_numpy(choices[:, slot])] for slot, row in enumerate(rows)]).prod(0)


def exact_gradient(controller: Controller, task: int, choices: Choices, values: Floats) -> Floats:
    """[S, C]: of the expectation of ``values`` [B] under the task's policy."""
    logits = controller.logits[task].clone().requires_grad_()
    (probabilities_of(controller, task, choices, logits) * torch.from_numpy(values)).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    gradient: Floats = logits.grad.numpy()
    return gradient


def policies(controller: Controller, choices: Choices) -> Floats:
    """[B, T]."""
    columns = [probabilities_of(controller, t, choices, controller.logits[t]) for t in range(controller.tasks)]
    found: Floats = torch.stack(columns, dim=1).numpy()
    return found


def mean_gradient(controller: Controller, losses: Floats, baseline: float) -> Floats:
    """[T, S, C]: the estimate's expectation over the proposal, with one baseline for every draw."""
    proposal = policies(controller, EVERYTHING).mean(1)
    total = np.zeros(controller.logits.shape)
    for weight, choices, row in zip(proposal, EVERYTHING, losses, strict=True):
        total += weight * reinforce(controller, choices, row - baseline)
    return total


@pytest.mark.parametrize("baseline", [0.0, 0.7, -40.0])
def test_the_estimate_is_unbiased_whatever_the_baseline(baseline: float) -> None:
    controller = make_controller()
    losses = np.random.default_rng(1).normal(size=(len(EVERYTHING), TASKS))
    found = mean_gradient(controller, losses, baseline)
    for task in range(TASKS):
        exact = exact_gradient(controller, task, EVERYTHING, losses[:, task])
        np.testing.assert_allclose(found[task], exact, atol=1e-10)


def test_the_exact_gradient_agrees_with_finite_differences() -> None:
    controller, values = make_controller(), np.random.default_rng(1).normal(size=len(EVERYTHING))
    exact, step = exact_gradient(controller, 0, EVERYTHING, values), 1e-6
    for slot, choice in ((0, 0), (2, 2), (4, 1)):
        sides = []
        for sign in (1, -1):
            moved = controller.logits[0].clone()
            moved[slot, choice] += sign * step
            sides.append(float(probabilities_of(controller, 0, EVERYTHING, moved) @ torch.from_numpy(values)))
        assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(exact[slot, choice], abs=1e-7)


def test_only_advantages_that_are_known_move_a_policy() -> None:
    controller, choices = make_controller(), EVERYTHING[7]
    gradient = reinforce(controller, choices, np.array([np.nan, 4.0, 0.0]))
    gamma = controller.importance(choices[None])[0, 1]
    np.testing.assert_allclose(gradient[1], gamma * 4.0 * controller.score(choices[None], 1)[0])
    assert not gradient[[0, 2]].any()


def test_the_average_is_taken_before_it_sees_the_loss() -> None:
    baseline = MovingAverage(TASKS, decay=0.75)
    baseline.mean[:] = [1.0, 2.0, 3.0]
    losses = np.array([[1.0, 4.0, 2.0], [1.0, 8.0, np.nan]])
    np.testing.assert_allclose(baseline.advantages(losses, np.arange(2)), [0.0, 4.0, -1.0])
    np.testing.assert_allclose(baseline.mean, [1.0, 3.0, 2.75])


def test_the_first_loss_becomes_the_average_and_moves_nothing() -> None:
    baseline = MovingAverage(TASKS)
    np.testing.assert_array_equal(baseline.advantages(np.array([[1.0, 2.0, 3.0]]), np.arange(1)), 0.0)
    np.testing.assert_array_equal(baseline.mean, [1.0, 2.0, 3.0])


def test_a_task_without_labels_leaves_its_average() -> None:
    baseline = MovingAverage(TASKS)
    baseline.mean[:] = [1.0, 2.0, np.nan]
    advantages = baseline.advantages(np.array([[5.0, np.nan, np.nan]]), np.arange(1))
    np.testing.assert_allclose(advantages, [4.0, np.nan, np.nan])
    np.testing.assert_allclose(baseline.mean[1:], [2.0, np.nan])


def test_what_pictures_usually_cost_is_subtracted() -> None:
    baseline, usual = PictureBaseline(4, 1), np.array([[1.0], [5.0], [9.0], [2.0]])
    first = baseline.advantages(usual[:3], np.arange(3))
    again = baseline.advantages(usual[[2, 0]], np.array([2, 0]))
    worse = baseline.advantages(usual[[1, 2]] + 0.5, np.array([1, 2]))
    np.testing.assert_allclose([first[0], again[0], worse[0]], [0.0, 0.0, 0.5])


def test_a_new_picture_is_compared_with_nothing() -> None:
    baseline = PictureBaseline(3, 1)
    for _ in range(2):
        baseline.advantages(np.array([[1.0]]), np.array([0]))
    found = baseline.advantages(np.array([[1.25], [700.0]]), np.array([0, 2]))
    np.testing.assert_allclose(found, [0.25])
    np.testing.assert_allclose(baseline.means[:, 0], [0.6 * 1.0 + 0.4 * 1.25, np.nan, 700.0])


def test_pictures_without_a_label_keep_their_average() -> None:
    baseline = PictureBaseline(2, 2)
    baseline.means[:] = [[1.0, 2.0], [3.0, 4.0]]
    found = baseline.advantages(np.array([[np.nan, np.nan], [3.0, np.nan]]), np.arange(2))
    np.testing.assert_array_equal(found, [0.0, np.nan])
    np.testing.assert_array_equal(baseline.means, [[1.0, 2.0], [3.0, 4.0]])


class Fixed(Controller):
    """A controller whose draws are given."""

    drawn: Choices

    def sample(self, task: int, count: int, rng: np.random.Generator) -> Choices:
        assert count == len(self.drawn)
        return self.drawn


def cost_table() -> CostTable:
    blocks = np.random.default_rng(2).uniform(1, 9, (len(SPACE.nodes), 1))
    return CostTable(space=SPACE, paths=(4, 8, 16, 32), unit="macs", blocks=blocks, head=3.0)


def test_the_cost_gradient_of_two_draws_is_unbiased() -> None:
    controller = Fixed(SPACE.choice_counts, 1, lr=0.1)
    controller.logits.copy_(make_controller(SPACE.choice_counts, 1).logits)
    everything = np.array(list(itertools.product(range(2), repeat=len(SPACE.slots))))
    p, table, rng = policies(controller, everything)[:, 0], cost_table(), np.random.default_rng(0)
    mean, mean_cost = np.zeros((len(SPACE.slots), 2)), 0.0
    for first, second in itertools.product(range(len(everything)), repeat=2):
        controller.drawn = everything[[first, second]]
        gradient, cost = cost_gradient(controller, 0, table, rng, draws=2)
        mean += p[first] * p[second] * gradient
        mean_cost += p[first] * p[second] * cost
    np.testing.assert_allclose(mean, exact_gradient(controller, 0, everything, table(everything)), atol=1e-10)
    assert mean_cost == pytest.approx(p @ table(everything))


def test_the_cost_gradient_of_many_draws_comes_near_the_exact_one() -> None:
    controller, table = make_controller(SPACE.choice_counts, 2), cost_table()
    everything = np.array(list(itertools.product(range(2), repeat=len(SPACE.slots))))
    gradient, cost = cost_gradient(controller, 1, table, np.random.default_rng(0), draws=20_000)
    exact = exact_gradient(controller, 1, everything, table(everything))
    spread = np.ptp(table(everything)) / np.sqrt(20_000)
    assert np.abs(gradient - exact).max() < 4 * spread
    assert abs(cost - policies(controller, everything)[:, 1] @ table(everything)) < 4 * spread
