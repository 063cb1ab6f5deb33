import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from export.errors import VerificationError
from fbnetv5.runs.divergence import DivergenceGuard

CPU = torch.device("cpu")
OPTIMIZERS: list[Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = [
    lambda weights: torch.optim.AdamW(weights, lr=0.1, fused=True),
    lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, fused=True),
]


def diverged(what: str, step: int) -> VerificationError:
    return VerificationError(f"{what} is not finite at step {step}")


class Steps:
    """Steps of one weight vector under a guard."""

    def __init__(self, make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer], lag: int) -> None:
        self.guard = DivergenceGuard(CPU, diverged, lag=lag)
        self.weight = nn.Parameter(torch.arange(5.0))
        self.optimizer = make_optimizer([self.weight])
        self.guard.protect(self.optimizer)
        self.done = 0

    def __call__(self, loss: float, gradient: float) -> Tensor:
        """Run a step with this loss and gradient; return the weight after it."""
        self.weight.grad = torch.full((5,), gradient)
        self.done += 1
        values = {"the loss": torch.tensor(loss), "the gradient": self.weight.grad.norm()}
        self.guard.check(values, self.done)
        self.optimizer.step()
        return self.weight.detach().clone()


each_optimizer = pytest.mark.parametrize("make_optimizer", OPTIMIZERS, ids=["adamw", "sgd"])


@each_optimizer
def test_without_a_lag_the_error_precedes_the_update(
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
) -> None:
    steps = Steps(make_optimizer, lag=0)
    before = steps(1.0, 1.0)
    with pytest.raises(VerificationError, match="the gradient is not finite at step 2"):
        steps(1.0, math.inf)
    assert torch.equal(steps.weight, before)


@each_optimizer
def test_with_a_lag_a_bad_step_changes_nothing_and_the_next_one_raises(
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
) -> None:
    steps = Steps(make_optimizer, lag=1)
    before = steps(1.0, 1.0)
    assert not torch.equal(before, torch.arange(5.0))
    assert torch.equal(steps(1.0, math.nan), before)
    with pytest.raises(VerificationError, match="the gradient is not finite at step 2"):
        steps(1.0, 1.0)
    assert torch.equal(steps(1.0, 1.0), before)
    assert torch.equal(steps(1.0, 1.0), before)


def test_a_protected_optimizer_computes_what_others_do() -> None:
    guarded, plain = (Steps(OPTIMIZERS[0], lag=lag) for lag in (1, 0))
    for gradient in (1.0, -0.5, 0.25):
        assert torch.equal(guarded(1.0, gradient), plain(1.0, gradient))


def test_the_first_value_of_the_first_bad_step_is_named() -> None:
    steps = Steps(OPTIMIZERS[0], lag=2)
    for loss in (1.0, math.inf, math.nan):
        steps(loss, math.nan if loss != 1.0 else 1.0)
    with pytest.raises(VerificationError, match="the loss is not finite at step 2"):
        steps.guard.check_all()


def test_reports_are_read_once() -> None:
    steps = Steps(OPTIMIZERS[0], lag=1)
    steps(1.0, 1.0)
    steps.guard.check_all()
    steps(math.nan, 1.0)
    with pytest.raises(VerificationError, match="the loss is not finite at step 2"):
        steps.guard.check_all()
    steps.guard.check_all()
