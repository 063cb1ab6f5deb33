"""A user's own pictures: one folder, three tasks, and any label may be missing.

    images/NAME.jpg         jpg, jpeg, png, webp or bmp
    instances.json          COCO's format (Lin et al., arXiv:1405.0312), plus what COCO has no place for:
                            "label" of an image, top-level "labels" and "mask_classes" (names in the order of ids)
    masks/NAME.png          class id of each pixel (grey or palette), 255 where nobody knows

A picture that lacks a task's labels trains the other tasks: no "label"; not listed in "images" (its boxes are unknown;
listed without annotations says "nothing here"); no mask. What JSON, file names and picture headers can tell is checked
on opening, so that a search does not die of it hours later; a picture whose pixels cannot be read says so when it is.
Sizes and boxes refer to the picture as it is shown, after its EXIF orientation.

Left out: polygons and crowds (``iscrowd`` annotations are skipped), and keeping the aspect when pictures are resized.
"""

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from export.errors import UserError
from fbnetv5.data.sample import ABSENT, IGNORE, Classes, Sample

T = TypeVar("T")
Corners = tuple[float, float, float, float]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
OUTSIDE_PIXELS = 1.0
"""A box may reach this far outside of its picture, as rounding makes it; it is then cut."""
UNLIKELY_PIXELS = 1 << 31
"""No coordinate reaches this; infinity and "not a number" fail the comparison too."""
EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
DEEP_MODES = ("I", "F")
"""First letters of Pillow's modes of more than 8 bits a channel."""
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises on a damaged file."""


@dataclass(slots=True, kw_only=True)
class Labelled:
    """A picture and its labels, in the file's own pixels."""

    path: Path
    size: tuple[int, int]
    """(H, W), upright."""
    label: int = ABSENT
    boxes: list[Corners] | None = None
    """(x0, y0, x1, y1)."""
    box_labels: list[int] = field(default_factory=list)
    mask: Path | None = None


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The picture at ``path``, whose pixels are read on use.

    Raises:
        UserError: it cannot be read, now or within the block.
    """
    try:
        with Image.open(path) as image:
            yield image
    except PILLOW_ERRORS as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot read {path}: {reason}. Replace the file or remove it") from None


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says."""
    return ImageOps.exif_transpose(image) if "exif" in image.info else image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(H, W) that ``upright`` gives, from the header alone."""
    turned = "exif" in image.info and image.getexif().get(EXIF_ORIENTATION) in SIDEWAYS
    return (image.width, image.height) if turned else (image.height, image.width)


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture."""
    return path.suffix.lower() in SUFFIXES and path.name[0] != "."


def list_pictures(folder: Path) -> dict[str, Labelled]:
    """The pictures in a folder by file name, in the order of their names, headers read."""
    if not folder.is_dir():
        raise UserError(f"folder {folder} does not exist: a picture set keeps its pictures there")
    paths = sorted(path for path in folder.iterdir() if is_picture(path))
    if not paths:
        raise UserError(f"{folder} holds no picture: put {', '.join(SUFFIXES)} files there")
    pictures: dict[str, Labelled] = {}
    by_stem: dict[str, Path] = {}
    for path in paths:
        if (other := by_stem.setdefault(path.stem, path)) is not path:
            raise UserError(f"{other} and {path} share one name, so one mask would serve both. Rename one of them")
        pictures[path.name] = read_header(path)
    return pictures


def read_header(path: Path) -> Labelled:
    """The picture at ``path``, without labels yet."""
    with opened(path) as image:
        if image.mode[0] in DEEP_MODES:
            raise UserError(f"{path} has more than 8 bits a channel (mode {image.mode}). Save it with 8")
        return Labelled(path=path, size=upright_size(image))


