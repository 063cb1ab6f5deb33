import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_masks

from export.errors import UserError
from fbnetv5.data.layouts import layout_of, open_folder
from fbnetv5.data.scenes import CLASSES
from tests.fbnetv5.data.rearrange import SPLITS, as_cvat, draw

SIZE = (64, 64)
LABELS = ("cat", "dog", "outdoor")


def write(root: Path, *shapes: str, attributes: str = 'name="0.png" width="8" height="8"') -> Path:
    """A folder with images/0.png and the elements of this image, from line 3 on."""
    draw(root, "images/0.png")
    labels = "".join(f"<label><name>{label}</name></label>" for label in LABELS)
    lines = ["<annotations><meta><task><labels>" + labels + "</labels></task></meta>", f"<image {attributes}>"]
    (root / "annotations.xml").write_text("\n".join([*lines, *shapes, "</image></annotations>"]))
    return root


def test_boxes_tags_and_subsets_are_those_of_the_folder(image_folder: Path, tmp_path: Path) -> None:
    root = as_cvat(image_folder, tmp_path / "cvat")
    assert layout_of(root).name == "CVAT"
    data, original = open_folder(root), open_folder(image_folder)
    assert data.targets["boxes"].classes == CLASSES["boxes"]
    assert data.targets["label"].classes == CLASSES["label"]
    assert data.test == {f"Validation/{number:02d}.png" for number in SPLITS["val"]}
    for index, name in enumerate(data.names):
        sample, expected = data.sample(index, SIZE), original.sample(int(Path(name).stem), SIZE)
        assert torch.equal(sample.image, expected.image)
        assert sample.targets["label"] == expected.targets["label"]
        torch.testing.assert_close(sample.targets["boxes"], expected.targets["boxes"])


POLYGON = '<polygon label="dog" points="1.00,2.00;6.00,2.00;6.00,7.00" z_order="0"></polygon>'
MASK = '<mask label="cat" rle="1, 2, 1, 2" left="4" top="1" width="3" height="2" z_order="1"></mask>'


def test_polygons_and_masks_give_boxes_and_a_class_map(tmp_path: Path) -> None:
    data = open_folder(write(tmp_path, POLYGON, MASK, '<points label="cat" points="1,1"></points>'))
    labels = data.labels(0)
    assert data.targets["mask"].classes == ("background", *LABELS)
    assert labels["boxes"].xyxy.tolist() == [[1, 2, 6, 7], [5, 1, 7, 3]]
    expected = coco_masks.decode(coco_masks.frPyObjects([[1, 2, 6, 2, 6, 7]], 8, 8))[..., 0] * 2
    expected[1, 5:7] = expected[2, 5:7] = 1
    assert np.array_equal(labels["mask"].numpy(), expected)
    assert "points elements left out: 1" in data.notes


def test_an_image_with_a_rectangle_has_no_class_map(tmp_path: Path) -> None:
    box = '<box label="dog" xtl="1" ytl="1" xbr="3" ybr="4"></box>'
    labels = open_folder(write(tmp_path, POLYGON, box)).labels(0)
    assert labels.keys() == {"boxes"}
    assert labels["boxes"].xyxy.tolist() == [[1, 2, 6, 7], [1, 1, 3, 4]]


def test_the_upright_box_around_a_rotated_rectangle_is_read(tmp_path: Path) -> None:
    box = '<box label="dog" xtl="2" ytl="3" xbr="6" ybr="5" rotation="30.0"></box>'
    data = open_folder(write(tmp_path, box))
    angle = math.radians(30)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = np.array([(x, y) for x in (-2, 2) for y in (-1, 1)]) @ turn.T + [4, 4]
    expected = [*corners.min(0), *corners.max(0)]
    assert np.allclose(data.labels(0)["boxes"].xyxy[0], expected, atol=1e-5)
    assert "rotated rectangles, of which the upright box around them is read: 1" in data.notes


def test_a_tag_is_the_class_and_several_are_none(tmp_path: Path) -> None:
    tag = '<tag label="{}" source="manual"></tag>'
    data = open_folder(write(tmp_path, tag.format("outdoor"), POLYGON))
    assert (data.targets["label"].classes, data.labels(0)["label"]) == (("outdoor",), 0)
    assert data.targets["boxes"].classes == ("cat", "dog")
    data = open_folder(write(tmp_path, tag.format("outdoor"), tag.format("cat"), POLYGON))
    assert "label" not in data.labels(0)
    assert "images with several tags, whose class is left out: 1" in data.notes


WRONG = {
    "label": ('<tag label="cow"/>', r"xml:3 has the label 'cow', which the file does not list"),
    "points": ('<polygon label="cat" points="1,2;3,4"/>', r"xml:3: a polygon needs three points"),
    "text": ('<polygon label="cat" points="1,2;3,a"/>', r"xml:3: 'points' of a polygon must be numbers"),
    "box": ('<box label="cat" xtl="1" ytl="1" xbr="3"/>', r"xml:3: box has no number 'ybr'"),
    "outside": ('<box label="cat" xtl="1" ytl="1" xbr="3" ybr="20"/>', r"xml:3: box .* reaches outside"),
    "runs": (
        '<mask label="cat" rle="1,2" left="0" top="0" width="2" height="2"/>',
        r"xml:3: the run lengths",
    ),
    "place": (
        '<mask label="cat" rle="1,3" left="7" top="0" width="2" height="2"/>',
        r"xml:3: the run lengths",
    ),
    "nothing": ("", r"annotations\.xml has no box, polygon, mask or tag of any image"),
}


@pytest.mark.parametrize(("shape", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, shape: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_folder(write(tmp_path, shape))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ('name="1.png" width="8" height="8"', r"xml:2 lists '1\.png', which is not in .*images\. Export"),
        ('name="0.png" width="9" height="8"', r"xml:2 says that '0\.png' is 9x8, its file is 8x8"),
    ],
)
def test_a_missing_or_other_image_is_named(tmp_path: Path, attributes: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_folder(write(tmp_path, POLYGON, attributes=attributes))


def test_shapes_without_area_are_counted(tmp_path: Path) -> None:
    data = open_folder(write(tmp_path, POLYGON, '<box label="cat" xtl="1" ytl="1" xbr="1" ybr="3"></box>'))
    assert len(data.labels(0)["boxes"].xyxy) == 1
    assert "objects without width or height left out: 1" in data.notes
