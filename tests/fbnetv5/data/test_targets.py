from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from export.placement import Placement, place
from fbnetv5.data.targets import (
    ABSENT,
    BOXES,
    CLASS,
    CLASS_MAP,
    DENSE_MAP,
    IGNORE,
    LINE_MAP,
    SOFT_LABEL,
    VECTOR_MAP,
    Boxes,
    Kind,
    MapKind,
    SoftLabel,
    Target,
    class_names,
)

SIZE = (8, 12)
IDS = torch.arange(96, dtype=torch.uint8).reshape(SIZE)
DEPTH = IDS.float() / 7
NORMALS = torch.nn.functional.normalize(torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(0)), dim=0)
ONE_BOX = Boxes(torch.tensor([[1.0, 2, 5, 6]]), torch.tensor([3]))
NO_BOX = Boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
VALUES: dict[str, tuple[Kind, Any]] = {
    "class": (CLASS, 4),
    "boxes": (BOXES, ONE_BOX),
    "class map": (CLASS_MAP, IDS),
    "line map": (LINE_MAP, IDS % 2),
    "dense map": (DENSE_MAP, DEPTH),
    "vector map": (VECTOR_MAP, NORMALS),
    "soft label": (SOFT_LABEL, SoftLabel(torch.tensor([0.5, 0.3]), torch.tensor([4, 0]))),
}
each_kind = pytest.mark.parametrize(("kind", "value"), VALUES.values(), ids=VALUES.keys())


def stretched(size: tuple[int, int]) -> Placement:
    return place(SIZE, size, "stretch")


def rows_of(collated: Any) -> tuple[Tensor, ...]:
    return collated if isinstance(collated, tuple) else (collated,)


@each_kind
def test_a_value_is_its_row_of_a_batch_beside_absent_ones(kind: Kind, value: Any) -> None:
    for collated in rows_of(kind.collate([None, value, None], SIZE)):
        assert len(collated) == 3
        torch.testing.assert_close(collated[0], collated[2], equal_nan=True)
    for collated, alone in zip(rows_of(kind.collate([None, value], SIZE)), rows_of(value), strict=True):
        torch.testing.assert_close(collated[1], torch.as_tensor(alone))


@each_kind
def test_a_batch_without_any_value_can_be_stacked(kind: Kind, value: Any) -> None:
    for absent, present in zip(
        rows_of(kind.collate([None, None], SIZE)), rows_of(kind.collate([value], SIZE)), strict=True
    ):
        assert absent.dtype == present.dtype
        assert absent.ndim == present.ndim


def test_what_absent_is() -> None:
    assert CLASS.collate([None, 2], SIZE).tolist() == [ABSENT, 2]
    assert (CLASS_MAP.collate([None], SIZE) == IGNORE).all()
    assert DENSE_MAP.collate([None], SIZE).isnan().all()
    assert VECTOR_MAP.collate([None], SIZE).isnan().all()
    assert SOFT_LABEL.collate([None], SIZE).probabilities.tolist() == [[0]]
    assert not SOFT_LABEL.has_labels(SoftLabel(torch.zeros(0), torch.zeros(0, dtype=torch.int64)))


def test_boxes_are_padded_to_the_most_of_the_batch() -> None:
    two = Boxes(torch.tensor([[0.0, 0, 4, 4], [1, 2, 3, 4]]), torch.tensor([0, 1]))
    batch = BOXES.collate([two, ONE_BOX, NO_BOX], SIZE)
    assert batch.xyxy.tolist() == [[[0, 0, 4, 4], [1, 2, 3, 4]], [[1, 2, 5, 6], [0] * 4], [[0] * 4, [0] * 4]]
    assert batch.labels.tolist() == [[0, 1], [3, ABSENT], [ABSENT, ABSENT]]


@each_kind
def test_no_change_of_size_changes_nothing(kind: Kind, value: Any) -> None:
    for resized, before in zip(rows_of(kind.to_input(value, stretched(SIZE))), rows_of(value), strict=True):
        assert torch.equal(torch.as_tensor(resized), torch.as_tensor(before))


def test_boxes_scale_with_their_image() -> None:
    assert BOXES.to_input(ONE_BOX, stretched((16, 6))).xyxy.tolist() == [[0.5, 4, 2.5, 12]]


@each_kind
def test_padded_pixels_have_no_label(kind: Kind, value: Any) -> None:
    letterbox = place(SIZE, (16, 16), "letterbox")  # 11 of 16 rows, the first two above
    placed = kind.to_input(value, letterbox)
    if isinstance(value, Boxes):
        assert placed.xyxy.tolist() == [pytest.approx([4 / 3, 2 + 22 / 8, 20 / 3, 2 + 66 / 8])]
    elif isinstance(kind, MapKind):
        torch.testing.assert_close(placed[..., 2:13, :], kind.resize(value, (11, 16)))
        outside = torch.cat([placed[..., :2, :], placed[..., 13:, :]], dim=-2)
        assert bool(outside.isnan().all() if outside.is_floating_point() else (outside == IGNORE).all())
        assert placed.dtype == value.dtype
    else:
        assert placed is value


