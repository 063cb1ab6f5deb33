import math

import pytest
import torch
from torch import nn

from fbnetv5.data.sample import Batch
from fbnetv5.data.targets import ABSENT
from fbnetv5.tasks.classification import Classification
from tests.samples import make_sample, stack

TASK = Classification({"label": ("cat", "dog", "hen"), "boxes": ("x",), "mask": ("x",)})


def batch_of(*labels: int) -> Batch:
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    return stack([make_sample(image, label=None if label == ABSENT else label) for label in labels])


def test_loss_is_the_negative_log_share_of_the_true_class() -> None:
    raw = torch.tensor([[0.0, 0.0, 0.0], [math.log(3), 0.0, 0.0], [9.0, 9.0, 9.0]])
    losses = TASK.losses(raw, batch_of(0, 1, ABSENT))
    torch.testing.assert_close(losses, torch.tensor([math.log(3), math.log(5), 0.0]))


def test_a_smoothed_loss_is_that_of_torch() -> None:
    raw = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    expected = nn.CrossEntropyLoss(label_smoothing=0.3, reduction="none")(raw[:3], torch.tensor([2, 0, 1]))
    batch = batch_of(2, 0, 1, ABSENT)
    smoothed = TASK.smoothed(0.3)
    torch.testing.assert_close(smoothed.losses(raw, batch), torch.cat([expected, torch.zeros(1)]))
    assert TASK.label_smoothing == 0.0
    assert torch.equal(smoothed.smoothed(0.0).losses(raw, batch), TASK.losses(raw, batch))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [((0, 1, 2), 1.0), ((1, 2, 0), 0.0), ((0, 2, ABSENT), 0.5)],
    ids=["all right", "all wrong", "half of the labelled"],
)
def test_top1(labels: tuple[int, ...], expected: float) -> None:
    metric = TASK.new_metric()
    for row, label in enumerate(labels):
        metric.update(TASK.deploy(torch.eye(3)[row : row + 1]), batch_of(label))
    assert metric.compute() == expected


def test_top5_counts_the_true_class_among_the_five_largest() -> None:
    task = Classification({"label": tuple("abcdefgh"), "boxes": (), "mask": ()})
    logits = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    labels = [row % 8 if row % 5 else ABSENT for row in range(40)]
    metric = task.new_metric()
    metric.update([logits], batch_of(*labels))
    ranks = [sorted(row, reverse=True).index(row[label]) for row, label in zip(logits.tolist(), labels, strict=True)]
    labelled_ranks = [rank for rank, label in zip(ranks, labels, strict=True) if label != ABSENT]
    expected = {
        "top1": sum(rank < 1 for rank in labelled_ranks) / 32,
        "top5": sum(rank < 5 for rank in labelled_ranks) / 32,
    }
    assert metric.report() == expected
    assert 0 < expected["top1"] < expected["top5"] < 1


def test_with_fewer_than_five_classes_every_answer_is_among_them() -> None:
    metric = TASK.new_metric()
    metric.update(TASK.deploy(torch.eye(3)), batch_of(1, 1, 1))
    assert metric.report() == {"top1": pytest.approx(1 / 3), "top5": 1.0}


def test_deployable_output_has_the_classes_of_the_image_labels() -> None:
    assert TASK.labels == ("cat", "dog", "hen")
    assert TASK.build_head([16]).eval()([torch.randn(2, 16, 2, 2)]).shape == (2, 3)
