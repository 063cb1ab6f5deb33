from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from export.placement import PADDING
from fbnetv5.data.sample import Sample
from fbnetv5.data.scenes import TARGETS, Scenes
from fbnetv5.data.targets import IGNORE, Boxes
from fbnetv5.training.augment import Augment
from fbnetv5.training.config import TrainConfig
from tests.samples import stack

MakeTraining = Callable[..., TrainConfig]
SCENES = Scenes("train", size=(64, 64), count=8)


def square(side: int = 64) -> Sample:
    """A white box on black, which is its own mask."""
    mask = torch.zeros(side, side, dtype=torch.uint8)
    mask[16:40, 8:24] = 1
    return Sample(
        image=(mask * 255).expand(3, -1, -1).contiguous(),
        targets={
            "label": 3,
            "boxes": Boxes(torch.tensor([[8.0, 16.0, 24.0, 40.0]]), torch.tensor([5])),
            "mask": mask,
            "depth": torch.where(mask == 1, 2.0, 7.0),
        },
    )


def extent(white: Tensor) -> Tensor:
    """(x0, y0, x1, y1) of the true pixels of [H, W]."""
    rows, columns = white.any(1).nonzero(), white.any(0).nonzero()
    return torch.cat([columns.min()[None], rows.min()[None], columns.max()[None] + 1, rows.max()[None] + 1]).float()


@pytest.mark.parametrize("draw", range(12))
def test_boxes_and_masks_move_with_the_pixels(make_training: MakeTraining, draw: int) -> None:
    augment = Augment(make_training("det", size=(64, 64), colour=0.0, scale=(0.5, 2.0)), TARGETS)
    changed = augment(square(), draw)
    white = changed.image[0] > 200
    boxes, mask, depth = (changed.targets[name] for name in ("boxes", "mask", "depth"))
    if not len(boxes.labels):
        assert white.sum() < 128
        return
    torch.testing.assert_close(boxes.xyxy[0], extent(white), atol=1.6, rtol=0)
    assert ((mask == 1) != white).float().mean() < 0.05
    assert (changed.image[0][mask == IGNORE] == PADDING).all()
    torch.testing.assert_close(
        depth, torch.where(mask == 1, 2.0, 7.0).masked_fill(mask == IGNORE, float("nan")), equal_nan=True
    )
    assert (changed.targets["label"], boxes.labels.tolist()) == (3, [5])


def test_a_change_is_a_function_of_seed_and_draw(make_training: MakeTraining) -> None:
    sample = SCENES[0]
    before, state = sample.image.clone(), torch.random.get_rng_state()
    first = Augment(make_training("det", size=(64, 64)), TARGETS)(sample, 7)
    torch.rand(5)
    again = Augment(make_training("det", size=(64, 64)), TARGETS)(sample, 7)
    assert torch.equal(first.image, again.image)
    others = (
        Augment(make_training("det", size=(64, 64)), TARGETS)(sample, 8),
        Augment(make_training("det", size=(64, 64), seed=1), TARGETS)(sample, 7),
    )
    assert all(not torch.equal(first.image, other.image) for other in others)
    assert torch.equal(sample.image, before)
    torch.random.set_rng_state(state)


def test_the_random_state_of_torch_does_not_change(make_training: MakeTraining) -> None:
    state = torch.random.get_rng_state()
    Augment(make_training("det", size=(64, 64)), TARGETS)(SCENES[1], 0)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_images_keep_their_size_and_lacking_labels_stay_absent(
    make_training: MakeTraining, size: tuple[int, int]
) -> None:
    bare = Scenes("train", size=size, count=1, targets=["label"])[0]
    for draw in range(5):
        changed = Augment(make_training("cls", size=size, scale=(0.6, 1.7)), TARGETS)(bare, draw)
        assert changed.image.shape == (3, *size)
        assert changed.image.dtype == torch.uint8
        assert changed.targets == bare.targets


def augmented(make_training: MakeTraining, sample: Sample, draw: int, *, targets: list[str], **fields: float) -> Sample:
    plain = {"flip": 0.0, "colour": 0.0, "scale": (1.0, 1.0)}
    config = make_training("det", size=(64, 64), **{**plain, **fields})
    return Augment(config, {name: TARGETS[name] for name in targets})(sample, draw)


def moves_pixels(make_training: MakeTraining, sample: Sample, draw: int, targets: list[str]) -> bool:
    """Whether the mirrored image is not changed as the image is, apart from rounding."""
    mirrored = Sample(image=sample.image.flip(2), targets=sample.targets)
    ours, theirs = (
        augmented(make_training, each, draw, targets=targets, augment=0.5).image.int() for each in (sample, mirrored)
    )
    return bool((ours - theirs.flip(2)).abs().max() > 1)


def test_randaugment_moves_neither_pixels_nor_labels(make_training: MakeTraining) -> None:
    changed = 0
    for draw in range(16):
        sample = SCENES[draw % 8]
        result = augmented(make_training, sample, draw, targets=list(TARGETS), augment=0.5)
        assert not moves_pixels(make_training, sample, draw, list(TARGETS))
        assert torch.equal(result.targets["mask"], sample.targets["mask"])
        assert torch.equal(result.targets["boxes"].xyxy, sample.targets["boxes"].xyxy)
        changed += not torch.equal(result.image, sample.image)
    assert changed > 10


def test_randaugment_moves_pixels_of_images_with_a_class_alone(make_training: MakeTraining) -> None:
    sample = Sample(image=SCENES[0].image, targets={"label": 3})
    assert sum(moves_pixels(make_training, sample, draw, ["label"]) for draw in range(20)) > 5
    assert all(augmented(make_training, sample, draw, targets=["label"]).image.equal(sample.image) for draw in range(3))


def test_without_changes_an_image_stays_as_it_is(make_training: MakeTraining) -> None:
    changed = Augment(make_training("det", size=(64, 64), flip=0.0, colour=0.0, scale=(1.0, 1.0)), TARGETS)(
        SCENES[2], 3
    )
    assert torch.equal(changed.image, SCENES[2].image)
    before, after = stack([SCENES[2]]).targets, stack([changed]).targets
    for name in TARGETS:
        torch.testing.assert_close(after[name], before[name], equal_nan=True)
