import pytest
import torch

from fbnetv5.data.sample import Batch
from fbnetv5.tasks.parts import PartSegmentation
from fbnetv5.tasks.segmentation import Segmentation
from tests.samples import make_sample, stack

NAMES = ("background", "head", "torso")
PARTS, MASKS = PartSegmentation({"parts": NAMES, "mask": ("x",)}), Segmentation({"mask": NAMES})


def batch_of(target: str) -> Batch:
    ids = torch.randint(3, (2, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    return stack([make_sample(image, **{target: labels}) for labels in ids] + [make_sample(image)])


def test_parts_are_segmentation_with_labels_of_their_own() -> None:
    raw, (parts, masks) = torch.randn(3, 3, 2, 2), (batch_of("parts"), batch_of("mask"))
    losses = PARTS.losses(raw, parts)
    assert torch.equal(losses, MASKS.losses(raw, masks))
    assert losses[2] == 0
    ours, theirs = PARTS.new_metric(), MASKS.new_metric()
    ours.update(PARTS.deploy(raw), parts)
    theirs.update(MASKS.deploy(raw), masks)
    assert ours.compute() == pytest.approx(theirs.compute())
    assert list(ours.report()["iou"]) == list(NAMES)


def test_the_head_has_an_output_for_each_part() -> None:
    features = [torch.randn(1, 8, 64 // path, 64 // path) for path in PARTS.paths]
    assert PARTS.build_head([8] * 4).eval()(features).shape == (1, 3, 16, 16)
