"""The layout of torchvision's ImageFolder: classification.

    [train/ and val/] CLASS/NAME.jpg

An image that links add to a second split is in the first of the two alone.

Left out: hidden folders and files, as the copies that notebooks make.
"""

import os
from pathlib import Path

from export.errors import UserError
from fbnetv5.data.folder import image_record
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.image_files import image_names_within, list_image_names
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.layout import Layout, split_folders
from fbnetv5.data.notes import Notes
from fbnetv5.data.real_paths import RealPaths
from fbnetv5.data.split_names import TRAINING, VALIDATION, as_test_split
from fbnetv5.data.targets import CLASS, Target


def is_image_folder(root: Path) -> bool:
    base = (_splits_of_classes(root, TRAINING) or [root])[0]
    return len(_classes(base)) > 1


def read_image_folder(root: Path, headers: HeaderIndex) -> LabelledImages:
    """A folder of torchvision's ImageFolder layout; images are named [SPLIT/]CLASS/FILE."""
    splits = [root]
    if _splits_of_classes(root, TRAINING):
        splits = _splits_of_classes(root, TRAINING + VALIDATION)
    else:
        _refuse_splits(root)
    filled = {split: _classes(split) for split in splits}
    class_names = {folder.name for folders in filled.values() for folder in folders}
    labels = tuple(folder.name for folder in _folders(splits[0]) if folder.name in class_names)
    images: dict[str, ImageRecord] = {}
    test: set[str] = set()
    notes, real_path, first_splits = Notes(), RealPaths(), dict[str, Path]()
    for split, folders in filled.items():
        for folder in folders:
            if folder.name not in labels:
                raise UserError(f"{folder} is of a class that {splits[0]} has not. Rename or remove it")
            listed = _class_records(folder, labels.index(folder.name), headers)
            records = {
                name: record
                for name, record in listed.items()
                if first_splits.setdefault(real_path(record.path), split) == split
            }
            notes.add(f"images of {split.name} that another split has too, left out of it", len(listed) - len(records))
            prefix = folder.relative_to(root).as_posix()
            images |= {f"{prefix}/{name}": record for name, record in records.items()}
            if split.name.lower() in VALIDATION and split != root:
                test |= {f"{prefix}/{name}" for name in records}
    targets = {"label": Target(kind=CLASS, classes=labels)}
    return LabelledImages(images, targets, test=as_test_split(test, images), notes=notes.lines())


def _class_records(folder: Path, label: int, headers: HeaderIndex) -> dict[str, ImageRecord]:
    """Records of the images in a class's folder and in folders within, by path in the folder."""
    records: dict[str, ImageRecord] = {}
    for name in sorted(image_names_within(folder), key=lambda name: name.split("/")):
        records[name] = image_record(f"{folder}{os.sep}{name}", headers)
        records[name].label = label
    return records


def _splits_of_classes(root: Path, names: tuple[str, ...]) -> list[Path]:
    """The splits that contain folders of images; a folder that contains images itself may be a class of that name."""
    return [folder for folder in split_folders(root, names) if _classes(folder)]


def _refuse_splits(root: Path) -> None:
    """Refuse validation splits of a folder without a training split: they would be classes."""
    for folder in _splits_of_classes(root, VALIDATION):
        if not list_image_names(folder):
            raise UserError(
                f"{folder} looks like a split, but there is no training split. Put the images to learn from into "
                f"{root / TRAINING[0]}/CLASS; or, if {folder.name!r} is a class, its images directly into its folder"
            )


def _classes(folder: Path) -> list[Path]:
    """The sub-folders that contain an image."""
    return [path for path in _folders(folder) if next(image_names_within(path), None) is not None]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


IMAGE_FOLDER = Layout(
    name="ImageFolder",
    looks_like="a folder of images for each of at least two classes, or train/ and val/ with such folders",
    fits=is_image_folder,
    read=read_image_folder,
)
