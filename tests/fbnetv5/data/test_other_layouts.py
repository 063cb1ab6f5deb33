import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from export.errors import UserError
from fbnetv5.data.layouts import layout_of


def write(*names: str, text: str = "0 0.5 0.5 0.5 0.5") -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")

    return make


COCO = json.dumps(
    {"info": {}, "images": [{"id": number} for number in range(999)], "annotations": [], "categories": []}
)
MARKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "YOLO": (write("images/train/labels.txt", "labels/train/0.txt"), r"has labels/\*\.txt beside images/\. Add a data"),
    "YOLO by split": (write("train/images/a", "train/labels/0.txt"), r"YOLO layout without its data\.yaml"),
    "Darknet": (write("train/_darknet.labels"), "Darknet.* has train/_darknet.labels"),
    "COCO of Label Studio": (
        write("result.json", text=COCO),
        r"COCO .* has result\.json\. Move the file to annotations",
    ),
    "COCO in a split": (write("train/labels.json", text=COCO), r"has train/labels\.json"),
    "VOC of the archive": (write("VOC2012/Annotations/a.xml"), "has VOC2012/Annotations. Name that folder"),
    "VOC without images": (write("Annotations/a.xml"), r"VOC without .* has Annotations/a\.xml"),
    "Parquet": (write("data/train-0.parquet"), r"without its index\.json, .* has data/train-0\.parquet\. Repeat fbn"),
    "CamVid without classes": (write("trainannot/0.png"), r"list of its classes, .* trainannot/ beside train/\. Add"),
    "mmsegmentation": (write("img_dir/a.txt", "ann_dir/a.txt"), "img_dir/ and ann_dir/"),
    "CSV": (write("train/_classes.csv"), r"has train/_classes\.csv\. Export it as COCO"),
    "TFRecord": (write("train/a.tfrecord"), r"has train/a\.tfrecord"),
    "LabelMe": (write("train/0.json", text="{}"), r"LabelMe.* has 0\.json beside an image of that name in train/"),
}


@pytest.mark.parametrize("fits_image_folder", [True, False])
@pytest.mark.parametrize(("make", "message"), MARKS.values(), ids=MARKS.keys())
def test_a_folder_with_a_mark_is_refused(
    tmp_path: Path, make: Callable[[Path], None], message: str, fits_image_folder: bool
) -> None:
    for name in ("train", "test") if fits_image_folder else ("train",):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    make(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        layout_of(tmp_path)
    assert "looks like" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_files_beside_classes_are_no_mark(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    write("notes.json", "labels/0.txt", "classes.csv", "cat/0.json")(tmp_path)
    assert layout_of(tmp_path).name == "ImageFolder"
