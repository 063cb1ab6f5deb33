"""Expectations of the estimates, over every architecture, against gradients from automatic differentiation."""

import itertools

import numpy as np
import pytest
import torch

from fbnetv5.search.reinforce.controller import EXPLORING_EXPONENT, Controller, Floats
from fbnetv5.search.reinforce.estimators import (
    ESTIMATORS,
    EXPLORE_AFTER,
    EXPLORING,
    Estimator,
    EstimatorName,
    OnePass,
    make_estimator,
    reinforce,
)
from fbnetv5.search.reinforce.posterior import Mask
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Choices, Space

COUNTS = (2, 2, 3, 2, 2)
TASKS = 3
EVERYTHING: Choices = np.array(list(itertools.product(*map(range, COUNTS))))


def make_controller(counts: tuple[int, ...] = COUNTS, tasks: int = TASKS, *, seed: int = 0) -> Controller:
    controller = Controller(counts, tasks, lr=0.1)
    controller.logits.copy_(torch.from_numpy(np.random.default_rng(seed).normal(size=controller.logits.shape)))
    return controller


def probabilities_of(controller: Controller, task: int, choices: Choices, logits: torch.Tensor) -> torch.Tensor:
    """[B]: of each architecture, as products; differentiable in ``logits`` [S, C]."""
    rows = [logits[variable, :count].softmax(0) for variable, count in enumerate(controller.choice_counts)]
    return torch.stack([row[torch.from_numpy(choices[:, variable])] for variable, row in enumerate(rows)]).prod(0)


def exact_gradient(controller: Controller, task: int, choices: Choices, values: Floats) -> Floats:
    """[S, C]: of the expectation of ``values`` [B] under the task's policy."""
    logits = controller.logits[task].clone().requires_grad_()
    (probabilities_of(controller, task, choices, logits) * torch.from_numpy(values)).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    gradient: Floats = logits.grad.numpy()
    return gradient


def policies(controller: Controller, choices: Choices, exponent: float = 1.0) -> Floats:
    """[B, T]."""
    logits = exponent * controller.logits
    columns = [probabilities_of(controller, t, choices, logits[t]) for t in range(controller.tasks)]
    mixture: Floats = torch.stack(columns, dim=1).numpy()
    return mixture


LOSSES: Floats = np.random.default_rng(1).normal(size=(len(EVERYTHING), TASKS))
"""[B, T], with interactions of every order."""
STRIDES = np.array([int(np.prod(COUNTS[variable + 1 :])) for variable in range(len(COUNTS))])
"""``EVERYTHING[choices @ STRIDES]`` is ``choices``."""
IMAGES = np.arange(2)
LONG = int(EXPLORE_AFTER * (sum(COUNTS) - len(COUNTS)))
"""Draws after which some explore."""


def taught(kind: EstimatorName, controller: Controller, steps: int = 40) -> Estimator:
    """An estimator that has seen noisy losses."""
    estimator, rng = make_estimator(kind, controller, images=len(IMAGES)), np.random.default_rng(3)
    for _ in range(steps):
        choices = estimator.draw(controller, rng)
        estimator.estimate(controller, choices, losses_of(choices) + rng.normal(size=(len(choices), 2, TASKS)), IMAGES)
        estimator.benefits(controller)
    return estimator


def losses_of(choices: Choices) -> Floats:
    """[K, N, T], of two images, the second of which is harder."""
    losses: Floats = LOSSES[choices @ STRIDES][:, None] + np.array([[0.0], [5.0]])
    return losses


def estimated(estimator: Estimator, controller: Controller, choices: Choices) -> Floats:
    """The estimate that the estimator would make now; nothing is learned."""
    before = {name: array.copy() for name, array in estimator.state().items()}
    gradient = estimator.estimate(controller, choices, losses_of(choices), IMAGES)
    for name, array in estimator.state().items():
        array[:] = before[name]
    return gradient


