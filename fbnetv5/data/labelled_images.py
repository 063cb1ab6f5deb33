"""A data set of labelled image files, and its views at a size: the files are checked once, whatever sizes are used.

Sizes and boxes refer to the image as it is shown, after its EXIF orientation.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import UserError
from export.files import is_utf8
from export.placement import Fit
from fbnetv5.data.class_ids import degenerate_reason
from fbnetv5.data.fit import fit_image
from fbnetv5.data.image_files import opened, remedy, rgb, upright
from fbnetv5.data.maps import FORMATS
from fbnetv5.data.resolution import Resolution
from fbnetv5.data.sample import Sample
from fbnetv5.data.shape_maps import Shape, ShapeMaps
from fbnetv5.data.shuffling import Sizes, subset_sizes
from fbnetv5.data.targets import BOXES, IGNORE, IGNORED_BOXES, VECTOR_MAP, Boxes, SoftLabel, Target

ReadMap = Callable[[str], NDArray[Any] | None]
"""The label in a file that a target's images have, [H, W] or [3, H, W]; None where the file labels nothing."""
Corners = tuple[float, float, float, float]
"""(x0, y0, x1, y1)."""


@dataclass(slots=True, kw_only=True)
class ImageRecord:
    """An image file and its labels, in the file's own pixels. There may be a million of these in memory."""

    path: str
    size: tuple[int, int]
    """(H, W), upright."""
    label: int | None = None
    boxes: list[Corners] | None = None
    box_labels: list[int] | None = None
    """Of each box; None where ``boxes`` is None."""
    ignored_boxes: list[Corners] | None = None
    """Boxes of the target ``IGNORED_BOXES``; None where there are none."""
    ignored_box_labels: list[int] | None = None
    """Of each ignored box."""
    soft_label: dict[int, float] | None = None
    """Probability by class id, descending."""
    maps: dict[str, str] | None = None
    """Paths of the labels that are images, by name of the target; None where there are none."""

    @property
    def stem(self) -> str:
        return PurePath(self.path).stem

    @property
    def is_labelled(self) -> bool:
        return any(label is not None for label in (self.label, self.boxes, self.soft_label)) or bool(self.maps)

    def map_path(self, target: str) -> str | None:
        """The file of a target, None where the image has none."""
        return None if self.maps is None else self.maps.get(target)


