"""Expectations of the estimates, over every architecture, against gradients from automatic differentiation."""

import itertools
from collections.abc import Callable
from operator import attrgetter

import numpy as np
import pytest
import torch

from fbnetv5.search.additive import AdditiveFit
from fbnetv5.search.baselines import PictureBaseline
from fbnetv5.search.controller import Controller, Floats
from fbnetv5.search.estimators import (
    ESTIMATORS,
    FULL_AFTER,
    Estimate,
    Estimator,
    OnePass,
    make_estimator,
    reinforce,
)
from fbnetv5.space import Choices

COUNTS = (2, 2, 3, 2, 2)
TASKS = 3
EVERYTHING: Choices = np.array(list(itertools.product(*map(range, COUNTS))))


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


LOSSES: Floats = np.random.default_rng(1).normal(size=(len(EVERYTHING), TASKS))
"""[B, T], with interactions of every order."""
PLACES = np.array([int(np.prod(COUNTS[slot + 1 :])) for slot in range(len(COUNTS))])
"""``EVERYTHING[choices @ PLACES]`` is ``choices``."""
PICTURES = np.arange(2)


def taught(kind: str, controller: Controller, steps: int = 40) -> Estimator:
    """An estimator that has seen noisy losses."""
    estimator, rng = make_estimator(kind, controller, pictures=len(PICTURES)), np.random.default_rng(3)
    for _ in range(steps):
        choices = estimator.draw(controller, rng)
        estimator.estimate(
            controller, choices, losses_of(choices) + rng.normal(size=(len(choices), 2, TASKS)), PICTURES
        )
    return estimator


def losses_of(choices: Choices) -> Floats:
    """[K, N, T], of two pictures, the second of which is harder."""
    found: Floats = LOSSES[choices @ PLACES][:, None] + np.array([[0.0], [5.0]])
    return found


def estimated(estimator: Estimator, controller: Controller, choices: Choices) -> Estimate:
    """As the estimator would say it now; nothing is learned."""
    before = {name: array.copy() for name, array in estimator.state().items()}
    found = estimator.estimate(controller, choices, losses_of(choices), PICTURES)
    for name, array in estimator.state().items():
        array[:] = before[name]
    return found


def mean_over_all(estimator: Estimator, controller: Controller, direction: Callable[[Estimate], Floats]) -> Floats:
    """Expectation over the mixture, of estimators that draw one architecture."""
    proposal = policies(controller, EVERYTHING).mean(1)
    found = [
        p * direction(estimated(estimator, controller, a[None])) for p, a in zip(proposal, EVERYTHING, strict=True)
    ]
    mean: Floats = np.sum(found, axis=0)
    return mean


def exact_gradients(controller: Controller, values: Floats) -> Floats:
    return np.stack([exact_gradient(controller, task, EVERYTHING, values[:, task]) for task in range(TASKS)])


@pytest.mark.parametrize("steps", [2, 3, 40])
@pytest.mark.parametrize("kind", [kind for kind in ESTIMATORS if kind not in ("pair", "per-task")])
def test_one_architecture_is_unbiased_over_all_of_them(kind: str, steps: int) -> None:
    controller = make_controller()
    estimator = taught(kind, controller, steps)  # the first two had nothing to be compared with
    mean = mean_over_all(estimator, controller, attrgetter("gradient"))
    np.testing.assert_allclose(mean, exact_gradients(controller, LOSSES), atol=1e-10)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_the_mean_of_many_draws_is_the_exact_gradient(kind: str) -> None:
    controller, rng = make_controller(), np.random.default_rng(5)
    estimator = taught(kind, controller)
    estimates = [estimated(estimator, controller, estimator.draw(controller, rng)) for _ in range(1500)]
    found = np.stack([estimate.gradient for estimate in estimates])
    error, spread = found.mean(0) - exact_gradients(controller, LOSSES), found.std(0) / np.sqrt(len(found))
    exists = np.broadcast_to(controller.exists, error.shape)
    off = np.abs(error[exists]) / spread[exists]
    assert np.sqrt((off**2).mean()) < 1.6  # 1 if unbiased
    assert off.max() < 4.0  # three standard errors each would fail by chance: there are 33


