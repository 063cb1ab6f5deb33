import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from export.errors import UserError
from fbnetv5.data.folder import box_corners, read_several_tasks
from fbnetv5.data.header_index import header_index
from fbnetv5.data.labelled_images import LabelledImages
from fbnetv5.data.maps import FORMATS
from fbnetv5.data.scenes import TARGETS, Scenes
from fbnetv5.data.targets import IGNORE
from tests.samples import stack

SIZE = (64, 64)
MAPS = tuple(form.folder for form in FORMATS.values())
Document = dict[str, Any]


def read(root: Path) -> LabelledImages:
    with header_index(root) as headers:
        return read_several_tasks(root, headers)


def edit(root: Path, change: Callable[[Document], object]) -> None:
    document = json.loads((root / "instances.json").read_text(encoding="utf-8"))
    change(document)
    (root / "instances.json").write_text(json.dumps(document), encoding="utf-8")


def test_a_folder_gives_back_the_scenes_it_was_made_of(image_folder: Path) -> None:
    folder, scenes = read(image_folder), Scenes("train", size=SIZE, count=24)
    assert folder.targets == TARGETS
    assert len(folder) == 24
    for index in range(24):
        assert torch.equal(folder.sample(index, SIZE).image, scenes[index].image)
        ours, theirs = (stack([images[index]]).targets for images in (folder.resized(SIZE), scenes))
        for name in TARGETS:
            rounding = 0.006 if name == "normals" else 0  # of components to 8 bits
            torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=rounding, equal_nan=True)


def test_boxes_are_those_that_pycocotools_loads(image_folder: Path) -> None:
    folder, coco = read(image_folder), COCO(str(image_folder / "instances.json"))
    for image_id, image in coco.imgs.items():
        theirs = torch.tensor([a["bbox"] for a in coco.imgToAnns[image_id]])
        theirs[:, 2:] += theirs[:, :2]
        sample = folder.sample(folder.names.index(image["file_name"]), (128, 32))
        torch.testing.assert_close(sample.targets["boxes"].xyxy, theirs * torch.tensor([0.5, 2.0, 0.5, 2.0]))
        assert sample.image.shape == (3, 128, 32)
        assert {sample.targets[name].shape for name in FORMATS} == {(128, 32), (3, 128, 32)}


def test_missing_labels_are_absent(image_folder: Path) -> None:
    def change(document: Document) -> None:
        del document["images"][0]["label"]
        document["annotations"] = [a for a in document["annotations"] if a["image_id"] > 3]
        document["images"] = document["images"][:1] + document["images"][2:]

    edit(image_folder, change)
    (image_folder / "masks/02.png").unlink()
    (image_folder / "depth/01.png").unlink()
    folder = read(image_folder)
    assert ["label" in folder.sample(n, SIZE).targets for n in range(3)] == [False, False, True]
    assert ["boxes" in folder.sample(n, SIZE).targets for n in range(3)] == [True, False, True]
    assert ["mask" in folder.sample(n, SIZE).targets for n in range(3)] == [True, True, False]
    assert ["depth" in folder.sample(n, SIZE).targets for n in range(3)] == [True, False, True]
    assert folder.sample(0, SIZE).targets["boxes"].xyxy.shape == (0, 4)


NO_BOXES: dict[str, Callable[[Document], object]] = {
    "no annotations at all": lambda document: document.pop("annotations"),
    "no categories": lambda document: document.update(annotations=[], categories=[]),
}


@pytest.mark.parametrize("change", NO_BOXES.values(), ids=NO_BOXES.keys())
def test_a_document_without_boxes_labels_none(image_folder: Path, change: Callable[[Document], object]) -> None:
    edit(image_folder, change)
    folder = read(image_folder)
    assert not any("boxes" in folder.sample(index, SIZE).targets for index in range(24))


def test_masks_alone_are_enough_and_number_their_classes(image_folder: Path) -> None:
    (image_folder / "instances.json").unlink()
    ids = np.array([[0, 4], [IGNORE, 1]], dtype=np.uint8).repeat(32, 0).repeat(32, 1)
    for path in (image_folder / "masks").iterdir():
        Image.fromarray(ids).save(path)
    folder = read(image_folder)
    assert folder.targets["mask"].classes == ("class 0", "class 1", "class 2", "class 3", "class 4")
    assert set(folder.sample(0, (32, 32)).targets["mask"].flatten().tolist()) == {0, 1, 4, IGNORE}


def test_hidden_files_are_passed_over(image_folder: Path) -> None:
    for part in ("images", "masks"):
        (image_folder / part / "._00.png").write_bytes(b"what another system keeps of a file")
    assert len(read(image_folder)) == 24