class Records(Protocol):
    """Records by index, in memory or read when they are needed."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> ImageRecord: ...

    def __iter__(self) -> Iterator[ImageRecord]: ...


class LabelledImages:
    """A data set: records of image files with checked headers and labels, independent of any size."""

    def __init__(
        self,
        records: Mapping[str, ImageRecord],
        targets: Mapping[str, Target],
        *,
        test: frozenset[str] = frozenset(),
        zero_is_ignored: bool = False,
        readers: Mapping[str, ReadMap] | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Store the records.

        Args:
            records: by name.
            targets: what they are labelled with.
            test: names of the images of the test split; without any, a share of all images becomes the test split.
            zero_is_ignored: class ids in mask files start at 1, and 0 is an unlabelled pixel.
            readers: by target, where its files do not have the format in ``FORMATS``.
            notes: what was repaired or left out on opening, a text for each kind.
        """
        self.targets = targets
        self.names = tuple(records)
        self.test = test
        self.notes = notes
        self.block_sizes: Sizes | None = None
        self.has_ignored_boxes = any(record.ignored_boxes for record in records.values())
        self._records: Records = tuple(records.values())
        self._zero_is_ignored = zero_is_ignored
        self._readers = {name: form.read for name, form in FORMATS.items()} | dict(readers or {})

    def __len__(self) -> int:
        return len(self._records)

    def only(self, targets: Collection[str]) -> Self:
        """The same images with the named labels alone; files of the others are not read.

        Class maps are read until two classes are seen, which is mostly in the first file.

        Raises:
            UserError: nothing can be learned from one of these labels.
        """
        for name in self.targets.keys() & set(targets):
            if name in FORMATS and FORMATS[name].class_list is not None:
                ids = self._ids_of_files(name)
                if reason := degenerate_reason(name, ids, zero_is_ignored=self._zero_is_ignored):
                    raise UserError(reason)
        subset = copy(self)
        subset.targets = {name: target for name, target in self.targets.items() if name in targets}
        return subset

    def with_ignored_boxes(self) -> Self:
        """The same images, whose labels include ``IGNORED_BOXES`` if they include boxes and any image has such ones."""
        if "boxes" not in self.targets or not self.has_ignored_boxes:
            return self
        extended = copy(self)
        extended.targets = {**self.targets, IGNORED_BOXES: Target(kind=BOXES)}
        return extended

    def _ids_of_files(self, target: str) -> Iterator[set[int]]:
        """The class ids in each file of a target."""
        for path in filter(None, (record.map_path(target) for record in self._records)):
            ids = self._readers[target](path)
            yield set() if ids is None else set(np.unique(ids).tolist())

    def resized(self, size: Resolution, indices: Sequence[int] | None = None, *, fit: Fit = "stretch") -> "ImageView":
        """The images, or those at ``indices``, as an image set of one size; records are shared, nothing is read.

        Its labels include the ignored boxes.
        """
        return ImageView(self.with_ignored_boxes(), size, range(len(self)) if indices is None else indices, fit=fit)

    def sample(self, index: int, size: Resolution, fit: Fit = "stretch") -> Sample:
        """The image at ``index``, fitted to ``size`` together with its labels.

        Raises:
            UserError: its pixels cannot be read, or its mask contains an undeclared class id.
        """
        record = self._records[index]
        with opened(record.path) as file:
            image, placement = fit_image(rgb(upright(file)), size, fit)
        return Sample(
            image=image,
            targets={
                name: self.targets[name].kind.to_input(value, placement) for name, value in self._labels(record).items()
            },
            placement=placement,
        )

    def path(self, index: int) -> str:
        """The file of the image at ``index``."""
        return self._records[index].path

    def record(self, index: int) -> ImageRecord:
        """The record of the image at ``index``."""
        return self._records[index]

    def is_plain(self, target: str) -> bool:
        """Whether the files of a target have the format in ``FORMATS``, values included."""
        is_shifted = self._zero_is_ignored and FORMATS[target].class_list is not None
        return self._readers[target] is FORMATS[target].read and not is_shifted

    def shapes(self, target: str, path: str) -> Sequence[Shape]:
        """What the map of a target is drawn from; () where it is read from the file at ``path``."""
        reader = self._readers.get(target)
        return reader.shapes[path] if isinstance(reader, ShapeMaps) else ()

    def files(self) -> Iterator[str]:
        """The files of all images and of their labels."""
        for record in self._records:
            yield record.path
            yield from (record.maps or {}).values()

    def class_ids(self, target: str) -> set[int]:
        """The ids of the classes that images, or boxes, are labelled with.

        Args:
            target: "label" or "boxes".
        """
        if target == "label":
            return {record.label for record in self._records if record.label is not None}
        return {class_id for record in self._records for class_id in record.box_labels or ()}

    def labels(self, index: int) -> dict[str, Any]:
        """The labels of the image at ``index`` at the size of its file, without those that it lacks.

        Raises:
            UserError: a map cannot be read, or contains an undeclared class id.
        """
        return self._labels(self._records[index])

    def _labels(self, record: ImageRecord) -> dict[str, Any]:
        labels = {name: self._label(record, name) for name in self.targets}
        return {name: value for name, value in labels.items() if self._is_label(name, value)}

    def has_labels(self, index: int, targets: Collection[str]) -> bool:
        """Whether the image at ``index`` has all of these labels; files of other labels, and the image, are not read.

        Raises:
            UserError: a map cannot be read, or contains an undeclared class id.
        """
        record = self._records[index]
        return all(self._is_label(name, self._label(record, name)) for name in targets)

    def _is_label(self, target: str, value: Any) -> bool:
        """Whether a value of ``_label`` labels anything."""
        return value is not None and self.targets[target].kind.has_labels(value)

    def _label(self, record: ImageRecord, target: str) -> Any:
        """A label at the size of its file, None where the image has none."""
        if target == "label":
            return record.label
        if target == "boxes":
            if record.boxes is None:
                return None
            return boxes_of(record.boxes, record.box_labels)
        if target == IGNORED_BOXES:
            return None if record.ignored_boxes is None else boxes_of(record.ignored_boxes, record.ignored_box_labels)
        if target == "soft_label":
            return None if record.soft_label is None else soft_label_of(record.soft_label)
        path = record.map_path(target)
        if path is None:
            return None
        values = self._readers[target](path)
        if values is None:
            return None
        if values.ndim == 3 and FORMATS[target].kind is not VECTOR_MAP:
            raise UserError(f"{path} is in colour, which no {target} file is. {remedy(path)}")
        if values.shape[-2:] != record.size:
            (h, w), (height, width) = values.shape[-2:], record.size
            raise UserError(f"{path} is {w}x{h}, its image is {width}x{height}. {remedy(path)}")
        return torch.from_numpy(self._checked_ids(values, path, target) if FORMATS[target].class_list else values)

    def _checked_ids(self, ids: NDArray[np.uint8], path: str, target: str) -> NDArray[np.uint8]:
        """Ids of declared classes or IGNORE: uint8 [H, W], writable."""
        classes = len(self.targets[target].classes)
        if self._zero_is_ignored:
            ids = np.where((ids == 0) | (ids == IGNORE), IGNORE, ids - 1).astype(np.uint8)
        undeclared = ids[(ids >= classes) & (ids != IGNORE)]
        if undeclared.size:
            stored = int(undeclared[0]) + self._zero_is_ignored
            raise UserError(
                f"{path} holds class id {stored}, {classes} {target} classes are named. "
                f"Name the class, or use {IGNORE} for pixels to ignore"
            )
        return np.array(ids)


