"""The order of moved batches; on a GPU, their values and that their memory is not reused too early."""

from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from export.errors import UserError
from fbnetv5.data.loading import Order, Reading, batches
from fbnetv5.data.sample import Batch
from fbnetv5.data.scenes import Scenes
from fbnetv5.data.transfer import on_device, one_ahead
from tests.samples import make_sample, stack

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_each_item_is_computed_before_its_predecessor_is_used() -> None:
    computed: list[int] = []

    def items() -> Iterator[int]:
        for number in range(3):
            computed.append(number)
            yield number

    assert [(number, len(computed)) for number in one_ahead(items())] == [(0, 2), (1, 3), (2, 3)]
    assert list(one_ahead([])) == []


def test_errors_stay_at_their_place() -> None:
    batch, error = stack([make_sample(torch.ones(3, 2, 2, dtype=torch.uint8), label=1)]), UserError("unreadable")
    first, second, third = on_device([batch, error, batch], CPU)
    assert second is error
    for moved in (first, third):
        assert isinstance(moved, Batch)
        assert torch.equal(moved.images, batch.images)


def test_torch_pins_every_tensor_of_a_batch_and_leaves_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "pin_memory", Tensor.clone)  # pinning needs a GPU: copy instead
    batch, error = stack([make_sample(torch.ones(3, 2, 2, dtype=torch.uint8), label=1)]), UserError("unreadable")
    pinned = pin_memory(batch)  # type: ignore[no-untyped-call]
    assert isinstance(pinned, Batch)
    for copy, tensor in zip(pinned.tensors, batch.tensors, strict=True):
        torch.testing.assert_close(copy, tensor, rtol=0, atol=0, equal_nan=True)
        assert copy.data_ptr() != tensor.data_ptr()
    assert pin_memory(error) is error  # type: ignore[no-untyped-call]


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_a_gpu_gets_the_batches_of_the_cpu_while_it_computes(workers: int) -> None:
    scenes = Scenes("train", size=(64, 64), count=40)
    sums = [
        [
            torch.stack([tensor.double().nan_to_num().sum() for tensor in batch.tensors]).cpu()
            for batch in islice(
                batches(scenes, Order(batch=8, seed=1), reading=Reading(num_workers=workers), device=device), 20
            )
        ]
        for device in (CPU, CUDA)
    ]
    torch.testing.assert_close(sums[1], sums[0])
