import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.errors import UserError
from fbnetv5.data import header_index
from fbnetv5.data.fit import fit_image
from fbnetv5.data.labelled_images import LabelledImages, check_class_names
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.scenes import TARGETS
from fbnetv5.data.targets import CLASS, CLASS_MAP, IGNORE, Target

SIZE = (64, 64)


def test_two_sizes_share_the_records_and_read_no_header_again(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_folder(image_folder)
    small = folder.resized((32, 32), [3, 5])
    monkeypatch.setattr(header_index, "read_header", None)
    large = small.resized((64, 96))
    assert vars(large)["_images"] is vars(small)["_images"] is folder
    assert (len(small), len(large)) == (2, 2)
    for view, size in ((small, (32, 32)), (large, (64, 96))):
        sample, expected = view[1], folder.sample(5, size)
        assert sample.image.shape == (3, *size)
        assert torch.equal(sample.image, expected.image)
        assert torch.equal(sample.targets["boxes"].xyxy, expected.targets["boxes"].xyxy)


def test_a_view_keeps_its_fit_at_another_size(uneven_folder: Path) -> None:
    view = open_folder(uneven_folder).resized((32, 32), [4], fit="letterbox").resized((64, 96))
    sample, image = view[0], Image.open(uneven_folder / "images/04.png")
    expected, placement = fit_image(image, (64, 96), "letterbox")
    assert torch.equal(sample.image, expected)
    assert sample.placement == placement
    assert not placement.fills
    assert (sample.targets["mask"] == IGNORE).all(1).nonzero().flatten().tolist() == [
        row for row in range(64) if not 0 <= row - placement.top < placement.inner[0]
    ]


def test_a_map_without_a_known_pixel_is_no_label(image_folder: Path) -> None:
    Image.fromarray(np.full(SIZE, IGNORE, dtype=np.uint8)).save(image_folder / "masks/00.png")
    Image.fromarray(np.zeros(SIZE, dtype=np.uint16)).save(image_folder / "depth/00.png")
    targets = open_folder(image_folder).sample(0, SIZE).targets
    assert set(TARGETS) - set(targets) == {"mask", "depth"}


def test_views_alone_have_ignored_boxes_beside_the_boxes(image_folder: Path) -> None:
    document = json.loads((image_folder / "instances.json").read_text(encoding="utf-8"))
    document["annotations"][0]["iscrowd"] = 1
    (image_folder / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    folder = open_folder(image_folder)
    x, y, width, height = document["annotations"][0]["bbox"]
    crowds = folder.resized((32, 128))[0].targets["ignored_boxes"].xyxy
    torch.testing.assert_close(crowds, torch.tensor([[2 * x, y / 2, 2 * (x + width), (y + height) / 2]]))
    assert folder.only(["boxes"]).resized(SIZE).targets.keys() == {"boxes", "ignored_boxes"}
    assert folder.only(["mask"]).resized(SIZE).targets.keys() == {"mask"}
    assert folder.targets.keys() == folder.labels(0).keys() == set(TARGETS)


def test_only_the_requested_labels_are_read(image_folder: Path) -> None:
    (image_folder / "masks/00.png").write_bytes((image_folder / "masks/00.png").read_bytes()[:80])
    folder = open_folder(image_folder)
    assert list(folder.only(["depth", "label", "pose"]).sample(0, SIZE).targets) == ["label", "depth"]
    with pytest.raises(UserError, match=r"cannot read .*masks/00\.png"):
        folder.sample(0, SIZE)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_a_truncated_image_raises_when_it_is_read(image_folder: Path, suffix: str) -> None:
    path = image_folder / f"images/99.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"cannot read .*99\.{suffix}") as caught:
        open_folder(image_folder).sample(24, SIZE)
    assert "\n" not in str(caught.value)


def test_an_undeclared_mask_class_raises_when_it_is_read(image_folder: Path) -> None:
    Image.new("L", SIZE, 11).save(image_folder / "masks/07.png")
    folder = open_folder(image_folder)
    with pytest.raises(UserError, match=r"07\.png holds class id 11, 11 mask classes are named"):
        folder.sample(7, SIZE)


def test_labels_have_the_size_of_the_file(image_folder: Path) -> None:
    folder = open_folder(image_folder)
    labels, sample = folder.labels(2), folder.sample(2, (64, 64))
    assert labels.keys() == set(TARGETS)
    assert torch.equal(labels["mask"], sample.targets["mask"])
    assert folder.path(2) == str(image_folder / "images" / folder.names[2])


def test_classes_of_one_target_have_distinct_names() -> None:
    targets = {"label": Target(kind=CLASS, classes=("a", "b")), "mask": Target(kind=CLASS_MAP, classes=("a", "b", "a"))}
    check_class_names(LabelledImages({}, {"label": targets["label"]}), Path("images"))
    with pytest.raises(UserError, match="images has two classes 'a' of mask"):
        check_class_names(LabelledImages({}, targets), Path("images"))