def mean_over_all(estimator: Estimator, controller: Controller) -> Floats:
    """Expectation over the mixture, of estimators that draw one architecture."""
    assert isinstance(estimator, OnePass)
    explored = policies(controller, EVERYTHING, EXPLORING_EXPONENT).mean(1)
    proposal = (1 - estimator.exploring) * policies(controller, EVERYTHING).mean(1) + estimator.exploring * explored
    weighted = [p * estimated(estimator, controller, a[None]) for p, a in zip(proposal, EVERYTHING, strict=True)]
    mean: Floats = np.sum(weighted, axis=0)
    return mean


def unexplained(estimator: Estimator) -> Floats:
    """[B, T]: the losses of all architectures less what the estimator expects."""
    return LOSSES - np.stack([estimator.expected(EVERYTHING, task) for task in range(TASKS)], axis=1)


def exact_gradients(controller: Controller, values: Floats) -> Floats:
    return np.stack([exact_gradient(controller, task, EVERYTHING, values[:, task]) for task in range(TASKS)])


@pytest.mark.parametrize("steps", [2, 3, 40, LONG + 2])
@pytest.mark.parametrize("kind", [kind for kind in ESTIMATORS if kind not in ("pair", "per-task")])
def test_one_architecture_is_unbiased_over_all_of_them(kind: EstimatorName, steps: int) -> None:
    controller = make_controller()
    estimator = taught(kind, controller, steps)  # the first two had nothing to be compared with
    mean = mean_over_all(estimator, controller)
    np.testing.assert_allclose(mean, exact_gradients(controller, unexplained(estimator)), atol=1e-10)


def test_a_share_explores_in_long_searches_with_a_fit_alone() -> None:
    def share(kind: EstimatorName, draws: int) -> float:
        estimator = taught(kind, make_controller(), draws)
        assert isinstance(estimator, OnePass)
        return estimator.exploring

    # The first two draws have nothing to be compared with, so the fit does not store them.
    assert [share("control", draws) for draws in (LONG + 1, LONG + 2)] == [0.0, EXPLORING]
    assert share("image", LONG + 2) == 0.0


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_the_mean_of_many_draws_is_the_exact_gradient(kind: EstimatorName) -> None:
    controller, rng = make_controller(), np.random.default_rng(5)
    estimator = taught(kind, controller)
    estimates = [estimated(estimator, controller, estimator.draw(controller, rng)) for _ in range(1500)]
    stacked = np.stack(estimates)
    error, spread = (
        stacked.mean(0) - exact_gradients(controller, unexplained(estimator)),
        stacked.std(0) / np.sqrt(len(stacked)),
    )
    exists = np.broadcast_to(controller.exists, error.shape)
    off = np.abs(error[exists]) / spread[exists]
    assert np.sqrt((off**2).mean()) < 1.6  # 1 if unbiased
    assert off.max() < 4.0  # three standard errors each would fail by chance: there are 33


def additive_losses() -> Floats:
    effects = np.random.default_rng(4).normal(size=(len(COUNTS), max(COUNTS), TASKS))
    losses: Floats = np.sum([effects[variable, EVERYTHING[:, variable]] for variable in range(len(COUNTS))], axis=0)
    return losses


def test_explained_losses_lower_the_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "LOSSES", additive_losses())
    controller, variance = make_controller(), []
    for kind in ("average", "image", "control"):
        estimator, rng, gradients = make_estimator(kind, controller, images=2), np.random.default_rng(7), []
        for _ in range(400):
            choices, images = estimator.draw(controller, rng), rng.integers(2, size=1)
            noisy = losses_of(choices)[:, images] + 0.3 * rng.normal(size=(1, 1, TASKS))
            gradients.append(estimator.estimate(controller, choices, noisy, images))
            estimator.benefits(controller)
        variance.append(np.var(gradients[200:], axis=0).sum())
    assert variance[1] < 0.7 * variance[0]
    assert variance[2] < 0.7 * variance[1]


def small_space() -> tuple[Space, Choices]:
    """A space and all architectures over four of its variables: an edge and a block that only it reads, twice."""
    space = FourPathSpace(stages=1, blocks_per_path=1)
    free = [node.name in ("s1_p32_from_p16", "s1_p32_0", "s1_p16_0", "s1_p8_0") for node in space.variables]
    choices = np.zeros((16, len(space.variables)), dtype=np.int64)
    choices[:, free] = list(itertools.product(range(2), repeat=4))
    return space, choices


