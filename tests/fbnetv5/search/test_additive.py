import numpy as np
import pytest
import torch

from fbnetv5.search.additive import AdditiveFit, expectation_gradient
from fbnetv5.search.controller import Controller
from fbnetv5.space import Choices

COUNTS = (2, 3, 2, 4)
TASKS = 2


def make_controller() -> Controller:
    controller = Controller(COUNTS, TASKS, lr=0.1)
    controller.logits.copy_(torch.from_numpy(np.random.default_rng(0).normal(size=controller.logits.shape)))
    return controller


def drawn(count: int) -> Choices:
    return np.random.default_rng(1).integers(0, COUNTS, (count, len(COUNTS)))


def test_a_sum_of_effects_is_found() -> None:
    fit, choices = AdditiveFit(make_controller(), ridge=1e-9), drawn(60)
    effects = np.random.default_rng(2).normal(size=(TASKS, len(COUNTS), max(COUNTS)))
    values = effects[:, np.arange(len(COUNTS)), choices].sum(-1).T + np.array([3.0, -1.0])
    fit.learn(choices[:50], values[:50])
    np.testing.assert_allclose(fit.predict(choices[50:]), values[50:], atol=1e-6)
    np.testing.assert_array_equal(fit.effects[:, :, 0], 0.0)
    assert not fit.effects[:, ~make_controller().exists].any()


@pytest.mark.parametrize("ridge", [0.5, 20.0])
def test_the_fit_is_ridge_regression_with_fading_rows(ridge: float) -> None:
    fit, choices = AdditiveFit(make_controller(), ridge=ridge, decay=0.9), drawn(30)
    values = np.random.default_rng(3).normal(size=(30, TASKS))
    for row in range(30):
        fit.learn(choices[[row]], values[[row]])
    columns = [choices[:, slot] == k for slot, count in enumerate(COUNTS) for k in range(1, count)]
    design = np.column_stack([*columns, np.ones(30)]).astype(float)
    weight = 0.9 ** np.arange(29, -1, -1.0)
    penalty = np.diag(np.sqrt([ridge] * len(columns) + [1e-6]))  # rows of their own say "0"
    stacked = np.vstack([np.sqrt(weight)[:, None] * design, penalty])
    target = np.vstack([np.sqrt(weight)[:, None] * values, np.zeros((len(penalty), TASKS))])
    solution = np.linalg.lstsq(stacked, target)[0]
    np.testing.assert_allclose(fit.predict(choices), design @ solution, atol=1e-8)


def test_a_task_without_a_value_learns_nothing() -> None:
    fit, choices = AdditiveFit(make_controller()), drawn(5)
    fit.learn(choices, np.column_stack([np.full(5, np.nan), np.arange(5.0)]))
    assert not fit.effects[0].any()
    assert fit.effects[1].any()


def test_the_gradient_is_that_of_the_expected_sum() -> None:
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    effects = torch.randn(3, 4, dtype=torch.float64)
    (logits.softmax(-1) * effects).sum().backward()  # type: ignore[no-untyped-call]
    found = expectation_gradient(logits.detach().softmax(-1).numpy(), effects.numpy())
    assert logits.grad is not None
    np.testing.assert_allclose(found, logits.grad.numpy(), atol=1e-12)
