import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from fbnetv5.data.targets import ABSENT
from fbnetv5.tasks.assign import CELLS_PER_OBJECT, MIN_TARGET, Assignment, assign, pairwise_iou

MIDDLES = torch.cartesian_prod(torch.arange(4, 64, 8), torch.arange(4, 64, 8)).flip(1).float()
STRIDES = torch.full((64,), 8.0)


def random_boxes(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * 56
    return torch.cat([corner, corner + 2 + torch.rand(*shape, 2, generator=generator) * 40], dim=-1).clamp(max=64)


def assign_at(boxes: Tensor, true_boxes: Tensor, true_labels: Tensor, *, score: float = 0.1) -> Assignment:
    scores = torch.full((len(boxes), len(MIDDLES), 3), score)
    return assign(scores, boxes, centres=MIDDLES, strides=STRIDES, true_boxes=true_boxes, true_labels=true_labels)


def test_pairwise_iou_is_that_of_torchvision() -> None:
    first, second = random_boxes(3, 5, seed=1), random_boxes(3, 7, seed=2)
    expected = torch.stack([box_iou(a, b) for a, b in zip(first, second, strict=True)])
    torch.testing.assert_close(pairwise_iou(first, second), expected)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), objects=st.integers(1, 6), padding=st.integers(0, 2))
@example(seed=1731, objects=2, padding=0)  # nothing overlaps two objects at the same place: the first has their cells
def test_every_object_has_cells_unless_others_overlap_as_well(seed: int, objects: int, padding: int) -> None:
    truth = random_boxes(2, objects + padding, seed=seed)
    labels = torch.tensor([[i % 3 for i in range(objects)] + [ABSENT] * padding] * 2)
    boxes = random_boxes(2, len(MIDDLES), seed=seed + 1)
    assignment = assign_at(boxes, truth, labels)
    iou = pairwise_iou(truth, boxes)
    assert bool(((assignment.target > 0) == (assignment.owner != ABSENT)).all())
    assert 0 <= float(assignment.target.min()) <= float(assignment.target.max()) <= 1
    assert int(assignment.owner.max()) < objects
    for image in range(2):
        for number in range(objects):
            cells = int((assignment.owner[image] == number).sum())
            assert cells <= CELLS_PER_OBJECT
            others = iou[image, torch.arange(objects + padding) != number]
            lost = (assignment.owner[image] >= 0) & (others >= iou[image, number]).any(0)
            assert cells > 0 or bool(lost.any())


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_target_of_a_lone_objects_best_cell_is_its_overlap(seed: int) -> None:
    truth, boxes = random_boxes(1, 1, seed=seed), random_boxes(1, len(MIDDLES), seed=seed + 1)
    assignment = assign_at(boxes, truth, torch.zeros(1, 1, dtype=torch.int64))
    overlap = pairwise_iou(truth, boxes)[0, 0][assignment.owner[0] == 0].max()
    torch.testing.assert_close(assignment.target.max(), overlap.clamp(min=MIN_TARGET))


def test_a_tiny_object_between_cells_has_cells() -> None:
    truth = torch.tensor([[[31.5, 31.5, 32.5, 32.5]]])
    far_away = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, len(MIDDLES), 4)
    assignment = assign_at(far_away, truth, torch.zeros(1, 1, dtype=torch.int64))
    taken = MIDDLES[assignment.owner[0] == 0]
    assert sorted(taken.tolist()) == [[28.0, 28.0], [28.0, 36.0], [36.0, 28.0], [36.0, 36.0]]
    assert bool((assignment.target[assignment.owner == 0] >= MIN_TARGET - 1e-6).all())


def test_a_contested_cell_goes_to_the_better_overlap() -> None:
    truth = torch.tensor([[[0.0, 0.0, 64.0, 64.0], [0.0, 0.0, 32.0, 32.0]]])
    boxes = truth[:, 1:].expand(1, len(MIDDLES), 4)
    assignment = assign_at(boxes, truth, torch.tensor([[0, 1]]))
    inside = (MIDDLES < 32).all(1)
    assert bool((assignment.owner[0][inside] != 0).any())
    assert set(assignment.owner[0][~inside].tolist()) <= {0, ABSENT}


def test_padding_gets_nothing() -> None:
    boxes = random_boxes(1, len(MIDDLES), seed=0)
    assignment = assign_at(boxes, torch.zeros(1, 2, 4), torch.full((1, 2), ABSENT))
    assert bool((assignment.owner == ABSENT).all())
    assert not assignment.target.any()
