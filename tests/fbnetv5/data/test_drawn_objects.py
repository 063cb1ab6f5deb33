from collections.abc import Sequence

import numpy as np
import pytest

from export.errors import UserError
from fbnetv5.data.drawn_objects import DrawnObject, DrawnObjects, upright_box
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.notes import Notes
from fbnetv5.data.shape_maps import Shape

BOX = [1.0, 2.0, 3.0, 4.0]
SHAPE = Shape(class_id=1, polygons=((1.0, 2.0, 4.0, 2.0, 4.0, 6.0),))


def data_set(
    *outlines: list[float] | Shape, is_complete: bool = True, classes: Sequence[str] = ("a",)
) -> LabelledImages:
    """A data set of one image of 8x9 with these objects."""
    drawn = DrawnObjects(labels=("x",), objects=tuple(classes), notes=Notes())
    record = ImageRecord(path="0.png", size=(8, 9), label=0)
    objects = [DrawnObject(class_id=0, outline=outline, where="f:1") for outline in outlines]
    drawn.add(record, objects, is_complete=is_complete)
    return drawn.data_set({"0.png": record})


def test_shapes_alone_give_boxes_and_a_class_map() -> None:
    data = data_set(SHAPE, SHAPE)
    labels = data.labels(0)
    assert labels["boxes"].xyxy.tolist() == [[1, 2, 4, 6]] * 2
    assert np.array_equal(labels["mask"].numpy(), SHAPE.mask((8, 9)))
    assert data.targets["mask"].classes == ("background", "a")


@pytest.mark.parametrize(("outlines", "is_complete"), [((SHAPE, BOX), True), ((SHAPE,), False)])
def test_other_objects_leave_no_class_map(outlines: tuple[list[float] | Shape, ...], is_complete: bool) -> None:
    labels = data_set(*outlines, is_complete=is_complete).labels(0)
    assert "mask" not in labels
    assert labels["boxes"].xyxy.tolist()[0] == [1, 2, 4, 6]


def test_targets_are_those_that_have_classes() -> None:
    assert data_set(BOX).targets.keys() == {"label", "boxes"}
    assert data_set(classes=()).targets.keys() == {"label"}
    assert "mask" not in data_set(SHAPE, classes=[f"{number}" for number in range(255)]).targets


def test_an_object_of_a_class_called_background_is_background() -> None:
    drawn = DrawnObjects(labels=(), objects=("a", "background", "b"), notes=Notes())
    assert [drawn.map_id(class_id) for class_id in range(3)] == [1, 0, 2]
    record = ImageRecord(path="0.png", size=(8, 9))
    behind = Shape(class_id=drawn.map_id(2), polygons=((0.0, 0.0, 9.0, 0.0, 9.0, 8.0, 0.0, 8.0),))
    in_front = Shape(class_id=drawn.map_id(1), polygons=SHAPE.polygons, order=1.0)
    objects = [
        DrawnObject(class_id=2, outline=behind, where="f:1"),
        DrawnObject(class_id=1, outline=in_front, where=""),
    ]
    drawn.add(record, objects, is_complete=True)
    data = drawn.data_set({"0.png": record})
    assert data.targets["mask"].classes == ("background", "a", "b")
    assert np.array_equal(data.labels(0)["mask"].numpy(), np.where(SHAPE.mask((8, 9)), 0, 2))


def test_objects_without_area_are_counted_and_those_outside_refused() -> None:
    data = data_set(BOX, [1.0, 2.0, 0.0, 4.0])
    assert len(data.labels(0)["boxes"].xyxy) == 1
    assert data.notes == ("objects without width or height left out: 1",)
    with pytest.raises(UserError, match=r"f:1: box .* reaches outside"):
        data_set([1.0, 2.0, 30.0, 4.0])


@pytest.mark.parametrize(
    ("degrees", "pivot", "expected"),
    [
        (90, (10, 10), [9, 8, 2, 4]),
        (90, (8, 9), [6, 9, 2, 4]),
        (180, (8, 9), [4, 7, 4, 2]),
        (45, (10, 10), [10 - 3 / 2**0.5, 10 - 3 / 2**0.5, 6 / 2**0.5, 6 / 2**0.5]),
        (90, (8, 0), [0, 0, 0, 4]),
    ],
)
def test_the_upright_box_around_a_rotated_one(
    degrees: float, pivot: tuple[float, float], expected: list[float]
) -> None:
    box = upright_box([8, 9, 4, 2], degrees, pivot, (100, 100))
    if pivot == (8, 0):  # beyond the left side of the image
        assert box[0] == 0
        assert box[2] < 0
    else:
        assert np.allclose(box, expected)
