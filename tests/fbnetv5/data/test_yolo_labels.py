from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from export.errors import UserError
from fbnetv5.data.notes import Notes
from fbnetv5.data.targets import IGNORE
from fbnetv5.data.yolo_labels import LabelReader, PolygonMaps

READER = LabelReader(num_classes=3)
SQUARE = "0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"


def write(folder: Path, text: str) -> str:
    path = folder / "a.txt"
    path.write_bytes(text.encode())
    return str(path)


WRONG = {
    "too few columns": ("0 0.5 0.5 0.1", "line 1 has 4 columns"),
    "a confidence": ("0 0.5 0.5 0.1 0.1 0.9", "line 1 has 6 columns"),
    "half a point": ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "line 1 has 8 columns"),
    "pixels": ("0 0.5 0.5 0.1 0.1\n\n1 320 240 50 20", "line 3: 320 is not between 0 and 1.* Divide pixels by"),
    "a little outside": ("0 0.5 1.2 0.1 0.1", "line 1: 1.2 is not between 0 and 1.* Correct or remove"),
    "negative size": ("0 0.5 0.5 -0.1 0.1", "line 1: -0.1 is not between"),
    "class too large": ("3 0.5 0.5 0.1 0.1", "line 1: class 3 is none of the 3 classes, 0 to 2"),
    "negative class": ("-1 0.5 0.5 0.1 0.1", "class -1 is none"),
    "half a class": ("0.5 0.5 0.5 0.1 0.1", "class 0.5 is none"),
    "text": ("cat 0.5 0.5 0.1 0.1", "line 1 contains something else than numbers: 'cat 0.5"),
    "commas": ("0, 0.5, 0.5, 0.1, 0.1", "something else than numbers"),
    "nan": ("0 nan 0.5 0.1 0.1", "line 1 contains a number that is not finite"),
    "infinite class": ("inf 0.5 0.5 0.1 0.1", "not finite"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_line_is_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"a\.txt, {message}" if message.startswith("line") else message) as caught:
        READER.read(write(tmp_path, text))
    assert "\n" not in str(caught.value)


REPAIRED = {
    "repeated": ("0 0.5 0.5 0.1 0.1\n0 0.50 0.5 0.1 0.1", 1, "repeated boxes removed: 1"),
    "no area": ("0 0.5 0.5 0 0.1\n1 0.1 0.1 0.3 0.1 0.2 0.1\n1 0.5 0.5 0.1 0.1", 1, "width or height left out: 2"),
    "rounded": (f"0 {SQUARE} 1.005 0.5", 1, "outside of their image, moved inside: 1"),
    "cut": ("0 0.9 0.1 0.4 0.4\n1 0.1 0.9 0.4 0.4", 2, "boxes that reach outside of their image, cut to it: 2"),
}


@pytest.mark.parametrize(("text", "count", "note"), REPAIRED.values(), ids=REPAIRED.keys())
def test_a_repaired_line_is_counted(tmp_path: Path, text: str, count: int, note: str) -> None:
    notes = Notes()
    objects = READER.read(write(tmp_path, text), notes)
    (line,) = notes.lines()
    assert len(objects) == count
    assert line.endswith(note)
    assert all(0 <= value <= 1 for item in objects for value in item.corners)


@given(
    boxes=st.lists(
        st.tuples(st.integers(0, 2), *[st.integers(0, 62)] * 2, st.integers(1, 32), st.integers(1, 32)), max_size=5
    ),
    end=st.sampled_from(["\n", "\r\n"]),
    start=st.sampled_from(["", "\ufeff", "\n"]),
)
def test_written_boxes_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, boxes: list[tuple[int, ...]], end: str, start: str
) -> None:
    corners = [(label, x / 64, y / 64, min(x + w, 64) / 64, min(y + h, 64) / 64) for label, x, y, w, h in boxes]
    rows = [f"{label} {(x0 + x1) / 2} {(y0 + y1) / 2} {x1 - x0} {y1 - y0}" for label, x0, y0, x1, y1 in corners]
    objects = READER.read(write(tmp_path_factory.mktemp("labels"), start + end.join(rows)))
    assert [(item.class_id, *item.corners) for item in objects] == list(dict.fromkeys(corners))


def test_a_missing_or_empty_file_has_no_object(tmp_path: Path) -> None:
    assert READER.read(str(tmp_path / "none.txt")) == READER.read(write(tmp_path, "\n")) == []
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe0")
    with pytest.raises(UserError, match=r"b\.txt is not text in UTF-8"):
        READER.read(str(tmp_path / "b.txt"))


def test_key_points_after_a_box_are_not_read(tmp_path: Path) -> None:
    reader = LabelReader(num_classes=1, num_keypoint_columns=6)
    (item,) = reader.read(write(tmp_path, "0 0.5 0.5 0.5 0.5 0.1 0.2 2 0.3 0.4 1"))
    assert (item.corners, item.polygon) == ((0.25, 0.25, 0.75, 0.75), None)


def test_polygons_are_drawn_as_pillow_draws_them(tmp_path: Path) -> None:
    path = write(tmp_path, "1 0.1 0.2 0.8 0.1 0.9 0.9 0.3 0.7")
    ids = PolygonMaps(READER, {path: (50, 80)}, (1, 2, 3))(path)
    image = Image.new("L", (80, 50))
    ImageDraw.Draw(image).polygon([(8, 10), (64, 5), (72, 45), (24, 35)], fill=2)
    expected = np.asarray(image)
    assert set(np.unique(ids)) == {0, 2}
    assert (ids == 2)[expected == 2].mean() > 0.94
    assert (ids == 0)[expected == 0].mean() > 0.98


def test_polygons_of_the_background_cover_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, f"1 0.5 0.5 1 0.5 1 1 0.5 1\n0 {SQUARE}\n0 0 0 1 0 1 1 0 1")
    ids = PolygonMaps(READER, {path: (40, 40)}, (0, 1, 2))(path)
    assert set(np.unique(ids)) == {0, 1}
    assert (ids[2, 2], ids[25, 25]) == (0, 1)


def test_pixels_of_several_classes_are_ignored(tmp_path: Path) -> None:
    path = write(tmp_path, f"0 {SQUARE}\n2 0.5 0.5 1 0.5 1 1 0.5 1\n0 0.25 0.25 0.5 0.25 0.5 0.5")
    ids = PolygonMaps(READER, {path: (40, 40)}, (1, 2, 3))(path)
    assert (ids[12, 28], ids[25, 25], ids[35, 35], ids[2, 2], ids[11, 18]) == (1, IGNORE, 3, 0, 1)
