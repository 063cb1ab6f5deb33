from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.errors import VerificationError
from fbnetv5.data.config import DataConfig
from fbnetv5.runs.history import Entry
from fbnetv5.search.config import SupernetConfig
from fbnetv5.search.supernet_loop import SupernetLoop

COUNTS = torch.tensor([2.0, 1.0])


class TwoTasks(SupernetConfig):
    """A configuration of two tasks."""

    title = "test"
    kind = "test"
    flags = frozenset()

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("cls", "det")


class TinyLoop(SupernetLoop[Entry, nn.Linear]):
    """Two losses that are linear in two weights."""

    title = "test"

    def step(self) -> None:
        self.update_weights(self.supernet.weight[:, 0], COUNTS, np.ones(2), lr=0.1)

    def entry(self, *, last: bool) -> None:
        return None

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def identity(self) -> dict[str, object]:
        return {}

    def load(self, groups: object, state: object) -> None:
        raise NotImplementedError


@pytest.fixture
def loop(tmp_path: Path) -> TinyLoop:
    supernet = nn.Linear(1, 2, bias=False)
    nn.init.constant_(supernet.weight, 4.0)
    config = TwoTasks(data=DataConfig(scenes=(4, 4, 4)), weight_decay=0.0, clip_norm=1e9, max_skipped=0)
    return TinyLoop(config, tmp_path, supernet, steps=3)


def test_gradients_are_those_of_the_mean_losses_relative_to_their_averages(loop: TinyLoop) -> None:
    loop.step()
    assert loop.scale.values.tolist() == [2.0, 4.0]
    assert loop.supernet.weight.grad is not None
    # Task 1: a mean of 2 images with an average of 2; task 2: of 1 image with an average of 4.
    assert loop.supernet.weight.grad.flatten().tolist() == [0.25, 0.25]
    torch.testing.assert_close(loop.supernet.weight.detach(), torch.full((2, 1), 3.9))  # AdamW's first step is lr


def test_a_loss_that_is_not_finite_is_named_and_changes_nothing(loop: TinyLoop) -> None:
    before = loop.supernet.weight.detach().clone()
    losses = loop.supernet.weight[:, 0] * torch.tensor([1.0, float("nan")])
    with pytest.raises(VerificationError, match="the loss of det is not finite at step 1"):
        loop.update_weights(losses, COUNTS, np.ones(2), lr=0.1)
    assert torch.equal(loop.supernet.weight, before)
    assert bool(loop.scale.values.isnan().all())


@pytest.mark.parametrize(
    ("steps", "recorded"), [(30, [10, 20, 30]), (1200, [*range(30, 1201, 30)]), (1795, [*range(50, 1795, 50), 1795])]
)
def test_probabilities_are_recorded_at_forty_steps_at_most_and_at_the_last(
    loop: TinyLoop, steps: int, recorded: list[int]
) -> None:
    loop.steps = steps
    logged = [step for step in range(1, steps + 1) if step % 10 == 0 or step == steps]

    def records(step: int) -> bool:
        loop.done = step
        return loop.records_policies(last=step == steps)

    assert [step for step in logged if records(step)] == recorded


def test_a_weight_of_0_leaves_a_task_out(loop: TinyLoop) -> None:
    loop.update_weights(loop.supernet.weight[:, 0], COUNTS, np.array([0.0, 1.0]), lr=0.1)
    assert loop.supernet.weight[0].item() == 4.0
    assert loop.supernet.weight[1].item() < 4.0
