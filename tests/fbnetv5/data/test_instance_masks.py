"""Masks and class maps of COCO's annotations equal those of pycocotools' own reader."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from export.errors import UserError
from fbnetv5.data.instance_masks import InstanceMasks, read_instance_masks
from fbnetv5.data.targets import IGNORE

HEIGHT, WIDTH = 40, 60
CIRCLE = np.hypot(*np.mgrid[-20:20, -30:30]) < 12
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
COMPRESSED = coco_masks.encode(np.asfortranarray(CIRCLE.astype(np.uint8)))
SEGMENTATIONS: dict[str, tuple[Any, int, int]] = {
    "triangle": ([[2.5, 3, 38, 6, 20, 30.2]], 3, 0),
    "two polygons": ([[40, 2, 58, 2, 58, 12, 40, 12], [45, 20, 55, 20, 55, 38, 45, 38]], 7, 0),
    "compressed": ({"size": [HEIGHT, WIDTH], "counts": COMPRESSED["counts"].decode()}, 7, 0),
    "crowd": ({"size": [HEIGHT, WIDTH], "counts": [3, 5, 40, 9, HEIGHT * WIDTH - 57]}, 3, 1),
}


def write_coco(root: Path, names: tuple[str, ...], *, folder: str = "annotations/instances_train.json") -> Path:
    """A COCO file with two images: the named objects on the first, none on the second."""
    annotations = []
    for number, name in enumerate(names):
        segmentation, category, crowd = SEGMENTATIONS[name]
        annotation = {"id": number + 1, "image_id": 5, "category_id": category, "bbox": [1, 1, 9, 9], "iscrowd": crowd}
        annotations.append({**annotation, "segmentation": segmentation, "area": 81})
    images = [{"id": key, "file_name": f"{key}.png", "height": HEIGHT, "width": WIDTH} for key in (5, 6)]
    document = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    path = root / folder
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def by_pycocotools(path: Path) -> list[tuple[int, Any]]:
    """(class id of the map, mask) of each object."""
    coco = COCO(path)
    return [
        (1 + [3, 7].index(row["category_id"]), coco.annToMask(row).astype(bool)) for row in coco.dataset["annotations"]
    ]


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_each_form_is_the_mask_of_pycocotools(name: str, tmp_path: Path) -> None:
    path = write_coco(tmp_path, (name,))
    ((class_id, mask),) = by_pycocotools(path)
    masks = read_instance_masks(tmp_path)
    assert masks.classes == ("cat", "dog")
    class_map = masks.class_map("train/5.png", (HEIGHT, WIDTH))
    assert class_map is not None
    assert mask.any()
    assert np.array_equal(class_map, np.where(mask, class_id, 0))
    salient = masks.saliency("train/5.png", (HEIGHT, WIDTH))
    assert salient is not None
    assert np.array_equal(salient == 1, mask)


def test_pixels_of_several_classes_are_ignored(tmp_path: Path) -> None:
    path = write_coco(tmp_path, tuple(SEGMENTATIONS))
    objects = by_pycocotools(path)
    cats, dogs = (np.any([mask for class_id, mask in objects if class_id == wanted], axis=0) for wanted in (1, 2))
    expected = np.select([cats & dogs, cats, dogs], [IGNORE, 1, 2], 0)
    class_map = read_instance_masks(tmp_path).class_map("train/5.png", (HEIGHT, WIDTH))
    assert (expected == IGNORE).any()
    assert class_map is not None
    assert np.array_equal(class_map, expected)


def test_objects_of_a_class_called_background_are_background(tmp_path: Path) -> None:
    path = write_coco(tmp_path, tuple(SEGMENTATIONS))
    path.write_text(path.read_text(encoding="utf-8").replace('"cat"', '"background"'), encoding="utf-8")
    dogs = np.any([mask for class_id, mask in by_pycocotools(path) if class_id == 2], axis=0)
    class_map = read_instance_masks(tmp_path).class_map("train/5.png", (HEIGHT, WIDTH))
    assert class_map is not None
    assert np.array_equal(class_map, dogs)


def test_edges_are_the_inner_outlines_without_those_of_crowds(tmp_path: Path) -> None:
    path = write_coco(tmp_path, ("compressed", "crowd"))
    (_, circle), _ = by_pycocotools(path)
    around = np.pad(circle, 1, mode="edge")
    inner = circle & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    edges = read_instance_masks(tmp_path).edges("train/5.png", (HEIGHT, WIDTH))
    assert edges is not None
    assert np.array_equal(edges == 1, circle & ~inner)


def test_an_image_without_objects_is_background_and_an_unlisted_one_is_not_labelled(tmp_path: Path) -> None:
    write_coco(tmp_path, ("triangle",), folder="instances.json")
    masks = read_instance_masks(tmp_path)
    for make in (InstanceMasks.class_map, InstanceMasks.saliency, InstanceMasks.edges):
        empty = make(masks, "6.png", (HEIGHT, WIDTH))
        assert empty is not None
        assert not empty.any()
        assert make(masks, "7.png", (HEIGHT, WIDTH)) is None


def test_an_image_with_an_object_without_a_mask_is_not_labelled(tmp_path: Path) -> None:
    path = write_coco(tmp_path, ("triangle", "compressed"))
    document = json.loads(path.read_text(encoding="utf-8"))
    document["annotations"][1].update(image_id=6, segmentation=[])
    path.write_text(json.dumps(document), encoding="utf-8")
    masks = read_instance_masks(tmp_path)
    assert masks.class_map("train/5.png", (HEIGHT, WIDTH)) is not None
    assert masks.class_map("train/6.png", (HEIGHT, WIDTH)) is None


def test_wrong_masks_are_refused(tmp_path: Path) -> None:
    path = write_coco(tmp_path, ("triangle", "compressed"))
    document = json.loads(path.read_text(encoding="utf-8"))
    document["annotations"][0]["segmentation"] = [[1, 2]]
    document["annotations"][1]["segmentation"]["size"] = [WIDTH, HEIGHT]
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UserError, match=r"annotations\[0\] 1: .* neither polygons nor run lengths"):
        read_instance_masks(tmp_path).class_map("train/5.png", (HEIGHT, WIDTH))
    del document["annotations"][0]
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UserError, match="is of 40x60, its image is 60x40"):
        read_instance_masks(tmp_path).class_map("train/5.png", (HEIGHT, WIDTH))
    del document["annotations"][0]["segmentation"]
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UserError, match='has no "segmentation" of any image'):
        read_instance_masks(tmp_path)


def test_a_validation_file_without_annotations_does_not_set_the_classes(tmp_path: Path) -> None:
    write_coco(tmp_path, ("triangle", "compressed"))
    path = write_coco(tmp_path, (), folder="annotations/instances_val.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    del document["categories"]
    path.write_text(json.dumps(document), encoding="utf-8")
    masks = read_instance_masks(tmp_path)
    assert masks.classes == ("cat", "dog")
    assert masks.class_map("train/5.png", (HEIGHT, WIDTH)) is not None