def boxes_of(corners: list[Corners], labels: list[int] | None) -> Boxes:
    """The label of boxes with their class ids."""
    return Boxes(
        torch.tensor(corners, dtype=torch.float32).reshape(-1, 4), torch.tensor(labels or [], dtype=torch.int64)
    )


def soft_label_of(probabilities: Mapping[int, float]) -> SoftLabel:
    """The label of probabilities by class id."""
    return SoftLabel(
        torch.tensor([*probabilities.values()], dtype=torch.float32), torch.tensor([*probabilities], dtype=torch.int64)
    )


class ImageView:
    """Some images of a data set at one size: an image set that can be viewed at another size."""

    def __init__(self, images: LabelledImages, size: Resolution, indices: Sequence[int], *, fit: Fit) -> None:
        self._images = images
        self._size = size
        self._indices = indices
        self._fit: Fit = fit

    @property
    def targets(self) -> Mapping[str, Target]:
        return self._images.targets

    @property
    def block_sizes(self) -> Sizes | None:
        """See ``ReadInBlocks``."""
        sizes = self._images.block_sizes
        return None if sizes is None else subset_sizes(sizes, self._indices)

    @property
    def checksum(self) -> str:
        """Of the names and classes of the whole data set and of the number of images of this view, not of pixels."""
        classes = {name: target.classes for name, target in self.targets.items()}
        blocks = () if self._images.block_sizes is None else tuple(self._images.block_sizes.tolist())
        content = (self._images.names, sorted(self._images.test), sorted(classes.items()), blocks, len(self))
        return hashlib.sha256(repr(content).encode(errors="surrogateescape")).hexdigest()[:12]

    def resized(self, size: Resolution) -> Self:
        """The same images at another size."""
        return type(self)(self._images, size, self._indices, fit=self._fit)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        """The image at ``index``; see ``LabelledImages.sample``."""
        return self._images.sample(self._indices[index], self._size, self._fit)

    def has_labels(self, index: int, targets: Collection[str]) -> bool:
        """See ``LabelledImages.has_labels``."""
        return self._images.has_labels(self._indices[index], targets)


def check_class_names(data: LabelledImages, root: Path) -> None:
    """Check that the names of all classes can be stored in the files of a run, and that each target's are distinct.

    Raises:
        UserError: a name is not UTF-8, or two classes have it.
    """
    for name, target in data.targets.items():
        if repeated := [label for label, count in Counter(target.classes).items() if count > 1]:
            raise UserError(f"{root} has two classes {repeated[0]!r} of {name}. Give each class a name of its own")
    for label in (label for target in data.targets.values() for label in target.classes):
        if not is_utf8(label):
            raise UserError(f"{root} has a class {label!a}, whose name is not UTF-8. Rename the class or its folder")
