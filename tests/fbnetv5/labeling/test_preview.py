"""A page that shows the labels of a few images, in one file."""

import re
from pathlib import Path

import torch

from fbnetv5.data.targets import IGNORE, Boxes
from fbnetv5.labeling.preview import draw_boxes, draw_classes, draw_numbers, write_preview
from tests.fbnetv5.labeling.labelled_scenes import make_labeller

IMAGE = torch.full((3, 40, 60), 90, dtype=torch.uint8)


def test_the_page_shows_every_label_and_loads_nothing(tmp_path: Path) -> None:
    labeller = make_labeller(tmp_path, derive={"edges": "seg"})
    assert write_preview(tmp_path / "page.html", labeller, 3) == 3
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 3 * len(labeller.targets)
    assert set(re.findall(r'src="([^,]*),', page)) == {"data:image/jpeg;base64"}
    for text in ("0/0000.png", "<b>label</b> teacher red", "<b>edges</b> derived", "background"):
        assert text in page


def test_boxes_and_classes_are_drawn_where_they_are() -> None:
    boxes = Boxes(torch.tensor([[10.0, 10, 30, 30]]), torch.tensor([0]))
    changed = (draw_boxes(IMAGE, boxes, ("cat",)) != IMAGE).any(0)
    assert changed[10, 15:30].all()
    assert not changed[35:].any()
    ids = torch.zeros(40, 60, dtype=torch.uint8)
    ids[:5], ids[5:10] = 2, IGNORE
    changed = (draw_classes(IMAGE, ids) != IMAGE).any(0)
    assert torch.equal(changed, ids == 2)
    assert torch.equal(draw_boxes(IMAGE, Boxes(torch.zeros(0, 4), torch.zeros(0)), ()), IMAGE)


def test_numbers_are_drawn_without_the_unknown_ones() -> None:
    depth = torch.tensor([[1.0, 3.0, float("nan")]])
    grey, text = draw_numbers(depth)
    assert grey[0].tolist() == [[255, 0, 0]]
    assert text == "1.00 to 3.00 m"
    normals, _ = draw_numbers(torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1))
    assert normals.flatten().tolist() == [128, 128, 255]
