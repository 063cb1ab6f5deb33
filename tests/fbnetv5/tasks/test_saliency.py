import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_jaccard_index

from fbnetv5.data.sample import Batch
from fbnetv5.data.targets import IGNORE
from fbnetv5.tasks.pixels import THRESHOLDS
from fbnetv5.tasks.saliency import Saliency
from tests.samples import make_sample, stack

TASK = Saliency({"saliency": ()})


def batch_of(masks: Tensor) -> Batch:
    image = torch.zeros(3, *masks.shape[1:], dtype=torch.uint8)
    return stack([make_sample(image, saliency=mask) for mask in masks.to(torch.uint8)])


def test_the_metric_is_the_best_mean_of_the_images_jaccard_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(2, (5, 8, 8), generator=generator)
    probability = (0.6 * truth + torch.rand(truth.shape, generator=generator)).clamp(0, 1)
    truth[torch.rand(truth.shape, generator=generator) < 0.2] = IGNORE
    metric = TASK.new_metric()
    for rows in (slice(0, 2), slice(2, 5)):
        metric.update([probability[rows, None]], batch_of(truth[rows]))
    means = []
    for threshold in THRESHOLDS:
        pairs = zip(probability, truth, strict=True)
        scores = [float(binary_jaccard_index(*pair, float(threshold), ignore_index=IGNORE)) for pair in pairs]
        means.append(np.mean(scores))
    figures = metric.report()
    assert metric.compute() == figures["max_miou"] == pytest.approx(max(means))
    assert figures["threshold"] == pytest.approx(float(THRESHOLDS[int(np.argmax(means))]))
    errors = [
        float((prediction - true)[true != IGNORE].abs().mean())
        for true, prediction in zip(truth, probability, strict=True)
    ]
    assert figures["mae"] == pytest.approx(np.mean(errors), rel=1e-5)


@pytest.mark.parametrize(("predicted", "expected"), [(0.0, 1.0), (1.0, 0.0)])
def test_an_image_without_anything_salient(predicted: float, expected: float) -> None:
    metric = TASK.new_metric()
    metric.update([torch.full((1, 1, 8, 8), predicted)], batch_of(torch.zeros(1, 8, 8)))
    assert metric.compute() == expected


def test_deployed_probabilities_follow_the_loss() -> None:
    truth = torch.zeros(1, 32, 32)
    truth[:, :, 16:] = 1
    raw = torch.zeros(1, 1, 8, 8, requires_grad=True)
    optimizer = torch.optim.SGD([raw], lr=500.0)
    for _ in range(20):
        optimizer.zero_grad()
        TASK.losses(raw, batch_of(truth)).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    metric = TASK.new_metric()
    metric.update(TASK.deploy(raw.detach()), batch_of(truth))
    assert metric.compute() > 0.95
