import math

import pytest
import torch

from fbnetv5.data.sample import ABSENT, Batch, Classes, Sample, collate
from fbnetv5.tasks.classification import Classification

TASK = Classification(Classes(labels=("cat", "dog", "hen"), boxes=("x",), masks=("x",)))


def batch_of(*labels: int) -> Batch:
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    return collate([Sample(image=image, label=label, boxes=None, box_labels=None, mask=None) for label in labels])


def test_loss_is_the_negative_log_share_of_the_true_class() -> None:
    raw = torch.tensor([[0.0, 0.0, 0.0], [math.log(3), 0.0, 0.0], [9.0, 9.0, 9.0]])
    losses = TASK.losses(raw, batch_of(0, 1, ABSENT))
    torch.testing.assert_close(losses, torch.tensor([math.log(3), math.log(5), 0.0]))


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


def test_deployable_output_speaks_of_the_picture_labels() -> None:
    assert TASK.labels == ("cat", "dog", "hen")
    assert TASK.build_head([16]).eval()([torch.randn(2, 16, 2, 2)]).shape == (2, 3)
