import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.graph import to_onnx_bytes
from export.runners import OrtRunner
from fbnetv5.data.sample import Batch
from fbnetv5.tasks.normals import LIMITS, MIN_LENGTH, Normals, degrees_between
from fbnetv5.tasks.pixels import upsample
from tests.samples import make_sample, stack

TASK = Normals({"normals": ()})
NAN = float("nan")


def batch_of(normals: Tensor) -> Batch:
    image = torch.zeros(3, *normals.shape[2:], dtype=torch.uint8)
    return stack([make_sample(image, normals=each) for each in normals])


def test_figures_are_those_of_their_definitions() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = functional.normalize(torch.randn(4, 3, 8, 8, generator=generator), dim=1)
    predicted = truth + 0.4 * torch.randn(truth.shape, generator=generator)
    unknown = torch.rand(4, 1, 8, 8, generator=generator) < 0.3
    truth = truth.masked_fill(unknown, NAN)
    metric = TASK.new_metric()
    for rows in (slice(0, 1), slice(1, 4)):
        metric.update([predicted[rows]], batch_of(truth[rows]))
    true, ours = (x.movedim(1, -1)[~unknown[:, 0]].double().numpy() for x in (truth, predicted))
    sines = np.linalg.norm(np.cross(true, ours), axis=1)
    angles = np.degrees(np.arctan2(sines, (true * ours).sum(1)))
    figures = metric.report()
    assert metric.compute() == figures["mean_angle"] == pytest.approx(angles.mean(), abs=1e-4)
    assert figures["median_angle"] == pytest.approx(np.median(angles), abs=0.5)
    assert figures["median_angle"] == pytest.approx(np.sort(angles)[(len(angles) - 1) // 2], abs=0.0051)
    shares = [figures[f"within_{limit}"] for limit in (11.25, 22.5, 30)]
    assert shares == pytest.approx([np.mean(angles < limit) for limit in (11.25, 22.5, 30)])
    assert 0 < shares[0] < shares[1] < shares[2] < 1


@pytest.mark.parametrize(("vector", "angle"), [((0, 0, 2), 0), ((0, 3, 0), 90), ((0, 1, 1), 45), ((0, 0, -1), 180)])
def test_the_angle_does_not_depend_on_the_length(vector: tuple[float, float, float], angle: float) -> None:
    ours, theirs = torch.tensor([vector]).double(), torch.tensor([[0.0, 0, 1]]).double()
    assert degrees_between(ours, theirs).item() == pytest.approx(angle, abs=1e-5)


def test_a_vector_without_a_direction_is_no_match() -> None:
    assert degrees_between(torch.zeros(1, 3).double(), torch.tensor([[0.0, 0, 1]]).double()).item() == 90


@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
def test_a_prediction_that_is_not_finite_counts_as_opposite(value: float) -> None:
    truth = torch.tensor([0.0, 0.0, 1.0])[None, :, None, None].repeat(1, 1, 1, 2)
    predicted = truth.clone()
    predicted[0, 2, 0, 0] = value
    metric = TASK.new_metric()
    metric.update([predicted], batch_of(truth))
    assert metric.report() == pytest.approx({"mean_angle": 90, "median_angle": 0.005} | dict.fromkeys(LIMITS, 0.5))


def raw_of(vector: tuple[float, float, float], images: int = 1) -> Tensor:
    return torch.tensor(vector)[None, :, None, None].repeat(images, 1, 8, 8)


@pytest.mark.parametrize("length", [0.5, 1.0, 50.0])
def test_the_loss_is_the_mean_difference_of_components_and_leaves_out_what_is_unknown(length: float) -> None:
    truth = torch.zeros(2, 3, 32, 32)
    truth[:, 2] = 1
    truth[0, :, :, 10:] = NAN
    truth[1] = NAN
    losses = TASK.losses(raw_of((0.6 * length, 0.0, 0.8 * length), images=2), batch_of(truth))
    torch.testing.assert_close(losses, torch.tensor([(0.6 + 0.2) / 3, 0.0]))


@pytest.mark.parametrize("vector", [(0.0, 0.0, 0.0), (1e-4, 0.0, 0.0), (0.0, 0.0, -1.0)])
def test_gradients_are_finite_and_none_comes_from_unknown_pixels(vector: tuple[float, float, float]) -> None:
    truth = torch.full((1, 3, 32, 32), NAN)
    truth[0, :, 0, 0] = torch.tensor([0.0, 0.6, 0.8])
    raw = raw_of(vector).requires_grad_()
    TASK.losses(raw, batch_of(truth)).sum().backward()  # type: ignore[no-untyped-call]
    assert raw.grad is not None
    assert raw.grad.isfinite().all()
    assert 0 < raw.grad.abs().max() < 10
    assert raw.grad[:, :, 4:].abs().max() == 0


def test_deployed_vectors_have_length_one_unless_the_raw_ones_are_short() -> None:
    torch.testing.assert_close(TASK.deploy(raw_of((0.0, 3.0, 4.0)))[0][0, :, 5, 5], torch.tensor([0.0, 0.6, 0.8]))
    short = TASK.deploy(raw_of((0.0, 0.0, MIN_LENGTH / 2)))[0]
    assert short.norm(dim=1).max().item() == pytest.approx(0.5)
    lengths = TASK.deploy(torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)))[0].norm(dim=1)
    assert lengths.max() <= 1 + 1e-6
    assert lengths.mean() > 0.99


@pytest.mark.parametrize("length", [0.01, 1.0, 300.0, 60000.0])
def test_deployed_vectors_do_not_overflow_in_half_precision(length: float) -> None:
    vectors = TASK.deploy(raw_of((-0.6 * length, 0.0, 0.8 * length)).half())[0][0, :, 5, 5]
    expected = torch.tensor([-0.6, 0.0, 0.8]) * min(1, length / MIN_LENGTH)
    torch.testing.assert_close(vectors.float(), expected, atol=2e-3, rtol=0)


class Deployed(nn.Module):
    def forward(self, raw: Tensor) -> tuple[Tensor, ...]:
        return TASK.deploy(raw)


def test_the_division_is_by_the_length_also_in_onnx_runtime() -> None:
    raw = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * torch.logspace(-4, 4, 8)
    vectors = upsample(raw)
    expected = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=MIN_LENGTH)
    torch.testing.assert_close(TASK.deploy(raw)[0], expected, atol=1e-6, rtol=0)
    content = to_onnx_bytes(Deployed(), (raw,), input_names=["raw"], output_names=["normals"])
    exported = torch.from_numpy(OrtRunner(content)({"raw": raw.numpy()})["normals"])
    torch.testing.assert_close(exported, expected, atol=1e-6, rtol=0)


def test_a_smaller_angle_is_better() -> None:
    assert TASK.metric.drop(10.0, 12.5) == 2.5
    assert math.isinf(TASK.metric.worst)


def test_the_distance_from_a_teacher_does_not_depend_on_the_lengths() -> None:
    up, right = (torch.tensor(vector).view(1, 3, 1, 1).expand(1, 3, 8, 8) for vector in ((0.0, 5, 0), (0.5, 0, 0)))
    torch.testing.assert_close(TASK.distillation_losses(up, right, 1.0), torch.tensor([2 / 3]), rtol=1e-4, atol=0)
    torch.testing.assert_close(TASK.distillation_losses(up, 3 * up, 1.0), torch.zeros(1), rtol=0, atol=1e-6)
