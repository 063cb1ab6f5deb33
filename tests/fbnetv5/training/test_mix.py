from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from export.errors import UserError
from fbnetv5.data.preprocess import MEAN, STD, normalise
from fbnetv5.data.sample import Batch
from fbnetv5.data.scenes import CLASSES, TARGETS
from fbnetv5.data.targets import ABSENT, IGNORE, Boxes
from fbnetv5.tasks import make_tasks
from fbnetv5.training.mix import Mix, check_mixable, cut_mix, draw_patch, mix
from fbnetv5.training.recipe import Recipe
from tests.samples import keep_labels, make_sample, stack

KINDS = {name: target.kind for name, target in TARGETS.items()}
SIZE = (32, 48)


def numbered() -> Batch:
    """Four images; the pixels of image n, its class, and the pixels of its mask and depth are all n."""
    image = torch.zeros(3, *SIZE, dtype=torch.uint8)
    maps = [torch.full(SIZE, number) for number in range(4)]
    return stack([
        make_sample(image + number, label=number, mask=values.to(torch.uint8), depth=values.float())
        for number, values in enumerate(maps)
    ])  # fmt: skip


def mixed(step: int = 0, **fields: Any) -> tuple[Batch, Mix]:
    batch = numbered()
    return batch, mix(batch, Recipe(**fields), KINDS, seed=3, step=step)


def red(result: Mix) -> Tensor:
    """The first channel [N, H, W] of the mixed images before they were normalised."""
    return (result.images[:, 0] * STD[0] + MEAN[0]) * 255


@pytest.mark.parametrize("step", range(6))
def test_the_weights_of_cutmix_are_shares_of_the_pixels(step: int) -> None:
    batch, result = mixed(step, cutmix=1.0)
    (share, own), (rest, other) = result.labels
    numbers = torch.arange(4.0)
    values = red(result).round()
    is_own = values == numbers[:, None, None]
    assert bool((is_own | (values == 3 - numbers[:, None, None])).all())
    assert is_own.float().mean((1, 2)).tolist() == pytest.approx([share] * 4)
    assert share + rest == 1
    assert own.targets["label"].tolist() == [0, 1, 2, 3]
    assert other.targets["label"].tolist() == [3, 2, 1, 0]
    for labels in (own, other):
        assert torch.equal(labels.targets["mask"].float(), values)
        assert torch.equal(labels.targets["depth"], values)
    assert batch.targets["mask"].unique().tolist() == [0, 1, 2, 3]
    assert bool((batch.targets["mask"][0] == 0).all())


def test_a_patch_is_that_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    transform = v2.CutMix(alpha=1.0, num_classes=2)
    for number in range(40):
        random = np.random.default_rng(number)
        share, row, column = random.beta(1.0, 1.0), random.integers(SIZE[0]), random.integers(SIZE[1])
        monkeypatch.setattr(transform._dist, "sample", lambda _, share=share: torch.tensor([share]))
        centres = iter([torch.tensor([column]), torch.tensor([row])])
        monkeypatch.setattr(torch, "randint", lambda *_, centres=centres, **__: next(centres))
        x0, y0, x1, y1 = transform.make_params([torch.zeros(3, *SIZE)])["box"]
        rows, columns = draw_patch(np.random.default_rng(number), 1.0, SIZE)
        ours = (columns.start, rows.start, columns.stop, rows.stop)
        assert np.abs(np.subtract(ours, (x0, y0, x1, y1))).max() <= 1  # float32 there


def test_mixup_blends_images_and_weights_losses() -> None:
    batch, result = mixed(mixup=0.7)
    share = np.random.default_rng([3, 0]).beta(0.7, 0.7)
    (weight, own), (rest, other) = result.labels
    assert (weight, rest) == (share, 1 - share)
    assert own is batch
    assert other.targets["label"].tolist() == [3, 2, 1, 0]
    blend = [share * number + (1 - share) * (3 - number) for number in range(4)]
    assert red(result)[:, 0, 0].tolist() == pytest.approx(blend, abs=1e-4)


def test_with_both_on_each_step_uses_one_of_the_two() -> None:
    values = [red(mixed(step, mixup=1.0, cutmix=1.0)[1]) for step in range(200)]
    integers = [bool(((value - value.round()).abs() < 1e-4).all()) for value in values]
    assert 70 < sum(integers) < 130  # about half of the steps paste and do not blend
    again = mixed(7, mixup=1.0, cutmix=1.0)[1]
    assert torch.equal(again.images, mixed(7, mixup=1.0, cutmix=1.0)[1].images)


def test_with_neither_images_stay_as_they_are() -> None:
    batch, result = mixed()
    assert torch.equal(result.images, normalise(batch.images))
    assert result.labels == ((1.0, batch),)


