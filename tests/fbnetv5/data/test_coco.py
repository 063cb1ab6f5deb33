import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from export.errors import UserError
from fbnetv5.data.instance_masks import read_instance_masks
from fbnetv5.data.layouts import layout_of, open_folder
from fbnetv5.data.loading import in_order
from fbnetv5.tasks.detection import Detection, suppress
from tests.fbnetv5.data.rearrange import as_coco


def as_roboflow(root: Path) -> None:
    for old, new in (("train", "train"), ("val", "valid")):
        (root / old).rename(root / new)
        (root / f"annotations/instances_{old}.json").rename(root / new / "_annotations.coco.json")
    (root / "annotations").rmdir()


def as_mmdetection(root: Path) -> None:
    for split in ("train", "val"):
        (root / f"annotations/instances_{split}.json").rename(root / f"annotations/{split}.json")
    (root / "annotations/captions_train.json").write_text("{}", encoding="utf-8")


def with_backslashes(root: Path) -> None:
    for path in root.glob("annotations/*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        for image in document["images"]:
            image["file_name"] = f"images\\{image['file_name']}"
        path.write_text(json.dumps(document), encoding="utf-8-sig")
    (root / "images").mkdir()
    for split in ("train", "val"):
        for path in (root / split).iterdir():
            path.rename(root / "images" / path.name)


FORMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "Roboflow": (as_roboflow, "valid/18.png"),
    "mmdetection": (as_mmdetection, "val/18.png"),
    "years": (lambda root: (root / "train").rename(root / "images"), "val/18.png"),
    "paths of Windows and a BOM": (with_backslashes, "val/18.png"),
}


@pytest.mark.parametrize(("change", "test_image"), FORMS.values(), ids=FORMS.keys())
def test_every_form_gives_the_same_boxes(
    image_folder: Path, tmp_path: Path, change: Callable[[Path], object], test_image: str
) -> None:
    root, original = as_coco(image_folder, tmp_path / "coco"), open_folder(image_folder)
    change(root)
    data = open_folder(root)
    assert layout_of(root).name == "COCO"
    assert (len(data), len(data.test)) == (24, 6)
    assert test_image in data.test
    for index in range(24):
        assert torch.equal(data.labels(index)["boxes"].xyxy, original.labels(index)["boxes"].xyxy)


def test_ap_with_crowds_is_that_of_pycocotools_on_the_same_file(image_folder: Path, tmp_path: Path) -> None:
    root = as_coco(image_folder, tmp_path / "coco")
    path = root / "annotations/instances_val.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    for number, row in enumerate(document["annotations"]):
        row |= {"iscrowd": 1 - number % 2, "area": row["bbox"][2] * row["bbox"][3]}
    path.write_text(json.dumps(document), encoding="utf-8")
    data = open_folder(root)
    assert data.notes[0] == f"crowds left out of training: {len(document['annotations'][::2])}"
    indices = [index for index, name in enumerate(data.names) if name in data.test]
    images = data.resized((64, 64), indices)
    (batch,) = in_order(images, batch=len(images))
    task = Detection({"boxes": data.targets["boxes"].classes})
    every, crowds = batch.targets["boxes"], batch.targets["ignored_boxes"]
    boxes, labels = torch.cat([every.xyxy, crowds.xyxy], 1), torch.cat([every.labels, crowds.labels], 1).clamp(min=0)
    scores = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0))
    metric = task.new_metric()
    metric.update((boxes, scores, labels), batch)
    truth = COCO(str(path))
    names, ids = [Path(data.names[index]).name for index in indices], truth.getCatIds()
    numbers = {image["file_name"]: image["id"] for image in truth.dataset["images"]}
    found = [
        {
            "image_id": numbers[name],
            "category_id": ids[label],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
        }
        for name, detections in zip(names, suppress((boxes, scores, labels)), strict=True)
        for (x0, y0, x1, y1), score, label in zip(*(values.tolist() for values in detections), strict=True)
        if x1 > x0
    ]
    evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert metric.compute() == pytest.approx(evaluation.stats[0])


def test_repaired_names_are_counted_and_are_those_of_the_masks(image_folder: Path, tmp_path: Path) -> None:
    root = as_coco(image_folder, tmp_path / "coco")
    for path in root.glob("annotations/*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        for row in document["annotations"]:
            row["segmentation"] = [[1, 1, 9, 1, 9, 9]]
        path.write_text(json.dumps(document), encoding="utf-8")
    with_backslashes(root)
    data = open_folder(root)
    assert data.notes == ("file names repaired (backslashes, folder, case or form of Unicode): 24",)
    assert set(data.names) == set(read_instance_masks(root).by_image)


def test_one_file_of_roboflow_may_list_all_images(image_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "all"
    shutil.copytree(image_folder / "images", root)
    shutil.copy(image_folder / "instances.json", root / "_annotations.coco.json")
    data = open_folder(root)
    assert (len(data), data.test, data.names[0]) == (24, frozenset(), "00.png")


def test_a_file_whose_images_are_nowhere_is_refused(image_folder: Path, tmp_path: Path) -> None:
    root = as_coco(image_folder, tmp_path / "coco")
    shutil.rmtree(root / "val")
    with pytest.raises(UserError, match=r"instances_val\.json lists '18\.png', which is in none of "):
        open_folder(root)
