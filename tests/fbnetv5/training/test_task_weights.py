from typing import Any

import pytest
import torch

from fbnetv5.training.config import TrainConfig
from fbnetv5.training.task_weights import TaskWeights

CPU = torch.device("cpu")
LOSSES, OCCURS = torch.tensor([2.0, 0.1, 0.0]), torch.tensor([True, True, False])


def make_weights(tasks: str = "seg,edges,det", **fields: Any) -> TaskWeights:
    return TaskWeights(TrainConfig(task_names=tuple(tasks.split(",")), **fields), CPU)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [("paper", [1.0, 50.0, 1.0]), ({"seg": 2.0, "edges": 0.5, "det": 3.0}, [2.0, 0.5, 3.0])],
    ids=["paper", "by task"],
)
def test_weights_are_fixed(weights: Any, expected: list[float]) -> None:
    of_tasks = make_weights(task_weights=weights)
    factors, averages = of_tasks.factors(LOSSES, OCCURS)
    assert (factors.tolist(), averages, of_tasks.tensors()) == (expected, None, {})


@pytest.mark.parametrize("weights", ["average", "paper", {"edges": 7.0}], ids=str)
def test_the_only_task_has_weight_one(weights: Any) -> None:
    factors, averages = make_weights("edges", task_weights=weights).factors(LOSSES[:1], OCCURS[:1])
    assert (factors.tolist(), averages) == ([1.0], None)


def test_by_default_losses_are_relative_to_their_averages() -> None:
    weights = make_weights()
    factors, averages = weights.factors(LOSSES, OCCURS)
    assert factors.tolist() == pytest.approx([1 / 2, 1 / 0.1, 0])
    weights.update(averages, skip=torch.tensor(1.0))
    assert bool(weights.tensors()["averages"].isnan().all())
    weights.update(averages, skip=torch.tensor(0.0))
    factors, _ = weights.factors(2 * LOSSES, OCCURS)
    assert factors.tolist() == pytest.approx([1 / 2, 1 / 0.1, 0])
    restored = make_weights()
    restored.load(weights.tensors())
    assert torch.equal(restored.factors(LOSSES, OCCURS)[0], factors)
