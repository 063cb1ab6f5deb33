import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from export.errors import UserError
from fbnetv5.data.layouts import layout_of, open_folder
from tests.fbnetv5.data.rearrange import as_label_studio, draw

SIZE = (64, 64)


def region(kind: str, label: str, **value: Any) -> dict[str, Any]:
    return {"type": kind, "value": value | {kind: [label]}}


def write(root: Path, *results: Any, **task: Any) -> Path:
    """A folder with 0.png of 8x8 and a task with these results."""
    draw(root, "0.png")
    document = [{"id": 7, "data": {"image": "/data/upload/0.png"}, "annotations": [{"result": results}]} | task]
    (root / "result.json").write_text(json.dumps(document))
    return root


SQUARE = region("polygonlabels", "dog", points=[[25, 25], [75, 25], [75, 50], [25, 50]])
BOX = region("rectanglelabels", "cat", x=12.5, y=25, width=50, height=25)
APART = [{"type": "rectangle", "value": {"height": 5}}, region("labels", "cat", points=[[1, 1], [2, 2], [1, 2]])]
"""An outline and its label as the controls Rectangle and Labels write them, two results."""


def test_boxes_and_choices_are_those_of_the_folder(image_folder: Path, tmp_path: Path) -> None:
    root = as_label_studio(image_folder, tmp_path / "studio")
    assert layout_of(root).name == "Label Studio"
    data, original = open_folder(root), open_folder(image_folder)
    assert (len(data), data.test, data.notes) == (24, frozenset(), ())
    for index, name in enumerate(data.names):
        sample, expected = data.sample(index, SIZE), original.sample(int(Path(name).stem[-2:]), SIZE)
        assert torch.equal(sample.image, expected.image)
        torch.testing.assert_close(sample.targets["boxes"].xyxy, expected.targets["boxes"].xyxy)
        for target, values in (("label", "label"), ("boxes", "boxes")):
            ours, theirs = (images.targets[target].classes for images in (data, original))
            ids = [
                item.targets[values] if target == "label" else item.targets["boxes"].labels
                for item in (sample, expected)
            ]
            assert [ours[n] for n in np.atleast_1d(ids[0])] == [theirs[n] for n in np.atleast_1d(ids[1])]


def test_polygons_give_a_class_map_unless_there_are_other_objects(tmp_path: Path) -> None:
    labels = open_folder(write(tmp_path, SQUARE, region("keypointlabels", "x", x=1, y=1))).labels(0)
    drawn = Image.new("L", (8, 8))
    ImageDraw.Draw(drawn).rectangle((2, 2, 5, 3), fill=1)
    assert np.array_equal(labels["mask"].numpy(), np.array(drawn))
    assert labels["boxes"].xyxy.tolist() == [[2, 2, 6, 4]]
    for other in (BOX, region("brushlabels", "cat", rle=[1]), region("ellipselabels", "cat", radiusX=9), *APART):
        assert "mask" not in open_folder(write(tmp_path, SQUARE, other)).labels(0)


def test_an_attribute_of_a_polygon_is_no_other_area(tmp_path: Path) -> None:
    text = {"type": "textarea", "value": {"points": SQUARE["value"]["points"], "text": ["old"]}}
    assert "mask" in open_folder(write(tmp_path, SQUARE | {"id": "a"}, text | {"id": "a"})).labels(0)
    assert "mask" not in open_folder(write(tmp_path, SQUARE | {"id": "a"}, text | {"id": "b"})).labels(0)


def test_a_rectangle_is_rotated_around_its_first_corner(tmp_path: Path) -> None:
    turned = region("rectanglelabels", "cat", x=50, y=25, width=50, height=25, rotation=90)
    data = open_folder(write(tmp_path, turned))
    assert np.allclose(data.labels(0)["boxes"].xyxy, [[2, 2, 4, 6]], atol=1e-5)
    assert "rotated rectangles, of which the upright box around them is read: 1" in data.notes


