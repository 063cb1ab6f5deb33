import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from export.errors import VerificationError
from fbnetv5.runs.divergence import DivergenceGuard, Kept

CPU = torch.device("cpu")
OPTIMIZERS: list[Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = [
    lambda weights: torch.optim.AdamW(weights, lr=0.1, fused=True),
    lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, fused=True),
]


def diverged(what: str, step: int) -> VerificationError:
    return VerificationError(f"{what} is not finite at step {step}")


class Steps:
    """Steps of one weight vector under a guard."""

    def __init__(
        self, make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer], lag: int, max_skipped: int = 0
    ) -> None:
        self.guard = DivergenceGuard(CPU, diverged, lag=lag, max_skipped=max_skipped)
        self.weight = nn.Parameter(torch.arange(5.0))
        self.optimizer = make_optimizer([self.weight])
        self.guard.protect(self.optimizer)
        self.done = 0

    def __call__(self, loss: float, gradient: float) -> Tensor:
        """Run a step with this loss and gradient; return the weight after it."""
        self.weight.grad = torch.full((5,), gradient)
        self.done += 1
        values = {"the loss": torch.tensor(loss), "the gradient": self.weight.grad.norm()}
        if not self.guard.check(values, self.done):
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
    assert torch.equal(steps.weight, before)


@each_optimizer
@pytest.mark.parametrize("lag", [0, 1])
def test_a_skipped_step_leaves_no_trace(
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer], lag: int
) -> None:
    """The weights after good and bad steps are those after the good ones alone, the optimizer's state included."""
    steps, undisturbed = (Steps(make_optimizer, lag=lag, max_skipped=2) for _ in range(2))
    for gradient in (1.0, math.nan, -0.5, math.inf, 0.25):
        steps(1.0, gradient)
    steps.guard.check_all()
    for gradient in (1.0, -0.5, 0.25):
        undisturbed(1.0, gradient)
    assert torch.equal(steps.weight, undisturbed.weight)
    assert steps.guard.skipped == 2
    with pytest.raises(VerificationError, match="the loss is not finite at step 6"):
        steps.guard.check_now({"the loss": torch.tensor(math.nan)}, 6)


@pytest.mark.parametrize("lag", [0, 1])
def test_a_step_that_waits_for_the_device_knows_whether_it_is_skipped(lag: int) -> None:
    guard = DivergenceGuard(CPU, diverged, lag=lag, max_skipped=9)
    assert [guard.check_now({"a": torch.tensor(value)}, 0) for value in (1.0, math.nan, 1.0)] == [False, True, False]
    assert not guard.check({"a": torch.tensor(math.inf)}, 3) or lag == 0
    assert not guard.check_now({"a": torch.tensor(0.0)}, 4)
    assert guard.skipped == 2


@pytest.mark.parametrize("skip", [None, 0.0, 1.0])
def test_kept_values_are_written_back(skip: float | None) -> None:
    tensors = [torch.ones(2), torch.full((2, 1), 2.0)]
    kept = Kept(tensors)
    for tensor in tensors:
        tensor.fill_(math.nan)
    kept.restore(None if skip is None else torch.tensor(skip))
    if skip == 0.0:
        assert all(bool(tensor.isnan().all()) for tensor in tensors)
    else:
        assert [tensor.tolist() for tensor in tensors] == [[1.0, 1.0], [[2.0], [2.0]]]
    Kept([]).restore()


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