@pytest.mark.parametrize(("steps", "rate"), [(40, 0.25), (FULL_AFTER // 2 + 2, 0.5), (FULL_AFTER + 2, 1.0)])
def test_a_policy_steps_along_the_fit_and_ever_more_of_the_rest(steps: int, rate: float) -> None:
    controller = make_controller()
    estimator = taught("control", controller, steps)
    assert isinstance(estimator, OnePass)
    assert estimator.fit is not None
    explained = exact_gradients(controller, estimator.fit.predict(EVERYTHING))
    mean = mean_over_all(estimator, controller, lambda estimate: estimate.direction(0.25))
    rest = exact_gradients(controller, LOSSES) - explained
    np.testing.assert_allclose(mean, explained + rate * rest, atol=1e-10)
    assert np.abs(rest).max() > 0.01


def test_an_estimate_says_how_many_draws_the_fit_had_learned_from_before_it() -> None:
    controller = make_controller()
    estimator = taught("control", controller, 12)
    choices = estimator.draw(controller, np.random.default_rng(0))
    found = [estimator.estimate(controller, choices, losses_of(choices), PICTURES) for _ in range(2)]
    assert [estimate.learned.tolist() for estimate in found] == [[10.0] * TASKS, [11.0] * TASKS]


def test_without_a_fit_a_policy_steps_along_the_estimate() -> None:
    controller = make_controller()
    for kind in set(ESTIMATORS) - {"control"}:
        estimator = taught(kind, controller)
        found = estimated(estimator, controller, estimator.draw(controller, np.random.default_rng(0)))
        np.testing.assert_array_equal(found.direction(0.25), found.gradient)


def additive_losses() -> Floats:
    effects = np.random.default_rng(4).normal(size=(len(COUNTS), max(COUNTS), TASKS))
    found: Floats = np.sum([effects[slot, EVERYTHING[:, slot]] for slot in range(len(COUNTS))], axis=0)
    return found


def test_where_effects_add_up_the_fit_knows_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "LOSSES", additive_losses())
    controller, rng = make_controller(), np.random.default_rng(6)
    estimator = OnePass(PictureBaseline(len(PICTURES), TASKS), AdditiveFit(controller, ridge=1e-6, decay=0.98))
    for _ in range(600):
        choices = estimator.draw(controller, rng)
        estimator.estimate(controller, choices, losses_of(choices), PICTURES)
    found = estimated(estimator, controller, estimator.draw(controller, rng))
    for known in (found.fitted, found.direction(0.25), found.gradient):
        np.testing.assert_allclose(known, exact_gradients(controller, additive_losses()), atol=0.002)


def test_what_is_explained_is_no_longer_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "LOSSES", additive_losses())
    controller, variance = make_controller(), []
    for kind, rate in (("average", 1.0), ("picture", 1.0), ("control", 1.0), ("control", 0.25)):
        estimator, rng, found = make_estimator(kind, controller, pictures=2), np.random.default_rng(7), []
        for _ in range(400):
            choices, one = estimator.draw(controller, rng), rng.integers(2, size=1)
            noisy = losses_of(choices)[:, one] + 0.3 * rng.normal(size=(1, 1, TASKS))
            found.append(estimator.estimate(controller, choices, noisy, one).direction(rate))
        variance.append(np.var(found[200:], axis=0).sum())
    assert variance[1] < 0.7 * variance[0]
    assert variance[2] < 0.7 * variance[1]
    assert variance[3] < 0.7 * variance[2]


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


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_an_estimator_goes_on_from_its_arrays(kind: str) -> None:
    controller = make_controller()
    one, other = taught(kind, controller), make_estimator(kind, controller, pictures=len(PICTURES))
    for name, array in other.state().items():
        array[:] = one.state()[name]
    for seed in range(3):
        choices = one.draw(controller, np.random.default_rng(seed))
        first, second = (each.estimate(controller, choices, losses_of(choices), PICTURES) for each in (one, other))
        np.testing.assert_array_equal(first.sampled, second.sampled)
        np.testing.assert_array_equal(first.fitted, second.fitted)
        np.testing.assert_array_equal(first.learned, second.learned)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_a_task_without_labels_moves_no_policy_and_teaches_nothing(kind: str) -> None:
    controller = make_controller()
    estimator = taught(kind, controller)
    before = {name: array.copy() for name, array in estimator.state().items()}
    choices = estimator.draw(controller, np.random.default_rng(8))
    gradient = estimator.estimate(controller, choices, losses_of(choices) * [np.nan, 1.0, 1.0], PICTURES).gradient
    assert not gradient[0].any()
    assert gradient[1:].any(axis=(1, 2)).all()
    for name, array in estimator.state().items():
        of_task = np.moveaxis(array, array.shape.index(TASKS), 0)[0]
        np.testing.assert_array_equal(of_task, np.moveaxis(before[name], array.shape.index(TASKS), 0)[0])


def test_every_architecture_of_a_step_counts_for_every_task_once() -> None:
    controller = make_controller()
    drawn = {"average": 1, "pair": 2, "per-task": TASKS}
    for kind, count in drawn.items():
        estimator = make_estimator(kind, controller, pictures=2)
        assert estimator.draw(controller, np.random.default_rng(0)).shape == (count, len(COUNTS))
    alike = Controller(COUNTS, TASKS, lr=0.1)
    for kind in drawn:
        estimator = make_estimator(kind, alike, pictures=2)
        weights = estimator.weights(alike, estimator.draw(alike, np.random.default_rng(0)))
        np.testing.assert_allclose(weights.sum(0), 1.0)


def test_only_advantages_that_are_known_move_a_policy() -> None:
    controller, choices = make_controller(), EVERYTHING[[7]]
    gradient = reinforce(controller, choices, np.array([[np.nan, 4.0, 0.0]]))
    np.testing.assert_allclose(gradient[1], 4.0 * controller.score(choices, 1)[0])
    assert not gradient[[0, 2]].any()
