"""The images of the fixture ``image_folder`` in the layouts that data sets come in."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image

from fbnetv5.data.scenes import CLASSES

SPLITS = {"train": range(18), "val": range(18, 24)}
"""Which of the 24 images go where."""


def as_coco(source: Path, root: Path) -> Path:
    """annotations/instances_train.json with train/, and val likewise."""
    document: dict[str, Any] = json.loads((source / "instances.json").read_text(encoding="utf-8"))
    (root / "annotations").mkdir(parents=True)
    for split, numbers in SPLITS.items():
        ids = {number + 1 for number in numbers}
        part = {
            "images": [image for image in document["images"] if image["id"] in ids],
            "annotations": [annotation for annotation in document["annotations"] if annotation["image_id"] in ids],
            "categories": document["categories"],
        }
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(part), encoding="utf-8")
        (root / split).mkdir()
        for image in part["images"]:
            shutil.copy(source / "images" / image["file_name"], root / split)
    return root


def as_ade20k(source: Path, root: Path) -> Path:
    """images/training and annotations/training, validation likewise, and the names of the classes."""
    for split, numbers in {"training": SPLITS["train"], "validation": SPLITS["val"]}.items():
        for folder, kind in (("images", "images"), ("annotations", "masks")):
            (root / folder / split).mkdir(parents=True)
            for number in numbers:
                shutil.copy(source / kind / f"{number:02d}.png", root / folder / split)
    rows = [f"{n + 1}\t0.1\t10\t10\t1\t{name}" for n, name in enumerate(CLASSES["mask"][1:])]
    (root / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tStuff\tName", *rows]) + "\n")
    return root


def as_image_folder(source: Path, root: Path) -> Path:
    """train/CLASS and val/CLASS, with a folder for every class in both."""
    document = json.loads((source / "instances.json").read_text(encoding="utf-8"))
    for split, numbers in SPLITS.items():
        for label in CLASSES["label"]:
            (root / split / label).mkdir(parents=True)
        for number in numbers:
            image = document["images"][number]
            shutil.copy(source / "images" / image["file_name"], root / split / image["label"])
    return root


def as_yolo(source: Path, root: Path, *, polygons: bool = False) -> Path:
    """data.yaml, images/train with labels/train, and val likewise; boxes as rectangles of four points if polygons."""
    document = json.loads((source / "instances.json").read_text(encoding="utf-8"))
    for split, numbers in SPLITS.items():
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for image in (document["images"][number] for number in numbers):
            shutil.copy(source / "images" / image["file_name"], root / "images" / split)
            rows = [row for row in document["annotations"] if row["image_id"] == image["id"]]
            lines = [yolo_line(row, image, polygon=polygons) for row in rows]
            path = root / "labels" / split / f"{Path(image['file_name']).stem}.txt"
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    names = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(CLASSES["boxes"]))
    text = f"path: {root.name}\ntrain: images/train\nval: images/val\nnames:\n{names}"
    (root / "data.yaml").write_text(text, encoding="utf-8")
    return root


def yolo_line(row: dict[str, Any], image: dict[str, Any], *, polygon: bool) -> str:
    """A line of a label file from an annotation of COCO."""
    x, y, w, h = row["bbox"]
    values = [x, y, x + w, y, x + w, y + h, x, y + h] if polygon else [x + w / 2, y + h / 2, w, h]
    sizes = [image["width"], image["height"]] * 4
    relative = (repr(value / size) for value, size in zip(values, sizes, strict=False))
    return f"{row['category_id'] - 1} {' '.join(relative)}"


def as_voc(source: Path, root: Path) -> Path:
    """JPEGImages/, Annotations/ and ImageSets/Main/ with train.txt and val.txt, whose lines end in a number."""
    document = json.loads((source / "instances.json").read_text(encoding="utf-8"))
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    names = {category["id"]: category["name"] for category in document["categories"]}
    for image in document["images"]:
        shutil.copy(source / "images" / image["file_name"], root / "JPEGImages")
        annotation = ET.Element("annotation")
        size = ET.SubElement(annotation, "size")
        for side in ("width", "height"):
            ET.SubElement(size, side).text = str(image[side])
        for row in (row for row in document["annotations"] if row["image_id"] == image["id"]):
            item = ET.SubElement(annotation, "object")
            ET.SubElement(item, "name").text = names[row["category_id"]]
            x, y, w, h = row["bbox"]
            corners = ET.SubElement(item, "bndbox")
            for side, value in {"xmin": x + 1, "ymin": y + 1, "xmax": x + w, "ymax": y + h}.items():
                ET.SubElement(corners, side).text = str(value)
        ET.ElementTree(annotation).write(root / "Annotations" / f"{Path(image['file_name']).stem}.xml")
    for split, numbers in SPLITS.items():
        text = "".join(f"{number:02d}  1\n" for number in numbers)
        (root / f"ImageSets/Main/{split}.txt").write_text(text, encoding="utf-8")
    return root


def as_metadata_folder(source: Path, root: Path) -> Path:
    """train/metadata.jsonl and validation/metadata.jsonl with names of classes, boxes, masks and a column of text."""
    document = json.loads((source / "instances.json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in document["categories"]}
    for split, numbers in {"train": SPLITS["train"], "validation": SPLITS["val"]}.items():
        (root / split / "masks").mkdir(parents=True)
        rows = []
        for image in (document["images"][number] for number in numbers):
            name, items = image["file_name"], [row for row in document["annotations"] if row["image_id"] == image["id"]]
            shutil.copy(source / "images" / name, root / split)
            shutil.copy(source / "masks" / name, root / split / "masks")
            objects = {
                "bbox": [row["bbox"] for row in items],
                "categories": [names[row["category_id"]] for row in items],
            }
            row = {"file_name": name, "label": image["label"], "objects": objects, "mask_file_name": f"masks/{name}"}
            rows.append(json.dumps(row | {"text": Path(name).stem}))
        (root / split / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return root


CITYSCAPES_IDS = (255, 7, 8, 11, 12, 13, 17, 19, 20, 21, 22)
"""The id in a file for each class of the scenes: the background is ignored, the others are the first ten classes."""


def as_cityscapes(source: Path, root: Path) -> Path:
    """leftImg8bit/ and gtFine/ with labelIds, and an unlabelled test split."""
    for split, numbers in {**SPLITS, "test": range(2)}.items():
        for number in numbers:
            start = f"{split}/ulm/ulm_{number:06d}_000019"
            image, label = root / f"leftImg8bit/{start}_leftImg8bit.png", root / f"gtFine/{start}_gtFine_labelIds.png"
            for path in (image, label):
                path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / f"images/{number:02d}.png", image)
            ids = np.array(CITYSCAPES_IDS, np.uint8)[np.array(Image.open(source / f"masks/{number:02d}.png"))]
            Image.fromarray(ids).save(label)
    return root


COLOURS = np.array([[n * (n % 3 == channel) for channel in range(3)] for n in range(11)], np.uint8)
"""A colour for each class of the scenes: black, and others of one channel."""


def as_camvid(source: Path, root: Path) -> Path:
    """train/ and train_labels/, val likewise, and class_dict.csv, where the background is void."""
    for split, numbers in SPLITS.items():
        (root / split).mkdir(parents=True)
        (root / f"{split}_labels").mkdir()
        for number in numbers:
            shutil.copy(source / f"images/{number:02d}.png", root / split)
            colours = COLOURS[np.array(Image.open(source / f"masks/{number:02d}.png"))]
            Image.fromarray(colours).save(root / f"{split}_labels/{number:02d}_L.png")
    names = ("Void", *CLASSES["mask"][1:])
    rows = [f"{name},{','.join(map(str, colour))}" for name, colour in zip(names, COLOURS.tolist(), strict=True)]
    (root / "class_dict.csv").write_text("\n".join(["name,r,g,b", *rows]), encoding="utf-8")
    return root


def as_cvat(source: Path, root: Path) -> Path:
    """annotations.xml with the subsets Train and Validation, a tag and rectangles for each image."""
    document = json.loads((source / "instances.json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in document["categories"]}
    annotations = ET.Element("annotations")
    labels = ET.SubElement(ET.SubElement(ET.SubElement(annotations, "meta"), "project"), "labels")
    kinds = [(name, "any") for name in names.values()] + [(name, "tag") for name in document["labels"]]
    for name, kind in kinds:
        label = ET.SubElement(labels, "label")
        ET.SubElement(label, "name").text, ET.SubElement(label, "type").text = name, kind
    for number, record in enumerate(document["images"]):
        subset = "Train" if number in SPLITS["train"] else "Validation"
        (root / "images" / subset).mkdir(parents=True, exist_ok=True)
        shutil.copy(source / "images" / record["file_name"], root / "images" / subset)
        attributes = {"name": record["file_name"], "subset": subset}
        image = ET.SubElement(annotations, "image", attributes | {key: str(record[key]) for key in ("width", "height")})
        ET.SubElement(image, "tag", {"label": record["label"]})
        for row in (row for row in document["annotations"] if row["image_id"] == record["id"]):
            x, y, w, h = row["bbox"]
            corners = {"xtl": x, "ytl": y, "xbr": x + w, "ybr": y + h}
            label_of = {"label": names[row["category_id"]]}
            ET.SubElement(image, "box", label_of | {key: repr(value) for key, value in corners.items()})
    ET.indent(annotations)
    ET.ElementTree(annotations).write(root / "annotations.xml", encoding="utf-8")
    return root


def as_label_studio(source: Path, root: Path) -> Path:
    """project-1.json and images/ with the names of uploads, a choice and rectangles for each image."""
    document = json.loads((source / "instances.json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in document["categories"]}
    (root / "images").mkdir(parents=True)
    tasks = []
    for image in document["images"]:
        name = f"1a2b3c4d-{image['file_name']}"
        shutil.copy(source / "images" / image["file_name"], root / "images" / name)
        results: list[dict[str, Any]] = [{"type": "choices", "value": {"choices": [image["label"]]}}]
        for row in (row for row in document["annotations"] if row["image_id"] == image["id"]):
            sizes = [image["width"], image["height"]] * 2
            sides = zip(("x", "y", "width", "height"), row["bbox"], sizes, strict=True)
            value = {key: 100 * pixels / size for key, pixels, size in sides} | {"rotation": 0}
            labels = {"rectanglelabels": [names[row["category_id"]]]}
            results.append({"type": "rectanglelabels", "value": value | labels})
        annotations = [{"was_cancelled": True, "result": []}, {"result": results}]
        tasks.append({"id": image["id"], "data": {"image": f"/data/upload/1/{name}"}, "annotations": annotations})
    (root / "project-1.json").write_text(json.dumps(tasks, indent=2), encoding="utf-8")
    return root


def add_member(tar: tarfile.TarFile, name: str, content: bytes | str) -> None:
    """Add a file with this content to a tar file."""
    content = content.encode() if isinstance(content, str) else content
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def as_webdataset(source: Path, root: Path) -> Path:
    """train-0.tar and val-0.tar with an image, class, JSON and mask for each sample."""
    document = json.loads((source / "instances.json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in document["categories"]}
    root.mkdir()
    for split, numbers in SPLITS.items():
        with tarfile.open(root / f"{split}-0.tar", "w") as tar:
            for image in (document["images"][number] for number in numbers):
                items = [row for row in document["annotations"] if row["image_id"] == image["id"]]
                categories = [names[row["category_id"]] for row in items]
                objects = {"bbox": [row["bbox"] for row in items], "categories": categories}
                key = f"a.b/{Path(image['file_name']).stem}"
                add_member(tar, f"{key}.png", (source / "images" / image["file_name"]).read_bytes())
                add_member(tar, f"{key}.cls", image["label"])
                add_member(tar, f"{key}.json", json.dumps({"objects": objects}))
                add_member(tar, f"{key}.seg.png", (source / "masks" / image["file_name"]).read_bytes())
    return root


def draw(root: Path, *names: str) -> Path:
    """A folder of small images of these names."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return root


ARRANGED: dict[str, Callable[[Path, Path], Path]] = {
    "COCO": as_coco,
    "ADE20K": as_ade20k,
    "PASCAL VOC": as_voc,
    "YOLO": partial(as_yolo, polygons=True),
    "ImageFolder": as_image_folder,
    "Hugging Face image folder": as_metadata_folder,
    "Cityscapes": as_cityscapes,
    "CamVid": as_camvid,
    "CVAT": as_cvat,
    "Label Studio": as_label_studio,
    "WebDataset tar files": as_webdataset,
}
"""By the name of a layout: (source, root) -> root, the images of ``source`` in that layout."""
