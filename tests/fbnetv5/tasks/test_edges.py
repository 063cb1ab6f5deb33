import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_cdt
from torch import Tensor

from fbnetv5.data.sample import Batch
from fbnetv5.data.targets import IGNORE
from fbnetv5.tasks.edges import TOLERANCE, Edges
from fbnetv5.tasks.pixels import THRESHOLDS
from tests.samples import make_sample, stack

TASK = Edges({"edges": ()})


def batch_of(masks: Tensor) -> Batch:
    image = torch.zeros(3, *masks.shape[1:], dtype=torch.uint8)
    return stack([make_sample(image, edges=mask) for mask in masks.to(torch.uint8)])


def line(column: int, side: int = 64) -> Tensor:
    edges = torch.zeros(1, side, side)
    edges[:, :, column] = 1
    return edges


@pytest.mark.parametrize("side", [64, 320])
def test_the_metric_counts_pixels_within_the_tolerance(side: int) -> None:
    generator = torch.Generator().manual_seed(side)
    truth = (torch.rand(3, side, side, generator=generator) < 0.01).int()
    probability = torch.rand(3, side, side, generator=generator) ** 6
    reach = max(1, round(TOLERANCE * np.hypot(side, side)))
    metric = TASK.new_metric()
    metric.update([probability[:1, None]], batch_of(truth[:1]))
    metric.update([probability[1:, None]], batch_of(truth[1:]))
    best = (0.0, 0.0, 0.0, 0.0)
    for threshold in THRESHOLDS:
        right = predicted = detected = 0
        for true, prediction in zip(truth.numpy() == 1, (probability >= threshold).numpy(), strict=True):
            to_truth, to_prediction = (distance_transform_cdt(~mask, "chessboard") for mask in (true, prediction))
            right += int((to_truth[prediction] <= reach).sum())
            detected += int((to_prediction[true] <= reach).sum()) if prediction.any() else 0
            predicted += int(prediction.sum())
        precision, recall = right / max(1, predicted), detected / int(truth.sum())
        f = 2 * precision * recall / max(1e-12, precision + recall)
        best = max(best, (f, float(threshold), precision, recall))
    assert metric.compute() == pytest.approx(best[0])
    assert list(metric.report().values()) == pytest.approx(list(best), abs=1e-6)


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (1, 1.0), (2, 0.0)])
def test_a_line_may_be_off_by_a_pixel(shift: int, expected: float) -> None:
    metric = TASK.new_metric()
    metric.update([line(20 + shift)[:, None]], batch_of(line(20)))
    assert metric.compute() == expected


def test_ignored_pixels_count_neither_way() -> None:
    truth = line(20)
    truth[:, :, 30:] = IGNORE
    metric = TASK.new_metric()
    metric.update([(line(20) + line(40))[:, None]], batch_of(truth))
    assert metric.compute() == 1.0


def test_pixels_on_and_off_edges_weigh_the_same() -> None:
    truth = line(20)
    raw = torch.full((1, 1, 16, 16), 1.0)
    on, off = np.log1p(np.exp(-1.0)), np.log1p(np.exp(1.0))
    assert float(TASK.losses(raw, batch_of(truth))) == pytest.approx((on + off) / 2, rel=1e-5)


def test_an_image_without_edges_teaches_that_there_are_none() -> None:
    raw = torch.full((1, 1, 16, 16), 1.0, requires_grad=True)
    TASK.losses(raw, batch_of(torch.zeros(1, 64, 64))).sum().backward()  # type: ignore[no-untyped-call]
    assert raw.grad is not None
    assert (raw.grad > 0).all()