def entry(record: Any, key: str, kind: type[T], where: str) -> T:
    """``record[key]``, of type ``kind``.

    Raises:
        UserError: the record is no object, lacks the key, or holds another type there.
    """
    if not isinstance(record, dict):
        raise UserError(f"{where} must be an object, got {short(record)}")
    if key not in record:
        raise UserError(f'{where} lacks "{key}": add it')
    value = record[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f'{where}: "{key}" must be of type {kind.__name__}, got {short(value)}')
    return value


def names(document: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    """A top-level list of distinct names, () where the document has none."""
    if key not in document:
        return ()
    listed = entry(document, key, list, where)
    if not all(isinstance(name, str) and name for name in listed) or len(set(listed)) != len(listed):
        raise UserError(f'{where}: "{key}" must be a list of distinct names, got {short(listed)}')
    return tuple(listed)


def read_document(path: Path) -> dict[str, Any]:
    """The JSON object at ``path``."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. Make it a readable file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON in UTF-8 ({error}). Export it again") from None
    if not isinstance(document, dict):
        raise UserError(f'{path} must hold a JSON object with "images", got {short(document)}')
    return document


def listed_pictures(document: dict[str, Any], pictures: dict[str, Labelled], where: str) -> dict[int, dict[str, Any]]:
    """The records of "images" by id, each checked against its file."""
    records: dict[int, dict[str, Any]] = {}
    seen: set[str] = set()
    for position, record in enumerate(entry(document, "images", list, where)):
        here = f"{where}: images[{position}]"
        key, name = entry(record, "id", int, here), entry(record, "file_name", str, here)
        stated = entry(record, "height", int, here), entry(record, "width", int, here)
        if name not in pictures:
            raise UserError(f"{here} lists {name!r}, which is not in images/. Add the file or remove its record")
        if name in seen or key in records:
            raise UserError(f"{here} repeats the file name {name!r} or the id {key}. Keep one record per picture")
        if stated != pictures[name].size:
            height, width = pictures[name].size
            raise UserError(
                f"{here} says {name!r} is {stated[1]}x{stated[0]}, its file is {width}x{height} "
                "(width x height, upright). Correct the record and its boxes"
            )
        seen.add(name)
        records[key] = record
    return records


def set_labels(
    records: dict[int, dict[str, Any]], pictures: dict[str, Labelled], declared: tuple[str, ...], where: str
) -> tuple[str, ...]:
    """Give each listed picture its class; return the names of the classes."""
    given = {record["file_name"]: record["label"] for record in records.values() if record.get("label") is not None}
    known = declared or tuple(sorted({label for label in given.values() if isinstance(label, str)}))
    for name, label in given.items():
        if isinstance(label, str) and label in known:
            pictures[name].label = known.index(label)
        elif isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(known):
            pictures[name].label = label
        else:
            raise UserError(
                f'{where}: label {short(label)} of {name!r} is none of the {len(known)} "labels". '
                'Use a name or an index of the top-level "labels" list'
            )
    return known


def read_categories(document: dict[str, Any], where: str) -> dict[int, str]:
    """Names of what boxes hold by category id, in the order of the ids."""
    categories: dict[int, str] = {}
    for position, record in enumerate(entry(document, "categories", list, where) if "categories" in document else ()):
        here = f"{where}: categories[{position}]"
        key, name = entry(record, "id", int, here), entry(record, "name", str, here)
        if key in categories or name in categories.values():
            raise UserError(f"{here} repeats the id {key} or the name {name!r}. Keep one category per id and name")
        categories[key] = name
    return dict(sorted(categories.items()))


def corners(bbox: list[Any], size: tuple[int, int], where: str) -> Corners:
    """COCO's [x, y, w, h] as corners, inside of the picture."""
    if len(bbox) != 4 or any(isinstance(v, bool) or not isinstance(v, int | float) for v in bbox):
        raise UserError(f'{where}: "bbox" must be four numbers [x, y, width, height], got {short(bbox)}')
    x, y, w, h = bbox
    if not all(abs(v) < UNLIKELY_PIXELS for v in bbox) or w <= 0 or h <= 0:
        raise UserError(
            f"{where}: box {short(bbox)} must be finite, with width and height above 0. Correct or remove it"
        )
    height, width = size
    beyond = max(-x, -y, x + w - width, y + h - height)
    cut = (max(0.0, float(x)), max(0.0, float(y)), min(float(width), x + w), min(float(height), y + h))
    if beyond > OUTSIDE_PIXELS or cut[0] >= cut[2] or cut[1] >= cut[3]:
        raise UserError(
            f"{where}: box {short(bbox)} reaches outside of its {width}x{height} picture. "
            "Boxes are [x, y, width, height] in pixels: correct or remove it"
        )
    return cut


def set_boxes(
    document: dict[str, Any], records: dict[int, dict[str, Any]], pictures: dict[str, Labelled], where: str
) -> tuple[str, ...]:
    """Give each listed picture its boxes; return the names of the classes."""
    categories = read_categories(document, where)
    annotations = entry(document, "annotations", list, where) if "annotations" in document else []
    boxes: dict[int, list[Corners]] = {key: [] for key in records}
    classes = {key: position for position, key in enumerate(categories)}
    for position, annotation in enumerate(annotations):
        here = f"{where}: annotations[{position}]"
        if isinstance(annotation, dict) and "id" in annotation:
            here += f" (id {short(annotation['id'])})"
        image, category = entry(annotation, "image_id", int, here), entry(annotation, "category_id", int, here)
        if image not in records:
            raise UserError(f'{here} is of image {image}, which "images" does not list. Add its record or remove this')
        if category not in classes:
            raise UserError(f'{here} has category {category}, which "categories" does not list. Add it or correct this')
        if annotation.get("iscrowd") == 1:
            continue
        picture = pictures[records[image]["file_name"]]
        boxes[image].append(corners(entry(annotation, "bbox", list, here), picture.size, here))
        picture.box_labels.append(classes[category])
    if "annotations" in document and categories:
        for key, record in records.items():
            pictures[record["file_name"]].boxes = boxes[key]
    return tuple(categories.values())


def read_mask(path: Path) -> NDArray[np.uint8]:
    """The class ids of a mask, uint8 [H, W], upright."""
    with opened(path) as image:
        return np.asarray(upright(image), dtype=np.uint8)


def set_masks(folder: Path, pictures: dict[str, Labelled]) -> None:
    """Give each picture its mask, headers checked."""
    by_stem = {picture.path.stem: picture for picture in pictures.values()}
    for path in sorted(filter(is_picture, folder.glob("*.png"))) if folder.is_dir() else ():
        if path.stem not in by_stem:
            raise UserError(f"{path} is the mask of no picture: images/ has no {path.stem!r}. Rename or remove it")
        picture = by_stem[path.stem]
        with opened(path) as image:
            if image.mode not in ("L", "P", "1"):
                raise UserError(
                    f"{path} has mode {image.mode}: a mask holds one class id a pixel. Save it grey or palette"
                )
            if image.mode == "L" and image.tile[0][3] != "L":
                raise UserError(f"{path} has grey of fewer than 8 bits, which loses the class ids. Save it with 8")
            if upright_size(image) != picture.size:
                (h, w), (height, width) = upright_size(image), picture.size
                raise UserError(
                    f"{path} is {w}x{h}, its picture is {width}x{height}. Save the mask at the picture's size"
                )
        picture.mask = path


def number_of_mask_classes(pictures: dict[str, Labelled]) -> int:
    """One more than the largest class id in any mask; reads them all."""
    largest = -1
    for picture in pictures.values():
        if picture.mask is not None:
            ids = read_mask(picture.mask)
            largest = max(largest, int(np.where(ids == IGNORE, -1, ids.astype(np.int16)).max()))
    return largest + 1


class LabelledPictures:
    """Pictures in files and their labels, as a set of pictures of one size."""

    def __init__(
        self,
        pictures: dict[str, Labelled],
        classes: Classes,
        *,
        size: tuple[int, int],
        test: frozenset[str] = frozenset(),
        zero_is_ignored: bool = False,
    ) -> None:
        """Take pictures whose headers and labels are read and checked.

        Args:
            pictures: by name.
            classes: of their labels.
            size: (H, W) that pictures are resized to.
            test: names of those that are the test; without any, a share of all will be.
            zero_is_ignored: class ids in mask files start at 1, and 0 is a pixel that nobody knows.
        """
        self.classes = classes
        self.names = tuple(pictures)
        self.test = test
        self._pictures = tuple(pictures.values())
        self._size = size
        self._zero_is_ignored = zero_is_ignored

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Sample:
        """The picture at ``index``, resized together with its labels.

        Raises:
            UserError: its pixels cannot be read, or its mask holds an undeclared class id.
        """
        picture = self._pictures[index]
        height, width = self._size
        with opened(picture.path) as image:
            pixels = upright(image).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        boxes = box_labels = None
        if picture.boxes is not None:
            scale = torch.tensor([width / picture.size[1], height / picture.size[0]]).repeat(2)
            boxes = torch.tensor(picture.boxes, dtype=torch.float32).reshape(-1, 4) * scale
            box_labels = torch.tensor(picture.box_labels, dtype=torch.int64)
        return Sample(
            image=torch.from_numpy(np.array(pixels).transpose(2, 0, 1).copy()),
            label=picture.label,
            boxes=boxes,
            box_labels=box_labels,
            mask=None if picture.mask is None else self._resized_mask(picture.mask),
        )

    def _resized_mask(self, path: Path) -> torch.Tensor:
        height, width = self._size
        ids = read_mask(path)
        if self._zero_is_ignored:
            ids = np.where((ids == 0) | (ids == IGNORE), IGNORE, ids - 1).astype(np.uint8)
        unknown = ids[(ids >= len(self.classes.masks)) & (ids != IGNORE)]
        if unknown.size:
            stored = int(unknown[0]) + self._zero_is_ignored
            raise UserError(
                f"{path} holds class id {stored}, {len(self.classes.masks)} mask classes are named. "
                f"Name the class, or use {IGNORE} for pixels to ignore"
            )
        return torch.from_numpy(np.array(Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST)))