@pytest.mark.parametrize(
    "address",
    [
        "https://host/a/0.png?token=b/c",
        "/data/local-files/?d=photos/0.png",
        "s3://b/0.png",
        "a\\0.png",
        "1a2b3c4d-0.png",
    ],
)
def test_the_image_is_found_by_the_end_of_its_address(tmp_path: Path, address: str) -> None:
    data = open_folder(write(tmp_path, BOX, data={"text": "a.b", "image": address}))
    assert data.names == ("0.png",)


def test_tasks_without_annotation_and_unread_regions_are_counted(tmp_path: Path) -> None:
    root = write(tmp_path, BOX, region("ellipselabels", "cat", x=1), {"type": "relation"})
    document = json.loads((root / "result.json").read_text())
    document += [{"data": {"image": "1.png"}, "annotations": [{"was_cancelled": True, "result": [BOX]}]}]
    (root / "result.json").write_text(json.dumps(document))
    expected = {
        "ellipselabels regions left out: 1",
        "other regions left out: 1",
        "tasks without an annotation left out: 1",
    }
    assert set(open_folder(root).notes) == expected


def test_several_choices_are_no_class(tmp_path: Path) -> None:
    data = open_folder(write(tmp_path, BOX, region("choices", "a"), region("choices", "b")))
    assert "label" not in data.labels(0)
    assert "images with several choices, whose class is left out: 1" in data.notes


WRONG: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "numbers": (
        (region("rectanglelabels", "a", x=1, y=2, width="3", height=4),),
        {},
        r"task 0 \(id 7\), result 0 must have finite",
    ),
    "labels": ((BOX | {"value": {"rectanglelabels": ["a", "b"]}},), {}, r"result 0 must have one label"),
    "points": ((region("polygonlabels", "a", points=[[1, 2], [3]]),), {}, r'result 0: "points" must be three or more'),
    "outside": ((region("rectanglelabels", "a", x=50, y=0, width=90, height=9),), {}, r"result 0: box .* outside"),
    "image": ((BOX,), {"data": {"image": "/x/9.png"}}, r"task 0 \(id 7\) is of '9\.png', which is not in"),
    "data": ((BOX,), {"data": None}, r'task 0 must be an object with "data"'),
    "nothing": ((), {}, r"result\.json has no rectangle, polygon or choice"),
}


@pytest.mark.parametrize(("results", "task", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, results: tuple[Any, ...], task: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_folder(write(tmp_path, *results, **task))


def test_an_image_that_two_tasks_or_folders_have_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path, BOX)
    document = json.loads((root / "result.json").read_text())
    (root / "result.json").write_text(json.dumps(document * 2))
    with pytest.raises(UserError, match=r"task 1 .* is of .*0\.png, as .*task 0"):
        open_folder(root)
    draw(write(root, BOX), "a/0.png")
    with pytest.raises(UserError, match=r"'0\.png', which is 0\.png and a/0\.png"):
        open_folder(root)
    (root / "result.json").write_text((root / "result.json").read_text()[:-1])
    with pytest.raises(UserError, match=r"cannot read .*result\.json: .* Export it again, as JSON"):
        open_folder(root)


def test_choices_of_a_region_are_no_class_of_the_image(tmp_path: Path) -> None:
    attribute = {"type": "choices", "value": BOX["value"] | {"choices": ["occluded"]}}
    data = open_folder(write(tmp_path, BOX, attribute))
    assert "label" not in data.targets
    assert any("choices of single regions left out" in note for note in data.notes)


def test_several_exports_are_refused(tmp_path: Path) -> None:
    write(tmp_path, BOX)
    (tmp_path / "project-1-at-2025-01-01-00-00-0a.json").write_text((tmp_path / "result.json").read_text())
    with pytest.raises(UserError, match=r"has the exports .*result\.json.*: keep one"):
        open_folder(tmp_path)
