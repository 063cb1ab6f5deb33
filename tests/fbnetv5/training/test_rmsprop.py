import pytest
import torch
from torch import nn

from fbnetv5.training.rmsprop import RMSProp


def steps_of(gradients: list[float], *, momentum: float, skip: list[float] | None = None) -> list[float]:
    """The values of one parameter that starts at 1, after each step with a learning rate of 0.1 and a decay of 0.02."""
    parameter = nn.Parameter(torch.tensor([1.0]))
    optimizer = RMSProp([{"params": [parameter], "weight_decay": 0.02}], lr=0.1, momentum=momentum)
    values = []
    for number, gradient in enumerate(gradients):
        optimizer.found_inf = None if skip is None else torch.tensor(skip[number])
        parameter.grad = torch.tensor([gradient])
        optimizer.step()
        values.append(parameter.item())
    return values


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_is_that_of_tensorflow(momentum: float) -> None:
    value, square, velocity, expected = 1.0, 1.0, 0.0, []
    for gradient in (3.0, -0.5, 2.0):
        penalized = gradient + 0.02 * value
        square = 0.9 * square + 0.1 * penalized**2
        velocity = momentum * velocity + 0.1 * penalized / (square + 1e-3) ** 0.5
        value -= velocity
        expected.append(value)
    assert steps_of([3.0, -0.5, 2.0], momentum=momentum) == pytest.approx(expected, rel=1e-5)


def test_a_skipped_step_changes_neither_parameter_nor_state() -> None:
    plain = steps_of([3.0, -0.5], momentum=0.9)
    assert steps_of([3.0, -0.5], momentum=0.9, skip=[0.0, 0.0]) == plain
    assert steps_of([3.0, float("nan"), 1.0], momentum=0.9, skip=[0.0, 1.0, 1.0]) == [plain[0]] * 3
    assert steps_of([float("nan"), 3.0, -0.5], momentum=0.9, skip=[1.0, 0.0, 0.0]) == [1.0, *plain]
    assert steps_of([3.0, float("inf"), -0.5], momentum=0.9, skip=[0.0, 1.0, 0.0]) == [plain[0], *plain]
    assert steps_of([float("inf")], momentum=0.9, skip=[1.0]) == [1.0]