def test_palette_and_one_bit_masks_keep_their_ids(image_folder: Path) -> None:
    ids = np.zeros((64, 64), dtype=np.uint8)
    ids[10:20, 30:50] = 1
    palette = Image.fromarray(ids)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.save(image_folder / "masks/00.png")
    Image.fromarray(ids.astype(bool)).save(image_folder / "masks/01.png")
    folder = read(image_folder)
    for sample in (folder.sample(0, SIZE), folder.sample(1, SIZE)):
        assert torch.equal(torch.from_numpy(ids), sample.targets["mask"])


def test_labels_without_a_list_are_sorted_and_crowds_are_no_boxes(image_folder: Path) -> None:
    def change(document: Document) -> None:
        del document["labels"]
        for n, image in enumerate(document["images"]):
            image["label"] = ["pear", "apple", 0][n % 3]
        for annotation in document["annotations"]:
            annotation["iscrowd"] = int(annotation["image_id"] == 1)

    edit(image_folder, change)
    folder = read(image_folder)
    assert folder.targets["label"].classes == ("apple", "pear")
    assert [folder.sample(n, SIZE).targets["label"] for n in range(3)] == [1, 0, 0]
    assert [len(folder.sample(n, SIZE).targets["boxes"].labels) == 0 for n in (0, 1)] == [True, False]
    crowds = len(folder.record(0).ignored_boxes or ())
    assert folder.notes == (f"crowds left out of training: {crowds}",)
    assert len(folder.resized(SIZE)[0].targets["ignored_boxes"].labels) == crowds > 0
    assert "ignored_boxes" not in folder.resized(SIZE)[1].targets


def test_exif_orientation_turns_image_and_size(image_folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = np.zeros((20, 40, 3), dtype=np.uint8)
    wide[:, :20] = 255
    Image.fromarray(wide).save(image_folder / "images/00.png", exif=exif)
    for name in MAPS:
        (image_folder / name / "00.png").unlink()
    edit(image_folder, lambda document: document["images"][0].update(width=20, height=40))
    edit(image_folder, lambda document: document.update(annotations=[]))
    image = read(image_folder).sample(0, (40, 20)).image
    assert image[:, :18].min() == 255
    assert image[:, 22:].max() == 0


def first_box(*bbox: object) -> Callable[[Document], object]:
    return lambda document: document["annotations"][0].update(bbox=list(bbox))


def repeat(key: str) -> Callable[[Document], object]:
    return lambda document: document[key].append(document[key][0])


BAD_DOCUMENTS: dict[str, tuple[Callable[[Document], object], str]] = {
    "no images": (lambda d: d.pop("images"), 'lacks "images"'),
    "images of wrong type": (lambda d: d.update(images={}), '"images" must be of type list'),
    "image of wrong type": (lambda d: d["images"].append(3), r"images\[24\] must be an object"),
    "no file name": (lambda d: d["images"][2].pop("file_name"), r'images\[2\] lacks "file_name"'),
    "no height": (lambda d: d["images"][2].pop("height"), r'images\[2\] lacks "height"'),
    "id of wrong type": (lambda d: d["images"][0].update(id=True), '"id" must be of type int, got True'),
    "file missing": (lambda d: d["images"][0].update(file_name="a.png"), "'a.png', which is not in images/"),
    "image twice": (repeat("images"), "repeats the file name '00.png'"),
    "other size": (lambda d: d["images"][0].update(width=65), "is 65x64, its file is 64x64"),
    "unknown label": (lambda d: d["images"][0].update(label="hat"), "label 'hat' of '00.png' is none of the 10"),
    "label index": (lambda d: d["images"][0].update(label=10), "label 10 of '00.png' is none"),
    "labels twice": (lambda d: d.update(labels=["a", "a"]), '"labels" must be a list of distinct names'),
    "category twice": (repeat("categories"), r"categories\[10\] repeats the id 1"),
    "unknown category": (lambda d: d["annotations"][0].update(category_id=99), "category 99"),
    "unknown image": (lambda d: d["annotations"][0].update(image_id=99), r"annotations\[0\] \(id 1\) is of image 99"),
    "no box": (lambda d: d["annotations"][1].pop("bbox"), r'annotations\[1\] \(id 2\) lacks "bbox"'),
    "crowd in text": (lambda d: d["annotations"][0].update(iscrowd="1"), "\"iscrowd\" must be 0 or 1, got '1'"),
    "three numbers": (first_box(1, 2, 3), "four numbers"),
    "text in box": (first_box(1, 2, 3, "4"), "four numbers"),
    "not a number": (first_box(1, 2, float("nan"), 4), "must be finite"),
    "infinite": (first_box(1, 2, float("inf"), 4), "must be finite"),
    "huge": (first_box(1, 2, 10**400, 4), "must be finite"),
    "empty box": (first_box(1, 2, 0, 4), "width and height above 0"),
    "outside": (first_box(60, 2, 5.5, 4), "outside of its 64x64 image"),
    "beside": (first_box(64, 2, 0.5, 4), "outside of its 64x64 image"),
}


@pytest.mark.parametrize(("change", "message"), BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS.keys())
def test_a_bad_document_is_refused_in_one_line(
    image_folder: Path, change: Callable[[Document], object], message: str
) -> None:
    edit(image_folder, change)
    with pytest.raises(UserError, match=message) as caught:
        read(image_folder)
    assert "\n" not in str(caught.value)
    assert "instances.json" in str(caught.value)


def no_images(root: Path) -> None:
    for path in (root / "images").iterdir():
        path.unlink()


def folder_for_json(root: Path) -> None:
    (root / "instances.json").unlink()
    (root / "instances.json").mkdir()


def no_labels(root: Path) -> None:
    (root / "instances.json").unlink()
    for name in MAPS:
        for path in (root / name).iterdir():
            path.unlink()


def save(name: str, mode: str, size: tuple[int, int] = SIZE) -> Callable[[Path], None]:
    return lambda root: Image.new(mode, size).save(root / name)


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda root: root.rename(root.with_name("other")), "does not exist"),
    "no images": (lambda root: (root / "images").rename(root / "other"), "images does not exist"),
    "empty": (no_images, "holds no image"),
    "no labels": (
        no_labels,
        r"has no instances\.json and no file in any of masks/, parts/, saliency/, edges/, depth/, normals/",
    ),
    "damaged JSON": (lambda root: (root / "instances.json").write_text('{"images": [', "utf-8"), "not valid JSON"),
    "not UTF-8": (lambda root: (root / "instances.json").write_bytes(b'"\xff"'), "not valid JSON in UTF-8"),
    "JSON of a list": (lambda root: (root / "instances.json").write_text("[]", "utf-8"), "must hold a JSON object"),
    "JSON is a folder": (folder_for_json, r"cannot read .*instances\.json: Is a directory"),
    "not an image": (lambda root: (root / "images/05.png").write_text("hello", "utf-8"), r"cannot read .*05\.png"),
    "deep image": (save("images/05.png", "I;16"), r"05\.png has more than 8 bits"),
    "same stem": (save("images/05.jpg", "RGB"), r"05\.jpg and .*05\.png share one name"),
    "mask of other size": (save("masks/05.png", "L", (32, 64)), r"05\.png is 32x64, its image is 64x64"),
    "mask in colour": (save("masks/05.png", "RGB"), r"05\.png has mode RGB"),
    "mask of no image": (save("masks/hat.png", "L"), "is the mask of no image"),
    "depth of 8 bits": (save("depth/05.png", "L"), r"05\.png has mode L.* Save it grey with 16 bits, in millimetres"),
    "edges in colour": (save("edges/05.png", "RGB"), r"05\.png has mode RGB, which no edges file has"),
    "depth of other size": (save("depth/05.png", "I;16", (32, 64)), r"05\.png is 32x64, its image is 64x64"),
    "damaged mask": (lambda root: (root / "masks/05.png").write_bytes(b"\x89PNG"), r"cannot read .*05\.png"),
}


