from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fbnetv5.data.loading import in_order
from fbnetv5.data.sample import ABSENT
from fbnetv5.data.scenes import CLASSES, Scenes
from fbnetv5.evaluate import Predict, evaluate
from fbnetv5.tasks import make_tasks

PICTURES = Scenes("train", size=(32, 32), count=10)
TRUTH = torch.tensor([PICTURES[index].label for index in range(10)])


def answering(labels: Tensor) -> Predict:
    """A network that answers the labels in turn, whatever it is shown."""
    answers = iter(labels)

    def predict(images: Tensor) -> Sequence[Tensor]:
        taken = torch.stack([next(answers) for _ in images])
        return (functional.one_hot(taken, len(CLASSES.labels)).float(),)

    return predict


@pytest.mark.parametrize(("wrong", "expected"), [(0, 1.0), (3, 0.7), (10, 0.0)])
@pytest.mark.parametrize("batch", [1, 4, 10])
def test_the_metric_is_taken_over_all_batches(wrong: int, expected: float, batch: int) -> None:
    labels = TRUTH.clone()
    labels[:wrong] = (labels[:wrong] + 1) % len(CLASSES.labels)
    task = make_tasks(("cls",), CLASSES)["cls"]
    assert evaluate(task, answering(labels), in_order(PICTURES, batch=batch)) == pytest.approx(expected)


def test_pictures_without_labels_do_not_count() -> None:
    (batch,) = in_order(PICTURES, batch=10)
    known = replace(batch, labels=torch.where(torch.arange(10) < 4, batch.labels, ABSENT))
    answers = torch.where(torch.arange(10) < 3, TRUTH, (TRUTH + 1) % len(CLASSES.labels))
    assert evaluate(make_tasks(("cls",), CLASSES)["cls"], answering(answers), [known]) == pytest.approx(0.75)


def test_networks_see_normalised_pictures_without_gradients() -> None:
    seen: list[tuple[float, bool]] = []

    def predict(images: Tensor) -> Sequence[Tensor]:
        seen.append((float(images.abs().max()), torch.is_grad_enabled()))
        return (torch.zeros(len(images), len(CLASSES.labels)),)

    evaluate(make_tasks(("cls",), CLASSES)["cls"], predict, in_order(PICTURES, batch=5))
    assert len(seen) == 2
    assert all(largest < 4 and not gradients for largest, gradients in seen)