def test_leaving_out_variables_that_do_not_matter_is_unbiased() -> None:
    space, choices = small_space()
    matters: Mask = space.needed(choices, (32,))[:, None]
    assert matters.all(axis=0).any()
    assert not matters.all()
    live = space.live(choices, (32,))
    losses = live @ np.random.default_rng(0).normal(size=live.shape[1])  # depends on live nodes alone
    controller = Controller(space.choice_counts, 1, lr=0.1)
    free = choices.any(axis=0)
    controller.logits[:, np.nonzero(~free)[0].tolist(), 1] = -80.0
    p = np.exp(controller.log_probs(choices))
    exact, masked = (reinforce(controller, choices, p * losses[:, None], mask) for mask in (None, matters))
    np.testing.assert_allclose(masked[:, free], exact[:, free], atol=1e-12)


def test_the_exact_gradient_agrees_with_finite_differences() -> None:
    controller, values = make_controller(), np.random.default_rng(1).normal(size=len(EVERYTHING))
    exact, step = exact_gradient(controller, 0, EVERYTHING, values), 1e-6
    for variable, choice in ((0, 0), (2, 2), (4, 1)):
        sides = []
        for sign in (1, -1):
            moved = controller.logits[0].clone()
            moved[variable, choice] += sign * step
            sides.append(float(probabilities_of(controller, 0, EVERYTHING, moved) @ torch.from_numpy(values)))
        assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(exact[variable, choice], abs=1e-7)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_an_estimator_is_restored_from_its_arrays(kind: EstimatorName) -> None:
    controller = make_controller()
    one, other = taught(kind, controller), make_estimator(kind, controller, images=len(IMAGES))
    for name, array in other.state().items():
        array[:] = one.state()[name]
    for seed in range(8):
        choices = one.draw(controller, np.random.default_rng(seed))
        first, second = (each.estimate(controller, choices, losses_of(choices), IMAGES) for each in (one, other))
        np.testing.assert_array_equal(first, second)
        again = [each.benefits(controller) for each in (one, other)]
        assert (again[0] is None) == (again[1] is None)
        assert kind == "control" or again[0] is None
        if again[0] is not None and again[1] is not None:
            np.testing.assert_array_equal(again[0].mean, again[1].mean)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_a_task_without_labels_changes_neither_policy_nor_estimator(kind: EstimatorName) -> None:
    controller = make_controller()
    estimator = taught(kind, controller)
    before = {name: array.copy() for name, array in estimator.state().items()}
    choices = estimator.draw(controller, np.random.default_rng(8))
    gradient = estimator.estimate(controller, choices, losses_of(choices) * [np.nan, 1.0, 1.0], IMAGES)
    assert not gradient[0].any()
    assert gradient[1:].any(axis=(1, 2)).all()
    shared = ("fit.choices", "fit.matters", "fit.counts")
    for name, array in estimator.state().items():
        if name in shared:
            continue
        of_task = np.moveaxis(array, array.shape.index(TASKS), 0)[0]
        np.testing.assert_array_equal(of_task, np.moveaxis(before[name], array.shape.index(TASKS), 0)[0])


def test_every_architecture_of_a_step_counts_for_every_task_once() -> None:
    controller = make_controller()
    drawn: dict[EstimatorName, int] = {"average": 1, "pair": 2, "per-task": TASKS}
    for kind, count in drawn.items():
        estimator = make_estimator(kind, controller, images=2)
        assert estimator.draw(controller, np.random.default_rng(0)).shape == (count, len(COUNTS))
    alike = Controller(COUNTS, TASKS, lr=0.1)
    for kind in drawn:
        estimator = make_estimator(kind, alike, images=2)
        weights = estimator.weights(alike, estimator.draw(alike, np.random.default_rng(0)))
        np.testing.assert_allclose(weights.sum(0), 1.0)


def test_an_advantage_of_nan_has_no_gradient() -> None:
    controller, choices = make_controller(), EVERYTHING[[7]]
    gradient = reinforce(controller, choices, np.array([[np.nan, 4.0, 0.0]]))
    np.testing.assert_allclose(gradient[1], 4.0 * controller.score(choices, 1)[0])
    assert not gradient[[0, 2]].any()