class Folder(LabelledPictures):
    """A folder for several tasks; see the module."""

    def __init__(self, root: Path, *, size: tuple[int, int]) -> None:
        """Read and check everything but the pixels.

        Args:
            root: the folder; see the module.
            size: (H, W) that pictures are resized to.

        Raises:
            UserError: something is missing or wrong; the message names it and the way out.
        """
        if not root.is_dir():
            raise UserError(f"folder {root} does not exist: name one with images/ and instances.json or masks/")
        pictures = list_pictures(root / "images")
        set_masks(root / "masks", pictures)
        document: dict[str, Any] = {"images": []}
        where = str(root / "instances.json")
        if (root / "instances.json").exists():
            document = read_document(root / "instances.json")
        elif all(picture.mask is None for picture in pictures.values()):
            raise UserError(f"{root} has neither instances.json nor masks/: add labels for one task at least")
        records = listed_pictures(document, pictures, where)
        labels = set_labels(records, pictures, names(document, "labels", where), where)
        boxes = set_boxes(document, records, pictures, where)
        masks = names(document, "mask_classes", where)
        if not masks:
            masks = tuple(f"class {number}" for number in range(number_of_mask_classes(pictures)))
        if all(p.label == ABSENT and p.boxes is None and p.mask is None for p in pictures.values()):
            raise UserError(f"{where} gives no label, box or mask to any picture: label one at least")
        super().__init__(pictures, Classes(labels=labels, boxes=boxes, masks=masks), size=size)
