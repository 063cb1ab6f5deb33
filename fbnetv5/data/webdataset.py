"""WebDataset's tar files (https://github.com/webdataset/webdataset): all tasks.

    train-000000.tar, val-000000.tar    or train/000000.tar; in each tar file, for every image:

    KEY.jpg                 also jpeg, png, webp, bmp, tif or tiff
    KEY.cls                 name or number of the class of the image
    KEY.json                {"label": ..., "objects": ...}, see ``fbnetv5.data.metadata_folder``
    KEY.mask.png            a map, see ``fbnetv5.data.maps``; also seg.png, and depth.png, normals.png and so on

A key is a path up to its first dot after the last slash. The name of a tar file or of its folder says whether its
images are of the test split. The first opening reads the headers of all members and images, and labels; the members
(``fbnetv5.data.tar_index``) and the headers of images are kept for the next one. Images are then read by their place in
the tar file, in any order. For many images, convert the data set into Parquet shards.

Left out: compressed tar files, in which no place can be read without all before it; and members of other types.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from reprlib import repr as short
from typing import Any

from export.errors import UserError
from fbnetv5.data.folder import image_record
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.image_files import SUFFIXES, StoredFile, StoredPart, image_names_within, read_bytes
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.layout import Layout
from fbnetv5.data.maps import FORMATS, LOSSLESS_SUFFIXES
from fbnetv5.data.metadata_rows import Row, add_boxes, add_labels, add_maps, class_number, map_targets, objects_of
from fbnetv5.data.notes import Notes
from fbnetv5.data.split_names import as_test_split, is_validation
from fbnetv5.data.tar_index import Member, tar_index

MAP_NAMES = {"seg": "mask"} | {target: target for target in FORMATS}
MAP_TYPES = {f"{name}{suffix}": target for name, target in MAP_NAMES.items() for suffix in LOSSLESS_SUFFIXES}
"""Of a member after the key and a dot, and the target."""
IMAGE_TYPES = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)
LABEL_TYPES = ("cls", "json")
Samples = dict[str, dict[str, StoredFile]]
"""By key, the members by type."""
OWN_KEYS = {"label", "objects"}
"""Of a JSON member."""


def tar_files(root: Path) -> list[Path]:
    """The tar files of a folder and of the folders in it, sorted."""
    paths = [*root.glob("*.tar"), *root.glob("*/*.tar")]
    return sorted(path for path in paths if path.name[0] != "." and not path.parent.name.startswith("."))


def is_webdataset(root: Path) -> bool:
    """Whether a folder has tar files and no image beside them, as unpacked archives are."""
    return bool(tar_files(root)) and next(image_names_within(root), None) is None


def read_webdataset(root: Path, headers: HeaderIndex) -> LabelledImages:
    """A folder of this layout; images are named TAR/KEY.TYPE.

    Raises:
        UserError: a tar file is damaged, a label is wrong, or there is no label at all.
    """
    notes, rows = Notes(), list[Row]()
    images: dict[str, ImageRecord] = {}
    test: set[str] = set()
    for path, tar, samples in _samples_of_tars(root):
        for key, members in samples.items():
            kind = next((kind for kind in IMAGE_TYPES if kind in members), None)
            if kind is None:
                notes.add("samples without an image left out")
                continue
            for other in sorted(members.keys() - {kind, *LABEL_TYPES, *MAP_TYPES}):
                notes.add(f"members of type {other} left out")
            row = _row(members, f"{path}: {key}", path, notes)
            record = image_record(members[kind], headers)
            add_boxes(record, row)
            add_maps(record, {MAP_TYPES[name]: members[name] for name in MAP_TYPES if name in members}, headers)
            name = f"{tar}/{key}.{kind}"
            images[name] = record
            rows.append(row)
            if is_validation(tar):
                test.add(name)
    if not images:
        raise UserError(
            f"{tar_files(root)[0]} has no image: a sample is KEY.jpg with KEY.cls, KEY.json or KEY.mask.png"
        )
    targets = add_labels(rows, list(images.values())) | map_targets(images, headers)
    unlabelled = [name for name, image in images.items() if not image.is_labelled]
    if len(unlabelled) == len(images):
        raise UserError(f"{tar_files(root)[0]} has no label of any image: add KEY.cls, KEY.json or KEY.mask.png")
    notes.add("images without a label left out", len(unlabelled))
    images = {name: image for name, image in images.items() if image.is_labelled}
    test &= images.keys()
    return LabelledImages(images, targets, test=as_test_split(test, images), notes=notes.lines())


def _samples_of_tars(root: Path) -> Iterator[tuple[Path, str, Samples]]:
    """Each tar file, its path in the folder, and its samples."""
    with tar_index(root) as index:
        for path in tar_files(root):
            members = index.members(path, [f".{kind}" for kind in LABEL_TYPES])
            yield path, path.relative_to(root).as_posix(), samples_of(path, members)


def samples_of(path: Path, listed: Iterable[Member]) -> Samples:
    """The members of each sample of a tar file by type, which is in lower case.

    Raises:
        UserError: a sample has two members of one type.
    """
    members: Samples = {}
    for name, start, length, text in listed:
        folder, slash, file = name.rpartition("/")
        stem, _, kind = file.partition(".")
        if not stem or not kind:
            continue
        sample = members.setdefault(f"{folder}{slash}{stem}", {})
        if kind.lower() in sample:
            raise UserError(f"{path} has two members {name!r}. Write the file again with a key for each sample")
        place = f"{path}, {name!r}"
        part = StoredPart.of(place, str(path), start, length)
        sample[kind.lower()] = part if text is None else StoredFile(place, text.encode())
    return members


def _row(members: dict[str, StoredFile], where: str, path: Path, notes: Notes) -> Row:
    """The labels of a sample, apart from maps."""
    values: dict[str, Any] = {}
    if "json" in members:
        values = _json(members["json"])
        notes.add(
            "JSON members with keys that are not read, other than label and objects", not values.keys() <= OWN_KEYS
        )
    if "cls" in members:
        text = read_bytes(members["cls"]).decode(errors="replace").strip()
        number = class_number(text)
        values["label"] = text if number is None else number
    return Row(values=values, folder=path.parent, where=where, objects=objects_of(values.get("objects"), where))


def _json(member: StoredFile) -> dict[str, Any]:
    try:
        values = json.loads(read_bytes(member))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{member} is not valid JSON ({error}). Write the file again") from None
    if not isinstance(values, dict):
        raise UserError(f"{member} must be a JSON object, got {short(values)}")
    return values


WEBDATASET = Layout(
    name="WebDataset tar files",
    looks_like=".tar files with KEY.jpg and KEY.cls, KEY.json or KEY.mask.png for each image",
    fits=is_webdataset,
    read=read_webdataset,
    has_files=False,
)