def test_an_image_without_a_map_has_that_of_the_patch() -> None:
    batch = keep_labels(numbered(), "mask", torch.tensor([False, False, True, False]))
    result = cut_mix(batch.images.float(), batch, KINDS, (slice(0, 8), slice(4, 20)))
    for _, labels in result.labels:
        mask: Tensor = labels.targets["mask"]
        assert labels.present["mask"].tolist() == [False, True, True, False]
        assert bool((mask[1, :8, 4:20] == 2).all())
        assert int((mask[1] != IGNORE).sum()) == 8 * 16
        assert int((mask[2] == IGNORE).sum()) == 8 * 16
    assert [labels.present["label"].tolist() for _, labels in result.labels] == [[True] * 4] * 2


def test_cutmix_is_refused_for_boxes_alone() -> None:
    tasks = make_tasks(("cls", "det", "seg", "normals", "depth", "edges"), CLASSES)
    check_mixable(Recipe(mixup=1.0), tasks.values(), TARGETS)
    check_mixable(Recipe(cutmix=1.0), [task for name, task in tasks.items() if name != "det"], TARGETS)
    with pytest.raises(UserError, match="training: cutmix does not suit det: a pasted patch cuts the labels"):
        check_mixable(Recipe(cutmix=1.0), tasks.values(), TARGETS)


def quarters(values: Tensor) -> Tensor:
    """The corner pixels [N, 4] of maps [N, H, W], a pixel per quarter of a mosaic."""
    return torch.stack([values[:, row, column] for row in (0, -1) for column in (0, -1)], 1)


def test_a_mosaic_shows_four_images_and_their_maps() -> None:
    batch, result = mixed(mosaic=1.0)
    shown = [[(number + shift) % 4 for shift in range(4)] for number in range(4)]
    values = red(result).round()
    assert quarters(values).tolist() == shown
    ((weight, labels),) = result.labels
    assert weight == 1
    assert torch.equal(labels.targets["mask"].float(), values)
    assert torch.equal(labels.targets["depth"], values)
    assert bool((batch.images[0] == 0).all())  # the batch itself is as it was


def test_steps_are_mosaics_with_their_probability() -> None:
    images = mixed()[1].images
    plain = [torch.equal(mixed(step, mosaic=0.3)[1].images, images) for step in range(200)]
    assert 120 < sum(plain) < 160


def test_boxes_of_a_mosaic_bound_what_it_shows() -> None:
    """Each image has objects of its own colour on black, so the mosaic's pixels tell the boxes."""
    random = np.random.default_rng(5)
    samples = []
    for number in range(4):
        image, boxes = torch.zeros(3, *SIZE, dtype=torch.uint8), []
        for left in range(0, SIZE[1], 12):  # columns of their own: boxes do not overlap
            x0, y0 = left + int(random.integers(4)), int(random.integers(20))
            x1, y1 = x0 + int(random.integers(4, 8)), y0 + int(random.integers(4, 12))
            boxes.append([x0, y0, x1, y1])
            image[:, y0:y1, x0:x1] = 10 * number + 10
        labels = torch.full((len(boxes),), number)
        samples.append(make_sample(image, boxes=Boxes(torch.tensor(boxes).float(), labels)))
    batch = stack(samples)
    found = shown = 0
    for step in range(30):
        result = mix(batch, Recipe(mosaic=1.0), KINDS, seed=3, step=step)
        boxes = result.labels[0][1].targets["boxes"]
        values = red(result).round().long()
        shown += int((values > 0).sum())
        for image, corners, labels in zip(values, boxes.xyxy, boxes.labels, strict=True):
            for (x0, y0, x1, y1), label in zip(corners.long().tolist(), labels.tolist(), strict=True):
                assert (label == ABSENT) == (x0 == y0 == x1 == y1 == 0)
                assert bool((image[y0:y1, x0:x1] == 10 * label + 10).all())
                found += (y1 - y0) * (x1 - x0)
    assert 0.9 * shown < found <= shown  # the rest are objects that lie mostly in another quarter


def test_a_mosaic_with_an_image_without_boxes_has_none() -> None:
    box = Boxes(torch.tensor([[0.0, 0.0, 40.0, 30.0]]), torch.tensor([1]))
    image = torch.zeros(3, *SIZE, dtype=torch.uint8)
    batch = stack([make_sample(image, boxes=box if number else None) for number in range(6)])
    present = mix(batch, Recipe(mosaic=1.0), KINDS, seed=3, step=0).labels[0][1].present["boxes"]
    assert present.tolist() == [False, True, True, False, False, False]  # 0, 3, 4 and 5 show image 0


def test_mosaic_is_refused_for_labels_of_whole_images() -> None:
    tasks = make_tasks(("cls", "det", "seg"), CLASSES)
    check_mixable(Recipe(mosaic=1.0), [tasks["det"], tasks["seg"]], TARGETS)
    with pytest.raises(UserError, match="training: mosaic does not suit cls: four images have no common label"):
        check_mixable(Recipe(mosaic=1.0), tasks.values(), TARGETS)
