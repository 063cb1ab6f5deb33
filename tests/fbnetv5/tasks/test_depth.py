import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fbnetv5.data.sample import Batch
from fbnetv5.tasks.depth import MIN_DEPTH, Depth
from tests.samples import make_sample, stack

TASK = Depth({"depth": ()})
NAN = float("nan")


def batch_of(depths: Tensor) -> Batch:
    image = torch.zeros(3, *depths.shape[1:], dtype=torch.uint8)
    return stack([make_sample(image, depth=depth) for depth in depths])


def test_figures_are_those_of_their_definitions() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = 0.5 + 9 * torch.rand(4, 8, 8, generator=generator)
    predicted = truth * torch.exp(0.3 * torch.randn(truth.shape, generator=generator))
    truth[torch.rand(truth.shape, generator=generator) < 0.3] = NAN
    metric = TASK.new_metric()
    for rows in (slice(0, 1), slice(1, 4)):
        metric.update([predicted[rows, None]], batch_of(truth[rows]))
    known = ~truth.isnan()
    true, ours = truth[known].double().numpy(), predicted[known].double().numpy()
    ratio = np.maximum(true / ours, ours / true)
    figures = metric.report()
    assert metric.compute() == figures["rmse"] == pytest.approx(np.sqrt(np.mean((true - ours) ** 2)))
    assert figures["abs_rel"] == pytest.approx(np.mean(np.abs(true - ours) / true))
    shares = [figures[name] for name in ("delta_1.25", "delta_1.25^2", "delta_1.25^3")]
    assert shares == pytest.approx([np.mean(ratio < 1.25**power) for power in (1, 2, 3)])
    assert 0 < shares[0] < shares[1] < shares[2] < 1


def raw_of(depth: float, images: int = 1) -> Tensor:
    """The inverse of softplus."""
    return torch.full((images, 1, 8, 8), math.log(math.expm1(depth - MIN_DEPTH)))


@pytest.mark.parametrize("depth", [0.1, 1.0, 50.0])
def test_the_loss_is_relative_and_leaves_out_what_is_unknown(depth: float) -> None:
    truth = torch.full((2, 32, 32), 3 * depth)
    truth[0, :, 10:] = NAN
    truth[1] = NAN
    losses = TASK.losses(raw_of(depth, images=2), batch_of(truth))
    torch.testing.assert_close(losses, torch.tensor([math.log(3), 0.0]), rtol=1e-4, atol=1e-6)


def test_unknown_depth_has_no_gradient() -> None:
    truth = torch.full((1, 32, 32), NAN)
    truth[0, 0, 0] = 2.0
    raw = torch.zeros(1, 1, 8, 8, requires_grad=True)
    TASK.losses(raw, batch_of(truth)).sum().backward()  # type: ignore[no-untyped-call]
    assert raw.grad is not None
    assert raw.grad.isfinite().all()
    assert raw.grad[0, 0, 4:].abs().max() == 0


def test_deployed_depth_is_positive() -> None:
    torch.testing.assert_close(TASK.deploy(raw_of(2.5))[0], torch.full((1, 1, 32, 32), 2.5))
    assert TASK.deploy(raw_of(2.5) - 1000)[0].min() == pytest.approx(MIN_DEPTH)


def test_less_error_is_better() -> None:
    assert TASK.metric.drop(0.5, 0.7) == pytest.approx(0.2)


def test_the_distance_from_a_teacher_is_the_ratio_of_the_depths() -> None:
    distance = TASK.distillation_losses(raw_of(2.0, images=2), raw_of(6.0, images=2), 4.0)
    torch.testing.assert_close(distance, torch.full((2,), math.log(3)), rtol=1e-4, atol=0)