@pytest.mark.parametrize(("change", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files_are_refused_in_one_line(image_folder: Path, change: Callable[[Path], object], message: str) -> None:
    change(image_folder)
    with pytest.raises(UserError, match=message) as caught:
        read(image_folder)
    assert "\n" not in str(caught.value)


def test_images_of_the_test_split_and_without_boxes_are_marked(image_folder: Path) -> None:
    def mark(document: Document) -> None:
        document["images"][3]["split"] = "test"
        document["images"][4]["boxes"] = False
        document["annotations"] = [row for row in document["annotations"] if row["image_id"] != 5]

    edit(image_folder, mark)
    folder = read(image_folder)
    assert folder.test == {"03.png"}
    assert "boxes" not in folder.labels(4)
    assert "label" in folder.labels(4)
    edit(image_folder, lambda document: document["images"][6].update(split="Val"))
    edit(image_folder, lambda document: document["images"][7].update(split="train"))
    assert read(image_folder).test == {"03.png", "06.png"}
    edit(image_folder, lambda document: document["images"][3].update(boxes=False))
    with pytest.raises(UserError, match='"boxes": false and annotations'):
        read(image_folder)


@given(x=st.floats(-1, 60), y=st.floats(-1, 28), w=st.floats(1.1, 5, exclude_min=True), h=st.floats(1.1, 5))
def test_a_box_that_rounding_pushed_out_is_cut(x: float, y: float, w: float, h: float) -> None:
    x0, y0, x1, y1 = box_corners([x, y, w, h], (32, 64), "here")
    assert 0 <= x0 < x1 <= 64
    assert 0 <= y0 < y1 <= 32
    assert x1 - x0 == pytest.approx(w, abs=1.01)
    assert y1 - y0 == pytest.approx(h, abs=1.01)
