import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fbnetv5.data.sample import Batch
from fbnetv5.data.targets import IGNORE
from fbnetv5.tasks import pixels, segmentation
from fbnetv5.tasks.pixels import upsample
from fbnetv5.tasks.segmentation import Segmentation
from tests.samples import make_sample, stack

TASK = Segmentation({"label": ("x",), "boxes": ("x",), "mask": ("sky", "road", "car", "tram")})


def batch_of(masks: Tensor) -> Batch:
    image = torch.zeros(3, *masks.shape[1:], dtype=torch.uint8)
    return stack([make_sample(image, mask=mask) for mask in masks.to(torch.uint8)])


def one_hot_logits(classes: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(classes, 4).permute(0, 3, 1, 2).float()


def iou_by_class(truth: Tensor, prediction: Tensor) -> list[float | None]:
    """Straight from the definition; None where a class is in neither."""
    known = (truth != IGNORE).numpy()
    scores: list[float | None] = []
    for label in range(4):
        a, b = (truth.numpy() == label) & known, (prediction.numpy() == label) & known
        scores.append(float((a & b).sum() / (a | b).sum()) if (a | b).any() else None)
    return scores


@pytest.mark.parametrize("classes", [2, 4], ids=["two classes never seen", "all classes"])
def test_iou_is_that_of_the_definition(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    truth = torch.randint(classes, (6, 8, 8), generator=generator)
    prediction = torch.where(torch.rand(truth.shape, generator=generator) < 0.6, truth, (truth + 1) % classes)
    truth[torch.rand(truth.shape, generator=generator) < 0.2] = IGNORE
    metric = TASK.new_metric()
    for rows in (slice(0, 2), slice(2, 6)):
        metric.update([one_hot_logits(prediction[rows])], batch_of(truth[rows]))
    expected, figures = iou_by_class(truth, prediction), metric.report()
    assert metric.compute() == figures["miou"] == pytest.approx(np.mean([one for one in expected if one is not None]))
    assert list(figures["iou"]) == list(TASK.labels)
    assert (
        [one is None for one in figures["iou"].values()]
        == [one is None for one in expected]
        == [False] * classes + [True] * (4 - classes)
    )
    assert [one for one in figures["iou"].values() if one is not None] == pytest.approx(expected[:classes])
    known = truth != IGNORE
    assert figures["pixel_accuracy"] == pytest.approx(float((truth == prediction)[known].float().mean()))


@pytest.fixture
def two_at_a_time(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Upsample two images of 32x32 at a time; the numbers of images that were upsampled at once."""
    upsampled: list[int] = []

    def counted(raw: Tensor) -> Tensor:
        upsampled.append(len(raw))
        return upsample(raw)

    monkeypatch.setattr(pixels, "MAX_UPSAMPLED", 2 * len(TASK.labels) * 32 * 32)
    monkeypatch.setattr(segmentation, "upsample", counted)
    return upsampled


def labelled_logits() -> tuple[Tensor, Batch]:
    """Random logits of five images, and labels with unknown pixels; the fourth image has no others."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(4, (5, 32, 32), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = IGNORE
    masks[3] = IGNORE
    return torch.randn(5, 4, 8, 8, generator=generator), batch_of(masks)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_and_gradients_in_parts_are_those_of_the_whole_batch(
    smoothing: float, dtype: torch.dtype, two_at_a_time: list[int]
) -> None:
    task, (logits, batch) = TASK.smoothed(smoothing), labelled_logits()
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0, 4.0])  # an upstream gradient that differs between images
    found, whole = (logits.to(dtype).requires_grad_() for _ in range(2))
    losses = task.losses(found, batch)
    assert two_at_a_time == [2, 2, 1]
    expected = task._pixel_losses(whole.float(), batch.targets["mask"])
    torch.testing.assert_close(losses, expected)
    for own, raw in ((losses, found), (expected, whole)):
        (weights * own).sum().backward()  # type: ignore[no-untyped-call]
        assert raw.grad is not None
    torch.testing.assert_close(found.grad, whole.grad)
    with torch.no_grad():
        torch.testing.assert_close(task.losses(found, batch), expected)
    assert max(two_at_a_time[:3] + two_at_a_time[-3:]) == 2


def test_a_metric_in_parts_is_that_of_the_whole_batch(two_at_a_time: list[int]) -> None:
    logits, batch = labelled_logits()
    metric, whole = TASK.new_metric(), TASK.new_metric()
    TASK.measure(metric, logits, batch)
    assert two_at_a_time == [2, 2, 1]
    whole.update(TASK.deploy(logits), batch)
    assert metric.report() == whole.report()


def test_an_image_larger_than_a_part_is_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MAX_UPSAMPLED", 1)
    assert pixels.parts(torch.zeros(3, 4, 8, 8)) == [slice(0, 1), slice(1, 2), slice(2, 3)]


def test_undecided_logits_cost_log_of_the_classes_and_ignored_images_nothing() -> None:
    mask = torch.full((2, 8, 8), IGNORE)
    mask[0, :, :4] = 2
    losses = TASK.losses(torch.zeros(2, 4, 2, 2), batch_of(mask))
    torch.testing.assert_close(losses, torch.tensor([math.log(4), 0.0]))


def test_loss_is_the_mean_over_known_pixels() -> None:
    mask = torch.zeros(1, 8, 8)
    mask[:, :, 4:] = IGNORE
    raw = torch.randn(1, 4, 2, 2)
    pixels = -torch.log_softmax(TASK.deploy(raw)[0], dim=1)[:, 0]
    torch.testing.assert_close(TASK.losses(raw, batch_of(mask)), pixels[mask != IGNORE].mean()[None])


def test_a_smoothed_loss_spreads_a_share_over_the_classes() -> None:
    truth = torch.randint(4, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    truth[0, :3] = IGNORE
    raw = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    logs = TASK.deploy(raw)[0].log_softmax(1)[0, :, 3:]  # [C, 5, 8]
    target = 0.9 * torch.nn.functional.one_hot(truth[0, 3:], 4).permute(2, 0, 1) + 0.1 / 4
    expected = -(target * logs).sum(0).mean()
    torch.testing.assert_close(TASK.smoothed(0.1).losses(raw, batch_of(truth)), expected[None])


def test_outputs_are_as_large_as_the_image() -> None:
    features = [torch.randn(1, 8, 64 // path, 96 // path) for path in TASK.paths]
    raw = TASK.build_head([8] * 4).eval()(features)
    assert raw.shape == (1, 4, 16, 24)
    assert TASK.deploy(raw)[0].shape == (1, 4, 64, 96)
