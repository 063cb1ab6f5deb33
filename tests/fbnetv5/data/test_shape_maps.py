import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from fbnetv5.data.shape_maps import Shape, ShapeMaps, map_classes, map_ids
from fbnetv5.data.targets import IGNORE

SQUARE = (2.0, 3.0, 6.0, 3.0, 6.0, 8.0, 2.0, 8.0)


def class_map(*shapes: Shape) -> list[list[int]]:
    ids: list[list[int]] = ShapeMaps({"a": shapes}, {"a": (4, 6)})("a").tolist()
    return ids


def columns(first: int, end: int, class_id: int, order: float = 0.0) -> Shape:
    """A shape of whole columns of an image of 4x6."""
    return Shape(class_id=class_id, order=order, place=(first, 0, end - first, 4), runs=(0, 4 * (end - first)))


@pytest.mark.parametrize(
    ("objects", "classes", "ids"),
    [
        (["b", "a"], ("background", "b", "a"), (1, 2)),
        (["b", "background", "a"], ("background", "b", "a"), (1, 0, 2)),
        (["background"], ("background",), (0,)),
    ],
)
def test_the_background_is_class_0(objects: list[str], classes: tuple[str, ...], ids: tuple[int, ...]) -> None:
    assert (map_classes(objects), map_ids(objects)) == (classes, ids)


def test_a_polygon_covers_its_pixels() -> None:
    shape, drawn = Shape(class_id=1, polygons=(SQUARE,)), Image.new("L", (9, 10))
    ImageDraw.Draw(drawn).rectangle((2, 3, 5, 7), fill=1)
    assert np.array_equal(shape.mask((10, 9)), np.array(drawn, bool))
    assert shape.bbox == [2, 3, 4, 5]


def test_several_polygons_are_one_shape() -> None:
    other = tuple(value + 10 for value in SQUARE)
    both = Shape(class_id=1, polygons=(SQUARE, other))
    parts = [Shape(class_id=1, polygons=(polygon,)).mask((20, 20)) for polygon in (SQUARE, other)]
    assert np.array_equal(both.mask((20, 20)), parts[0] | parts[1])
    assert both.bbox == [2, 3, 14, 15]


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 3), st.integers(0, 3), st.data())
@settings(max_examples=50, deadline=None)
def test_run_lengths_cover_their_part(width: int, height: int, x: int, y: int, data: st.DataObject) -> None:
    pixels = data.draw(st.lists(st.booleans(), min_size=width * height, max_size=width * height))
    runs, value = [0], False
    for pixel in pixels:
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    shape = Shape(class_id=1, place=(x, y, width, height), runs=tuple(runs))
    expected = np.zeros((9, 9), bool)
    expected[y : y + height, x : x + width] = np.array(pixels).reshape(height, width)
    assert np.array_equal(shape.mask((9, 9)), expected)
    if expected.any():
        left, top, right, bottom = Image.fromarray(expected).getbbox() or (0, 0, 0, 0)
        assert shape.bbox == [left, top, right - left, bottom - top]
    else:
        assert shape.bbox == [x, y, 0, 0]


def test_the_shape_of_the_larger_order_is_in_front() -> None:
    assert class_map(columns(0, 4, 2, order=1), columns(2, 6, 3)) == [[2, 2, 2, 2, 3, 3]] * 4


def test_shapes_of_one_order_and_several_classes_are_ambiguous() -> None:
    assert class_map(columns(0, 4, 2), columns(2, 5, 3)) == [[2, 2, IGNORE, IGNORE, 3, 0]] * 4
    assert class_map(columns(0, 4, 2), columns(2, 5, 2)) == [[2, 2, 2, 2, 2, 0]] * 4
    front = columns(3, 6, 1, order=5)
    assert class_map(front, columns(0, 4, 2), columns(2, 5, 3)) == [[2, 2, IGNORE, 1, 1, 1]] * 4