def test_maps_are_resized_like_pillow_does_without_mixing_values() -> None:
    theirs = np.asarray(Image.fromarray(IDS.numpy()).resize((6, 4), Image.Resampling.NEAREST))
    assert torch.equal(CLASS_MAP.resize(IDS, (4, 6)), torch.from_numpy(np.array(theirs)))
    assert torch.equal(DENSE_MAP.resize(DEPTH, (4, 6)), torch.from_numpy(theirs.astype(np.float32)) / 7)
    unknown = DEPTH.masked_fill(IDS == 0, float("nan"))
    assert DENSE_MAP.resize(unknown, (16, 24)).isnan().sum() == 4


def test_vectors_are_resized_without_mixing_neighbours() -> None:
    unknown = NORMALS.masked_fill(IDS == 0, float("nan"))
    larger = VECTOR_MAP.resize(unknown, (16, 24))
    torch.testing.assert_close(larger, unknown.repeat_interleave(2, 1).repeat_interleave(2, 2), equal_nan=True)
    assert VECTOR_MAP.has_labels(larger)
    assert not VECTOR_MAP.has_labels(larger[:, :2, :2])


@pytest.mark.parametrize("column", range(12))
def test_a_line_survives_being_made_smaller(column: int) -> None:
    line = torch.zeros(SIZE, dtype=torch.uint8)
    line[:, column] = 1
    smaller = LINE_MAP.resize(line, (2, 3))
    assert smaller.tolist() == [[int(column // 4 == place) for place in range(3)]] * 2
    line[:, (column + 6) % 12] = IGNORE
    assert set(LINE_MAP.resize(line, (8, 24)).flatten().tolist()) == {0, 1, IGNORE}


@each_kind
def test_unwrapping_gives_back_what_was_wrapped(kind: Kind, value: Any) -> None:
    for again, before in zip(rows_of(kind.unwrap(kind.wrap(value, SIZE))), rows_of(value), strict=True):
        assert torch.equal(torch.as_tensor(again), torch.as_tensor(before))
        assert not isinstance(again, tv_tensors.TVTensor)


@each_kind
def test_a_flip_moves_what_has_a_place(kind: Kind, value: Any) -> None:
    image = tv_tensors.Image(torch.zeros(3, *SIZE, dtype=torch.uint8))
    _, moved = v2.RandomHorizontalFlip(1.0)(image, kind.wrap(value, SIZE))
    flipped = kind.unwrap(moved)
    if isinstance(value, Boxes):
        assert flipped.xyxy.tolist() == [[7, 2, 11, 6]]
    elif kind is VECTOR_MAP:
        assert torch.equal(flipped, value.flip(2) * torch.tensor([-1.0, 1, 1])[:, None, None])
    elif isinstance(value, Tensor) and value.ndim == 2:
        assert torch.equal(flipped, value.flip(1))
    else:
        for moved_part, part in zip(rows_of(flipped), rows_of(value), strict=True):
            assert torch.equal(torch.as_tensor(moved_part), torch.as_tensor(part))


@pytest.mark.parametrize("name", ["class map", "dense map", "vector map"])
def test_what_a_crop_adds_is_unknown(name: str) -> None:
    kind, value = VALUES[name]
    image = tv_tensors.Image(torch.zeros(3, *SIZE, dtype=torch.uint8))
    crop = v2.RandomCrop((16, 12), pad_if_needed=True, fill={"others": 0, **kind.padding})
    _, moved = crop(image, kind.wrap(value, SIZE))
    changed = kind.unwrap(moved)
    unknown = changed.isnan() if changed.is_floating_point() else changed == IGNORE
    assert changed.shape == (*value.shape[:-2], 16, 12)
    assert (unknown.all(-1).sum(-1) == 8).all()


@pytest.mark.parametrize(
    ("kind", "value"), [(CLASS_MAP, IDS), (LINE_MAP, IDS), (DENSE_MAP, DEPTH), (VECTOR_MAP, NORMALS)]
)
def test_a_patch_of_a_map_is_that_of_the_partner(kind: Kind, value: Tensor) -> None:
    batch = kind.collate([value, value + 1, None], SIZE)
    pasted, present = kind.paste(batch, torch.tensor([True, True, False]), (slice(2, 5), slice(3, 12)))
    expected = batch.clone()
    for row, partner in enumerate((2, 1, 0)):
        expected[row, ..., 2:5, 3:12] = batch[partner, ..., 2:5, 3:12]
    torch.testing.assert_close(pasted, expected, equal_nan=True)
    assert present.tolist() == [True, True, True]
    assert kind.can_paste
    assert not kind.of_whole_image


@pytest.mark.parametrize("kind", [CLASS, SOFT_LABEL], ids=["class", "soft label"])
def test_a_label_of_the_whole_image_is_not_pasted(kind: Kind) -> None:
    labels, present = torch.arange(3), torch.ones(3).bool()
    assert kind.paste(labels, present, (slice(2, 5), slice(3, 12))) == (labels, present)
    assert kind.can_paste
    assert kind.of_whole_image
    assert not BOXES.can_paste


def test_a_box_of_which_little_is_left_is_dropped() -> None:
    boxes = Boxes(torch.tensor([[0.0, 0, 1.9, 8], [0, 0, 2, 8], [4, 4, 4, 4]]), torch.tensor([0, 1, 2]))
    assert BOXES.unwrap(BOXES.wrap(boxes, SIZE)).labels.tolist() == [1]


def test_the_names_of_classes_by_target() -> None:
    targets = {"label": Target(kind=CLASS, classes=("a", "b")), "depth": Target(kind=DENSE_MAP)}
    assert class_names(targets) == {"label": ("a", "b"), "depth": ()}
