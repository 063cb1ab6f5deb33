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
from fbnetv5.data.targets import IGNORE
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
