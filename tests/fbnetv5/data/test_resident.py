"""The batches of a resident set are those of the loader, up to the padding of boxes, which no loss depends on."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch.nn import functional

from fbnetv5.data import resident
from fbnetv5.data.loading import Order, batches
from fbnetv5.data.resident import resident_batches, worth_keeping
from fbnetv5.data.sample import Batch
from fbnetv5.data.scenes import CLASSES, TARGETS, Scenes
from fbnetv5.data.targets import ABSENT, Boxes
from fbnetv5.tasks import make_tasks, task_types

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SCENES = Scenes("train", size=(32, 64), count=10)


def padded(batch: Batch, rows: int) -> Batch:
    """The batch with its boxes padded to ``rows`` rows an image."""
    boxes: Boxes = batch.targets["boxes"]
    missing = rows - boxes.labels.shape[1]
    xyxy = functional.pad(boxes.xyxy, (0, 0, 0, missing))
    labels = functional.pad(boxes.labels, (0, missing), value=ABSENT)
    return replace(batch, targets={**batch.targets, "boxes": Boxes(xyxy, labels)})


@pytest.mark.parametrize("first_step", [0, 7])
@pytest.mark.parametrize(("rank", "world"), [(0, 1), (0, 2), (1, 2)])
def test_the_batches_are_those_of_the_loader(first_step: int, rank: int, world: int) -> None:
    order = Order(batch=4, seed=5, first_step=first_step, rank=rank, world=world)
    streams = zip(resident_batches(SCENES, order, CPU), batches(SCENES, order), strict=True)
    for kept, loaded in islice(streams, 6):
        expected = padded(loaded, kept.targets["boxes"].labels.shape[1])
        assert list(kept.targets) == list(kept.present) == list(TARGETS)
        for ours, theirs in zip(kept.tensors, expected.tensors, strict=True):
            assert ours.dtype == theirs.dtype
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", task_types())
def test_no_loss_or_gradient_depends_on_the_padding_of_boxes(name: str) -> None:
    torch.manual_seed(0)
    (task,) = make_tasks((name,), CLASSES).values()
    batch = next(batches(SCENES, Order(batch=4, seed=1)))
    head = task.build_head([8] * len(task.paths))
    features = [torch.randn(4, 8, 32 // path, 64 // path) for path in task.paths]
    results = []
    for rows in (4, 9):
        losses = task.losses(head(features), padded(batch, rows))
        results.append([losses, *torch.autograd.grad(losses.sum(), list(head.parameters()))])
    for short, long in zip(*results, strict=True):
        assert torch.equal(short, long)


def test_an_accelerator_keeps_a_small_set_that_it_uses_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worth_keeping(SCENES, GPU, draws=10)
    assert not worth_keeping(SCENES, GPU, draws=9)
    assert not worth_keeping(SCENES, CPU, draws=10)
    pixels = 10 * 32 * 64 * (3 + 1 + 1 + 1 + 4 + 12 + 1)
    for limit, fits in ((pixels, False), (pixels + 10 * 200, True)):
        monkeypatch.setattr(resident, "MAX_BYTES", limit)
        assert worth_keeping(SCENES, GPU, draws=10) is fits


@pytest.mark.gpu
def test_a_gpu_keeps_the_set() -> None:
    order = Order(batch=4, seed=5)
    for kept, loaded in islice(zip(resident_batches(SCENES, order, GPU), batches(SCENES, order), strict=True), 6):
        assert kept.images.is_cuda
        assert torch.equal(kept.images.cpu(), loaded.images)
        assert torch.equal(kept.indices.cpu(), loaded.indices)
