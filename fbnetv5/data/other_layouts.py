"""Marks of layouts that are not read: a folder with such a mark is refused, and not read as something else.

Nearly any folder of folders of images fits ImageFolder, with classes such as "train" and "test" or "JPEGImages". Each
mark below belongs to a layout whose labels would be lost then.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from export.errors import UserError
from fbnetv5.data.colour_maps import folder_pairs
from fbnetv5.data.image_files import is_image, list_image_names
from fbnetv5.data.split_names import TRAINING, VALIDATION

HEAD_BYTES = 4096
COCO_KEYS = (b'"images"', b'"annotations"', b'"categories"')
"""Of which a COCO file has two within its first and last bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A sign of one layout."""

    layout: str
    find: Callable[[Path], str | None]
    """(folder) -> what was seen there, a path relative to it; None without the mark."""
    remedy: str


def refuse_other_layout(root: Path) -> None:
    """Raise UserError if a folder has the mark of a layout that is not read as it is there."""
    for mark in MARKS:
        if (seen := mark.find(root)) is not None:
            raise UserError(f"{root} looks like {mark.layout}, because it has {seen}. {mark.remedy}")


def _places(root: Path) -> Iterator[Path]:
    """The folder and its splits."""
    yield root
    splits = (path for path in root.iterdir() if path.name.lower() in TRAINING + VALIDATION and path.is_dir())
    yield from sorted(splits)


def _file(*patterns: str) -> Callable[[Path], str | None]:
    """A file in the folder or in a split."""

    def find(root: Path) -> str | None:
        matches = (path for place in _places(root) for pattern in patterns for path in sorted(place.glob(pattern)))
        first = next(matches, None)
        return None if first is None else first.relative_to(root).as_posix()

    return find


def _folders(*names: str) -> Callable[[Path], str | None]:
    """Sub-folders, all of them."""

    def find(root: Path) -> str | None:
        return " and ".join(f"{name}/" for name in names) if all((root / name).is_dir() for name in names) else None

    return find


def _yolo_labels(root: Path) -> str | None:
    for place in _places(root):
        labels = place / "labels"
        if (place / "images").is_dir() and labels.is_dir() and next(labels.rglob("*.txt"), None):
            return f"{(labels.relative_to(root)).as_posix()}/*.txt beside images/"
    return None


def _label_folder(root: Path) -> str | None:
    pairs = [(images, labels) for images, labels in folder_pairs(root) if list_image_names(labels)]
    return next((f"{labels.name}/ beside {images.name}/" for images, labels in pairs), None)


def _coco_file(root: Path) -> str | None:
    places = [*_places(root), root / "annotations", root / "labels"]
    for path in (path for place in places for path in sorted(place.glob("*.json"))):
        if _is_coco_file(path):
            return path.relative_to(root).as_posix()
    return None


def _is_coco_file(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(HEAD_BYTES)
            file.seek(max(0, path.stat().st_size - HEAD_BYTES))
            text = start + file.read()
    except OSError:
        return False
    return sum(key in text for key in COCO_KEYS) > 1


def _json_per_image(root: Path) -> str | None:
    """A .json file beside an image of its name, in the folder, a split or a folder of images."""
    for place in [*_places(root), root / "images"]:
        names = {path.name for path in place.iterdir()} if place.is_dir() else set()
        stems = {name.rpartition(".")[0] for name in names if is_image(name)}
        if pairs := sorted(name for name in names if name.endswith(".json") and name.removesuffix(".json") in stems):
            return f"{pairs[0]} beside an image of that name in {place.relative_to(root).as_posix()}/"
    return None


MARKS = (
    Mark(
        layout="a data set in Parquet files without its index.json",
        find=_file("data/*.parquet", "*.parquet"),
        remedy="Repeat fbnetv5 convert, which finishes an interrupted conversion, or copy index.json as well; shards "
        "of other programs are not read",
    ),
    Mark(
        layout="the YOLO layout without its data.yaml",
        find=_yolo_labels,
        remedy='Add a data.yaml with the lines "train: FOLDER", "val: FOLDER" and "names: [...]"',
    ),
    Mark(
        layout="Darknet's form of YOLO",
        find=_file("_darknet.labels"),
        remedy="Export it as YOLO with a data.yaml, or as COCO",
    ),
    Mark(
        layout="COCO with its file in another place",
        find=_coco_file,
        remedy="Move the file to annotations/instances_train.json and its images to images/",
    ),
    Mark(
        layout="a data set of PASCAL VOC in a folder of its own",
        find=_file("VOC20[0-9][0-9]/Annotations", "VOC20[0-9][0-9]/JPEGImages"),
        remedy="Name that folder, DIR/VOC2012 or the like",
    ),
    Mark(
        layout="PASCAL VOC without its JPEGImages/",
        find=_file("Annotations/*.xml", "annotations/*.xml", "SegmentationClass/*.png", "ImageSets/Main/*.txt"),
        remedy="Put the images into JPEGImages/ and their .xml files into Annotations/",
    ),
    Mark(
        layout="CamVid without a list of its classes",
        find=_label_folder,
        remedy="Add class_dict.csv with the line name,r,g,b and a line for each class; or, where labels are ids, "
        "codes.txt with a name per line",
    ),
    Mark(
        layout="mmsegmentation's layout",
        find=_folders("img_dir", "ann_dir"),
        remedy="Put images and class maps of the same names into images/ and masks/",
    ),
    Mark(
        layout="CreateML's, TensorFlow's or a table's form of an export",
        find=_file("_annotations.createml.json", "*.tfrecord", "_annotations.csv", "_classes.csv"),
        remedy="Export it as COCO, YOLO with a data.yaml, or PASCAL VOC",
    ),
    Mark(
        layout="LabelMe's layout",
        find=_json_per_image,
        remedy="Convert it to COCO, with annotations/instances_train.json and images/",
    ),
)
"""The first mark that a folder has is named."""
