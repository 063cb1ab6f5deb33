from dataclasses import replace

import torch

from export.placement import place
from fbnetv5.data.sample import Sample, collate
from fbnetv5.data.scenes import TARGETS
from fbnetv5.data.targets import ABSENT, Boxes
from tests.samples import make_sample, stack

IMAGE = torch.zeros(3, 32, 64, dtype=torch.uint8)
BOX = Boxes(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([2]))


def samples() -> list[Sample]:
    mask = torch.ones(32, 64, dtype=torch.uint8)
    return [make_sample(IMAGE + 1, label=1), make_sample(IMAGE + 2, boxes=BOX, mask=mask), make_sample(IMAGE + 3)]


def test_a_batch_marks_the_labels_of_each_image() -> None:
    present = stack(samples()).present
    assert {name: there.tolist() for name, there in present.items()} == {
        "label": [True, False, False],
        "boxes": [False, True, False],
        "mask": [False, True, False],
        **dict.fromkeys(("saliency", "edges", "depth", "normals", "parts"), [False] * 3),
    }


def test_only_the_targets_of_the_set_are_stacked() -> None:
    batch = collate(samples(), {"label": TARGETS["label"]}, [7, 5, 6])
    assert list(batch.targets) == list(batch.present) == ["label"]
    assert batch.indices.tolist() == [7, 5, 6]
    assert batch.images[:, 0, 0, 0].tolist() == [1, 2, 3]


def test_a_batch_has_the_placement_of_each_image() -> None:
    placements = [place(size, (32, 64), "letterbox") for size in ((100, 100), (10, 64))]
    batch = stack([*(replace(samples()[0], placement=placement) for placement in placements), samples()[1]])
    whole = place((32, 64), (32, 64), "stretch")
    assert [batch.placement(index) for index in range(3)] == [*placements, whole]
    assert batch.flipped().placement(2) == batch.rows(torch.tensor([2, 0])).placement(1) == placements[0]


def test_all_parts_of_a_batch_are_flipped_and_moved_together() -> None:
    batch = stack(samples())
    flipped = batch.flipped().to(torch.device("cpu"))
    assert flipped.images[:, 0, 0, 0].tolist() == [3, 2, 1]
    assert flipped.indices.tolist() == [2, 1, 0]
    assert flipped.targets["label"].tolist() == [ABSENT, ABSENT, 1]
    assert isinstance(flipped.targets["boxes"], Boxes)
    assert flipped.targets["boxes"].labels.tolist() == [[ABSENT], [2], [ABSENT]]
    assert flipped.present["label"].tolist() == [False, False, True]
    on_meta = batch.to(torch.device("meta"))
    assert on_meta.targets["boxes"].xyxy.is_meta
    assert on_meta.present["mask"].is_meta
